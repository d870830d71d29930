"""Where every run of a sweep stands: what its files say and what the queue says, as one word and a few figures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixbench.display import duration
from mixbench.grid import Sweep
from mixbench.slurm import commands, submissions
from mixbench.slurm.commands import UnknownError
from mixbench.slurm.flights import NOT_STARTED, Flight, in_flight
from mixbench.slurm.running import is_at_work
from mixbench.slurm.submissions import Submissions
from mixbench.slurm.submit import log_of
from mixbench.spec import Run
from mixbench.status import state_of
from mixbench.store import Store

ENDLESS: Mapping[str, str] = {
    "PartitionTimeLimit": "its partition allows less time than it asks for",
    "PartitionNodeLimit": "its partition has fewer nodes than it asks for",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs to start",
    "DependencyNeverSatisfied": "what it waits for can never come",
    "JobHeldUser": "somebody holds it; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "BadConstraints": "no node is as it asks for",
    "AccountNotAllowed": "its account may not use the partition",
    "QOSNotAllowed": "its QOS may not use the partition",
    "InvalidAccount": "there is no such account",
    "InvalidQOS": "there is no such QOS",
    "ReqNodeNotAvail": "the nodes that it asks for are not there now",
    NOT_STARTED: "it could not be started, and is held; `mixbench run` lets it go",
    "AssocMaxWallDurationPerJobLimit": "its account allows less time than it asks for",
    "QOSMaxWallDurationPerJobLimit": "its QOS allows less time than it asks for",
}
"""Reasons of waiting that do not pass by themselves, and what they mean."""

ORDER = (
    "done",
    "running",
    "suspended",
    "starting",
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
        on_cluster: whether any of it was ever handed to one.
    """

    name: str
    runs: Sequence[Standing]
    unknown: str = ""
    on_cluster: bool = False
    counts: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        """Count the states."""
        object.__setattr__(self, "counts", Counter(one.state for one in self.runs))

    @property
    def is_moving(self) -> bool:
        """Whether anything is at work or will be without being asked again."""
        return any(one.flight is not None or one.state == "running" for one in self.runs)

    def of(self, *states: str) -> list[Standing]:
        """Those in these states."""
        return [one for one in self.runs if one.state in states]


def standings(sweep: Sweep, store: Store) -> Standings:
    """Where every run of a sweep stands now; asks the queue once, and only where something may be in it."""
    records = Submissions(store.root.resolve())
    live, unknown = records.live(), ""
    flights: dict[str, Flight] = {}
    if live:
        try:
            flights = in_flight(live, commands.tasks())
        except UnknownError as error:
            unknown = str(error)
    cancelled = {run for one in live if submissions.is_cancelled(records.folder(one)) for run in one.runs}
    runs = [
        _standing(run, store, flights.get(run.id), records, was_cancelled=run.id in cancelled)
        for stage in sweep.stages()
        for run in stage
    ]
    return Standings(sweep.name, runs, unknown, bool(records.of(sweep)))


def _standing(run: Run, store: Store, flight: Flight | None, records: Submissions, *, was_cancelled: bool) -> Standing:
    state = state_of(run, store)
    if state == "done":
        return Standing(run, state)
    if flight is not None and flight.task.state == "PENDING":
        state = "requeued" if store.newest(run) else "queued"
        return Standing(run, state, flight, (flight.task.reason,))
    if flight is not None and flight.task.state in ("SUSPENDED", "STOPPED"):
        return Standing(run, "suspended", flight, (flight.task.node,))
    if state == "failed":
        return Standing(run, state, flight, _failed(run, store))
    if flight is not None:
        begun = state == "running" and (store.about(run).get("job") or {}).get("name") == flight.task.name
        if begun:
            return Standing(run, "running", flight, _running(run, store, flight.task.node))
        return Standing(
            run, "starting", flight, (flight.task.node, str(log_of(records, flight.submission, flight.task.index)))
        )
    if state == "running":
        if is_at_work(run, store):
            return Standing(run, state, None, _running(run, store, str(store.about(run).get("host", ""))))
        state = "lost"
    state = "cancelled" if was_cancelled and state in GONE else state
    return Standing(run, state, None, _lost(run, store) if state == "lost" else ())


def _running(run: Run, store: Store, where: str) -> tuple[str, ...]:
    """Where, how far, how fast, how long still, and when it was last heard of."""
    said, age = store.standing(run)
    heard = f"heard {duration(age)} ago"
    if not said.get("of"):
        return where, "beginning", "", "", heard
    steps, of, rate = said["steps"], said["of"], said.get("images_per_second")
    epoch = f"epoch {min(run.epochs, 1 + steps * run.epochs // of)} of {run.epochs}"
    left = f"{duration((of - steps) * run.batch_size / rate)} left" if rate else ""
    return where, epoch, f"{rate:,.0f} images/s" if rate else "", left, heard


def _lost(run: Run, store: Store) -> tuple[str, ...]:
    """What SLURM said in the log of the job that took the run with it, and where that is; nothing outside of one."""
    path = log_of_job(run, store)
    if path is None or not path.exists():
        return ()
    written = path.read_text(errors="replace").splitlines()
    said = next((line for pattern in TELLING for line in reversed(written) if re.search(pattern, line, re.I)), "")
    return said or "its process died without a word", str(path)


def _failed(run: Run, store: Store) -> tuple[str, ...]:
    end = store.ending(run) or {}
    lines = str(end.get("text", "")).strip().splitlines() or [str(end.get("type", ""))]
    return lines[-1], str(store.folder(run) / "attempts" / str(store.newest(run)) / "out.txt")


def lines(now: Standings, *, command: str) -> Iterator[str]:
    """What a user sees of it.

    Args:
        now: where the sweep stands.
        command: goes on with what nobody is at.
    """
    total = len(now.runs)
    parts = ", ".join(f"{now.counts[state]:,} {state}" for state in ORDER if now.counts[state])
    yield f"{now.name}: {total:,} run{'s' if total != 1 else ''}: {parts}"
    if now.unknown:
        yield f"what is in flight is not known: {now.unknown}; this is what the files say"
    if now.of("running", "suspended", "starting"):
        yield from (
            "",
            *_columns([(one.state, one.run.folder, *one.words) for one in now.of("running", "suspended", "starting")]),
        )
    if now.of("queued", "requeued"):
        yield from ("", *_reasons(now.of("queued", "requeued")))
    ended = [one for one in now.of("failed", "lost") if one.words]
    yield from [""] if ended else []
    for one in ended:
        yield f"{one.state}: {one.run.folder}: {one.words[0]}"
        yield f"  {one.words[1]}"
    left, failed = now.of(*GONE), now.of("failed")
    command += " --on slurm" if now.on_cluster else ""
    if left and not now.unknown:
        yield from ("", f"`{command}` goes on with the {len(left):,} that nobody is at")
    if failed:
        yield from ([] if left and not now.unknown else [""])
        yield f"`{command} --retry-failed` tries the {len(failed):,} again that failed"


def _reasons(waiting: Sequence[Standing]) -> Iterator[str]:
    """Why runs wait, each reason once, with a warning where it will not pass."""
    reasons = Counter((one.state, one.words[0]) for one in waiting)
    for (state, reason), count in reasons.most_common():
        endless = next((meaning for name, meaning in ENDLESS.items() if name in reason), "")
        yield f"{state}: {count:,} ({reason})" + (f": will not start by itself: {endless}" if endless else "")


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[place]) if place < len(row) else 0 for row in rows) for place in range(max(map(len, rows)))]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=False)).rstrip()


def log_of_job(run: Run, store: Store) -> Path | None:
    """The log of the job that made the newest attempt; None where it was in none."""
    job = store.about(run).get("job") or {}
    records = Submissions(store.root.resolve())
    found = next((one for one in records.all() if one.name == job.get("name")), None)
    return log_of(records, found, job["index"]) if found else None
