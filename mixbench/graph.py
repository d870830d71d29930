"""A training step as a CUDA graph: captured once for each form of batch, proven, then replayed from static buffers.

The step of an 18-layer network is hundreds of launches, for which the host takes longer than the device computes at
batches of a hundred images; a replay is one launch. Nothing else changes: mixing goes before it as always, and so does
all that follows a step. It was only ever tried on the CPU, with a recorder that stands in for CUDA's: that is why each
graph is held against the same step computed at once before it counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.step import Step, lr_at
from mixbench.tasks import Task

WARM_UP = 3
"""Steps of a form that run before it is captured: libraries choose algorithms and allocate in the first ones."""

MOST_FORMS = 8
"""Graphs of a training at most; a method whose batches come in ever new sizes would capture without end."""

TOLERANCE: Mapping[str, float] = MappingProxyType({"float32": 1e-3, "bfloat16": 5e-2})
"""How far a replayed step may be from the same one computed at once, as a share of what it changes, by precision."""

Work = Callable[[], Tensor]

Tell = Callable[[str], None]


class Recorder(Protocol):
    """Notes what is computed, to have it computed again."""

    def run(self, work: Work) -> Tensor:
        """Do the work where it would be captured, so that what it finds ready there is ready."""
        ...

    def capture(self, work: Work) -> Work:
        """Note the work's operations, undone; what does them again gives the same tensor, with other values, each time.

        Raises:
            RuntimeError: they cannot be noted.
        """
        ...


class CudaRecorder:
    """Captures CUDA graphs on a stream of its own; they share their memory, since one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> Tensor:
        """Do the work on that stream, between what is before and behind it on the current one."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = work()
        here.wait_stream(self._stream)
        return result

    def capture(self, work: Work) -> Work:
        """See `Recorder.capture`. Waits for the device."""
        graph = torch.cuda.CUDAGraph()
        # The outer one, since torch's leaves its stream in force where a capture fails. And thread_local, since the
        # thread that pins decoded images may allocate meanwhile.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


def step_of(run: Run, task: Task, execution: Execution, tell: Tell) -> Step:
    """The step of a training: replayed on a GPU, unless the execution says otherwise or nothing is learned.

    Args:
        run: whose training.
        task: what is trained.
        execution: where.
        tell: is told, once, in a sentence, why steps are not replayed.
    """
    device = torch.device(execution.device)
    if device.type != "cuda" or not execution.cuda_graph or not any(parameters for _, parameters in task.groups):
        return Step(run, task)
    return ReplayedStep(run, task, CudaRecorder(device), tell)


class ReplayedStep(Step):
    """A step that is replayed for every batch that can be; the first ones of each form, and all others, are not.

    The loss that it returns is valid until the next step. States that are loaded must be loaded before the first one.

    Args:
        run, task: as for `mixbench.step.Step`.
        recorder: captures.
        tell: is told once why steps are not replayed.
    """

    def __init__(self, run: Run, task: Task, recorder: Recorder, tell: Tell) -> None:
        super().__init__(run, task)
        self._trainable = task.trainable
        self._recorder = recorder
        self._tell: Tell | None = tell
        self._tolerance = TOLERANCE[run.precision]
        self._device = next(parameter for _, parameters in task.groups for parameter in parameters).device
        # A graph reads the rates from where they lie; numbers would stay those of its capture.
        self._rates = [torch.zeros((), device=self._device) for _ in task.groups]
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Graph] = {}
        self._broken = False

    def __call__(self, prepared: Any, epoch: float) -> Tensor:
        """Update once at a moment, see `lr_at`; the loss before the update, a scalar on the device."""
        for group, protocol, rate in zip(self.optimiser.param_groups, self._protocols, self._rates, strict=True):
            group["lr"] = rate.fill_(lr_at(protocol, epoch))
        reason = "" if self._broken else obstacle(prepared, self._device)
        if self._broken or reason:
            self._say(reason)
            return self.update(prepared)
        form = form_of(prepared)
        if form in self._graphs:
            return self._graphs[form](prepared)
        self._seen[form] += 1
        if self._seen[form] <= WARM_UP:
            return self._recorder.run(partial(self.update, prepared))
        if len(self._graphs) == MOST_FORMS:
            self._say(f"batches come in more than {MOST_FORMS} forms")
            return self._recorder.run(partial(self.update, prepared))
        return self._prove(form, prepared)

    def _prove(self, form: Hashable, prepared: Any) -> Tensor:
        """Update at once, which counts; then capture the form, and keep the graph if it comes to the same from there.

        The graph comes second: where both do not fit the device's memory, it is the graph that fails.
        """
        state = self._state()
        before, drawn = clones(state), self._drawn()
        loss = self._recorder.run(partial(self.update, prepared))
        after = clones(state)
        copy(before, state)
        try:
            # The host's own draws are not taken back: a graph would hold on to them, and is not to pass by luck.
            with torch.random.fork_rng(drawn):
                for device, draws in drawn.items():
                    torch.cuda.set_rng_state(draws, device)
                graph = Graph(self.update, prepared, self._recorder)
                replayed = clones([graph(prepared), *state])
        except RuntimeError as error:
            self._give_up(f"capturing a step failed: {str(error).partition(chr(10))[0]}")
        else:
            if agree(replayed, [loss, *after], [torch.zeros_like(loss), *before], self._tolerance):
                self._graphs[form] = graph
            else:
                self._give_up("a replayed step came out otherwise than the same one computed at once")
        copy(after, state)
        return loss

    def _state(self) -> list[Tensor]:
        """All that a step changes: weights, momenta, and buffers of the network, as batch statistics are."""
        weights = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        momenta = [value for state in self.optimiser.state.values() for value in state.values()]
        return [value for value in (*weights, *momenta, *self._trainable.buffers()) if value is not None]

    def _drawn(self) -> dict[int, Tensor]:
        """Where the device's generator is, by the device's number; none on the CPU."""
        index = self._device.index
        return {} if index is None else {index: torch.cuda.get_rng_state(index)}

    def _give_up(self, reason: str) -> None:
        self._broken = True
        self._graphs.clear()
        self._say(reason)

    def _say(self, reason: str) -> None:
        if self._tell is not None and reason:
            self._tell(f"CUDA graph: not used, since {reason}")
            self._tell = None


class Graph:
    """A captured step, and the buffers that it reads its batch from.

    Args:
        work: a step.
        prepared: of the form that is captured; its values are not looked at.
        recorder: captures.

    Raises:
        RuntimeError: it cannot be captured.
    """

    def __init__(self, work: Callable[[Any], Tensor], prepared: Any, recorder: Recorder) -> None:
        self._buffers = {name: torch.zeros_like(value) for name, value in tensors(prepared).items()}
        self._replay = recorder.capture(partial(work, replace(prepared, **self._buffers)))

    def __call__(self, prepared: Any) -> Tensor:
        """The step with a batch of the same form; its loss, valid until the next replay."""
        for name, value in tensors(prepared).items():
            self._buffers[name].copy_(value)
        return self._replay()


def tensors(prepared: Any) -> dict[str, Tensor]:
    """The fields of a mixed batch that are tensors, by name."""
    values = ((field.name, getattr(prepared, field.name)) for field in fields(prepared))
    return {name: value for name, value in values if isinstance(value, Tensor)}


def form_of(prepared: Any) -> Hashable:
    """What batches of one graph have in common: the kind, how their tensors lie in memory, and all other values."""
    values = ((field.name, getattr(prepared, field.name)) for field in fields(prepared))
    return type(prepared), *(
        (name, value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else (name, value)
        for name, value in values
    )


def obstacle(prepared: Any, device: torch.device) -> str:
    """Why the step with this batch cannot be replayed on a device; "" where it can, see `methods.Mixed.replayable`."""
    kind = type(prepared)
    if not vars(kind).get("replayable", False):
        return f"a {kind.__name__} does not declare that it can be replayed"
    found = tensors(prepared).values()
    if any(value.requires_grad for value in found):
        return f"a {kind.__name__} carries gradients back to what mixed it"
    if any(value.device != device for value in found):
        return f"a {kind.__name__} holds tensors that are not on the device"
    return ""


def agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], before: Sequence[Tensor], tolerance: float) -> bool:
    """Whether two results of a step, tensor by tensor, differ by no more than this share of what the step changed.

    Besides, each may be off by what its own numbers round to. Waits for the device, once.
    """
    within = []
    for one, other, old in zip(ours, theirs, before, strict=True):
        a, b, start = (value.double().flatten() for value in (one, other, old))
        rounding = torch.finfo(torch.float32).eps * b.norm()
        within.append((a - b).norm() <= tolerance * (b - start).norm() + rounding)
    return bool(torch.stack(within).all())


def clones(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies that nothing changes."""
    return [value.detach().clone() for value in values]


@torch.no_grad()
def copy(values: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    """Put values into tensors where they lie: graphs know these by their place."""
    for value, place in zip(values, to, strict=True):
        place.copy_(value)
