"""SuperMix: images mixed by masks under which a teacher sees all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.bank import Mixes, as_bytes
from methods.base import Batch, Criterion, Mixed, Network, TeacherMixer, register
from methods.ops import Poll, beside, check_alpha, check_choice, check_weight, costs, draw_lam, laid_out_as
from methods.supermasks import Search, Sets, Solved, blended, full_masks, required, smoothing_kernel, solve


@dataclass(frozen=True)
class Weighted(Mixed):
    """A mixed batch of which some images count, and others do not.

    Attributes:
        weight: (N,) of 0 and 1.
    """

    weight: Tensor
    replayable = True

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """The mean of ``criterion`` over the images that count; 0 where none does."""
        return (self.weight * criterion(logits, self.y)).sum() / self.weight.sum().clamp_min(1)


class Made(NamedTuple):
    """The mixes of a batch.

    Attributes:
        x: (N, C, H, W), laid out in memory as the batch's images.
        partners: (N, k) int64, which images of the batch are in each.
        lam: (N, k), how much of each there should be.
        classes: (N, k) int64, of those images.
        target: (N, G), how much of each class there should be.
        solved: the masks, what the teacher says of the mixes, and which of them it recognises.
    """

    x: Tensor
    partners: Tensor
    lam: Tensor
    classes: Tensor
    target: Tensor
    solved: Solved


@register("supermix")
class SuperMix(TeacherMixer):
    """Mixes images by masks that bring a teacher to see the classes of all of them (Dabouei et al., 2021).

    Follows the authors' code (alldbi/SuperMix at d63d25a), which mixes sets of consecutive images of a batch; here in
    the training loop, on images in [0, 1]: masks sum to 1, so that mixing before or after normalisation is the same.
    Defaults are those of its README for CIFAR-100, or of its code where that is silent; ``tol`` is what the authors
    used for CIFAR by their own word (issue 3): the 70 of their code was for one experiment.

    Args:
        teacher: the trained network that is to see what is in a mix; it must know the classes of the labels.
        k: images of a mix, 2 or 3.
        alpha: lam is drawn for each mix from Dirichlet(alpha).
        mask_width: side of the masks that are varied, in pixels; they are enlarged to the image's. The README has 8
            for CIFAR and 16 for ImageNet, the code 16.
        sigma: of the Gaussian that smooths their gradient, in pixels; below 0.4 there is no smoothing. The README has
            2 for ImageNet.
        lambda_s: weight of masks that are neither 0 nor 1.
        max_iter: most steps of a mix.
        tol: how many mixes of a batch may remain unfinished, in percent; then the others are given up.
        unfinished: what becomes of a mix in which the teacher does not see the classes of all its images: "drop" gives
            it no weight in the loss, as the authors return finished ones only; "keep" learns from it like from others;
            "plain" takes the image itself and its label.
        class_from: "prediction" takes for an image's class what the teacher says, as the authors do; "label" its label.
        label_from: "lam" labels a mix by lam, for which its masks were made; "teacher" by the class that the teacher
            finds likeliest in it, as the authors' students learn it.
    """

    label = "SuperMix"
    source = "Dabouei et al., 2021"
    passes = 15.0
    defaults = "the README of alldbi/SuperMix for CIFAR-100; tol by its authors' word"
    draws = "weights of its images for each mix"
    poll: Poll

    def __init__(
        self,
        teacher: Network,
        *,
        k: int = 2,
        alpha: float = 3.0,
        mask_width: int = 8,
        sigma: float = 1.0,
        lambda_s: float = 25.0,
        max_iter: int = 50,
        tol: float = 10.0,
        unfinished: Literal["drop", "keep", "plain"] = "drop",
        class_from: Literal["prediction", "label"] = "prediction",
        label_from: Literal["lam", "teacher"] = "lam",
    ) -> None:
        super().__init__(teacher)
        if k not in (2, 3):
            raise ValueError(f"k is {k}: it must be 2 or 3")
        if teacher.fc.out_features < k:
            raise ValueError(f"k is {k}, but there are {teacher.fc.out_features} classes: take a smaller k")
        if alpha == 0:
            raise ValueError(f"alpha is {alpha}: a mix must show all its images; take the method simple to mix nothing")
        for option, value in (("mask_width", mask_width), ("max_iter", max_iter)):
            if value < 1:
                raise ValueError(f"{option} is {value}: it must be at least 1")
        self.k = self.least = k
        self.alpha = check_alpha(alpha)
        self.search = Search(
            mask_width=mask_width,
            kernel=smoothing_kernel(check_weight("sigma", sigma)),
            sparsity=check_weight("lambda_s", lambda_s),
            max_iter=max_iter,
        )
        self.tol = check_weight("tol", tol, most=100, why="it is in percent")
        self.unfinished = check_choice("unfinished", unfinished, ("drop", "keep", "plain"))
        self.class_from = check_choice("class_from", class_from, ("prediction", "label"))
        self.label_from = check_choice("label_from", label_from, ("lam", "teacher"))
        self.poll = Poll()
        self.step_counts = torch.zeros(max_iter + 1, dtype=torch.int64)
        self._taken = torch.zeros((), dtype=torch.int64)
        """Steps of all mixes."""

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: it has fewer images than a mix or smaller ones than the masks, its labels have classes that the
                teacher does not know, or the teacher's answers are not finite.
        """
        made = self.make(batch)
        y = made.target if self.label_from == "lam" else likeliest(made.solved.logits)
        finished = made.solved.finished
        if self.unfinished == "drop":
            return Weighted(made.x, y, finished.float())
        if self.unfinished == "keep":
            return Mixed(made.x, y)
        x = laid_out_as(batch.x, torch.where(finished[:, None, None, None], made.x, batch.x))
        return Mixed(x, torch.where(finished[:, None], y, batch.y.float()))

    def make(self, batch: Batch) -> Made:
        """The mixes of a batch, finished and unfinished."""
        count = len(batch.x)
        self._check(batch)
        partners, lam = beside(batch.x, in_turn(count, self.k), draw_lam(count, self.k, self.alpha, self.generator))
        x = batch.x.float()
        answers = self.teacher(x) if self.class_from == "prediction" else batch.y
        classes = answers.argmax(1)[partners]
        target = soft_target(classes, lam, batch.y.shape[1])
        sets = Sets(tuple(x[partner] for partner in partners.unbind(1)), target, required(target, self.k))
        allowed = int(count * self.tol / 100)
        solved = solve(self.teacher, sets, self.search, allowed=allowed, poll=self.poll)
        self._count(solved)
        mixed = blended(sets.images, full_masks(solved.variables, *x.shape[2:])).to(batch.x.dtype)
        return Made(laid_out_as(batch.x, mixed), partners, lam, classes, target, solved)

    def finished(self, batch: Batch) -> Mixes:
        """The finished mixes of a batch as a bank keeps them; ``sources`` are places in the batch."""
        made = self.make(batch)
        rows = self.poll.values(made.solved.finished).nonzero()[:, 0].to(batch.x.device)
        return Mixes(as_bytes(made.x[rows]), *(part[rows] for part in (made.lam, made.classes, made.partners)))

    def notes(self) -> Mapping[str, float | str]:
        """Share of mixes that finished, steps they took in the mean, and how often the device was asked for values.

        Of this process: what an earlier one that was stopped did for the same run is not in it.
        """
        counts = self.step_counts.double().cpu()
        finished = counts[1:].sum().item()
        steps = (counts * torch.arange(len(counts))).sum().item()
        taken = self._taken.item() / max(1.0, counts.sum().item())
        asked = 1 + (self.class_from == "prediction")
        found = costs(forward=1 + asked + taken, backward=1 + taken / 2)
        found |= {"finished": finished / max(1.0, counts.sum().item()), "steps_to_finish": steps / max(1.0, finished)}
        return found | {"polls": self.poll.count}

    def _count(self, solved: Solved) -> None:
        self.step_counts = self.step_counts.to(solved.steps.device)
        self._taken = self._taken.to(solved.steps.device) + solved.steps.sum()
        self.step_counts.scatter_add_(0, solved.steps * solved.finished, torch.ones_like(solved.steps))

    def _check(self, batch: Batch) -> None:
        (count, _, height, width), classes = batch.x.shape, batch.y.shape[1]
        side, known = self.search.mask_width, self.teacher.fc.out_features
        if count < self.k:
            raise ValueError(f"k is {self.k}, but the batch size is {count}: take a smaller k or larger batches")
        if side > min(height, width):
            raise ValueError(f"mask_width is {side}, but images have {height} x {width} pixels: make it smaller")
        if classes != known:
            raise ValueError(
                f"the teacher knows {known} classes, the labels have {classes}: take a teacher trained on the same ones"
            )


def in_turn(count: int, k: int) -> Tensor:
    """Each image of a batch with the k - 1 that follow it, and the first ones after the last: (count, k) int64."""
    return (torch.arange(count)[:, None] + torch.arange(k)) % count


def soft_target(classes: Tensor, lam: Tensor, known: int) -> Tensor:
    """How much of each of so many known classes is in sets of images, (N, known), of classes and weights (N, k)."""
    return lam.new_zeros(len(lam), known).scatter_add_(1, classes, lam)


def likeliest(logits: Tensor) -> Tensor:
    """The labels that say of each image the class with the largest of its answers (N, G)."""
    return F.one_hot(logits.argmax(1), logits.shape[1]).float()
