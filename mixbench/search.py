"""The search of TransformMix: what a mixing module learns from a frozen teacher (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from methods import Batch, Mixer, Network
from mixbench import materials
from mixbench.criteria import excess
from mixbench.execution import Execution
from mixbench.materials import Weights
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import TEST_BATCH, Evaluation


class Policy(Protocol):
    """What a search trains: a module that can be saved for the runs that use it, and may have a temperature."""

    @property
    def tau(self) -> Tensor | None:
        """The temperature, a scalar; None where there is none."""
        ...

    def saved(self) -> dict[str, Any]:
        """Plain values and tensors, from which the same method's mixer is made again."""
        ...


class Search:
    """Train a mixer's policy so that a frozen teacher still recognises what was mixed (algorithm 1, SEARCH).

    What is minimised is the teacher's cross-entropy with the mixed labels, less the labels' entropy: that is the same
    gradient, and a loss that says how far there is to go.
    """

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        content = materials.load(run, execution)[1]
        self.content, self.official = content.fingerprint, content.official
        with streams.initialising():
            self.mixer: Mixer = materials.mixer_of(run, streams, execution, weights)
        self.trainable, self._teacher = pupil_and_teacher(self.mixer, run, materials.facts(run, execution).classes)
        self._train = materials.train_set(run, streams, execution)
        materials.check_batches(self.mixer, len(self._train), run.batch_size)
        materials.give_memory(self.mixer, run, self._train, execution, weights)
        self._test = materials.test_set(run, execution)
        self._streams = streams
        self._batch_size = run.batch_size
        self.steps = self._train.steps(run.batch_size)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, as `mixbench.tasks.Classify` has them."""
        return self._train.epoch(self._streams, epoch, self._batch_size, skip=skip)

    def prepare(self, batch: Batch) -> Batch:
        """The batch itself: the gradient goes through the mixing, which so belongs to the loss."""
        return batch

    def loss(self, prepared: Batch) -> Tensor:
        """The mean excess of the batch, see `mixbench.criteria.excess`."""
        mixed = self.mixer(prepared, self._teacher)
        return mixed.loss(mixed.logits(cast("nn.Module", self._teacher)), excess)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """``excess`` on mixed test images, always under the same draws, and ``tau`` where the policy has one."""
        drawing, self.mixer.generator = self.mixer.generator, self._streams.generator("search")
        losses, images = [], 0
        try:
            for batch in self._test.test_batches(TEST_BATCH):
                if len(batch.x) >= self.mixer.least:  # a rest that the mixer could not mix with itself is left out
                    losses.append(self.loss(batch) * len(batch.x))
                    images += len(batch.x)
        finally:
            self.mixer.generator = drawing
        metrics = {"excess": float(torch.stack(losses).sum()) / images}
        tau = cast("Policy", self.trainable).tau
        return Evaluation(metrics | ({} if tau is None else {"tau": float(tau)}), {})

    def weights(self) -> bytes:
        """The policy, as a run with a ``policy`` link is given it."""
        return materials.as_bytes(cast("Policy", self.trainable).saved())


def pupil_and_teacher(mixer: Mixer, run: Run, classes: int) -> tuple[nn.Module, Network]:
    """The policy that a search trains, and the network by whose answers, for labels of so many classes, it learns.

    Raises:
        ValueError: the mixer has none, nothing in it learns, or the teacher knows other classes.
    """
    policy, teacher = getattr(mixer, "policy", None), cast("Network | None", getattr(mixer, "teacher", None))
    if not isinstance(policy, nn.Module) or teacher is None:
        raise ValueError(f"the method '{run.method}' has no policy that a teacher could teach; search another")
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ValueError(f"with these options, '{run.method}' has nothing to learn; it needs no search")
    if teacher.fc.out_features != classes:
        raise ValueError(
            f"the teacher knows {teacher.fc.out_features} classes, the data have {classes}: a search learns from its "
            f"answers; take a teacher trained on the same classes"
        )
    return policy, teacher
