"""Training steps that are replayed as CUDA graphs, one for each form of batch, which are proven before they count.

The step of an 18-layer network is hundreds of launches, for which the host takes longer than the device computes at
batches of a hundred images; a replay is one launch. Nothing else changes: mixing goes before it as always, and so does
all that follows a step. It was only ever tried on the CPU, with a recorder that stands in for CUDA's: that is why each
graph is held against the same step not replayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from mixbench.execution import Execution
from mixbench.graph import CudaRecorder, Graph, Recorder, form_of, obstacle
from mixbench.spec import Run
from mixbench.step import Learner, Step, lr_at
from mixbench.tasks import Task
from mixbench.together import AveragedStep, SharedTask

WARM_UP = 3
"""Steps of a form that run before it is captured: libraries choose algorithms and allocate in the first ones."""

MOST_FORMS = 8
"""Graphs of a training at most; a method whose batches come in ever new sizes would capture without end."""

TOLERANCE: Mapping[str, float] = MappingProxyType({"float32": 1e-2, "bfloat16": 1e-1})
"""How far a replayed step may be `away` from the same one computed at once, by precision.

Between two memory layouts on the CPU, which is other sums in all layers, a tensor of ResNet-20 is 0.2 % away in float32
and 6 % in bfloat16 (the median); with the same kernels it is less. A batch, an update or a statistic that a graph
missed would be the whole.
"""

Tell = Callable[[str], None]


class Trainee(Learner, Protocol):
    """What is trained, and its network, whose buffers a step changes too."""

    trainable: nn.Module


def step_of(run: Run, task: Task, execution: Execution, tell: Tell) -> Step:
    """The step of a training: replayed on a GPU, unless the execution says otherwise or nothing is learned.

    Where several processes train together it is not: when gradients are averaged is nothing that a graph could know.

    Args:
        run: whose training.
        task: what is trained.
        execution: where.
        tell: is told, once, in a sentence, why steps are not replayed.
    """
    device = torch.device(execution.device)
    plain = device.type != "cuda" or not execution.cuda_graph or not any(parameters for _, parameters in task.groups)
    if run.gpus > 1:
        if not plain:
            tell("CUDA graph: not used, since several processes train together")
        return AveragedStep(run, cast("SharedTask", task))
    if plain:
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

    def __init__(self, run: Run, task: Trainee, recorder: Recorder, tell: Tell) -> None:
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
        if self._broken:
            return self.update(prepared)
        reason = obstacle(prepared, self._device)
        if reason:
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
            first, *_ = [*str(error).splitlines(), type(error).__name__]
            self._give_up(f"capturing a step failed: {first}")
        else:
            off = away(replayed, [loss, *after], [torch.zeros_like(loss), *before])
            if off <= self._tolerance:
                self._graphs[form] = graph
            else:
                self._give_up(f"a replayed step came out {off:.2g} of its change away from the same one not replayed")
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
        if self._tell is not None:
            self._tell(f"CUDA graph: not used, since {reason}")
            self._tell = None


def away(ours: Sequence[Tensor], theirs: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """How far two results of a step differ, as a share of what it changed: of the tensor where that is most.

    What a tensor's own numbers round to is left out. NaN where a result is not finite. Waits for the device, once.
    """
    shares = []
    for one, other, old in zip(ours, theirs, before, strict=True):
        a, b, start = (value.double().flatten() for value in (one, other, old))
        off = ((a - b).norm() - torch.finfo(torch.float32).eps * b.norm()).clamp_min(0)
        shares.append(torch.where(off == 0, 0, off / (b - start).norm()))
    return float(torch.stack(shares).max())


def clones(values: Sequence[Tensor]) -> list[Tensor]:
    """Copies that nothing changes."""
    return [value.detach().clone() for value in values]


@torch.no_grad()
def copy(values: Sequence[Tensor], to: Sequence[Tensor]) -> None:
    """Put values into tensors where they lie: graphs know these by their place."""
    for value, place in zip(values, to, strict=True):
        place.copy_(value)
