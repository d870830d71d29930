"""Tries mixers out: against the contract, as ``mixbench check`` does, and before they are used; imports torch."""

from __future__ import annotations

import traceback
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from methods import Batch, Mixer, Network, build, contract
from methods.bank import Maker, empty
from mixbench import bank, catalog, importing, learning, materials, search
from mixbench.data import Facts
from mixbench.execution import Execution
from mixbench.launch import Plan
from mixbench.nets import STAGES
from mixbench.spec import Run
from mixbench.timing.runs import facts_of

PIXELS = 2**18
"""Of a made-up batch at most, unless its mixer needs more images: 256 of 32 x 32, or 5 of 224 x 224."""


def complaints(name: str) -> list[str]:
    """What a mixer breaks of the contract, with its options at their defaults; nothing where it keeps it.

    A teacher that it asks for is a small untrained network, there is no policy, and a bank holds a black image.

    Raises:
        ValueError: there is no such mixer, or its declaration cannot be read.
    """
    catalog.declaration(name)
    try:
        blank = empty(1, 2, channels=3, side=contract.SIDE)._asdict()
        given = {"teacher": contract.SmallNetwork(), "policy": None, "image_size": contract.SIDE, "bank": blank}
        contract.check(_built(name, {}, **given, net=contract.SmallNetwork()))
    except Exception as error:
        where = getattr(error, "__notes__", [])
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return [f"{kind}{error}", *where]
    return []


def rehearse(planned: Plan, facts: Mapping[Run, Facts], sweep: Path, execution: Execution) -> None:
    """Build every mixer that there is something to do with, and mix a made-up batch, before anything is trained.

    Teachers and the networks in training are small untrained ones, a policy has learned nothing, all on the CPU. What
    somebody else trained must fit the network that it is for.

    Args:
        planned: what there is to do.
        facts: of the data of each of its runs.
        sweep: the file.
        execution: knows where the files of imports lie.

    Raises:
        ValueError: it cannot be built or cannot mix; one sentence that names the file, the row and what is wrong.
    """
    todo = set(planned.todo)
    facts = {**facts, **{one: facts.get(run) or facts_of(run.setting) for run in todo for one in run.subjects}}
    asked_by = {run: place for run, place in planned.sweep.asked_by().items() if run in todo}
    askers = {one: place for run, place in asked_by.items() for one in run.subjects or (run,)}
    distinct: dict[Hashable, Run] = {}
    for run in askers:  # rows come first: a search mostly has its options from the row that needs it
        distinct.setdefault(_what_matters(run, facts), run)
    with torch.random.fork_rng(devices=[]):
        for run in distinct.values():
            with _blaming(f"{sweep}: {askers[run]}", run.method):
                _mix_once(run, facts)
        for run in askers:
            if run.task == "import":
                with _blaming(f"{sweep}: {askers[run]}", run.method):
                    path = execution.checkpoint(run)
                    net = materials.network_for(run, facts[run])
                    importing.fill(net, importing.read(path, run.checkpoint), path=path, model=run.model)


def refusal(subject: Run, facts: Facts) -> str:
    """Why a subject of a measurement cannot be timed; "" where it can, as far as a rehearsal can tell."""
    with torch.random.fork_rng(devices=[]):
        try:
            with _blaming(f"{catalog.label(subject)} on {subject.setting}", subject.method):
                alone = replace(subject, teacher=None, policy=None, bank=None)
                mixer = _mix_once(alone, {alone: facts})
                if isinstance(mixer, Maker) and subject.teacher is None:
                    raise ValueError(
                        "it mixes until its teacher recognises the images, which means nothing without one that was "
                        "trained on them; train Simple first"
                    )
        except ValueError as error:
            return str(error)
    return ""


def _what_matters(run: Run, facts: Mapping[Run, Facts]) -> Hashable:
    """All of a run by which its mixer could fail: runs alike in it need one rehearsal."""
    about = facts[run]
    images = (about.channels, about.image_size, about.classes, _train_images(run, about), run.batch_size, run.gpus)
    links = (run.teacher and facts[run.teacher].classes, run.policy and _what_matters(run.policy, facts))
    return run.task, run.method, run.options, run.bank, images, STAGES[run.model], links


def _mix_once(run: Run, facts: Mapping[Run, Facts]) -> Mixer:
    about = facts[run]
    net = _network(about, about, stages=STAGES[run.model])
    mixer = _mixer(run, facts, **({} if run.task == "search" else {"net": net}))
    materials.check_batches(mixer, run, _train_images(run, about))
    if run.task == "search":
        _, net = search.pupil_and_teacher(mixer, run, about.classes)
    elif run.task == "bank":
        bank.maker(mixer, run)
    else:
        learning.groups_of(learning.settled(mixer, run, cast("nn.Module", net)), run)
    mixer.generator = torch.Generator().manual_seed(0)
    with torch.set_grad_enabled(bool(mixer.learners())):
        mixed = mixer(_batch(run, about, mixer.least), net)
    mixed.loss(mixed.logits(cast("nn.Module", net)), contract.CRITERION)
    return mixer


def _mixer(run: Run, facts: Mapping[Run, Facts], **net: Network) -> Mixer:
    """The run's mixer, with what a teacher and a search could give it before they have learned anything."""
    about = facts[run]
    teacher = _network(about, facts[run.teacher] if run.teacher else about)
    policy = None
    if run.policy is not None:
        pupil, _ = search.pupil_and_teacher(_mixer(run.policy, facts), run.policy, facts[run.policy].classes)
        policy = cast("search.Policy", pupil).saved()
    bank = _black(facts[run.bank or run])
    given = {"teacher": teacher, "policy": policy, "bank": bank, "image_size": about.image_size}
    return _built(run.method, dict(run.options), **given, **net)


def _black(about: Facts) -> dict[str, Any]:
    """A bank of one black image of the last class."""
    blank = empty(1, 2, channels=about.channels, side=about.image_size)
    return blank._replace(classes=torch.full_like(blank.classes, about.classes - 1))._asdict()


def _built(method: str, options: Mapping[str, Any], **can_give: Any) -> Mixer:
    asked = catalog.declaration(method).given
    for name in asked:
        if name not in can_give:
            raise ValueError(f"the mixer asks for '{name}'; mixbench can give it: {', '.join(can_give)}")
    return build(method, options, {name: can_give[name] for name in asked})


def _network(images: Facts, learned: Facts, *, stages: int = 3) -> Network:
    """One for these images that knows the classes of what it learned."""
    return contract.SmallNetwork(channels=images.channels, classes=learned.classes, stages=stages)


def _batch(run: Run, about: Facts, least: int) -> Batch:
    """The smallest batch that a process will see in training, or fewer images where they are large."""
    side = about.image_size
    smallest = materials.smallest_batch(run, _train_images(run, about))
    count = max(least, min(smallest, PIXELS // side**2))
    numbers = torch.arange(count)
    pictures = torch.randint(256, (count, about.channels, side, side)) / 255  # as all data sets have them: 8-bit
    return Batch(pictures, torch.eye(about.classes)[numbers % about.classes], numbers)


def _train_images(run: Run, about: Facts) -> int:
    return run.train_images or about.train_images


@contextmanager
def _blaming(place: str, method: str) -> Iterator[None]:
    """Put the place before the sentence of a `ValueError`; make one of any other error, which is a mixer's mistake."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"{place}: {_where(error, method)} fails with {type(error).__name__}: {error}; mend it, and try it with "
            f"`mixbench check {method}`"
        ) from error


def _where(error: Exception, method: str) -> str:
    """File and line of the mixer at which it went wrong, or the mixer's name."""
    file = str(catalog.source_file(method))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}, line {lines[-1]}," if lines else f"the mixer '{method}'"
