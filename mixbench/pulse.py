"""Who is alive: `Pulse` tells attempts that may be at work from dead ones, on this machine and on others."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixbench import provenance, traces

LEASE_SECONDS = 120.0
"""An attempt of another machine whose heartbeat stands still for so long, on our clock, is dead."""


class Pulse:
    """Tells the living attempts from the dead; remembers when it saw each heartbeat move, on its own clock."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}

    def alive(self, folder: Path, number: int) -> bool:
        """Whether the attempt may still be at work.

        On this machine the process decides: there, and started when the attempt says. Elsewhere, and where the system
        hides other people's processes, the heartbeat does. No clocks of two machines are compared: one that stands
        still counts as alive until a lease has passed here, and so does one that is looked at for the first time.
        """
        place = folder / "attempts" / str(number)
        if (place / "end.json").exists():
            return False
        about = traces.about(folder, number)
        if not about:
            return False
        if _was_restarted(about.get("job") or {}):
            return False
        here = provenance.process(about.get("pid"))
        comparable = here["boot"] and here["boot"] == about.get("boot")
        if comparable and here["started"] != provenance.HIDDEN:
            return here["started"] != "" and here["started"] == about["started"]
        return self._moves(place / "hb")

    def _moves(self, heartbeat: Path) -> bool:
        beat = heartbeat.stat().st_mtime_ns if heartbeat.exists() else 0
        last, since = self._seen.get(heartbeat, (None, 0.0))
        if beat != last:
            since = time.monotonic()
            self._seen[heartbeat] = (beat, since)
        return time.monotonic() - since < LEASE_SECONDS


def _was_restarted(job: Mapping[str, Any]) -> bool:
    """Whether this process is what the cluster started in place of that job.

    The old one may still run, on a node that the cluster has lost sight of: it is fenced, and waited for no longer.
    """
    ours = provenance.job()
    if not ours or not job:
        return False
    task = ("name", "id", "index")
    return all(job[key] == ours[key] for key in task) and job["restarts"] < ours["restarts"]
