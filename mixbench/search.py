"""The search of TransformMix: what a mixing module learns from a frozen teacher (paper, section 3.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from methods import Batch, Mixer, Network
from methods.diagnosis import Diagnosable, diagnosis, watched
from mixbench import materials
from mixbench.criteria import excess
from mixbench.execution import Execution
from mixbench.learning import Group
from mixbench.materials import Weights
from mixbench.shares import Share
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import TEST_BATCH, Curve, Evaluation

# Set between good and bad searches of 200 to 1,000 steps, on digits and CIFAR-10 (ResNet-8, ResNet-20). The good ones
# ended with an in_frame of 0.33 to 1, a mask_slope of 0.55 to 1.4 and 9 to 63 % less excess than at the start. Too high
# a rate left 0 to 0.29, 0 to 0.2 and a higher excess; too few steps, or a teacher that gives no hold, 0 to 0.23.
LEAST_IN_FRAME = 0.1
LEAST_MASK_SLOPE = 0.3
LEAST_FALL = 0.05


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

    from_start = True  # the excess of a module that has learned nothing is what the search's own is judged by

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        content = materials.load(run, execution)[1]
        self.content, self.official = content.fingerprint, content.official
        with streams.initialising():
            self.mixer: Mixer = materials.mixer_of(run, streams, execution, weights)
        self.trainable, self._teacher = pupil_and_teacher(self.mixer, run, materials.facts(run, execution).classes)
        self.groups: Sequence[Group] = [(run, list(self.trainable.parameters()))]
        self.beside: Mapping[str, nn.Module] = {}
        self._train = materials.train_set(run, streams, execution)
        materials.check_batches(self.mixer, run, len(self._train))
        materials.give_memory(self.mixer, run, self._train, execution, weights)
        self._test = materials.test_set(run, execution)
        self._streams = streams
        self._run = run
        self._share = Share(streams.rank, run.gpus)
        self.steps = self._train.steps(run.batch_size, share=self._share)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, as `mixbench.tasks.Classify` has them."""
        return self._train.epoch(self._streams, epoch, self._run.batch_size, skip=skip, share=self._share)

    def prepare(self, batch: Batch) -> Batch:
        """The batch itself: the gradient goes through the mixing, which so belongs to the loss."""
        return batch

    def loss(self, prepared: Batch) -> Tensor:
        """The mean excess of the batch, see `mixbench.criteria.excess`."""
        mixed = self.mixer(prepared, self._teacher)
        return mixed.loss(mixed.logits(cast("nn.Module", self._teacher)), excess)

    def weight(self, step: int) -> float:
        """By what the loss of a step counts among those of the processes that train together."""
        return self._share.weight(step, len(self._train), self._run.batch_size)

    def stepped(self, done: int, steps: int) -> None:
        """Nothing follows what is learned."""

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """On mixed test images, always under the same draws: ``excess``, and the policy's ``tau`` and diagnosis."""
        losses, images = [], 0
        # In another order than they are stored in: sorted by class, images would meet their like.
        order = torch.randperm(len(self._test), generator=self._streams.generator("search order"))
        with self._drawing_alike(), watched(self.trainable) as seen:
            for batch in self._test.test_batches(TEST_BATCH, order=order, first_id=self._train.ids_below):
                if len(batch.x) >= self.mixer.least:  # a rest that the mixer could not mix with itself is left out
                    losses.append(self.loss(batch) * len(batch.x))
                    images += len(batch.x)
        metrics = {"excess": float(torch.stack(losses).sum()) / images}
        tau = cast("Policy", self.trainable).tau
        metrics |= {} if tau is None else {"tau": float(tau)}
        return Evaluation(metrics | diagnosis(self.trainable, seen), {})

    @contextlib.contextmanager
    def _drawing_alike(self) -> Iterator[None]:
        """Inside, the mixer draws what it drew the last time; afterwards it goes on where it was."""
        drawing, self.mixer.generator = self.mixer.generator, self._streams.generator("search")
        try:
            yield
        finally:
            self.mixer.generator = drawing

    def weights(self) -> bytes:
        """The policy, as a run with a ``policy`` link is given it."""
        return materials.as_bytes(cast("Policy", self.trainable).saved())

    def files(self) -> Mapping[str, bytes]:
        """None."""
        return {}

    def notes(self, curve: Curve) -> Mapping[str, Any]:
        """Whom the policy learned from, what it is made for, what it began with; the warning if it has collapsed."""
        notes = dict[str, Any](self.mixer.notes()) | ({"teacher": self._run.teacher.id} if self._run.teacher else {})
        if isinstance(self.trainable, Diagnosable):
            notes |= {"k": self.trainable.form.k, "resolution": self.trainable.form.size}
        notes["excess_at_start"] = curve[0]["excess"]
        found = "" if self._run.mini else collapse(curve, self._run)  # a trial's few steps are not meant to teach
        return notes | ({"warning": found} if found else {})


def collapse(curve: Curve, run: Run) -> str:
    """Whether a search has gone wrong, with the numbers that show it, and what to do; "" where nothing shows.

    Masks and excess may need most of a short search, so they are judged once it is over; but an image that is out of
    the frame does not come back.
    """
    start, now = curve[0], curve[-1]
    over = now["epoch"] == run.epochs
    signs = []
    if now.get("in_frame", 1.0) < LEAST_IN_FRAME:
        signs.append(f"an image is out of the frame (in_frame {now['in_frame']:.2f})")
    if over and now.get("mask_slope", 1.0) < LEAST_MASK_SLOPE:
        signs.append(f"the masks do not follow lam (mask_slope {now['mask_slope']:.2f})")
    if over and now["excess"] > (1 - LEAST_FALL) * start["excess"]:
        signs.append("the excess has hardly fallen")
    if not signs:
        return ""
    remedies = [f"an lr below {run.lr:g}"] + (["momentum: 0.0"] if run.momentum else [])
    if now.get("in_frame", 1.0) >= LEAST_IN_FRAME:  # else no step brings anything back
        remedies.append("more epochs")
    return (
        f"the search has collapsed: excess {start['excess']:.2f} -> {now['excess']:.2f}, {', '.join(signs)}; "
        f"search again with {' or '.join(remedies)} (in the policy link: set: {{...}})"
    )


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
