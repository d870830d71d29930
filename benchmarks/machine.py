"""Where a figure is measured, and how that is said."""

from __future__ import annotations

import datetime as dt
import os
import sys

from mixbench import provenance
from mixbench.process import KEEPING_MEMORY


def as_a_worker() -> None:
    """Start this script again in the environment that workers have, unless it is in it."""
    if not KEEPING_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEPING_MEMORY})  # noqa: S606


def heading(title: str, how: str) -> str:
    """The head of a benchmark's page: what, how, where, with which versions, when."""
    return f"## {title}\n\n{how}.\n{measured_on()}\n"


def measured_on() -> str:
    """The processor, versions, the commit and the day, as a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return f"{provenance.processor()}; {versions}; commit {provenance.commit()}; {today}."
