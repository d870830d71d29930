"""Under which circumstances is measured: `circumstances`; imports torch."""

from __future__ import annotations

import platform
from typing import Any

import torch

from mixbench import devices, provenance
from mixbench.execution import Execution
from mixbench.makers import device_of


def circumstances(execution: Execution) -> dict[str, Any]:
    """Device, driver with its clock, versions, threads: more than the name by which `devices.machine` knows it."""
    on_gpu = execution.device.startswith("cuda")
    versions: dict[str, Any] = {**provenance.versions(), "system": platform.platform()}
    if on_gpu:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": torch.version.cuda, "cudnn": cudnn}
    return {
        "device": device_of(execution),
        "driver": devices.asked_of_gpu("driver_version", "clocks.sm") if on_gpu else "",
        "versions": versions,
        "threads": execution.threads,
        "cores": devices.cores(),
        "commit": provenance.commit(),
    }
