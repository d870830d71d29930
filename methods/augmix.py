"""AugMix: an image beside two mixtures of its own augmentations, on all of which a network is to agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import Batch, Criterion, Mixed, Mixer, Network, register
from methods.ops import Poll, beside, check_alpha, check_weight, costs, draw_lam, laid_out_as
from methods.pictures import apply

LEAST_LEVEL, MOST_LEVEL = 0.1, 10.0
DRAWN_DEPTH = 3
"""Operations of a chain at most, where their number is drawn."""
OFF_GRID = 1e-4
"""How far a value may be from a 255th: more than float32 rounds, a fortieth of the way to the next."""
LEAST_P = 1e-7
"""Where the authors end a mean of probabilities, before its logarithm."""


@dataclass(frozen=True)
class Scale:
    """How the strength of an operation follows from its level, between 0 and 10, and from a coin.

    Attributes:
        most: what a level of 10 adds to the start; 0 where an operation has no strength.
        start: what a level of 0 would be.
        whole: whether what is added is rounded towards 0.
        sign: -1 subtracts it; 0 leaves that to the coin.
    """

    most: float = 0.0
    start: float = 0.0
    whole: bool = True
    sign: int = 1


SCALES = {
    "autocontrast": Scale(),
    "equalize": Scale(),
    "posterize": Scale(4, start=4, sign=-1),  # bits
    "rotate": Scale(30, sign=0),  # degrees
    "solarize": Scale(256, start=256, sign=-1),  # a threshold
    "shear_x": Scale(0.3, whole=False, sign=0),
    "shear_y": Scale(0.3, whole=False, sign=0),
    "translate_x": Scale(sign=0),  # pixels: a third of the side
    "translate_y": Scale(sign=0),
    "color": Scale(1.8, start=0.1, whole=False),
    "contrast": Scale(1.8, start=0.1, whole=False),
    "brightness": Scale(1.8, start=0.1, whole=False),
    "sharpness": Scale(1.8, start=0.1, whole=False),
}
"""The authors' operations, with their numbers."""
NAMES = tuple(SCALES)
COMMON = NAMES.index("color")
"""The number of those that are drawn from unless ``all_ops`` is set; ImageNet-C has the like of the others."""


@dataclass(frozen=True)
class Draws:
    """All that is random in M mixtures, of W chains each; of at most D operations.

    Attributes:
        lam: (M, 2); column 0 weighs the image itself.
        weights: (M, W), of the chains.
        depths: (M W,) int64, operations of each chain.
        ops: (D, M W) int64 indices into `NAMES`.
        levels: (D, M W) float64, see `Scale`.
        coins: (D, M W) float64 in [0, 1); above one half a strength without a sign becomes negative.
    """

    lam: Tensor
    weights: Tensor
    depths: Tensor
    ops: Tensor
    levels: Tensor
    coins: Tensor


@dataclass(frozen=True)
class Views(Mixed):
    """Images, and behind them other views of each, on which a network is to agree.

    Attributes:
        x: (V N, C, H, W), a view of every image after the other; the first is the image itself.
        weight: of the divergence between the answers.
    """

    weight: float
    replayable = True

    @property
    def pictures(self) -> Tensor:
        """The last mixture of each image."""
        return self.x[-len(self.y) :]

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """The criterion of the images themselves, and how much the answers to all views differ."""
        views = logits.view(-1, *self.y.shape)
        return super().loss(views[0], criterion) + self.weight * divergence(views)


@register("augmix")
class AugMix(Mixer):
    """Adds two views of each image, mixtures of chains of its own augmentations (Hendrycks et al., 2020).

    As in the authors' code (google-research/augmix), whose numbers for CIFAR are the defaults; labels stay as they are.
    Images have to be 8-bit pictures, whose values are 255ths.

    Args:
        severity: a level of each operation is drawn between 0.1 and this, of 10; the authors take 1 for ImageNet.
        width: chains of a mixture.
        depth: operations of a chain; -1 draws 1 to 3 for each.
        alpha: weights of chains are drawn from Dirichlet(alpha), the image's share from Beta(alpha, alpha); 0 leaves
            the image alone.
        jsd: weight of the Jensen-Shannon divergence between the answers to the three views; 0 shows one mixture alone,
            as the authors do with ``--no-jsd``.
        all_ops: whether color, contrast, brightness and sharpness are among the operations.
    """

    label = "AugMix"
    source = "Hendrycks et al., 2020"
    defaults = "cifar.py of google-research/augmix"
    draws = "chains of operations for each image"
    asks = "the answers to three views"
    passes = 3.0
    alone = True
    poll: Poll

    def __init__(
        self,
        *,
        severity: float = 3.0,
        width: int = 3,
        depth: int = -1,
        alpha: float = 1.0,
        jsd: float = 12.0,
        all_ops: bool = False,
    ) -> None:
        super().__init__()
        if not LEAST_LEVEL <= severity <= MOST_LEVEL:
            raise ValueError(f"severity is {severity}: it must lie between {LEAST_LEVEL} and {MOST_LEVEL}")
        if width < 1:
            raise ValueError(f"width is {width}: a mixture has at least 1 chain")
        if depth < 1 and depth != -1:
            raise ValueError(f"depth is {depth}: it must be at least 1, or -1 to draw it for each chain")
        self.severity = severity
        self.width = width
        self.depth = depth
        self.alpha = check_alpha(alpha)
        self.jsd = check_weight("jsd", jsd)
        self.all_ops = all_ops
        self.poll = Poll()
        self._sure = False

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: the images are not 8-bit; of a process, the first batch is asked.
        """
        mixtures = 2 if self.jsd else 1
        x = batch.x.repeat(mixtures, 1, 1, 1)
        draws = self.draw(len(x))
        chains = augment(self.pictures(batch.x).repeat(mixtures, 1, 1, 1), draws)
        mixed = mixture(x, chains, draws.weights, draws.lam)
        if not self.jsd:
            return Mixed(laid_out_as(batch.x, mixed), batch.y)
        return Views(laid_out_as(batch.x, torch.cat([batch.x, mixed])), batch.y, self.jsd)

    def notes(self) -> Mapping[str, float | str]:
        """What its steps cost; how often this process was asked whether images are 8-bit."""
        views = 3 if self.jsd else 1
        return costs(images=views, forward=views, backward=views) | {"polls": self.poll.count}

    def draw(self, count: int) -> Draws:
        """All that is random in so many mixtures."""
        chains = count * self.width
        most = DRAWN_DEPTH if self.depth == -1 else self.depth
        least = 1 if self.depth == -1 else self.depth
        shape = (most, chains)
        uniform = torch.rand(2, *shape, generator=self.generator, dtype=torch.float64)
        return Draws(
            lam=draw_lam(count, 2, self.alpha, self.generator),
            weights=draw_lam(count, self.width, self.alpha, self.generator),
            depths=torch.randint(least, most + 1, (chains,), generator=self.generator),
            ops=torch.randint(len(NAMES) if self.all_ops else COMMON, shape, generator=self.generator),
            levels=LEAST_LEVEL + (self.severity - LEAST_LEVEL) * uniform[0],
            coins=uniform[1],
        )

    def pictures(self, x: Tensor) -> Tensor:
        """Images in [0, 1] as 8-bit pictures, (N, C, H, W) uint8.

        Raises:
            ValueError: they are none.
        """
        pictures = (255 * x.float()).round().clamp(0, 255).byte().contiguous()
        if not self._sure:
            worst = ((pictures / 255).to(x.dtype) - x).abs().max()
            self._sure = bool(self.poll(worst <= OFF_GRID))
            if not self._sure:
                raise ValueError(
                    "the images are not 8-bit pictures, whose values are 0, 1, ..., 255 of 255, and augmix computes "
                    "with nothing else; give it images that are only cropped, flipped or rounded to 8 bits"
                )
        return pictures


def strengths(ops: Tensor, levels: Tensor, coins: Tensor, *, height: int, width: int) -> Tensor:
    """What `methods.pictures.apply` is to be given for drawn operations; float64, shaped as all three draws."""
    sides = {"translate_x": width / 3, "translate_y": height / 3}
    rows = [(sides.get(name, scale.most), scale.start, scale.whole, scale.sign) for name, scale in SCALES.items()]
    most, start, whole, sign = torch.tensor(rows, dtype=torch.float64)[ops].unbind(-1)
    added = levels * most / MOST_LEVEL
    added = torch.where(whole > 0, added.trunc(), added)
    return start + torch.where(sign == 0, torch.where(coins > 0.5, -1.0, 1.0), sign) * added


def augment(pictures: Tensor, draws: Draws) -> Tensor:
    """What the chains make of pictures, (M, C, H, W) uint8: one chain of each after the other, (M W, C, H, W)."""
    height, width = pictures.shape[2:]
    strength = strengths(draws.ops, draws.levels, draws.coins, height=height, width=width)
    chains = pictures.repeat_interleave(draws.weights.shape[1], dim=0)
    for position, ops in enumerate(draws.ops.tolist()):
        asked = zip(ops, draws.depths.tolist(), strict=True)
        names = [NAMES[op] if position < depth else None for op, depth in asked]
        chains = apply(chains, names, strength[position])
    return chains


def mixture(x: Tensor, chains: Tensor, weights: Tensor, lam: Tensor) -> Tensor:
    """Images mixed with the weighted sums of their chains, (M, C, H, W).

    Args:
        x: (M, C, H, W) images in [0, 1].
        chains: (M W, C, H, W) uint8, W of each image one after the other.
        weights: (M, W) of the chains; rows sum to 1.
        lam: (M, 2) of the image and of that sum.
    """
    weights, lam = beside(x, weights, lam)
    shares = (lam[:, 1:] * weights / 255)[:, :, None, None, None].unbind(1)
    mixed = x.float() * lam[:, :1, None, None]
    for share, chain in zip(shares, chains.view(len(x), -1, *x.shape[1:]).unbind(1), strict=True):
        mixed.addcmul_(chain, share)
    return mixed.to(x.dtype)


def divergence(logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence of the answers to V views, (V, N, G) logits, in nats; the mean over the batch."""
    log_p = logits.log_softmax(2)
    # By way of logarithms the gradient is finite also where a probability is 0, where the authors' is NaN.
    p = log_p.exp()
    log_mean = p.mean(0).clamp(LEAST_P, 1).log()
    return (p * (log_p - log_mean)).sum(2).mean()
