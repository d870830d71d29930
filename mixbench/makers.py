"""Who computed a run: recorded with its result, several where it went on elsewhere; imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mixbench import provenance
from mixbench.execution import Execution


def maker(execution: Execution) -> dict[str, Any]:
    """Who computes now: the code's commit, the device by its name, and the execution."""
    return {"commit": provenance.commit(), "device": device_of(execution), "execution": execution.bits()}


def device_of(execution: Execution) -> str:
    """The GPU or processor that computes, by its name."""
    return torch.cuda.get_device_name() if execution.device.startswith("cuda") else provenance.processor()


def merged(makers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All who computed a run as one: where they differ, their values in order, ``"2, 1"``."""

    def joined(values: Sequence[Any]) -> Any:
        different = list(dict.fromkeys(values))
        return different[0] if len(different) == 1 else ", ".join(map(str, different))

    executions = [one["execution"] for one in makers]
    names = dict.fromkeys(name for one in executions for name in one)
    execution = {name: joined([one[name] for one in executions if name in one]) for name in names}
    return {name: joined([one[name] for one in makers]) for name in ("commit", "device")} | {"execution": execution}
