"""A mixed batch's step as a CUDA graph: its operations, captured once, and the buffers that they read a batch from."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

Work = Callable[[], Tensor]


class Recorder(Protocol):
    """Notes what is computed, to have it computed again."""

    def run(self, work: Work) -> Tensor:
        """Do the work where it would be captured, so that what it finds ready there is ready."""
        ...

    def capture(self, work: Work) -> Work:
        """Note the work's operations, undone; what does them again gives the same tensor, with other values, each time.

        Raises:
            RuntimeError: they cannot be noted.
        """
        ...


class CudaRecorder:
    """Captures CUDA graphs on a stream of its own; they share their memory, since one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, work: Work) -> Tensor:
        """Do the work on that stream, between what is before and behind it on the current one."""
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = work()
        here.wait_stream(self._stream)
        return result

    def capture(self, work: Work) -> Work:
        """See `Recorder.capture`. Waits for the device."""
        graph = torch.cuda.CUDAGraph()
        # The outer one, since torch's leaves its stream in force where a capture fails. And thread_local, since the
        # thread that pins decoded images may allocate meanwhile.
        with (
            torch.cuda.stream(self._stream),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            result = work()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Graph:
    """A captured step, and the buffers that it reads its batch from.

    Args:
        work: a step.
        prepared: of the form that is captured; its values are not looked at.
        recorder: captures.

    Raises:
        RuntimeError: it cannot be captured.
    """

    def __init__(self, work: Callable[[Any], Tensor], prepared: Any, recorder: Recorder) -> None:
        self._buffers = {name: torch.zeros_like(value) for name, value in tensors(prepared).items()}
        self._replay = recorder.capture(partial(work, replace(prepared, **self._buffers)))

    def __call__(self, prepared: Any) -> Tensor:
        """The step with a batch of the same form; its loss, valid until the next replay."""
        for name, value in tensors(prepared).items():
            self._buffers[name].copy_(value)
        return self._replay()


def tensors(prepared: Any) -> dict[str, Tensor]:
    """The fields of a mixed batch that are tensors, by name."""
    values = ((field.name, getattr(prepared, field.name)) for field in fields(prepared))
    return {name: value for name, value in values if isinstance(value, Tensor)}


def form_of(prepared: Any) -> Hashable:
    """What batches of one graph have in common: the kind, how their tensors lie in memory, and all other values."""
    values = ((field.name, getattr(prepared, field.name)) for field in fields(prepared))
    return type(prepared), *(
        (name, value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else (name, value)
        for name, value in values
    )


def obstacle(prepared: Any, device: torch.device) -> str:
    """Why the step with this batch cannot be replayed on a device; "" where it can, see `methods.Mixed.replayable`."""
    kind = type(prepared)
    if not vars(kind).get("replayable", False):
        return f"a {kind.__name__} does not declare that it can be replayed"
    found = tensors(prepared).values()
    if any(value.requires_grad for value in found):
        return f"a {kind.__name__} carries gradients back to what mixed it"
    if any(value.device != device for value in found):
        return f"a {kind.__name__} holds tensors that are not on the device"
    return ""
