"""The loop: one for every task and every method. It never waits for the device but once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mixbench.bank import MakeBank
from mixbench.execution import Execution
from mixbench.importing import Import
from mixbench.keeper import Keeper
from mixbench.makers import maker, merged
from mixbench.materials import Weights, as_bytes, from_bytes
from mixbench.replay import step_of
from mixbench.search import Search
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.streams import Streams
from mixbench.tasks import Classify, Evaluation, Task
from mixbench.timing.measuring import Measure
from mixbench.together import for_rank, own, seen_by

BESIDE = ("epoch", "train_loss")
"""What an entry of a curve holds beside metrics."""

TASKS: Mapping[str, Callable[[Run, Streams, Execution, Weights], Task]] = MappingProxyType(
    {"classify": Classify, "search": Search, "import": Import, "bank": MakeBank, "time": Measure}
)

Progress = Callable[[int, int, Mapping[str, float]], None]
"""Told after every step: steps done, steps in all, and the metrics of the last evaluated epoch, if any."""


class DivergedError(ArithmeticError):
    """The loss, or what a method asked the network for, is no finite number any more."""


@dataclass(frozen=True)
class Trained:
    """What training a run gave.

    Attributes:
        evaluation: of the last epoch.
        curve: epoch, training loss and, where it was evaluated, metrics; one entry an epoch.
        notes: what the task says beside that, see `mixbench.tasks.Task.notes`.
        weights: what was learned, for runs that need this one.
        files: what was learned beside that, by the name of its file.
        content, official: fingerprint of the data, and whether they are the official release.
        made_by: commit, device and execution; several values of each where a run was resumed under others.
    """

    evaluation: Evaluation
    curve: list[dict[str, float]]
    notes: Mapping[str, Any]
    weights: bytes
    files: Mapping[str, bytes]
    content: str
    official: bool
    made_by: Mapping[str, Any]


def train(run: Run, attempt: Keeper, execution: Execution, weights: Weights, progress: Progress) -> Trained:
    """Train a run; go on from the newest valid checkpoint of any of its attempts.

    Raises:
        DivergedError: the loss, or a gradient that images are mixed by, became NaN or infinite; names epoch and step.
        mixbench.endings.StoppedError, mixbench.endings.FencedError: as `Attempt.save`.
        mixbench.endings.OtherDataError: the data at hand are not those that the run was begun on.
    """
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32: torch's own default is ten bits in convolutions
    streams = Streams(run.seed, attempt.rank)
    task = for_rank(attempt.rank, TASKS[run.task](run, streams, execution, weights))
    attempt.begin(task.content)
    step = step_of(run, task, execution, lambda sentence: attempt.tell(f"{run.folder}: {sentence}"))
    state = State.restored(attempt, task, step, streams, execution)
    if task.from_start and not state.curve:
        attempt.log(**state.open(evaluated(task, 0).metrics))
    evaluation: Evaluation | None = None
    warned = False
    for epoch in range(state.epoch, run.epochs):
        task.trainable.train()
        known = state.metrics()
        for _ in steps(run, epoch, task, step, state):
            progress(epoch * task.steps + state.step, run.epochs * task.steps, known)
            if attempt.due(epoch_over=False):
                attempt.save(epoch * task.steps + state.step, state.encoded(attempt, task, step, streams))
        losses = state.read_losses(attempt.mean)
        evaluation = evaluated(task, epoch + 1) if execution.evaluates(epoch, run.epochs) else None
        attempt.log(**state.close_epoch(losses, evaluation.metrics if evaluation else {}))
        if evaluation and not warned and epoch + 1 < run.epochs:
            warned = warn(run, attempt, task.notes(state.curve))
        if attempt.due(epoch_over=True):
            attempt.save((epoch + 1) * task.steps, state.encoded(attempt, task, step, streams))
    evaluation = evaluation or evaluated(task, run.epochs)
    notes = task.notes(state.curve)
    warn(run, attempt, notes)
    made_by = merged(state.makers)
    return Trained(evaluation, state.curve, notes, task.weights(), task.files(), task.content, task.official, made_by)


def warn(run: Run, attempt: Keeper, notes: Mapping[str, Any]) -> bool:
    """Tell the user the warning among a task's notes; whether there is one."""
    if "warning" in notes:
        attempt.tell(f"{run.folder}: {notes['warning']}")
    return "warning" in notes


def evaluated(task: Task, epochs: int) -> Evaluation:
    """The evaluation after so many epochs.

    Raises:
        DivergedError: a metric is not finite: the last update, which no training loss follows, went wrong.
    """
    evaluation = task.evaluate()
    for name, value in evaluation.metrics.items():
        if not math.isfinite(value):
            raise DivergedError(f"the {name} became {value} with the last step of epoch {epochs}")
    return evaluation


def steps(run: Run, epoch: int, task: Task, step: Step, state: State) -> Iterator[None]:
    """The steps of one epoch, counted from 0, from where `state` stands; yields after each.

    Raises:
        DivergedError: a mixer cannot mix, since what it asked the network for is not finite.
    """
    for batch in task.batches(epoch, skip=state.step):
        try:
            prepared = task.prepare(batch)
        except FloatingPointError as error:
            raise DivergedError(f"in epoch {epoch + 1}, step {state.step + 1}, {error}") from error
        state.add(step(prepared, epoch + state.step / task.steps))
        task.stepped(epoch * task.steps + state.step, run.epochs * task.steps)
        yield


@dataclass
class State:
    """Where a training stands.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the running epoch.
        losses: (steps of an epoch,) on the device; filled as they come, read once the epoch is over. Without any where
            nothing is learned.
        curve: what each finished epoch gave; before them, an epoch 0 where the task is evaluated from the start.
        makers: who computed it, see `mixbench.makers.maker`, in order.
    """

    losses: Tensor
    epoch: int = 0
    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    makers: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def restored(cls, attempt: Keeper, task: Task, step: Step, streams: Streams, execution: Execution) -> State:
        """The newest saved state, put back into task, optimiser and streams; a fresh one where there is none."""
        state = cls(torch.zeros(task.steps if step.learns else 0, device=execution.device))
        for data in attempt.saved():
            saved = seen_by(streams.rank, from_bytes(data, execution.device))
            task.trainable.load_state_dict(saved["trainable"])
            for name, module in task.beside.items():
                module.load_state_dict(saved["beside"][name])
            step.load_state_dict(saved["optimiser"])
            streams.load_state_dict(saved["streams"])
            state.epoch, state.step, state.curve = saved["epoch"], saved["step"], saved["curve"]
            if step.learns:  # a bank's checkpoint of earlier versions holds some too
                state.losses[: state.step] = saved["losses"]
            state.makers = saved["makers"]
            break
        if maker(execution) not in state.makers:
            state.makers.append(maker(execution))
        return state

    def add(self, loss: Tensor) -> None:
        """One step is done; its loss stays on the device."""
        if len(self.losses):
            self.losses[self.step] = loss
        self.step += 1

    def read_losses(self, mean: Callable[[list[float]], list[float]] = list) -> list[float]:
        """The losses of the running epoch, read from the device: the one wait of an epoch.

        Args:
            mean: of those that several processes have read, see `Keeper.mean`; a process alone has read them all.

        Raises:
            DivergedError: one is not finite.
        """
        losses = mean(self.losses[: self.step].tolist())
        bad = next((step for step, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        if bad is not None:
            raise DivergedError(f"the loss became {losses[bad - 1]} in epoch {self.epoch + 1}, step {bad}")
        return losses

    def open(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Nothing was learned yet: epoch 0 of the curve."""
        self.curve.append({"epoch": 0, **metrics})
        return self.curve[-1]

    def metrics(self) -> dict[str, float]:
        """Those of the last evaluated epoch; none where there is no such epoch yet."""
        entries = ({name: entry[name] for name in entry if name not in BESIDE} for entry in reversed(self.curve))
        return next(filter(None, entries), {})

    def close_epoch(self, losses: Sequence[float], metrics: Mapping[str, float]) -> dict[str, float]:
        """The epoch is over: its entry of the curve, without a training loss where nothing was trained."""
        self.epoch, self.step = self.epoch + 1, 0
        mean = {"train_loss": sum(losses) / len(losses)} if losses else {}
        self.curve.append({"epoch": self.epoch, **mean, **metrics})
        return self.curve[-1]

    def encoded(self, attempt: Keeper, task: Task, step: Step, streams: Streams) -> bytes:
        """All that a resume needs, of every process, as bytes."""
        state = {
            "trainable": task.trainable.state_dict(),
            "beside": {name: module.state_dict() for name, module in task.beside.items()},
            "optimiser": step.optimiser.state_dict(),
            "streams": streams.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses[: self.step].clone(),
            "curve": self.curve,
            "makers": self.makers,
        }
        others = [from_bytes(one, "cpu") for one in attempt.gathered(as_bytes(own(state, task)))]
        return as_bytes({**state, "others": others} if others else state)
