"""A measurement from beginning to end: `record`; imports torch."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixbench import provenance
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing import floor
from mixbench.timing.clocks import DeviceClock
from mixbench.timing.given import Given
from mixbench.timing.inputs import Inputs, cache_bytes, inputs
from mixbench.timing.links import Links, links
from mixbench.timing.request import Request, Row, facts_of
from mixbench.timing.rounds import Clock, HostClock, Limits, Reading, measure
from mixbench.timing.subjects import EPOCHS, LARGEST_CROPPED, PAD, Subject, views_of_an_image

SCHEMA = 1

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Session:
    """What every part of a measurement is told.

    Attributes:
        request: what is asked for.
        device: where.
        clock: that times.
        store: of the runs at hand.
        tell: says a sentence to the user.
    """

    request: Request
    device: torch.device
    clock: Clock
    store: Store
    tell: Tell

    def limits(self, parts: int) -> Limits:
        """How many rounds there are, where time is shared by so many parts."""
        seconds = math.inf if self.request.seconds is None else self.request.seconds / parts
        if self.request.trials is None:
            return Limits(seconds=seconds)
        warm_up = min(Limits.warm_up, self.request.trials)
        return Limits(warm_up=warm_up, fewest=self.request.trials, most=self.request.trials, seconds=seconds)


def record(request: Request, *, tell: Tell) -> dict[str, Any]:
    """All that was measured, as plain values.

    Args:
        request: what is to be measured.
        tell: says a sentence to the user.

    Raises:
        ValueError: a method that was named cannot be timed; one sentence that says why.
    """
    torch.set_num_threads(request.threads)
    torch.backends.cudnn.allow_tf32 = False  # as in training: float32 means float32
    device = torch.device(request.device)
    clock: Clock = HostClock(threads=request.threads) if device.type == "cpu" else DeviceClock(device)
    session = Session(request, device, clock, Store(Path(request.results), tell=tell), tell)
    parts = [(setting, precision) for setting in request.settings for precision in request.precisions]
    for part in parts[1:]:  # what the last of them refuses is not to be known after minutes
        _ready(session, *part, batches=1)
    begun = load()
    rates = {one: floor.measured_rates(device, getattr(torch, one)) for one in request.precisions}
    return {
        "schema": SCHEMA,
        "machine": machine(device, request.threads),
        "rates": {one: floor.told(of) for one, of in rates.items()},
        "clock": list(clock.names),
        "batch_size": request.batch_size,
        "protocol": {"epochs": EPOCHS, "pad": PAD, "views": views_of_an_image(), "largest": LARGEST_CROPPED},
        "parts": [_part(session, *part, rates[part[1]], len(parts)) for part in parts],
        "load": [begun, load()],
    }


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What is measured on: device, driver, versions, threads."""
    on_gpu = device.type == "cuda"
    versions: dict[str, Any] = {**provenance.versions(), "system": platform.platform()}
    if on_gpu:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": torch.version.cuda, "cudnn": cudnn}
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else provenance.processor(),
        "driver": _driver() if on_gpu else "",
        "versions": versions,
        "threads": threads,
        "cores": len(os.sched_getaffinity(0)),
        "commit": provenance.commit(),
    }


def _driver() -> str:
    """Version and clock of the first GPU, as its driver says."""
    asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def load() -> float:
    """How many processes want to run on this machine, over the last minute."""
    return os.getloadavg()[0]


@dataclass(frozen=True)
class Ready:
    """What is timed in one setting and one precision.

    Attributes:
        inputs: what is mixed.
        links: the runs whose networks and policies are used.
        subjects: the methods.
        left_out: methods that nobody named and that cannot be timed, and why.
    """

    inputs: Inputs
    links: Links
    subjects: Sequence[Subject]
    left_out: Sequence[str]


def _ready(session: Session, setting: str, precision: str, *, batches: int) -> Ready:
    """Build all that is timed.

    Raises:
        ValueError: a method that was named cannot be timed.
    """
    facts, request = facts_of(setting), session.request
    found = inputs(
        setting,
        facts,
        root=Path(request.data),
        size=request.batch_size,
        most=batches,
        device=session.device,
        seed=request.seed,
    )
    there = links(setting, session.store)
    given = Given(there, session.store, facts, setting.rpartition("/")[2], found, precision, session.device)
    subjects, left_out = [], []
    for row in request.rows:
        try:
            subjects.append(_subject(row, given, request, setting))
        except (ValueError, torch.OutOfMemoryError) as error:
            if row.named:
                raise ValueError(f"{row.label} on {setting}: {error}") from error
            left_out.append(f"{row.label}: {error}")
    return Ready(found, there, subjects, left_out)


def _part(session: Session, setting: str, precision: str, rates: floor.Rates, parts: int) -> dict[str, Any]:
    """One setting in one precision: every method by turns."""
    limits = session.limits(parts)
    ready = _ready(session, setting, precision, batches=limits.warm_up + limits.most)
    floors = {subject: _floor(subject, rates) for subject in ready.subjects}
    works = {(subject, name): work for subject in ready.subjects for name, work in subject.works().items()}
    session.tell(f"{setting}, {precision}: {len(ready.subjects)} methods, {ready.inputs.source}")
    readings = measure(works, session.clock, limits, seed=session.request.seed)
    batches = len(ready.inputs.batches)
    return {
        "setting": setting,
        "precision": precision,
        "train_images": facts_of(setting).train_images,
        "pictures": {"source": ready.inputs.source, "batches": batches, "cache": cache_bytes(session.device)},
        "rows": [_row(subject, readings, floors[subject]) for subject in ready.subjects],
        "left_out": ready.left_out,
        "once": [_once(run, session.store) for run in ready.links.runs],
    }


def _subject(row: Row, given: Given, request: Request, setting: str) -> Subject:
    torch.manual_seed(request.seed)
    net = given.network()
    dataset, _, model = setting.rpartition("/")
    # The step is a training's in all but its rate: weights that learn nothing stay finite on whatever pictures.
    run = Run(method=row.method, dataset=dataset, model=model, epochs=1, lr=1e-6, seed=request.seed)
    mixer = given.mixer(row, net)
    return Subject(row, mixer, net, run, given.inputs, runs=given.runs(row))


def _floor(subject: Subject, rates: floor.Rates) -> dict[str, float]:
    """The least time of a cold mix, and what was counted for it; the mean of several."""
    each = [count.told(rates) for count in subject.counted()]
    return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def _row(
    subject: Subject, readings: Mapping[tuple[Subject, str], Sequence[Reading]], counted: Mapping[str, float]
) -> dict[str, Any]:
    """A method's row: its readings by column, in rounds."""
    columns = {name: _plain(found) for (whose, name), found in readings.items() if whose is subject}
    return {
        "method": subject.row.method,
        "options": dict(subject.row.options),
        "label": subject.row.label,
        "runs": dict(subject.runs),
        "inside": subject.inside,
        "keeps": subject.keeps,
        "columns": columns,
        "counted": dict(counted),
        "steps": subject.steps,
    }


def _plain(readings: Sequence[Reading]) -> dict[str, list[float]]:
    """A column: images produced, and the seconds by each clock; an entry a round."""
    names = readings[0].seconds
    times = {name: [reading.seconds[name] for reading in readings] for name in names}
    return {"images": [reading.images for reading in readings], **times}


def _once(run: Run, store: Store) -> dict[str, Any]:
    """What a run cost that others need once."""
    result = store.recorded(run)
    seconds, device = (result.seconds, result.device) if result else (0.0, "")
    what = {"classify": "teacher"}.get(run.task, run.task)
    return {"what": what, "method": run.method, "run": run.folder, "seconds": seconds, "device": device}
