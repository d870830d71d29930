"""Which finished runs a figure shows, `Source`: what a search learned, whom a method asks, what its options are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mixbench import catalog, status
from mixbench.data import OWN_FOLDER, own_folder
from mixbench.fields import LINKS
from mixbench.nets import MODELS
from mixbench.recipes import blaming
from mixbench.spec import Run
from mixbench.store import Store


@dataclass(frozen=True)
class Source:
    """Where a method's mixer is taken from.

    Attributes:
        run: what the mixer is built for; of a search, with the search itself as its policy.
        finished: the run whose results are used; None: there is none, and the method has its default options.
        warning: what went wrong in the search of its policy; "" where nothing did.
    """

    run: Run
    finished: Run | None
    warning: str = ""

    @property
    def sentence(self) -> str:
        """What to say of it."""
        if self.finished is None:
            asked = ", asking an untrained network" * bool(catalog.declaration(self.run.method).asks)
            return f"{self.run.method}: its default options{asked}; it has no finished run of this setting and seed"
        needs = ((link, getattr(self.finished, link)) for link in LINKS)
        told = "".join(f", {link} {need.folder}" for link, need in needs if need is not None)
        return f"{self.run.method}: {self.finished.folder}{told}" + f"; {self.warning}" * bool(self.warning)


@dataclass(frozen=True)
class Wanted:
    """What is to be shown.

    Attributes:
        methods: by name.
        setting: data set and model, as runs name it.
        seed: of the runs that are looked for.
        named: runs to take instead, by id or folder's beginning: at most one a method, of any seed.
    """

    methods: Sequence[str]
    setting: str
    seed: int
    named: Sequence[str]


def sources(wanted: Wanted, store: Store) -> list[Source]:
    """Where the mixers of the wanted methods are taken from, in their order.

    A method with a policy is shown as a search left it, any other as a network was trained with it. One that asks
    nobody, and learns nothing beside that network, needs no run: without any it has its default options.

    Raises:
        ValueError: there is no such method or run; a method lacks a finished run, or has several that mix differently.
    """
    with blaming("--methods"):
        given = {method: catalog.declaration(method).given for method in wanted.methods}
    named = _named(wanted, store)
    known = [run for run in store.known() if not run.mini]
    there = [run for run in known if (run.setting, run.seed) == (wanted.setting, wanted.seed)]
    return [named.get(method) or _found(wanted, method, needs, there, store) for method, needs in given.items()]


def checked_setting(setting: str, *, data: Path) -> tuple[str, str]:
    """How runs name this setting, and the path of its own folder of images; "" where it has none.

    Raises:
        ValueError: there is no such data set or model.
    """
    dataset, _, model = setting.rpartition("/")
    with blaming(f"--setting {setting}"):
        if not dataset or model not in MODELS:
            raise ValueError(f"it must be a data set and a model, like digits/tiny; the models are {', '.join(MODELS)}")
        own = own_folder(dataset, root=data)
    return (setting, "") if own is None else (f"{OWN_FOLDER}{own.name}/{model}", dataset.removeprefix(OWN_FOLDER))


def _named(wanted: Wanted, store: Store) -> Mapping[str, Source]:
    """The sources that the user names, by method."""
    named: dict[str, Source] = {}
    for beginning in wanted.named:
        run = status.find(beginning, store)
        with blaming(f"--run {beginning}"):
            if run.method not in wanted.methods or run.setting != wanted.setting:
                methods = " or ".join(wanted.methods)
                raise ValueError(f"{run.folder} is not of {methods} on {wanted.setting}; name one that is")
            if run.method in named:
                raise ValueError(f"a run of {run.method} is named already; leave one of the two out")
            if not _has_finished(run, store):
                raise ValueError(f"{run.folder} has not finished, or its weights are not here")
        named[run.method] = _source(run, store)
    return named


def _found(wanted: Wanted, method: str, needs: Sequence[str], there: Sequence[Run], store: Store) -> Source:
    """The only source of a method among the runs of the wanted setting and seed."""
    task = "search" if "policy" in needs else "classify"
    runs = [run for run in there if (run.method, run.task) == (method, task) and _has_finished(run, store)]
    # Runs that differ only in how a network was trained mix alike: the first speaks for all.
    sources = (_source(run, store) for run in reversed(runs))
    found = {(one.run.options, one.run.teacher, one.run.policy): one for one in sources}
    if len(found) > 1:
        folders = ", ".join(sorted(run.folder for one in found.values() if (run := one.finished)))
        raise ValueError(
            f"{method} has {len(found)} finished runs that mix differently: {folders}; name one with --run"
        )
    if found:
        return next(iter(found.values()))
    unknown = not there and wanted.setting.startswith(OWN_FOLDER)  # only a run knows the size of an own folder's images
    if unknown or set(needs) & {*LINKS, "net"}:  # one that learns beside a network has nothing to show before it did
        what = "search" if task == "search" else "run"
        raise ValueError(
            f"no {what} of {method} on {wanted.setting} with seed {wanted.seed} has finished in {store.root}; "
            f"`mixbench run SWEEP` does one, of a sweep that has this method and setting"
        )
    return Source(_plain(method, wanted, there), None)


def _plain(method: str, wanted: Wanted, there: Sequence[Run]) -> Run:
    """A method with its default options; all else as in the first run of the setting, which knows its own folder."""
    if there:
        return replace(
            there[0], task="classify", checkpoint="", method=method, options=(), teacher=None, policy=None, bank=None
        )
    dataset, _, model = wanted.setting.rpartition("/")
    return Run(method=method, dataset=dataset, model=model, seed=wanted.seed, epochs=1)


def _source(run: Run, store: Store) -> Source:
    shown = replace(run, policy=run) if run.task == "search" else run
    searched = store.recorded(shown.policy) if shown.policy else None
    return Source(shown, run, str(searched.notes.get("warning", "")) if searched else "")


def _has_finished(run: Run, store: Store) -> bool:
    """Whether a run is done, by the code's defaults of today, and its weights are here."""
    return store.result(run) is not None and store.complete(run)
