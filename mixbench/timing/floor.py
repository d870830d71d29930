"""The least that a device could take for what a mixer computes: its arithmetic and its memory traffic; imports torch.

Counted is every operation of torch, each as one pass that reads its arguments and writes its results. An operation can
take no less than its arithmetic at the rate of the largest matrix products, or its bytes at the rate of the fastest
copies; the floor is the sum. What compiled loops outside torch do is not in it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SIDES: Mapping[str, Sequence[int]] = {"cpu": (512, 1024), "cuda": (4096, 8192)}
"""Of the square matrices that are multiplied."""

COPIED: Mapping[str, Sequence[int]] = {"cpu": (1 << 18, 1 << 21, 1 << 26), "cuda": (1 << 26, 1 << 30)}
"""Bytes that are copied: on the CPU also such as stay in a cache, as small batches do."""

TRIAL_SECONDS = 0.3
"""How long one size is tried."""


@dataclass(frozen=True)
class Rates:
    """What a device does at best, measured.

    Attributes:
        flops: floating-point operations a second, in the largest matrix products.
        bytes: read and written a second, in the fastest copies.
    """

    flops: float
    bytes: float


@dataclass(frozen=True)
class Operation:
    """One operation: its floating-point operations, and the bytes of its arguments and results."""

    flops: int
    bytes: int


@dataclass
class Count:
    """What a call computes.

    Attributes:
        operations: in their order; those that only look at memory otherwise are left out.
        peak: bytes of the tensors that it makes and holds at once, at most.
    """

    operations: list[Operation]
    peak: int = 0

    @property
    def flops(self) -> int:
        """Of all operations."""
        return sum(one.flops for one in self.operations)

    @property
    def bytes(self) -> int:
        """Of all operations."""
        return sum(one.bytes for one in self.operations)

    def seconds(self, rates: Rates) -> float:
        """The least time."""
        return sum(max(one.flops / rates.flops, one.bytes / rates.bytes) for one in self.operations)

    def told(self, rates: Rates) -> dict[str, float]:
        """Plain values: ``flops``, ``bytes``, ``peak`` and ``seconds``."""
        return {"flops": self.flops, "bytes": self.bytes, "peak": self.peak, "seconds": self.seconds(rates)}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that is computed while it is active."""

    def __init__(self, found: Count) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found
        self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        made = _tensors(out)
        if made and not func.is_view:
            count = flop_registry.get(func.overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=out) if count else 0
            moved = {id(one): _size(one) for one in (*_tensors((args, kwargs)), *made)}
            self._found.operations.append(Operation(int(flops), sum(moved.values())))
            self._hold(made)
        return out

    def _hold(self, made: Sequence[Tensor]) -> None:
        """Take note of new memory until it is freed."""
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage._cdata in self._known:
                continue
            self._known.add(storage._cdata)
            self._held += storage.nbytes()
            weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        self._found.peak = max(self._found.peak, self._held)

    def _free(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._held -= size


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _size(tensor: Tensor) -> int:
    """Bytes that are there: an expanded dimension is read from the same place."""
    there = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(torch.Size(there).numel()) * tensor.element_size() if tensor.numel() else 0


@contextmanager
def counting() -> Iterator[Count]:
    """Counts what is computed inside."""
    found = Count([])
    with _Counter(found):
        yield found


def measured_rates(device: torch.device, precision: torch.dtype) -> Rates:
    """The rates of a device, the best of several sizes and tries; takes a second or two."""
    kind = device.type

    def multiplied(side: int) -> float:
        matrix = torch.rand(side, side, device=device).to(precision)
        out = torch.empty_like(matrix)
        return 2 * side**3 / _fastest(lambda: torch.mm(matrix, matrix, out=out), device)

    def copied(size: int) -> float:
        one, other = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
        return 2 * size / _fastest(lambda: other.copy_(one), device)

    return Rates(max(map(multiplied, SIDES[kind])), max(map(copied, COPIED[kind])))


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of many calls; two of them at least."""
    least, ending, calls = float("inf"), time.perf_counter() + TRIAL_SECONDS, 0
    while calls < 3 or time.perf_counter() < ending:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        # The first one finds nothing at its place yet.
        least = min(least, time.perf_counter() - begun) if calls else least
        calls += 1
    return least
