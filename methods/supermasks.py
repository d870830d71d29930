"""Masks under which a teacher sees each image of a set in their mix: what SuperMix solves, function by function.

Every set is on its own. Its loss is brought to 0 by Newton steps along its smoothed gradient, until the classes that
the teacher finds likeliest in the mix are those of the set. So does the authors' code (alldbi/SuperMix at d63d25a); but
here a step is one pass forth and one back, and a set that has finished costs nothing: on the CPU at once, elsewhere
once it is asked which have. On a GPU a search may differ from run to run: bilinear resizing adds gradients up in any
order there, and some searches make much of the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.ops import Poll, beside, unhalved

SHORTEST, LONGEST = 1e-4, 2000.0
"""Between these a step's length is kept."""

PATIENCE: Mapping[str, int] = MappingProxyType({"cpu": 1})
"""After how many steps it is asked which sets are done, by the kind of device."""

PATIENCE_ELSEWHERE = 4
"""On all others: a GPU waits each time."""

Teacher = Callable[[Tensor], Tensor]
"""(N, C, H, W) images -> (N, G) logits, each image's on its own: a network in eval mode."""


class Sets(NamedTuple):
    """Sets of k images each, and what a teacher should see in their mixes.

    Attributes:
        images: the first images of all sets, (N, C, H, W), their second ones, and so on.
        target: (N, G), how much of each class.
        wanted: (N, k) int64, ascending, the classes that should be the likeliest.
    """

    images: tuple[Tensor, ...]
    target: Tensor
    wanted: Tensor

    def take(self, rows: Tensor) -> Sets:
        """Some of the sets, by their numbers."""
        return Sets(tuple(image[rows] for image in self.images), self.target[rows], self.wanted[rows])


@dataclass(frozen=True, kw_only=True)
class Search:
    """How masks are looked for.

    Attributes:
        mask_width: side of the masks that are varied, in pixels.
        kernel: (n,), by which their gradient is smoothed along either side; None: not at all.
        sparsity: weight of masks that are neither 0 nor 1.
        max_iter: most steps of a set.
    """

    mask_width: int
    kernel: Tensor | None
    sparsity: float
    max_iter: int


class Solved(NamedTuple):
    """What came of sets.

    Attributes:
        variables: (N, k, w, w), of which `full_masks` makes the masks.
        logits: (N, G), what the teacher says of the mixes.
        finished: (N,) bool, whether its likeliest classes are those that were wanted.
        steps: (N,) int64, how many each set took.
    """

    variables: Tensor
    logits: Tensor
    finished: Tensor
    steps: Tensor


def smoothing_kernel(sigma: float) -> Tensor | None:
    """A Gaussian in floor(5 sigma) float64 numbers that sum to 1; None where that is less than two: no smoothing."""
    length = int(5 * sigma)
    if length < 2:
        return None
    offsets = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
    weights = (-0.5 * (5 * offsets / length) ** 2).exp()
    return weights / weights.sum()


def smoothed(maps: Tensor, kernel: Tensor | None) -> Tensor:
    """Maps (N, k, w, w), each smoothed along both sides; beyond its border there is 0."""
    if kernel is None:
        return maps
    (kernel,) = beside(maps, kernel.to(maps.dtype))
    right = len(kernel) // 2
    left = len(kernel) - 1 - right
    planes = F.pad(maps.flatten(0, 1)[:, None], (left, right, left, right))
    with unhalved(maps):  # convolutions that it would run in bfloat16
        planes = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return planes.view_as(maps)


def full_masks(variables: Tensor, height: int, width: int) -> Tensor:
    """How much of each image is shown, (N, k, height, width), summing to 1 over the k, of variables (N, k, w, w).

    They are brought to size (bilinear, half-pixel centres) before each becomes its logistic function's share of all.
    """
    large = F.interpolate(variables, size=(height, width), mode="bilinear", align_corners=False)
    # A softmax of the logarithms is the quotient of the functions, which would be 0 / 0 where all are very small.
    return F.logsigmoid(large).softmax(1)


def blended(images: tuple[Tensor, ...], masks: Tensor) -> Tensor:
    """The sum of k images, (N, C, H, W) each, weighted by masks (N, k, H, W)."""
    first, *others = images
    mixed = first * masks[:, :1]
    for place, image in enumerate(others, 1):
        mixed = mixed.addcmul(image, masks[:, place : place + 1])
    return mixed


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """How far answers (N, G) are from what is aimed at, (N, G): Kullback and Leibler's, (N,), in nats."""
    return (torch.xlogy(target, target) - target * logits.log_softmax(1)).sum(1)


def indecision(masks: Tensor) -> Tensor:
    """How far masks (N, k, H, W) are from 0 and 1, (N,): the mean of m (1 - m)."""
    return (masks * (1 - masks)).mean((1, 2, 3))


def required(target: Tensor, k: int) -> Tensor:
    """The k classes that should be the likeliest, (N, k) ascending: those of the largest entries of a target (N, G).

    Where images of a set share a class, the authors fill up with any other; here it is the one of the lowest number.
    """
    return target.sort(stable=True, dim=1, descending=True).indices[:, :k].sort(1).values


def shows(logits: Tensor, wanted: Tensor) -> Tensor:
    """Whether the likeliest classes of answers (N, G) are those that are wanted, (N, k) ascending; (N,) bool."""
    return (logits.topk(wanted.shape[1], dim=1).indices.sort(1).values == wanted).all(1)


def step_length(loss: Tensor, dot: Tensor) -> Tensor:
    """How far to go, (N,), for a loss (N,) to become 0, were it linear with a slope of ``dot``, (N,)."""
    return (loss.abs() / (dot + 1e-10)).clamp(SHORTEST, LONGEST)


def stepped(variables: Tensor, gradient: Tensor, loss: Tensor, kernel: Tensor | None) -> Tensor:
    """The variables of masks, (N, k, w, w), after a step against their smoothed gradient."""
    direction = smoothed(gradient, kernel)
    length = step_length(loss, (gradient * direction).sum((1, 2, 3)))
    return variables - length[:, None, None, None] * direction


class Seen(NamedTuple):
    """Variables of masks, (N, k, w, w), what the teacher says of the mixes, (N, G), and their loss, (N,)."""

    variables: Tensor
    logits: Tensor
    loss: Tensor


def see(teacher: Teacher, sets: Sets, variables: Tensor, sparsity: float) -> Seen:
    """Show the mixes to a teacher: one pass, whose graph from the variables to the loss is kept where one is built."""
    variables = variables.detach().requires_grad_(torch.is_grad_enabled())
    masks = full_masks(variables, *sets.images[0].shape[2:])
    logits = teacher(blended(sets.images, masks)).to(variables.dtype)
    return Seen(variables, logits, divergence(logits, sets.target) + sparsity * indecision(masks))


class Working(NamedTuple):
    """The sets that are still at work, those that have finished since the device was last asked among them.

    Attributes:
        rows: (A,) int64, their numbers among all.
        sets: themselves.
        going: (A,) bool, whether they go on.
    """

    rows: Tensor
    sets: Sets
    going: Tensor

    def take(self, places: Tensor) -> Working:
        """Some of them."""
        return Working(self.rows[places], self.sets.take(places), self.going[places])


def solve(teacher: Teacher, sets: Sets, search: Search, *, allowed: int, poll: Poll) -> Solved:
    """Look for the masks of all sets, until all but ``allowed`` of them have finished.

    Raises:
        ValueError: the teacher's answers, or the images, are not finite.
    """
    first, side = sets.images[0], search.mask_width
    rows = torch.arange(len(first), device=first.device)
    working = Working(rows, sets, torch.ones_like(rows, dtype=torch.bool))
    patience = PATIENCE.get(first.device.type, PATIENCE_ELSEWHERE)
    with torch.enable_grad():
        seen = see(teacher, sets, first.new_zeros(len(first), len(sets.images), side, side), search.sparsity)
    if not poll(seen.logits.isfinite().all()):
        raise ValueError("the teacher's answers are NaN or infinite: its training diverged, or the images hold NaN")
    solved = Solved(
        seen.variables.detach().clone(), seen.logits.detach().clone(), ~working.going, torch.zeros_like(rows)
    )
    for step in range(search.max_iter):
        asked = step == 1 or (step > 0 and step % patience == 0)  # many finish with the first step
        left = poll.values(working.going).nonzero()[:, 0] if asked else None
        if left is not None and len(left) == 0:
            break
        variables, gradient, loss = seen.variables.detach(), slopes(seen, working.going), seen.loss.detach()
        if left is not None and len(left) < len(variables):
            (left,) = beside(first, left)
            variables, gradient, loss, working = variables[left], gradient[left], loss[left], working.take(left)
        # Where the gradient is 0, of a set that goes on no more, nothing moves.
        variables = stepped(variables, gradient, loss, search.kernel)
        with torch.set_grad_enabled(step + 1 < search.max_iter):
            seen = see(teacher, working.sets, variables, search.sparsity)
        working = working._replace(going=settle(solved, working, seen, allowed))
    return solved


def slopes(seen: Seen, going: Tensor) -> Tensor:
    """The gradient of the losses of the sets that go on, (N,) bool, to the variables; 0 for all others."""
    (gradient,) = torch.autograd.grad(seen.loss, seen.variables, going.to(seen.loss.dtype))
    return gradient


def settle(solved: Solved, working: Working, seen: Seen, allowed: int) -> Tensor:
    """Write down what a step came to; which of the sets go on, (A,) bool: none where few enough are left."""
    rows, going = working.rows, working.going
    done = solved.finished[rows] | (going & shows(seen.logits, working.sets.wanted))
    solved.variables[rows], solved.logits[rows] = seen.variables.detach(), seen.logits.detach()
    solved.steps[rows] += going
    solved.finished[rows] = done
    return ~done & ((~done).sum() > allowed)
