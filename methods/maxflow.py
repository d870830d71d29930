"""Minimum cuts of many lattices at once: by scipy's maximum flow on the CPU, by push-relabel on tensors elsewhere.

A lattice has nodes (N, L, H, W): N pictures, of which none is tied to another, of L layers, H rows and W columns. Arcs
lead from each node to those at fixed offsets (layers, rows, columns). Offsets come in pairs, each followed by its
opposite. ``capacity``, (offsets, N, L, H, W), is that of the arc which leaves a node along each offset; 0 where that
would leave the lattice. ``supply``, (N, L, H, W), flows from the source into a node, or where it is negative from the
node to the sink. All are int64.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import Tensor

from methods.ops import Poll

Offset = tuple[int, int, int]

LARGEST = 2**30 - 1
"""Of a capacity: scipy computes with 32 bits, and an arc can hold its own capacity and that of its opposite."""
PULSES = 32
"""Between two looks at whether anything still flows. A look costs about as much as these."""
SWEEPS = 16
"""Between two looks at whether distances still change."""
FAR = 2**30
"""The height of a node from which the sink cannot be reached."""


def sink_side(supply: Tensor, capacity: Tensor, offsets: Sequence[Offset], poll: Poll) -> Tensor:
    """The nodes from which the sink can still be reached when as much flows as can: (N, L, H, W) bool.

    They are the sink's side of a minimum cut; where there are several, of the one in which that side is smallest.

    Raises:
        ValueError: on the CPU, a capacity is negative, or a capacity or supply too large for its solver.
    """
    if supply.device.type == "cpu":
        return by_scipy(supply, capacity, offsets)
    return by_pulses(supply, capacity, offsets, poll)


# ---- on the CPU


def by_scipy(supply: Tensor, capacity: Tensor, offsets: Sequence[Offset]) -> Tensor:
    """`sink_side` by Dinic's algorithm, with all lattices in one graph."""
    flat, along = supply.numpy().ravel(), capacity.numpy().reshape(len(offsets), -1)
    if along.min() < 0:
        raise ValueError(f"an edge of the cut weighs {along.min()}: weights must not be negative")
    largest = max(np.abs(flat).max(), along.max())
    if largest > LARGEST:
        raise ValueError(f"the cut is given {largest}: its largest number is {LARGEST}; scale costs and weights down")
    graph = _graph(flat, along, [int(np.dot(offset, _strides(supply))) for offset in offsets])
    source, sink = len(flat), len(flat) + 1
    residual = csr_array(graph - maximum_flow(graph, source, sink, method="dinic").flow)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual.T.tocsr(), sink, return_predecessors=False)
    side = np.zeros(len(flat) + 2, bool)
    side[reached] = True
    return torch.from_numpy(side[:-2]).view(supply.shape)


def _strides(supply: Tensor) -> tuple[int, int, int]:
    """How far apart the numbers of neighbouring nodes are: in layers, in rows, in columns."""
    *_, height, width = supply.shape
    return height * width, width, 1


def _graph(supply: np.ndarray, capacity: np.ndarray, steps: Sequence[int]) -> csr_array:
    """The arcs that can hold anything; source and sink are its last two nodes."""
    count = len(supply)
    given, taken = np.flatnonzero(supply > 0), np.flatnonzero(supply < 0)
    starts, ends = [np.full(len(given), count), taken], [given, np.full(len(taken), count + 1)]
    holds = [supply[given], -supply[taken]]
    for along, step in zip(capacity, steps, strict=True):
        nodes = np.flatnonzero(along)
        starts, ends, holds = [*starts, nodes], [*ends, nodes + step], [*holds, along[nodes]]
    arcs = np.concatenate(starts).astype(np.int32), np.concatenate(ends).astype(np.int32)
    return coo_array((np.concatenate(holds).astype(np.int32), arcs), shape=(count + 2, count + 2)).tocsr()


# ---- elsewhere


def by_pulses(supply: Tensor, capacity: Tensor, offsets: Sequence[Offset], poll: Poll) -> Tensor:
    """`sink_side` by push-relabel: in a pulse all nodes of all lattices push, and then those with a rest are raised.

    Which order they push in makes no difference, since all numbers are whole. It stops at the first look at which
    nothing that is left over could still reach the sink.
    """
    there, back = _neighbours(tuple(supply.shape), tuple(offsets), supply.device)
    excess, sink = supply.flatten().clamp_min(0), (-supply.flatten()).clamp_min(0)
    residual = capacity.flatten(1).clone()
    while True:
        height = _distances(sink, residual, there, poll)
        if not poll(((excess > 0) & (height < FAR)).any()):
            return (height < FAR).view(supply.shape)
        for _ in range(PULSES):
            excess, sink, residual, height = _pulse(excess, sink, residual, height, there, back)


@functools.lru_cache(maxsize=16)
def _neighbours(shape: tuple[int, ...], offsets: tuple[Offset, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """For each offset and node the number of the node there, and where in a (offsets, nodes) array its arc back is.

    Outside of the lattice is one node more, and its arc back is the node's own.
    """
    count = int(np.prod(shape))
    numbers = np.arange(count)
    places = np.stack(np.unravel_index(numbers, shape))
    there, back = [], []
    for direction, offset in enumerate(offsets):
        moved = places + np.array([0, *offset])[:, None]
        inside = ((moved >= 0) & (moved < np.array(shape)[:, None])).all(0)
        node = np.where(inside, np.ravel_multi_index(tuple(moved), shape, mode="clip"), count)
        there.append(node)
        back.append(np.where(inside, (direction ^ 1) * count + node, direction * count + numbers))
    return torch.from_numpy(np.stack(there)).to(device), torch.from_numpy(np.stack(back)).to(device)


def _heights(height: Tensor, there: Tensor) -> Tensor:
    """Heights of all neighbours, (offsets, nodes); outside of the lattice it is far."""
    return torch.cat([height, height.new_full((1,), FAR)])[there]


def _distances(sink: Tensor, residual: Tensor, there: Tensor, poll: Poll) -> Tensor:
    """How many arcs with room each node is from the sink, or `FAR`."""
    height = torch.where(sink > 0, 1, FAR)
    step = torch.where(residual > 0, 1, FAR)
    while True:
        before = height
        for _ in range(SWEEPS):
            height = torch.minimum(height, (_heights(height, there) + step).amin(0))
        if not poll((height != before).any()):
            return height


def _pulse(
    excess: Tensor, sink: Tensor, residual: Tensor, height: Tensor, there: Tensor, back: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    drained = torch.minimum(excess, sink)
    excess, sink = excess - drained, sink - drained
    room = torch.where(_heights(height, there) + 1 == height, residual, 0)
    # What an earlier direction cannot take is left for the later ones.
    pushed = torch.minimum((excess - (room.cumsum(0) - room)).clamp_min(0), room)
    change = pushed.flatten()[back] - pushed
    excess, residual = excess + change.sum(0), residual + change
    lowest = torch.where(residual > 0, _heights(height, there), FAR).amin(0)
    raised = torch.where(sink > 0, 1, (lowest + 1).clamp_max(FAR))
    return excess, sink, residual, torch.where(excess > 0, torch.maximum(height, raised), height)
