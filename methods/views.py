"""What is known of a view, computed once: crops and flips show each image in a few views only, again and again."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable

import torch
from torch import Tensor

SHARE = 0.5
"""How much of the memory that a process may count on a table may take: others are there too."""


class ViewCache:
    """Values of views, kept bit for bit: with it and without it, everything comes out the same.

    What is known is noted on the CPU, where the ids of views are, so that asking never waits for a device. The table is
    made for the first value; on the CPU, rows that nothing was written to take no memory. Where it does not fit on the
    device that computes the values it lies in the host's memory, and where it does not fit there nothing is kept.

    Args:
        count: one more than the largest id of a view.
        host: whether it lies in the host's memory in any case; new values are then waited for.
    """

    def __init__(self, count: int, *, host: bool = False) -> None:
        self._known = torch.zeros(count, dtype=torch.bool)
        self._host = host
        self._device = torch.device("cpu")
        self._table: Tensor | None = None
        self._has_room = True

    @property
    def place(self) -> str:
        """The device of the table, as torch names it; "nowhere" while there is none."""
        return "nowhere" if self._table is None else str(self._table.device)

    def __call__(self, views: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """The values of these views, (N, ...), on the device that computes them.

        Args:
            views: (N,) int64 ids, on the CPU.
            compute: gives the values, (M, ...), of the views at these places in ``views``, (M,) int64 on the CPU.
        """
        missing = (~self._known[views]).nonzero()[:, 0]
        if self._table is None or len(missing):
            fresh = compute(missing)
            if self._table is None and self._has_room:
                self._table, self._device = self._room_for(fresh), fresh.device
                self._has_room = self._table is not None
            if self._table is None:
                return fresh  # nothing was known, so these are all
            self._table[_on(self._table.device, views[missing])] = fresh.to(self._table.device)
            self._known[views] = True
        return self._table[_on(self._table.device, views)].to(self._device, non_blocking=True)

    def forget(self, views: Tensor) -> None:
        """As if these views, (N,) int64 ids on the CPU, had never been asked for."""
        self._known[views] = False

    def _room_for(self, values: Tensor) -> Tensor | None:
        """An empty table for such values, where there is room for one."""
        shape = (len(self._known), *values.shape[1:])
        needed = values[:1].nbytes * len(self._known)
        for place in dict.fromkeys([*([] if self._host else [values.device]), torch.device("cpu")]):
            if needed <= SHARE * memory(place):
                return _empty(shape, values.dtype, place)
        return None


def memory(device: torch.device) -> int:
    """Bytes that a process may count on: its core's part of this machine's, or half of what is free on a GPU.

    Only half, because a table is made in the first step, before the network has taken what it needs.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (os.cpu_count() or 1)


def _empty(shape: tuple[int, ...], dtype: torch.dtype, place: torch.device) -> Tensor:
    """A table without values; on the CPU, straight from the system, which gives pages only as they are written."""
    if place.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=place)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def _on(device: torch.device, indices: Tensor) -> Tensor:
    return indices.to(device, non_blocking=True)
