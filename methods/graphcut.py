"""Labels for the blocks of grids at the least cost: what each label costs at a block, and neighbours that differ.

All numbers are whole, int64, and all is done for N grids at once. ``costs``, (N, H, W, n), are those of each label at
each block; ``down``, (N, H - 1, W), and ``right``, (N, H, W - 1), are the weights of the edges to the block below and
to the one on the right, none of them negative. ``poll`` counts how often the device was asked for a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.maxflow import Offset, sink_side
from methods.ops import Poll

BESIDE = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Rows and columns to the neighbours: below, above, on the right, on the left."""


def swap(costs: Tensor, down: Tensor, right: Tensor, distances: Tensor, poll: Poll) -> Tensor:
    """Labels that no exchange of two labels makes cheaper, (N, H, W) int64, by alpha-beta swap (Boykov et al., 2001).

    Lowers the sum of ``costs``, and over all edges of weight times distance of the two labels, from label 0 everywhere.
    A cycle goes through the pairs of labels, the lower one ascending and for each the higher one descending, and deals
    the blocks that hold either out anew, as cheaply as can be; ties go to the lower label. A grid is done after a cycle
    that did not lower its sum. For two labels that is the minimum. It is what PuzzleMix's and Co-Mixup's authors have
    gco 3.0 do.

    Args:
        costs: see above.
        down: see above.
        right: see above.
        distances: (n, n), or (N, n, n) where grids differ; symmetric, not negative, 0 between a label and itself.
        poll: see above.

    Raises:
        ValueError: weights are negative, or too large for the CPU's solver.
    """
    problem = _Problem(costs, to_neighbours(down, right), distances.expand(len(costs), -1, -1))
    pairs = list(combinations(range(costs.shape[3]), 2))
    labels = torch.zeros_like(costs[..., 0])
    energy = problem.energy(labels)
    lowered = torch.ones_like(energy, dtype=torch.bool)
    dealt: dict[tuple[int, int], Tensor] = {}
    while poll(lowered.any()):
        for low, high in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
            # What has not changed since the same pair was dealt out would be dealt out alike.
            stale = (labels != dealt[low, high]).flatten(1).any(1) if (low, high) in dealt else lowered
            labels = problem.deal(labels, low, high, lowered & stale, poll)
            dealt[low, high] = labels
        before, energy = energy, problem.energy(labels)
        lowered = lowered & (energy < before)
    return labels


def exact(costs: Tensor, down: Tensor, right: Tensor, poll: Poll) -> Tensor:
    """Labels of the least cost, (N, H, W) int64, where neighbours pay weight times squared difference of their labels.

    One cut through n - 1 layers of nodes, of which the a-th says whether a block's label is at least a (Ishikawa,
    2003). Of several best answers it is the one with the lowest labels.

    Raises:
        ValueError: weights are negative, or weights or costs too large for the CPU's solver.
    """
    layers = costs.shape[3] - 1
    weights = to_neighbours(down, right)
    edges = weights.sum(0)
    # (x - y)^2 is the number of pairs, a layer of one block and a layer of the other, that disagree, and of each label
    # alone x^2 - layers * x: the latter grows by 2 x - 1 - layers at label x.
    alone = 2 * torch.arange(1, layers + 1, device=costs.device) - 1 - layers
    supply = (costs.diff(dim=3) + edges[..., None] * alone).permute(0, 3, 1, 2)
    # Nothing is worth a label that is at least a + 1 and not at least a.
    never = layers * ((supply.abs() + layers * edges[:, None]).amax() + 1)
    arcs: dict[Offset, Tensor] = {(1, 0, 0): never * _leading(layers, 1, supply), (-1, 0, 0): 0 * supply}
    for step in range(1 - layers, layers):
        for (rows, columns), forth, back in zip(BESIDE[::2], weights[::2], weights[1::2], strict=True):
            arcs[step, rows, columns] = forth[:, None] * _leading(layers, step, supply)
            arcs[-step, -rows, -columns] = back[:, None] * _leading(layers, -step, supply)
    return sink_side(supply, torch.stack(list(arcs.values())), list(arcs), poll).sum(1)


def _leading(layers: int, step: int, like: Tensor) -> Tensor:
    """1 in the layers from which so many steps lead to another layer, 0 in the others, (N, layers, H, W)."""
    ends = torch.arange(layers, device=like.device)[:, None, None] + step
    return ((ends >= 0) & (ends < layers)).long().expand_as(like)


def cut(gain: Tensor, weights: Tensor, poll: Poll) -> Tensor:
    """Which blocks take the second of two labels, (N, H, W) bool; of several best answers the one with the fewest.

    Args:
        gain: (N, H, W), how much more the second label costs than the first.
        weights: (4, N, H, W), what it costs to differ from each neighbour, as `to_neighbours` gives it.
        poll: see above.

    Raises:
        ValueError: weights are negative, or too large for the CPU's solver.
    """
    edges = weights.sum(0)
    if poll(((gain >= edges) | (gain < -edges)).all()):  # no block would do what its neighbours do
        return gain < 0
    # A block that outweighs its edges does so however large its own cost is.
    supply = torch.minimum(torch.maximum(gain, -edges - 1), edges)
    return sink_side(supply[:, None], weights[:, :, None], [(0, *offset) for offset in BESIDE], poll)[:, 0]


@dataclass(frozen=True)
class _Problem:
    """What labels cost: ``weights``, (4, N, H, W), as `to_neighbours` gives them; ``distances``, (N, n, n)."""

    costs: Tensor
    weights: Tensor
    distances: Tensor

    def energy(self, labels: Tensor) -> Tensor:
        """The sum that each grid pays for its labels, (N,)."""
        own = self.costs.gather(3, labels[..., None])[..., 0]
        apart = self.distances[self._grids, labels[None], neighbours(labels)]
        return (own + (self.weights * apart)[::2].sum(0)).sum((1, 2))

    def deal(self, labels: Tensor, low: int, high: int, grids: Tensor, poll: Poll) -> Tensor:
        """The labels after the blocks of these grids, (N,) bool, that hold either of two have taken the better one."""
        held = ((labels == low) | (labels == high)) & grids[:, None, None]
        dealing = neighbours(held)
        pull = (self.distances[:, high] - self.distances[:, low])[self._grids, neighbours(labels)]
        gain = self.costs[..., high] - self.costs[..., low] + (self.weights * pull * ~dealing).sum(0)
        weights = self.weights * self.distances[:, low, high, None, None] * (held & dealing)
        return torch.where(held, torch.where(cut(gain * held, weights, poll), high, low), labels)

    @property
    def _grids(self) -> Tensor:
        return torch.arange(len(self.costs), device=self.costs.device)[:, None, None]


def to_neighbours(down: Tensor, right: Tensor) -> Tensor:
    """The weights of each block's edges in the order of `BESIDE`, (4, N, H, W); 0 where there is no neighbour."""
    above, left = F.pad(down, (0, 0, 1, 0)), F.pad(right, (1, 0))
    return torch.stack([F.pad(down, (0, 0, 0, 1)), above, F.pad(right, (0, 1)), left])


def neighbours(values: Tensor) -> Tensor:
    """What each block's neighbours hold in the order of `BESIDE`, (4, N, H, W); anything where there is none."""
    return torch.stack([values.roll((-rows, -columns), (1, 2)) for rows, columns in BESIDE])
