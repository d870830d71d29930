"""Labels for the blocks of a few small grids at the least cost, where there are many labels: on the CPU, compiled.

What `graphcut.swap` finds, for neighbours that all weigh the same. With 23 labels there are 253 pairs to deal out, and
all but a few of them change nothing: what is left is too little, and too much one after the other, for calls of numpy
or scipy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

NOWHERE = -1
"""The number of a block outside of the grid."""

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function in machine code, which is made at its first call and kept beside this file."""
    return cast("F", njit(cache=True)(function))


def swap(costs: Integers, weight: int, distances: Integers) -> Integers:
    """Labels of N grids of B x B blocks by alpha-beta swap from label 0, (N, B * B); see `graphcut.swap`.

    A pair is left out where dealing it out provably changes nothing: where none of its blocks would change to the other
    label even if all that it could gain at its neighbours were gained. It is so for every pair of a label that is
    dearer by more than the edges of a block weigh, once no block holds it.

    Args:
        costs: (N, B * B, n), of each label at each block.
        weight: of each edge.
        distances: (N, n, n), symmetric, not negative, 0 between a label and itself.
    """
    low, high = _pairs(costs.shape[2])
    return _swap(costs, weight * distances, low, high, neighbours(costs.shape[1]))


@functools.lru_cache(maxsize=16)
def neighbours(blocks: int) -> Integers:
    """The blocks above, below, left and right of each block of a square grid, (blocks, 4); `NOWHERE` where none is."""
    side = int(blocks**0.5)
    framed = np.full((side + 2, side + 2), NOWHERE)
    framed[1:-1, 1:-1] = np.arange(blocks).reshape(side, side)
    around = framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]
    return np.stack([one.ravel() for one in around], 1)


@functools.lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[Integers, Integers]:
    """The lower and the higher label of each pair, in the order of a cycle."""
    low, high = np.triu_indices(count, 1)
    order = np.lexsort((-high, low))
    return low[order], high[order]


@compiled
def _swap(costs: Integers, apart: Integers, low: Integers, high: Integers, near: Integers) -> Integers:
    labels = np.zeros(costs.shape[:2], np.int64)
    for grid in range(len(costs)):
        before = _energy(labels[grid], costs[grid], apart[grid], near)
        while True:
            for pair in range(len(low)):
                if _stirred(labels[grid], costs[grid], apart[grid], low[pair], high[pair], near):
                    _deal(labels[grid], costs[grid], apart[grid], low[pair], high[pair], near)
            after = _energy(labels[grid], costs[grid], apart[grid], near)
            if after >= before:
                break
            before = after
    return labels


@compiled
def _energy(labels: Integers, costs: Integers, apart: Integers, near: Integers) -> int:
    """The sum that a grid pays."""
    own, seams = 0, 0
    for block, label in enumerate(labels):
        own += costs[block, label]
        for other in near[block]:
            if other != NOWHERE:
                seams += apart[label, labels[other]]
    return own + seams // 2  # each edge is seen from both of its ends


@compiled
def _stirred(labels: Integers, costs: Integers, apart: Integers, low: int, high: int, near: Integers) -> bool:
    """Whether a block that holds one of two labels might rather hold the other."""
    for block, label in enumerate(labels):
        if label not in (low, high):
            continue
        to = low if label == high else high
        gain = costs[block, to] - costs[block, label]
        for other in near[block]:
            # A neighbour of the same label could come along, so that the edge to it would cost nothing.
            if other != NOWHERE and labels[other] != label:
                gain += apart[to, labels[other]] - apart[label, labels[other]]
        if gain < 0 or (gain == 0 and to == low):
            return True
    return False


@compiled
def _deal(labels: Integers, costs: Integers, apart: Integers, low: int, high: int, near: Integers) -> None:
    """Let each block that holds one of two labels take the better one."""
    held = (labels == low) | (labels == high)
    gain = np.zeros(len(labels), np.int64)
    for block in np.flatnonzero(held):
        gain[block] = costs[block, high] - costs[block, low]
        for other in near[block]:
            if other != NOWHERE and not held[other]:  # of an edge between two of these blocks the cut decides
                gain[block] += apart[high, labels[other]] - apart[low, labels[other]]
    taken = cut(gain, apart[low, high], held, near)
    for block in np.flatnonzero(held):
        labels[block] = high if taken[block] else low


@compiled
def cut(gain: Integers, weight: int, held: Flags, near: Integers) -> Flags:
    """Which of the blocks that are held take the second of two labels, (B * B,); of several best answers the fewest.

    By maximum flow, along one shortest path after the other, from blocks that would gain by it to those that would
    lose: with so few blocks there are few paths.

    Args:
        gain: (B * B,), how much more the second label costs than the first.
        weight: of each edge between two blocks that are held.
        held: (B * B,).
        near: (B * B, 4), see `neighbours`.
    """
    supply = np.where(held, np.maximum(-gain, 0), 0)
    demand = np.where(held, np.maximum(gain, 0), 0)
    room = np.zeros(near.shape, np.int64)
    for block in np.flatnonzero(held):
        for side, other in enumerate(near[block]):
            if other != NOWHERE and held[other]:
                room[block, side] = weight
    while True:
        reached, came, end = _search(supply, demand, room, near)
        if end == NOWHERE:
            return reached
        _push(supply, demand, room, near, came, end)


@compiled
def _search(supply: Integers, demand: Integers, room: Integers, near: Integers) -> tuple[Flags, Integers, int]:
    """What can be reached from blocks that have something to give, by which side of the block before, and the end.

    The end is the first block that takes something, `NOWHERE` if none can be reached.
    """
    reached = supply > 0
    came = np.full(len(supply), NOWHERE)
    queue = np.empty(len(supply), np.int64)
    count = 0
    for block in np.flatnonzero(reached):
        queue[count] = block
        count += 1
    place = 0
    while place < count:
        block = queue[place]
        place += 1
        if demand[block] > 0:
            return reached, came, block
        for side in range(4):
            other = near[block, side]
            if room[block, side] > 0 and not reached[other]:
                reached[other], came[other] = True, side
                queue[count] = other
                count += 1
    return reached, came, NOWHERE


@compiled
def _push(supply: Integers, demand: Integers, room: Integers, near: Integers, came: Integers, end: int) -> None:
    """Send as much as fits along the path that leads to its end."""
    most, block = demand[end], end
    while came[block] != NOWHERE:
        before = near[block, came[block] ^ 1]  # sides come in pairs of opposites
        most = min(most, room[before, came[block]])
        block = before
    most = min(most, supply[block])
    supply[block] -= most
    demand[end] -= most
    block = end
    while came[block] != NOWHERE:
        before = near[block, came[block] ^ 1]
        room[before, came[block]] -= most
        room[block, came[block] ^ 1] += most
        block = before
