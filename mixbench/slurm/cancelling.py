"""``mixbench cancel``: the jobs of a sweep are taken out of the queue; what they did so far stays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from mixbench.display import counted
from mixbench.grid import Sweep
from mixbench.slurm import UnknownError, commands
from mixbench.slurm.flights import in_flight
from mixbench.slurm.submissions import Submission, Submissions, name_of
from mixbench.store import Store

SPARE_SECONDS = 10.0
"""How long jobs may take to leave the queue, beyond the cluster's KillWait."""

POLL_SECONDS = 1.0


def cancel(sweep: Sweep, store: Store) -> Iterator[str]:
    """Cancel the jobs of a sweep and wait until they are gone; says what became of them.

    That nothing of them may begin any more is written down before SLURM is told: it may not hear.

    Raises:
        mixbench.slurm.UnknownError: SLURM cannot be told; workers begin no further run nevertheless.
    """
    submissions = Submissions(store.root.resolve())
    name = name_of(sweep)
    ours = _in_flight([one for one in submissions.live() if one.sweep == name])
    if not ours:
        yield f"no job of {name} is in flight"
        return
    for one in ours:
        submissions.cancel(one)
    names = [one.name for one in ours]
    commands.cancel(names)
    flights = in_flight(ours, commands.tasks())
    end = time.monotonic() + commands.reads(commands.config(), "KillWait", 30) + SPARE_SECONDS
    while flights and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        flights = in_flight(ours, commands.tasks())
    jobs = f"{counted(len(names), 'job array')} of {name}"
    if flights:
        yield f"{jobs} cancelled; {len(flights)} runs are still leaving: see `mixbench status`"
    else:
        yield f"{jobs} cancelled; `mixbench run` goes on where they were"


def _in_flight(submissions: Sequence[Submission]) -> list[Submission]:
    """Those of which something may be in the queue; all of them, where that cannot be read."""
    try:
        names = {task.name for task in commands.tasks()} if submissions else set()
    except UnknownError:
        return list(submissions)
    return [one for one in submissions if one.name in names or one.state == "intent"]
