"""Labels for the blocks of a few small grids at the least cost, where there are many labels: on the CPU, in numpy.

What `graphcut.swap` finds, for neighbours that all weigh the same. With 23 labels there are 253 pairs to deal out, and
all but a few of them change nothing; here each grid goes on to its own next pair that could. Numbers are whole, in
float64, since products of matrices are quick in it; below 2^53 they are exact.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from methods.graphcut import BESIDE, to_neighbours
from methods.maxflow import by_scipy

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

EXACT = 2**53
"""Below it whole numbers are exact in float64."""
FEW = 16
"""Blocks up to which a cut is found by going through all that a row could be."""
NEVER = 2.0**60
"""Costs more than anything else."""


def swap(costs: Floats, weight: int, distances: Floats) -> Integers:
    """Labels of N grids of B x B blocks by alpha-beta swap from label 0, (N, B * B); see `graphcut.swap`.

    A pair is left out where dealing it out provably changes nothing: where none of its blocks would change to the other
    label even if all that it could gain at its neighbours were gained. It is so for every pair of a label that is
    dearer by more than the edges of a block weigh, once no block holds it.

    Args:
        costs: (N, B * B, n), of each label at each block.
        weight: of each edge.
        distances: (N, n, n), symmetric, not negative, 0 between a label and itself.
    """
    grids = _Grids(costs, weight * distances)
    low, high, rank = _pairs(costs.shape[2])
    labels = np.zeros(costs.shape[:2], np.int64)
    start = np.zeros(len(costs), np.int64)
    energy, view = grids.energy(labels), grids.look(labels)
    while True:
        place = np.where(view.stirred, rank[labels], len(low)).reshape(len(costs), -1)
        number = np.where(place >= start[:, None], place, len(low)).min(1)
        ended = number == len(low)
        over = ended & (start > 0) & (place < len(low)).any(1)
        if over.any():  # a cycle is; another follows one that lowered the sum
            after = grids.energy(labels)
            again = over & (after < energy)
            energy, start = np.where(again, after, energy), np.where(again, 0, start)
            if again.any():
                continue
        if ended.all():
            return labels
        pair = np.where(ended, 0, number)
        labels = grids.deal(labels, view, low[pair], high[pair], ~ended)
        view = grids.look(labels)
        start = np.where(ended, start, number + 1)


@dataclass(frozen=True)
class _View:
    """What each label would cost at each block as things stand, and whether it could be taken, (N, B * B, n) each.

    ``near`` is how many neighbours hold it.
    """

    near: Floats
    cost: Floats
    stirred: Flags


@dataclass(frozen=True)
class _Grids:
    """The problem: costs of labels, and of two labels beside each other."""

    costs: Floats
    apart: Floats

    def energy(self, labels: Integers) -> Floats:
        """The sum that each grid pays, (N,)."""
        held = _identity(self.costs.shape[2])[labels]
        pairs = (_adjacent(labels.shape[1]) @ held) @ self.apart
        return np.asarray((held * (self.costs + pairs / 2)).sum((1, 2)))

    def look(self, labels: Integers) -> _View:
        """The grids as they stand."""
        count = self.costs.shape[2]
        grid, block = self._places
        near = _adjacent(labels.shape[1]) @ _identity(count)[labels]
        cost = self.costs + near @ self.apart
        # Neighbours of the same label could come along, so that the edge to them would cost nothing.
        alike = near[grid, block, labels][..., None] * self.apart[grid, labels]
        gain = cost - cost[grid, block, labels][..., None] - alike
        return _View(near, cost, gain < (np.arange(count) < labels[..., None]))

    def deal(self, labels: Integers, view: _View, low: Integers, high: Integers, grids: Flags) -> Integers:
        """The labels after the blocks of these grids that hold either of their two have taken the better one."""
        number = np.arange(len(labels))
        held = ((labels == low[:, None]) | (labels == high[:, None])) & grids[:, None]
        apart = self.apart[number, low, high][:, None]
        # Of an edge between two of these blocks the cut decides.
        own = view.cost[number, :, high] - view.cost[number, :, low]
        gain = own - apart * (view.near[number, :, low] - view.near[number, :, high])
        return np.where(held, np.where(cut(gain, apart, held), high[:, None], low[:, None]), labels)

    @property
    def _places(self) -> tuple[Integers, Integers]:
        return np.arange(len(self.costs))[:, None], np.arange(self.costs.shape[1])[None]


def cut(gain: Floats, weight: Floats, held: Flags) -> Flags:
    """Which of the blocks that are held take the second of two labels, (N, B * B); of several best answers the fewest.

    Args:
        gain: (N, B * B), how much more the second label costs than the first.
        weight: (N, 1), of each edge between two blocks that are held.
        held: (N, B * B).
    """
    if gain.shape[1] <= FEW:
        return _by_rows(gain, weight, held)
    adjacent = _adjacent(gain.shape[1])
    low, high, open_ = np.zeros_like(held), np.zeros_like(held), held
    while True:
        pull = gain + weight * ((low.astype(float) - high) @ adjacent)
        edges = weight * (open_.astype(float) @ adjacent)
        stays, goes = open_ & (pull >= edges), open_ & (pull < -edges)
        if not (stays | goes).any():
            break
        low, high, open_ = low | stays, high | goes, open_ & ~(stays | goes)
    return high | _by_flow(pull, weight, open_) if open_.any() else high


def _by_rows(gain: Floats, weight: Floats, held: Flags) -> Flags:
    """`cut` by the least cost of all rows down to each one, for every way in which that one could be."""
    side = int(held.shape[1] ** 0.5)
    ways, beside, below = _ways(side)
    # Of equal sums the one with the fewest blocks is less by so many parts of one.
    parts = held.shape[1] + 1
    own = np.where(held, gain * parts + 1, NEVER).reshape(-1, side, side) @ ways
    among = np.where(held, weight * parts, 0).reshape(-1, side, side)
    own += np.minimum(among[:, :, 1:], among[:, :, :-1]) @ beside
    seams = (np.minimum(among[:, 1:], among[:, :-1]) @ below).reshape(-1, side - 1, *[ways.shape[1]] * 2)
    least, came = own[:, 0], []
    for row in range(1, side):
        sums = least[:, :, None] + seams[:, row - 1]
        came.append(sums.argmin(1))
        least = sums.min(1) + own[:, row]
    grid = np.arange(len(held))
    chosen = [least.argmin(1)]
    for before in reversed(came):
        chosen.append(before[grid, chosen[-1]])
    return np.asarray(ways.T[np.stack(chosen[::-1], 1)].reshape(held.shape) > 0)


def _by_flow(gain: Floats, weight: Floats, held: Flags) -> Flags:
    """`cut` by maximum flow."""
    side = int(held.shape[1] ** 0.5)
    among = torch.from_numpy(held).view(-1, side, side)
    edge = torch.from_numpy(weight.astype(np.int64)).view(-1, 1, 1)
    weights = to_neighbours(edge * (among[:, :-1] & among[:, 1:]), edge * (among[:, :, :-1] & among[:, :, 1:]))
    supply = torch.from_numpy((gain * held).astype(np.int64)).view(-1, 1, side, side)
    taken = by_scipy(supply, weights[:, :, None], [(0, *offset) for offset in BESIDE])
    return np.asarray(held & taken.numpy().reshape(held.shape))


@functools.lru_cache(maxsize=64)
def _identity(count: int) -> Floats:
    """What a row of labels is looked up in, to be a row of zeros and a one."""
    return np.eye(count)


@functools.lru_cache(maxsize=16)
def _adjacent(blocks: int) -> Floats:
    """1 where two blocks of a square grid are neighbours, (blocks, blocks)."""
    row, column = np.divmod(np.arange(blocks), int(blocks**0.5))
    steps = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    return np.asarray(steps == 1, float)


@functools.lru_cache(maxsize=4)
def _ways(side: int) -> tuple[Floats, Floats, Floats]:
    """All that a row of two labels can be, a column each: its blocks, (side, 2^side); where they differ from the next.

    And where they differ from the row above, (side, 2^side * 2^side).
    """
    ways = (np.arange(2**side) >> np.arange(side)[:, None] & 1).astype(float)
    beside = np.abs(np.diff(ways, axis=0))
    below = np.abs(ways[:, :, None] - ways[:, None]).reshape(side, -1)
    return ways, beside, below


@functools.lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[Integers, Integers, Integers]:
    """The lower and the higher label of each pair in the order of a cycle, and each pair's place in it, (n, n)."""
    low, high = np.triu_indices(count, 1)
    order = np.lexsort((-high, low))
    low, high = low[order], high[order]
    rank = np.full((count, count), len(low))
    rank[low, high] = rank[high, low] = np.arange(len(low))
    return low, high, rank
