"""What is in flight: the runs that a task in the queue holds, as records of submissions and the queue say together."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass

from mixbench import files, pulse
from mixbench.display import counted
from mixbench.slurm import UnknownError, commands
from mixbench.slurm.commands import Task
from mixbench.slurm.submissions import Submission, Submissions, is_ours
from mixbench.spec import Run
from mixbench.store import Store

NOT_STARTED = "launch failed requeued held"
"""Why a task waits that the cluster could not start, after a crash of its controller too: it does so for ever."""


@dataclass(frozen=True)
class Flight:
    """A run in flight: the task that holds it, and the submission that the task is of."""

    task: Task
    submission: Submission


def in_flight(submissions: Sequence[Submission], tasks: Sequence[Task]) -> dict[str, Flight]:
    """By the ids of runs: those of which a task stands in the queue, whatever state it is in there.

    A task is known by the name of its job and its index, never by the job's number: a cluster that crashed may give
    that again.
    """
    known = {one.name: one for one in submissions}
    found: dict[str, Flight] = {}
    for task in tasks:
        submission = known.get(task.name)
        if submission is not None and task.index < len(submission.tasks):
            found |= dict.fromkeys(submission.tasks[task.index], Flight(task, submission))
    return found


def let_go(submissions: Sequence[Submission], tasks: Sequence[Task]) -> str:
    """Let the tasks of these go that the cluster could not start and holds; what is to be said of it, or ""."""
    names = {one.name for one in submissions}
    held = [task for task in tasks if task.name in names and (task.state, task.reason) == ("PENDING", NOT_STARTED)]
    if not held:
        return ""
    many = f"{counted(len(held), 'job')} that the cluster could not start, and held"
    refused = commands.release(held)
    return f"not released: {many}: {refused}" if refused else f"released {many}"


def is_mine(submission: Submission, cluster: str) -> bool:
    """Whether a submission's job would stand in the queue that is seen from here."""
    return submission.user == getpass.getuser() and submission.cluster in ("", cluster)


def settle(
    mine: Sequence[Submission], submissions: Submissions, tasks: Sequence[Task], *, patience: float
) -> list[Submission]:
    """Find out what became of submissions that are not known to be over; those of which something is in flight.

    Args:
        mine: the submissions, whose jobs would be seen in the queue, see `is_mine`.
        submissions: where what became of them is recorded.
        tasks: the queue, read a moment ago.
        patience: seconds after which a job that is not in the queue will not come there any more.

    Raises:
        UnknownError: one was about to be handed over, and its job may still come.
    """
    jobs = {task.name: task.job for task in tasks}
    live = []
    for one in mine:
        if one.name in jobs:
            live.append(submissions.settle(one, "submitted", jobs[one.name]) if one.state == "intent" else one)
        elif submissions.age(one) > patience:
            submissions.settle(one, "abandoned" if one.state == "intent" else "over")
        elif one.state == "intent":
            left = patience - submissions.age(one)
            raise UnknownError(
                f"{one.name} was about to be submitted from {one.host}, and may still turn up in the queue; nothing is "
                f"submitted until that is known: try again in {left:.0f} s"
            )
    return live


def is_at_work(run: Run, store: Store) -> bool:
    """Whether somebody outside of the cluster's queue is at a run now: what was in the queue and is not, is gone."""
    return not is_ours(store.about(run).get("job") or {}) and is_heard(run, store)


def is_heard(run: Run, store: Store) -> bool:
    """Whether an attempt at a run was alive a moment ago, as far as one look can tell."""
    return store.alive(run) and store.standing(run, now=files.now(store.root))[1] < pulse.LEASE_SECONDS
