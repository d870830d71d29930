"""The clock of a GPU; imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


class DeviceClock:
    """Times until a device has done all that was asked of it, in whatever stream: by the wall, and by its events."""

    names = ("wall", "events")

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, work: Callable[[], object]) -> Mapping[str, float]:
        """Seconds that the work takes, by name; the device is idle before and after it."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(self._device)
        begun = time.perf_counter()
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize(self._device)
        wall = time.perf_counter() - begun
        return {"wall": wall, "events": begin.elapsed_time(end) / 1000}
