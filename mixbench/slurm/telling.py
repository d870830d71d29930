"""Where a sweep stands, in words: what ``mixbench status`` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mixbench.display import counted
from mixbench.slurm.flights import NOT_STARTED
from mixbench.slurm.standing import GONE, ORDER, Standing, Standings

ENDLESS: Mapping[str, str] = {
    "PartitionTimeLimit": "its partition allows less time than it asks for",
    "PartitionNodeLimit": "its partition has fewer nodes than it asks for",
    "DependencyNeverSatisfied": "what it waits for can never come",
    "JobHeldUser": "somebody holds it; `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "BadConstraints": "no node is as it asks for",
    "AccountNotAllowed": "its account may not use the partition",
    "QOSNotAllowed": "its QOS may not use the partition",
    "InvalidAccount": "there is no such account",
    "InvalidQOS": "there is no such QOS",
    NOT_STARTED: "it could not be started, and is held; `mixbench run` lets it go",
    "AssocMaxWallDurationPerJobLimit": "its account allows less time than it asks for",
    "QOSMaxWallDurationPerJobLimit": "its QOS allows less time than it asks for",
}
"""Reasons of waiting that do not pass by themselves, and what they mean."""

TO_COME = ("starting", "waiting", "queued", "requeued")
"""States of runs that a job will do."""


def lines(now: Standings, *, command: str) -> Iterator[str]:
    """What a user sees of it.

    Args:
        now: where the sweep stands.
        command: goes on with what nobody is at.
    """
    parts = ", ".join(f"{now.counts[state]:,} {state}" for state in ORDER if now.counts[state])
    yield f"{now.name}: {counted(len(now.runs), 'run')}: {parts}"
    if now.unknown:
        yield f"what is in flight is not known: {now.unknown}; this is what the files say"
    if now.of("running", "suspended"):
        yield from (
            "",
            *_columns([(one.state, one.run.folder, *one.words) for one in now.of("running", "suspended")]),
        )
    if now.of(*TO_COME):
        yield from ("", *_reasons(now.of(*TO_COME)))
    ended = [one for one in now.of("failed", "lost") if one.words]
    yield from [""] if ended else []
    for one in ended:
        yield f"{one.state}: {one.run.folder}: {one.words[0]}"
        yield f"  {one.words[1]}"
    left, failed = now.of(*GONE), now.of("failed")
    command = now.command or command
    if left and not now.unknown:
        yield from ("", f"`{command}` goes on with the {len(left):,} that nobody is at")
    if failed:
        yield from ([] if left and not now.unknown else [""])
        yield f"`{command} --retry-failed` tries the {len(failed):,} again that failed"


def _reasons(waiting: Sequence[Standing]) -> Iterator[str]:
    """Why runs wait, each reason once, with a warning where it will not pass."""
    reasons = Counter((one.state, one.words[0]) for one in waiting)
    for (state, reason), count in sorted(reasons.items(), key=lambda one: (ORDER.index(one[0][0]), -one[1])):
        endless = next((meaning for name, meaning in ENDLESS.items() if name in reason), "")
        yield f"{state}: {count:,} ({reason})" + (f": will not start by itself: {endless}" if endless else "")


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[place]) if place < len(row) else 0 for row in rows) for place in range(max(map(len, rows)))]
    for row in rows:
        yield "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=False)).rstrip()
