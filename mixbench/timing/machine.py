"""What is measured on, in full: `machine`; imports torch."""

from __future__ import annotations

import platform
import subprocess
from typing import Any

import torch

from mixbench import devices, provenance
from mixbench.execution import Execution


def machine(execution: Execution) -> dict[str, Any]:
    """Device, driver, versions, threads."""
    on_gpu = execution.device.startswith("cuda")
    versions: dict[str, Any] = {**provenance.versions(), "system": platform.platform()}
    if on_gpu:
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        versions |= {"cuda": torch.version.cuda, "cudnn": cudnn}
    return {
        "device": torch.cuda.get_device_name() if on_gpu else provenance.processor(),
        "driver": _driver() if on_gpu else "",
        "versions": versions,
        "threads": execution.threads,
        "cores": devices.cores(),
        "commit": provenance.commit(),
    }


def _driver() -> str:
    """Version and clock of the first GPU, as its driver says."""
    asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
