"""AutoMix: masks by a block that learns beside the network, from what a momentum copy of it recognises."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods.attention import Headed, MaskBlock, channels_of, stage_features, stage_named
from methods.base import Batch, Criterion, Mixed, Mixer, Network, register
from methods.ops import beside, check_alpha, check_weight, costs, draw_lam, draw_partners, soft_labels

CONSTANT = 0.1
"""The share of a training in which the momentum stays where it begins."""


@dataclass(frozen=True)
class Draws:
    """All that is random in one mix of a batch.

    Attributes:
        lam: (1, 2) float32 on the CPU, for the whole batch.
        partners: (N, 2); column 0 is the image itself.
    """

    lam: Tensor
    partners: Tensor

    @property
    def own(self) -> float:
        """What the image itself weighs."""
        return float(self.lam[0, 0])

    def labels(self, y: Tensor) -> Tensor:
        """Those of the mixed images, (N, G)."""
        return soft_labels(y, self.partners, *beside(y, self.lam))


@register("automix")
class AutoMix(Mixer):
    """Shows each pixel of the image or its partner by a mask that is learned during training (Liu et al., 2022).

    Follows the authors' code (Westlake-AI/openmixup, ``classifiers/automix.py`` and ``heads/pmix_block.py``). The
    network in training, q, and its momentum copy, k, have two last layers each: ``mix`` (the network's own) learns
    from mixed images, ``one`` from images as they are. By features of k a block of attention makes masks: one mix
    trains q, another one, with draws of its own, is shown to k, and trains the block alone. Masks are brought to the
    size of the images by repeating pixels, which is the published power of two wherever that fits.

    Args:
        net: the network in training, of which k begins as a copy.
        image_size: side of the images, in pixels.
        alpha: each lam is drawn for a whole batch from Beta(alpha, alpha).
        momentum: of k, in the first tenth of the training; then it rises along a cosine.
        end_momentum: of k, at the end; 0.99999 for ImageNet.
        mask_loss: weight of how far the mean of a mask is from its lam.
        mask_loss_margin: what it may be away at no cost.
        mask_loss_decay: whether that weight falls to 0 along a cosine, as for ImageNet.
        lam_margin: with a lam so close to 0 or 1, q is shown plain Mixup.
        lam_concat: whether the block sees lam, as for ImageNet; else masks follow it by the losses alone.
        layer: the stage whose features it sees, from 1; 0 takes the last but one, as the authors do for ResNet-18 and
            ResNet-50 (the third of four) and WRN-28-8 (the second of three).
        mask_lr: the block's learning rate, where a cosine begins and ends, as (0.1, 0.001) for Tiny-ImageNet; () for
            the network's.
        mask_momentum: of the block's SGD, 0 for WRN-28-8; -1 for the network's.
    """

    label = "AutoMix"
    source = "Liu et al., 2022"
    defaults = "Westlake-AI/openmixup, AutoMix for CIFAR-100 and ResNet-18"
    draws = "two lam for each batch"
    asks = "features of its moving average"
    passes = 3.33
    headline = "k_mix"
    mask_weight: Tensor

    def __init__(
        self,
        net: Network,
        image_size: int,
        *,
        alpha: float = 2.0,
        momentum: float = 0.999,
        end_momentum: float = 0.999999,
        mask_loss: float = 0.1,
        mask_loss_margin: float = 0.1,
        mask_loss_decay: bool = False,
        lam_margin: float = 0.08,
        lam_concat: bool = False,
        layer: int = 0,
        mask_lr: tuple[float, ...] = (),
        mask_momentum: float = -1.0,
    ) -> None:
        super().__init__()
        self.alpha = check_alpha(alpha)
        self.momenta = (_check_momentum("momentum", momentum), _check_momentum("end_momentum", end_momentum))
        self.mask_loss = check_weight("mask_loss", mask_loss)
        self.mask_loss_margin = check_weight("mask_loss_margin", mask_loss_margin)
        self.mask_loss_decay = mask_loss_decay
        self.lam_margin = check_weight("lam_margin", lam_margin, most=0.5)
        self.learns_by = {"block": _block_protocol(mask_lr, mask_momentum)}
        self.stage = stage_named(cast("nn.Module", net), layer)
        self.twin = copy.deepcopy(cast("nn.Module", net)).train().requires_grad_(requires_grad=False)
        channels = channels_of(self.twin, self.stage, image_size)
        self.block = MaskBlock(channels, lam_concat=lam_concat)
        self.one = nn.Linear(net.fc.in_features, net.fc.out_features)
        self.twin_one = copy.deepcopy(self.one).requires_grad_(requires_grad=False)
        # A tensor, so that it is saved with the rest, and no step waits for its value.
        self.register_buffer("mask_weight", torch.tensor(mask_loss))

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch twice: for the network, and for what the block learns from its copy."""
        taught, used = self.draw(batch.x), self.draw(batch.x)
        features = self.look(batch.x)
        mask = self.mask(features, taught, batch.x)
        answers = self.twin(show(batch.x, taught.partners, mask))
        off = (mask.mean() - taught.own).abs() - self.mask_loss_margin
        with torch.no_grad():
            x = show(batch.x, used.partners, self.mask_of_network(features, used, batch.x))
        return Taught(
            x=torch.cat([x, batch.x]),
            y=used.labels(batch.y),
            clean=batch.y,
            one=self.one,
            answers=answers,
            taught=taught.labels(batch.y),
            penalty=self.mask_weight * off.relu(),
        )

    def draw(self, x: Tensor) -> Draws:
        """All that is random in one mix of these images."""
        lam = draw_lam(1, 2, self.alpha, self.generator)
        return Draws(lam, *beside(x, draw_partners(len(x), 2, self.generator)))

    def look(self, x: Tensor) -> Tensor:
        """What the stage of the copy makes of images, (N, D, h, w) float32, without gradient."""
        with torch.no_grad():
            return stage_features(self.twin, self.stage, x).float()

    def mask(self, features: Tensor, draws: Draws, x: Tensor) -> Tensor:
        """What each pixel shows of the image itself, (N, 1, H, W) float32 in [0, 1]."""
        other = self.block(features, features[draws.partners[:, 1]], draws.own).sigmoid()
        return 1 - F.interpolate(other, x.shape[2:], mode="nearest")

    def mask_of_network(self, features: Tensor, draws: Draws, x: Tensor) -> Tensor:
        """`mask`; or lam everywhere, where that leaves almost nothing of one of the two."""
        if min(draws.own, 1 - draws.own) > self.lam_margin:
            return self.mask(features, draws, x)
        return x.new_full((len(x), 1, *x.shape[2:]), draws.own)

    def stepped(self, net: Network, done: int, steps: int) -> None:
        """The copy follows the network: its weights, and not its batch statistics, which are those of its own passes.

        As in ``hooks/momentum_hook.py``, where steps are counted from 0.
        """
        momentum = momentum_at((done - 1) / steps, *self.momenta)
        follow = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
        copies = chain(self.twin.parameters(), self.twin_one.parameters())
        originals = chain(cast("nn.Module", net).parameters(), self.one.parameters())
        follow([*copies], [*originals], None)
        if self.mask_loss_decay:
            self.mask_weight.fill_(self.mask_loss * (1 + math.cos(math.pi * done / steps)) / 2)

    def scored(self, net: Network) -> Mapping[str, nn.Module]:
        """The network and its copy, each with both of its last layers."""
        q = cast("nn.Module", net)
        return {
            "k_mix": self.twin,
            "k_one": Headed(self.twin, self.twin_one),
            "q_mix": q,
            "q_one": Headed(q, self.one),
        }

    def notes(self) -> Mapping[str, float | str]:
        """What a step costs, where that of plain training is one image, one pass forward and one back."""
        return costs(images=2, forward=4, backward=3)


@dataclass(frozen=True)
class Taught(Mixed):
    """A mixed batch, of which the block that mixed it learns too.

    Attributes:
        x: (2N, C, H, W), the mixed images, and then all as they were.
        y: (N, G), labels of the mixed ones.
        clean: (N, G), labels of those that are as they were.
        one: the last layer that answers for them.
        answers: (N, G), the copy's, to another mix of the batch; with the graph through which the block learns.
        taught: (N, G), what they should be.
        penalty: scalar, for masks whose mean is not lam.
    """

    clean: Tensor
    one: nn.Module
    answers: Tensor
    taught: Tensor
    penalty: Tensor

    def logits(self, net: nn.Module) -> Tensor:
        """Answers of ``net``, (2N, G): one pass for mixed images and one for the others, as in the authors' code."""
        mixed, clean = self.x.chunk(2)
        return torch.cat([net(mixed), Headed(net, self.one)(clean)])

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """What the network learns from, mixed and not, and what the block does: the copy's answers, and lam."""
        mixed, clean = logits.chunk(2)
        pairs = ((mixed, self.y), (clean, self.clean), (self.answers, self.taught))
        return torch.stack([criterion(*pair).mean() for pair in pairs]).sum() + self.penalty


def show(x: Tensor, partners: Tensor, mask: Tensor) -> Tensor:
    """Images mixed by ``mask``, (N, 1, H, W): what each pixel shows of the image itself; the rest is its partner's."""
    return x[partners[:, 1]].lerp(x, mask.to(x.dtype))


def momentum_at(share: float, start: float, end: float) -> float:
    """The momentum when this share of the training is over."""
    return start if share < CONSTANT else end - (end - start) * (math.cos(math.pi * share) + 1) / 2


def _check_momentum(option: str, momentum: float) -> float:
    if not 0 <= momentum < 1:
        raise ValueError(f"{option} is {momentum}: it must be at least 0 and less than 1; with 1 the copy never learns")
    return momentum


def _block_protocol(lr: tuple[float, ...], momentum: float) -> dict[str, float]:
    """What differs from how the network learns."""
    if lr and len(lr) != 2:
        raise ValueError(f"mask_lr has {len(lr)} numbers: it must have two, where it begins and ends, or none")
    if momentum != -1 and not 0 <= momentum < 1:
        raise ValueError(f"mask_momentum is {momentum}: it must be at least 0 and less than 1, or -1 for the network's")
    rates = dict(zip(("lr", "lr_end"), lr, strict=False))
    return rates | ({} if momentum == -1 else {"momentum": momentum})
