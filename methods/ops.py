"""Draws, and plain functions of them, that mixers share.

Everything random is drawn here first, on the CPU, so that a seed means the same draws on every device; all else takes
its draws as arguments, so that a published mix can be repeated from its recorded draws. Weights have a column per
image of a mix, and column 0 weighs the image itself. One row of weights holds for the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from scipy import special
from torch import Tensor

Generator = torch.Generator | None
"""A CPU generator; None: torch's global one."""


# ---- options, checked when a mixer is built


def check_alpha(alpha: float, *, option: str = "alpha") -> float:
    """``alpha`` itself, the parameter of a Beta or Dirichlet distribution; 0 means that nothing is mixed.

    Raises:
        ValueError: negative or not finite.
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"{option} is {alpha}: it must be a finite number, at least 0; take 0 to mix nothing")
    return alpha


def check_weight(option: str, weight: float, *, most: float = math.inf, why: str = "") -> float:
    """``weight`` itself, a mixer's ``option`` that is neither negative nor infinite, nor more than ``most``.

    Raises:
        ValueError: it is; ``why`` says what is wrong with more than ``most``.
    """
    if not 0 <= weight < math.inf or weight > most:
        bounds = "a finite number, at least 0" if most == math.inf else f"between 0 and {most:g}"
        raise ValueError(f"{option} is {weight}: it must be {bounds}{why and f'; {why}'}")
    return weight


def check_prob(prob: float, *, option: str = "prob") -> float:
    """``prob`` itself, the probability that a batch (or an image) is mixed, which is the mixer's ``option``.

    Raises:
        ValueError: outside [0, 1].
    """
    if not 0 <= prob <= 1:
        raise ValueError(f"{option} is {prob}: it must lie between 0 and 1; take 1 to mix every batch")
    return prob


def check_choice(option: str, value: str, choices: Sequence[str]) -> str:
    """``value`` itself, one of the words that ``option`` may be.

    Raises:
        ValueError: another word.
    """
    if value not in choices:
        raise ValueError(f"{option} is '{value}': it must be one of {', '.join(choices)}")
    return value


# ---- draws, on the CPU


def draw_partners(count: int, k: int, generator: Generator) -> Tensor:
    """Whom each image of a batch is mixed with: (count, k) int64 indices into the batch.

    Column 0 is the image itself, every other column a random permutation; so an image may meet itself.
    """
    permutations = [torch.randperm(count, generator=generator) for _ in range(k - 1)]
    return torch.stack([torch.arange(count), *permutations], dim=1)


def draw_lam(count: int, k: int, alpha: float, generator: Generator) -> Tensor:
    """Mixing coefficients: (count, k) float32, each row from Dirichlet(alpha), which is Beta(alpha, alpha) at k = 2.

    ``count`` is 1 for a method that draws once per batch. With alpha <= 0 each row is (1, 0, ...): the image itself.
    """
    if alpha <= 0:
        return F.one_hot(torch.zeros(count, dtype=torch.int64), k).float()
    # torch's own Beta and Dirichlet take no generator: uniform numbers go through the inverse distribution function.
    if k == 2:
        uniform = torch.rand(count, generator=generator, dtype=torch.float64)
        return pair(torch.from_numpy(special.betaincinv(alpha, alpha, uniform.numpy())))
    uniform = torch.rand(count, k, generator=generator, dtype=torch.float64)
    gamma = torch.from_numpy(special.gammaincinv(alpha, uniform.numpy()))
    # At tiny alpha all gammas of a row can underflow to 0; the largest would then dwarf the others: it takes all.
    winner = F.one_hot(uniform.argmax(1), k).double()
    gamma = torch.where(gamma.sum(1, keepdim=True) > 0, gamma, winner)
    return (gamma / gamma.sum(1, keepdim=True)).float()


def beside(x: Tensor, *draws: Tensor) -> tuple[Tensor, ...]:
    """The draws, copied to the device of ``x`` without waiting for it."""
    return tuple(draw.to(x.device, non_blocking=True) for draw in draws)


# ---- functions of draws


def pair(share: Tensor) -> Tensor:
    """The weights of a mix of two, (count, 2) float32, from the image's own share, (count,) in [0, 1]."""
    return torch.stack([share, 1 - share], dim=1).float()


def blend(x: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """Sum of each image and its partners, weighted by ``lam``, in the memory format of ``x``.

    Args:
        x: (N, ...) images, features or labels.
        partners: (N, k) indices into the batch, k at least 2; column 0 is the image itself.
        lam: (N, k), or (1, k) for the whole batch.
    """
    if x.is_cpu and x.ndim > 2 and x.dtype == lam.dtype and not x.requires_grad:
        return _blend_in_one_pass(x, partners, lam)
    columns = lam.view(len(lam), -1, *[1] * (x.ndim - 1)).unbind(1)
    # One partner after the other: gathering all k at once loses channels_last and takes several times as long.
    mixed = chosen(x, partners[:, -1]).mul_(columns[-1])
    for column in range(len(columns) - 2, 0, -1):
        mixed.addcmul_(chosen(x, partners[:, column]), columns[column])
    return mixed.addcmul_(x, columns[0])


def _blend_in_one_pass(x: Tensor, partners: Tensor, lam: Tensor) -> Tensor:
    """The same sums, the partners first. On the CPU time goes into memory: it is read and written only once."""
    lying = _as_it_lies(x)
    weights = lam.expand(partners.shape).flip(1)
    mixed = F.embedding_bag(partners.flip(1), lying.flatten(1), per_sample_weights=weights, mode="sum")
    return _by_channels(mixed.view(lying.shape), x)


def chosen(x: Tensor, images: Tensor) -> Tensor:
    """Those images of x, (N, ...), by their indices: (M, ...), in its memory format."""
    return _by_channels(_as_it_lies(x).index_select(0, images), x)


def channels_lie_last(x: Tensor) -> bool:
    """Whether images, (N, C, H, W), are laid out in memory so."""
    return x.ndim == 4 and x.stride(1) == 1


def _as_it_lies(x: Tensor) -> Tensor:
    """Images, (N, H, W, C), if their channels lie last; else as they are, and so is what is no image."""
    return x.permute(0, 2, 3, 1) if channels_lie_last(x) else x


def _by_channels(lying: Tensor, x: Tensor) -> Tensor:
    """What `_as_it_lies` makes of x, with its axes back in place."""
    return lying.permute(0, 3, 1, 2) if channels_lie_last(x) else lying


def soft_labels(y: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    """Labels of mixed images, (N, G) float32: labels (N, G) weighted as `blend` weighs images; rows sum to 1."""
    return blend(y.float(), partners, weights)


# ---- values that the host must know


class Poll:
    """Asks a tensor for its one value, and counts how often: on a GPU the host waits each time.

    Attributes:
        count: of the questions so far.
    """

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, value: Tensor) -> float:
        """The value."""
        self.count += 1
        return value.item()

    def values(self, of: Tensor) -> Tensor:
        """All values of a tensor, on the CPU: one question."""
        self.count += 1
        return of.cpu()


def costs(*, images: float = 1, forward: float = 1, backward: float = 1) -> dict[str, float]:
    """What a mixer is to note of what its steps cost, where plain training's is 1 each.

    Args:
        images: how many the network learns from, for each image of the batch.
        forward: passes of a network of its size, all networks together.
        backward: likewise; one that only goes to the images, and not to weights, is half of one.
    """
    return {"images_per_sample": images, "forward_passes": forward, "backward_passes": backward}


def laid_out_as(x: Tensor, images: Tensor) -> Tensor:
    """The images, (N, C, H, W), in the memory format of ``x``."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


# ---- networks of a mixer's own


def planes(maps: Tensor, values: Tensor) -> Tensor:
    """Maps (N, k, H, W), and behind them a constant plane for each column of values (N, j); in channels_last."""
    constant = values[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    return torch.cat([maps, constant], dim=1).contiguous(memory_format=torch.channels_last)


def unhalved(x: Tensor) -> AbstractContextManager[object]:
    """A context in which nothing on the device of ``x`` is in half precision, whatever autocast surrounds it."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def rectified(x: Tensor) -> Tensor:
    """The larger of each number and 0, NaN stays; ``x`` itself may be overwritten."""
    # In place float32 is quicker on the CPU by a thirtieth of a training step, and bfloat16 slower by a twentieth.
    return F.relu(x, inplace=x.dtype == torch.float32)


def computing_in(precision: torch.dtype, x: Tensor) -> AbstractContextManager[object]:
    """A context in which networks compute in ``precision`` on the device of ``x``; float32 leaves all as it is."""
    return nullcontext() if precision == torch.float32 else torch.autocast(x.device.type, precision)
