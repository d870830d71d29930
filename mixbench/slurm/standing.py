"""Where every run of a sweep stands: what its files say and what the queue says, as one word and a few figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mixbench import files
from mixbench.display import duration
from mixbench.grid import Sweep
from mixbench.slurm import UnknownError, commands
from mixbench.slurm.commands import Task
from mixbench.slurm.flights import Flight, in_flight, is_at_work, is_heard
from mixbench.slurm.submissions import LIVE, Submission, Submissions, is_cancelled, name_of
from mixbench.spec import Run
from mixbench.status import state_of
from mixbench.store import Store

ORDER = (
    "done",
    "running",
    "suspended",
    "starting",
    "waiting",
    "requeued",
    "queued",
    "failed",
    "stopped",
    "lost",
    "cancelled",
    "new",
)

TELLING = (r"exceeded memory limit|oom.kill|out of memory", r"time limit", r"node.fail", r"cancelled at", r"killed")
"""What SLURM writes into a job's log when it ends one, what says most first."""

GONE = ("stopped", "lost", "cancelled", "new")
"""States of runs that nobody is at: the next launcher takes them up."""


@dataclass(frozen=True)
class Standing:
    """Where one run stands.

    Attributes:
        run: the run.
        state: one of `ORDER`.
        flight: the task that holds it; None: none does.
        words: what there is to say of it, in columns.
    """

    run: Run
    state: str
    flight: Flight | None = None
    words: Sequence[str] = ()


@dataclass(frozen=True)
class Standings:
    """Where a sweep stands.

    Attributes:
        name: of the sweep.
        runs: where each stands.
        unknown: why the queue could not be read; "" where it was, or none was needed.
        command: the last one that handed any of it to a cluster; "" where none ever did.
    """

    name: str
    runs: Sequence[Standing]
    unknown: str = ""
    command: str = ""

    @cached_property
    def counts(self) -> Counter[str]:
        """How many are in each state."""
        return Counter(one.state for one in self.runs)

    @property
    def is_moving(self) -> bool:
        """Whether anything is at work or will be without being asked again."""
        return any(one.flight is not None or one.state == "running" for one in self.runs)

    def of(self, *states: str) -> list[Standing]:
        """Those in these states."""
        return [one for one in self.runs if one.state in states]


def standings(sweep: Sweep, store: Store) -> Standings:
    """Where every run of a sweep stands now; asks the queue once, and only where something may be in it."""
    look = Look(store)
    runs = [look.standing(run) for stage in sweep.stages() for run in stage]
    return Standings(sweep.name, runs, look.unknown, look.command(sweep))


class Look:
    """One look at results, submissions and queue.

    Attributes:
        submissions: of the results folder.
        unknown: why the queue could not be read; "" where it was, or none was needed.
    """

    def __init__(self, store: Store) -> None:
        self.submissions = Submissions(store.root.resolve())
        self.unknown = ""
        self._store = store
        self._now = files.now(store.root) if store.root.is_dir() else 0.0
        self._known = {one.name: one for one in self.submissions.all()}
        live = [one for one in self._known.values() if one.state in LIVE]
        self._flights: dict[str, Flight] = {}
        if live:
            try:
                self._flights = in_flight(live, commands.tasks())
            except UnknownError as error:
                self.unknown = str(error)
        handed = sorted(
            (one for one in self._known.values() if one.state in ("submitted", "over")), key=lambda one: one.time
        )
        self._handed = {run: one for one in handed if one.job for run in one.runs}

    def command(self, sweep: Sweep) -> str:
        """The last one that handed over any run of a sweep; "" where none did."""
        ours = [one for one in self._known.values() if one.sweep == name_of(sweep)]
        return max(ours, key=lambda one: one.time).command if ours else ""

    def standing(self, run: Run) -> Standing:
        """Where a run stands: what is done or in flight, whatever its files say of the rest."""
        state, flight = state_of(run, self._store), self._flights.get(run.id)
        if state == "done":
            return Standing(run, state)
        if flight is not None:
            return self._flying(run, state, flight)
        if state == "failed":
            return Standing(run, state, None, self._failed(run))
        if state == "running":
            if is_heard(run, self._store) if self.unknown else is_at_work(run, self._store):
                return Standing(run, state, None, self._running(run, str(self._store.about(run).get("host", ""))))
            state = "lost"
        handed = self._handed.get(run.id)
        if handed is not None and is_cancelled(self.submissions.folder(handed)):
            return Standing(run, "cancelled")
        if state == "new" and handed is not None and not self.unknown:
            return Standing(run, "lost", None, self._never_begun(run))
        return Standing(run, state, None, self._lost(run) if state == "lost" and not self.unknown else ())

    def find(self, beginning: str) -> Run | None:
        """The one run that was handed over, and whose id or folder's name begins so; None: there is no one such."""
        runs = (Run.from_dict(one.runs[run]) for run, one in self._handed.items())
        found = [run for run in runs if run.id.startswith(beginning) or run.folder.startswith(beginning)]
        return found[0] if len(found) == 1 else None

    def log(self, run: Run) -> Path | None:
        """The log of the job that made the newest attempt, or that was to make one; None where it was in none."""
        job = self._store.about(run).get("job") or {}
        submission = self._known.get(job.get("name", ""))
        if submission is not None:
            return self.submissions.log(submission, job["index"])
        handed = self._handed.get(run.id) if not self._store.newest(run) else None
        return self.submissions.log(handed, _index(handed, run)) if handed else None

    def _flying(self, run: Run, state: str, flight: Flight) -> Standing:
        """Of a run that a task holds."""
        task = flight.task
        if task.state == "PENDING":
            return Standing(run, "requeued" if self._is_begun(run, task) else "queued", flight, (task.reason,))
        if task.state in ("SUSPENDED", "STOPPED"):
            return Standing(run, "suspended", flight, (task.node,))
        if state == "failed":
            return Standing(run, state, flight, self._failed(run))
        if state == "running" and self._is_begun(run, task):
            return Standing(run, state, flight, self._running(run, task.node))
        if len(flight.submission.tasks[task.index]) > 1:
            return Standing(run, "waiting", flight, ("for its turn in a job that is at work",))
        return Standing(run, "starting", flight, (f"a job on {task.node}",))

    def _is_begun(self, run: Run, task: Task) -> bool:
        """Whether the newest attempt at a run is this task's."""
        return (self._store.about(run).get("job") or {}).get("name") == task.name

    def _running(self, run: Run, where: str) -> tuple[str, ...]:
        """Where, how far, how fast, how long still, and when it was last heard of."""
        said, age = self._store.standing(run, now=self._now)
        heard = f"heard {duration(age)} ago"
        if not said.get("of"):
            return where, "beginning", "", "", heard
        steps, of, rate = said["steps"], said["of"], said.get("images_per_second")
        epoch = f"epoch {min(run.epochs, 1 + steps * run.epochs // of)} of {run.epochs}"
        left = f"{duration((of - steps) * run.batch_size / rate)} left" if rate else ""
        return where, epoch, f"{rate:,.0f} images/s" if rate else "", left, heard

    def _lost(self, run: Run) -> tuple[str, ...]:
        """What SLURM said in the log of the job that took the run with it, and where that is; nothing outside."""
        path = self.log(run)
        if (self._store.ending(run) or {}).get("state") == "done":
            return "its result is missing or damaged; the next run makes it whole", str(self._store.folder(run))
        if path is None or not path.exists():
            return ()
        return _said(path), str(path)

    def _never_begun(self, run: Run) -> tuple[str, ...]:
        """Of a run whose job has gone before it came to it: its log says more, if there is one."""
        submission = self._handed[run.id]
        log = self.submissions.log(submission, _index(submission, run))
        if not log.exists():
            said = (
                f"{submission.name} ended before the run began, without a log: cancelled, or is its folder not there?"
            )
            return said, str(log.parent)
        return f"{submission.name} ended before the run began: {_said(log)}", str(log)

    def _failed(self, run: Run) -> tuple[str, ...]:
        """The error's last line, and where the rest is."""
        end = self._store.ending(run) or {}
        written = str(end.get("text", "")).strip().splitlines() or [str(end.get("type", ""))]
        return written[-1], str(self._store.folder(run) / "attempts" / str(self._store.newest(run)) / "out.txt")


def _said(log: Path) -> str:
    """What tells most of a job's end in its log: SLURM's word, or else its last."""
    written = log.read_text(errors="replace").strip().splitlines() or ["it ended without a word"]
    telling = (line for pattern in TELLING for line in reversed(written) if re.search(pattern, line, re.IGNORECASE))
    return next(telling, written[-1])


def _index(submission: Submission, run: Run) -> int:
    """Of the task that holds a run."""
    return next(index for index, task in enumerate(submission.tasks) if run.id in task)
