"""What a measurement of ``mixbench time`` comes to: its rows, beside what the paper claims. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.measured import Cost, Measured, Record
from analysis.paper import Claim, Key
from analysis.ratios import Ratio, Times, ratio, times
from mixbench.spec import Run
from mixbench.timing.runs import SIMPLE

RELATIVE_TO = "transformmix"
"""The method by whose time the paper's table gives the others'."""

TABLE = "4"
"""The paper's table of times."""

IMAGES = 128
"""For so many images times are given, as in the paper."""

COLUMNS: Mapping[str, str] = {"kernel": "kernel", "cold": "cold", "amortised": "amortised", "step": "training step"}
"""What tables call the columns of a record."""

BUILT_SECONDS = 1.0
"""A constructor that takes longer is told of: a method must not hide its work there."""

UNLEARNED = {"teacher": "of random weights", "policy": "of random weights", "bank": "of made-up images"}
"""What a link was to, where no run made it."""

Claims = Mapping[Key, Claim] | None
"""What the paper says, if that is at hand."""


@dataclass(frozen=True)
class Line:
    """A method's line in a part.

    Attributes:
        label: how tables print it.
        columns: milliseconds for `IMAGES`, by `COLUMNS`; those that it has.
        relative: its cold time over that of `RELATIVE_TO`; None where that was not timed.
        steps: its training step over Simple's.
        claim: what the paper says of `relative`.
        verdict: ``reproduced`` or ``differs``, whether the interval of `relative` holds that; "" where there is no
            interval, or no GPU was measured: the paper's figures are of one.
        floor: the least that a cold mix could take, as a share of its mean, in percent; None where nothing of it
            was counted, or mixes did not finish.
        megabytes: of tensors that a cold mix holds at once.
        notes: what to know of it.
    """

    label: str
    columns: Mapping[str, Times]
    relative: Ratio | None
    steps: Ratio | None
    claim: Claim | None
    verdict: str
    floor: float | None
    megabytes: float
    notes: Sequence[str]


@dataclass(frozen=True)
class Part:
    """A setting in one precision.

    Attributes:
        label, setting, precision: which.
        pictures: what was mixed.
        rounds: counted.
        lines: one for each method.
        once: what is paid once, and beside which methods it pays, after how many runs; beside none where it does not,
            or was made on another device.
    """

    label: str
    setting: str
    precision: str
    pictures: str
    rounds: int
    lines: Sequence[Line]
    once: Sequence[tuple[Cost, Mapping[str, int]]]


def part(found: Measured, claims: Claims) -> Part:
    """What a measurement comes to, with what the paper claims, if that is at hand."""
    record, run = found.record, found.run
    on_gpu = "events" in record["clock"]
    times_of = [_milliseconds(row, record["clock"][0]) for row in record["rows"]]
    by_method = {row["method"]: of for row, of in reversed([*zip(record["rows"], times_of, strict=True)])}
    lines = [
        _line(row, named.label, of, by_method, claim_of(named.name, run, claims), run.batch_size, on_gpu=on_gpu)
        for row, named, of in zip(record["rows"], found.rows, times_of, strict=True)
    ]
    once = [(cost, _pays(cost, found, lines)) for cost in found.once]
    source = f"{record['pictures']['source']}, {record['pictures']['batches']} batches by turns"
    rounds = len(record["rows"][0]["columns"]["cold"]["images"])
    return Part(found.label, run.setting, run.precision, source, rounds, lines, once)


def _milliseconds(row: Record, clock: str) -> dict[str, list[float]]:
    """Milliseconds for `IMAGES` in each round, by column; without end where a call gave none."""
    return {
        name: [
            1000 * IMAGES * seconds / images if images else math.inf
            for seconds, images in zip(column[clock], column["images"], strict=True)
        ]
        for name, column in row["columns"].items()
    }


def _line(
    row: Record,
    label: str,
    found: Mapping[str, Sequence[float]],
    by_method: Mapping[str, Mapping[str, Sequence[float]]],
    claim: Claim | None,
    size: int,
    *,
    on_gpu: bool,
) -> Line:
    columns = {name: times(values, mean=name == "amortised") for name, values in found.items()}
    other = by_method.get(RELATIVE_TO)
    least = 1000 * IMAGES / size * row["counted"]["seconds"]
    cold = columns["cold"].mean
    relative = ratio(found["cold"], other["cold"]) if other else None
    return Line(
        label=label,
        columns=columns,
        relative=relative,
        steps=ratio(found["step"], by_method[SIMPLE]["step"]),
        claim=claim,
        verdict=_verdict(relative, claim) if on_gpu else "",
        floor=100 * least / cold if least and math.isfinite(cold) else None,
        megabytes=row["counted"]["peak"] / 1e6,
        notes=_notes(row),
    )


def _notes(row: Record) -> list[str]:
    inside = ["it mixes inside the network: its training step shows what that costs"] * row["inside"]
    given = [f"{link} {folder or UNLEARNED[link]}" for link, folder in row["runs"].items()]
    built = [f"its constructor took {row['built']:.1f} s, which no column shows"] * (row["built"] > BUILT_SECONDS)
    return [*given, *inside, *built, *row["told"], *_steps(row["steps"])]


def _steps(counts: Sequence[int]) -> list[str]:
    """How many steps mixes took: the histogram, in a sentence."""
    if not sum(counts):
        return []
    told = ", ".join(f"{step}: {count}" for step, count in enumerate(counts) if count and step)
    return [f"times are for images that finished, {sum(counts[1:])} of {sum(counts)}; after so many steps: {told}"]


def claim_of(name: str, run: Run, claims: Claims) -> Claim | None:
    """The paper's number for a row of this name: on the data set, whatever the model; none for its measure itself."""
    key = Key(TABLE, name, run.dataset, "", "", "time_ratio")
    return None if name == RELATIVE_TO else (claims or {}).get(key)


def _verdict(relative: Ratio | None, claim: Claim | None) -> str:
    if claim is None or relative is None or relative.interval is None:
        return ""
    low, high = relative.interval
    return "reproduced" if low <= claim.value <= high else "differs"


def _pays(cost: Cost, found: Measured, lines: Sequence[Line]) -> Mapping[str, int]:
    """After how many runs a cost has paid, beside those whose training step takes longer than its users'."""
    record = found.record
    users = [line for line, row in zip(lines, record["rows"], strict=True) if cost.run in row["runs"].values()]
    if not users or cost.device != record["machine"]["device"]:
        return {}
    dearest = max(users, key=lambda line: line.columns["step"].middle)
    steps = record["protocol"]["epochs"] * record["train_images"] / IMAGES
    saved = {
        line.label: (line.columns["step"].middle - dearest.columns["step"].middle) / 1000 * steps
        for line in lines
        if line not in users
    }
    return {label: math.ceil(cost.seconds / seconds) for label, seconds in saved.items() if seconds > 0}
