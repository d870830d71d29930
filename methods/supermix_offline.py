"""SuperMix from a stored set: each batch is learned as it is, and as many mixed images of a bank beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.bank import Mixes
from methods.base import Batch, Criterion, Mixed, Network, TeacherMixer, register
from methods.ops import beside, check_choice, costs, laid_out_as
from methods.supermix import soft_target


@dataclass(frozen=True)
class Beside(Mixed):
    """Mixed images, and as many natural ones behind them, which the network sees in a pass of their own.

    Attributes:
        natural_y: (N, G) soft labels of the natural images; ``y`` are those of the mixed ones.
    """

    natural_y: Tensor
    replayable = True

    def logits(self, net: nn.Module) -> Tensor:
        """Answers for the mixed images, then for the natural ones, (2N, G), of two passes."""
        # Each kind by batch statistics of its own, as in the authors' code: natural images first.
        mixed, natural = self.x.chunk(2)
        answers = cast("Tensor", net(natural))
        return torch.cat([cast("Tensor", net(mixed)), answers])

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """The mean of ``criterion`` over all images."""
        return criterion(logits, torch.cat([self.y, self.natural_y])).mean()


@register("supermix_offline")
class SuperMixOffline(TeacherMixer):
    """Learns mixed images of a stored set beside natural ones, as the authors' students do (Dabouei et al., 2021).

    Follows ``train_student.py`` of their code (alldbi/SuperMix at d63d25a), less its distillation: a step takes a batch
    of natural images and as many mixed ones in two passes, and the teacher says what it sees in the mixed ones as they
    are shown. Here mixed images are drawn anew for every batch, there they are taken in turn; and the loss is the mean
    over all images, on the scale of the other methods', where theirs is twice the sum of the two means.

    Args:
        teacher: the trained network that labels mixed images.
        bank: a run with ``task: bank`` made it.
        pad: mixed images are cropped out of themselves with so many black pixels on each side.
        flip: whether half of them are mirrored.
        label_from: "teacher" labels a mixed image by the class that the teacher finds likeliest in it, as the authors
            do; "lam" by how much of each class it should show.
    """

    label = "SuperMix, offline"
    source = "Dabouei et al., 2021"
    defaults = "train_student.py of alldbi/SuperMix"
    draws = "as many stored mixes as there are images"
    passes = 2.33

    def __init__(
        self,
        teacher: Network,
        bank: Mapping[str, Tensor],
        *,
        pad: int = 2,
        flip: bool = True,
        label_from: Literal["teacher", "lam"] = "teacher",
    ) -> None:
        super().__init__(teacher)
        if pad < 0:
            raise ValueError(f"pad is {pad}: it must be at least 0, in pixels")
        for name in Mixes._fields:
            self.register_buffer(name, bank[name], persistent=False)
        known = teacher.fc.out_features if label_from == "teacher" else 0
        self._classes = max(1 + int(self.bank.classes.max()), known)
        self.pad = pad
        self.flip = flip
        self.label_from = check_choice("label_from", label_from, ("teacher", "lam"))

    @property
    def bank(self) -> Mixes:
        """The stored set."""
        return Mixes(*(getattr(self, name) for name in Mixes._fields))

    def notes(self) -> Mapping[str, float | str]:
        """What its steps cost."""
        return costs(images=2, forward=2 + (self.label_from == "teacher"), backward=2)

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Put as many mixed images beside a batch.

        Raises:
            ValueError: those of the bank have another size, or classes that the labels do not know.
        """
        self._check(batch)
        count, classes = len(batch.x), batch.y.shape[1]
        chosen = torch.randint(len(self.bank.x), (count,), generator=self.generator)
        corners = torch.randint(2 * self.pad + 1, (2, count), generator=self.generator)
        mirrored = (torch.rand(count, generator=self.generator) < 0.5) & self.flip
        chosen, corners, mirrored = beside(batch.x, chosen, corners, mirrored)
        x = cropped(self.bank.x[chosen], self.pad, corners, mirrored).to(batch.x.dtype) / 255
        if self.label_from == "teacher":
            y = F.one_hot(self.teacher(x.float()).argmax(1), classes).float()
        else:
            y = soft_target(self.bank.classes[chosen], self.bank.lam[chosen], classes)
        return Beside(laid_out_as(batch.x, torch.cat([x, batch.x])), y, batch.y.float())

    def _check(self, batch: Batch) -> None:
        ours, theirs = self.bank.x.shape[1:], batch.x.shape[1:]
        if ours != theirs:
            held, given = (" x ".join(map(str, shape)) for shape in (ours, theirs))
            raise ValueError(f"the bank holds images of {held}, but the batch of {given}: take a bank of the same data")
        if self._classes > batch.y.shape[1]:
            raise ValueError(
                f"bank and teacher know {self._classes} classes, but the labels have {batch.y.shape[1]}: take a bank "
                f"and a teacher of the same data"
            )


def cropped(x: Tensor, pad: int, corners: Tensor, mirrored: Tensor) -> Tensor:
    """Images (N, C, H, W), each cropped out of itself with black around it, (N, C, H, W).

    Args:
        x: the images.
        pad: black pixels on each side.
        corners: (2, N) int64, row and column of the padded image at which each crop begins, at most ``2 pad``.
        mirrored: (N,) bool, which crops are mirrored.
    """
    height, width = x.shape[2:]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    places = (corners[0, :, None] + rows)[:, :, None], (corners[1, :, None] + columns)[:, None]
    padded = F.pad(x, (pad, pad, pad, pad))
    return padded[torch.arange(len(x), device=x.device)[:, None, None], :, *places].permute(0, 3, 1, 2)
