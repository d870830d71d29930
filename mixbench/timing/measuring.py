"""Measuring what methods cost, as a task of the loop: `Measure`; imports torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mixbench import catalog, devices, files
from mixbench.execution import Execution
from mixbench.graph import CudaRecorder
from mixbench.learning import Group
from mixbench.materials import Weights
from mixbench.result import TIMES
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import Curve, Evaluation
from mixbench.timing import floor
from mixbench.timing.circumstances import circumstances
from mixbench.timing.clocks import DeviceClock
from mixbench.timing.given import Given
from mixbench.timing.inputs import cache_bytes, inputs
from mixbench.timing.rounds import Clock, HostClock, Limits, Reading, rounds
from mixbench.timing.runs import CPU_MINUTES, MINI_MINUTES
from mixbench.timing.subjects import EPOCHS, LARGEST_CROPPED, PAD, Subject, views_of_an_image
from mixbench.traces import SCHEMA


class Readings(nn.Module):
    """All that was read of the clock, so that a checkpoint holds it.

    Attributes:
        found: by subject and column, ``"0 cold"``: a reading a round.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.found: dict[str, list[Reading]] = {name: [] for name in names}

    @property
    def counted(self) -> int:
        """Rounds."""
        return min(map(len, self.found.values()))

    def get_extra_state(self) -> dict[str, Any]:
        """As plain values."""
        return {name: [asdict(reading) for reading in readings] for name, readings in self.found.items()}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        for name, readings in state.items():
            self.found[name][:] = [Reading(**reading) for reading in readings]


class Measure:
    """Time a run's subjects side by side: a step is a round, in which each of them is timed once. Nothing is learned.

    Raises:
        ValueError: this is another machine than the run is about, or a subject cannot be timed.
    """

    from_start = False

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        here = devices.machine(execution)
        if here != run.machine:
            raise ValueError(f"{run.folder} is to be measured on '{run.machine}', and this is '{here}'")
        self._run, self._execution = run, execution
        self._begun = load()
        device = torch.device(execution.device)
        on_gpu = device.type == "cuda"
        self._clock: Clock = DeviceClock(device) if on_gpu else HostClock(threads=execution.threads)
        self._limits = limits(run, execution)
        self._inputs = inputs(run, execution, streams, most=self._limits.warm_up + self._limits.most)
        self._given = Given(self._inputs.facts, not run.made_up, run.precision, weights, execution)
        # One for all subjects, whose graphs share its memory: they are replayed by turns.
        self._recorder = CudaRecorder(device) if on_gpu and execution.cuda_graph else None
        with streams.initialising():
            self._subjects = [self._subject(subject) for subject in run.subjects]
        self._rates = floor.measured_rates(device, getattr(torch, run.precision))
        self._floors = [_floor(subject, self._rates) for subject in self._subjects]
        self._works = {
            f"{place} {name}": work
            for place, subject in enumerate(self._subjects)
            for name, work in subject.works().items()
        }
        self._readings = Readings(list(self._works))
        self.trainable: nn.Module = self._readings
        self.groups: Sequence[Group] = [(run, [])]
        self.beside: Mapping[str, nn.Module] = {}
        self.content, self.official = self._inputs.content, self._inputs.official
        self.steps = self._limits.most

    def _subject(self, subject: Run) -> Subject:
        """Ready to be timed; a complaint says which it is."""
        net = self._given.network(subject)
        try:
            mixer, built = self._given.mixer(subject, net)
            found = Subject(
                subject,
                mixer,
                net,
                self._inputs,
                seed=self._run.seed,
                precision=self._run.precision,
                built=built,
                recorder=self._recorder,
            )
            if self._recorder:
                found.settle()
        except (ValueError, torch.OutOfMemoryError) as error:
            raise ValueError(f"{catalog.label(subject)} on {self._run.setting}: {error}") from error
        return found

    def batches(self, epoch: int, skip: int) -> Iterator[None]:  # noqa: ARG002
        """The rounds; those that a checkpoint holds are in the readings."""
        return rounds(self._works, self._clock, self._limits, self._readings.found, seed=self._run.seed)

    def prepare(self, batch: None) -> Tensor:  # noqa: ARG002
        """The round is over."""
        return torch.zeros(())

    def loss(self, prepared: Tensor) -> Tensor:
        """None: there is nothing to minimise."""
        return prepared

    def stepped(self, done: int, steps: int) -> None:
        """Nothing follows."""

    def evaluate(self) -> Evaluation:
        """``rounds``, how many are counted."""
        return Evaluation({"rounds": float(self._readings.counted)}, {})

    def weights(self) -> bytes:
        """None: no run asks for a measurement."""
        return b""

    def files(self) -> Mapping[str, bytes]:
        """Every reading, and what it was taken of and on."""
        rows = [self._row(place, subject) for place, subject in enumerate(self._subjects)]
        pictures = {"source": self._inputs.source, "batches": len(self._inputs.batches)}
        record = {
            "machine": circumstances(self._execution),
            "rates": asdict(self._rates),
            "clock": list(self._clock.names),
            "load": [self._begun, load()],
            "pictures": pictures | {"cache": cache_bytes(torch.device(self._execution.device))},
            "train_images": self._inputs.facts.train_images,
            "protocol": {"epochs": EPOCHS, "pad": PAD, "views": views_of_an_image(), "largest": LARGEST_CROPPED},
            "rows": rows,
        }
        return {TIMES: files.encode({"schema": SCHEMA, "run": self._run.id, "record": record})}

    def notes(self, curve: Curve) -> Mapping[str, Any]:  # noqa: ARG002
        """What was timed."""
        return {"pictures": self._inputs.source}

    def _row(self, place: int, subject: Subject) -> dict[str, Any]:
        """A subject's row: its readings by column, in rounds."""
        found = {name.split()[1]: one for name, one in self._readings.found.items() if name.split()[0] == str(place)}
        return {
            "method": subject.run.method,
            "runs": subject.runs,
            "built": subject.built,
            "told": subject.told,
            "inside": subject.inside,
            "columns": {name: _plain(readings) for name, readings in found.items()},
            "counted": self._floors[place],
            "steps": subject.steps,
        }


def limits(run: Run, execution: Execution) -> Limits:
    """How many rounds there are: as many as is asked for, else until medians are known, or the time is up."""
    usual = MINI_MINUTES if run.mini else CPU_MINUTES if execution.device == "cpu" else math.inf
    minutes = execution.minutes or usual
    if not run.trials:
        return Limits(seconds=60 * minutes)
    return Limits(warm_up=min(Limits.warm_up, run.trials), fewest=run.trials, most=run.trials, seconds=60 * minutes)


def load() -> float:
    """How many processes want to run on this machine, over the last minute."""
    return os.getloadavg()[0]


def _floor(subject: Subject, rates: floor.Rates) -> dict[str, float]:
    """The least time of a cold mix, and what was counted for it; the mean of several."""
    each = [count.told(rates) for count in subject.counted()]
    return {name: sum(one[name] for one in each) / len(each) for name in each[0]}


def _plain(readings: Sequence[Reading]) -> dict[str, list[float]]:
    """A column: images produced, and the seconds by each clock; an entry a round."""
    times = {name: [reading.seconds[name] for reading in readings] for name in readings[0].seconds}
    return {"images": [reading.images for reading in readings], **times}
