"""What a measurement of ``mixbench time`` comes to: its rows, beside what the paper claims. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.paper import Claim, Key
from analysis.ratios import Ratio, Times, ratio, times
from mixbench.timing.request import SIMPLE

RELATIVE_TO = "transformmix"
"""The method by whose time the paper's table gives the others'."""

IMAGES = 128
"""For so many images times are given, as in the paper."""

COLUMNS: Mapping[str, str] = {"kernel": "kernel", "cold": "cold", "amortised": "amortised", "step": "training step"}
"""What tables call the columns of a record."""

UNLEARNED = {"teacher": "of random weights", "policy": "of random weights", "bank": "of made-up images"}
"""What a link was to, where no run made it."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """A method's line in a part.

    Attributes:
        method: by name.
        label: how tables print it.
        columns: milliseconds for `IMAGES`, by `COLUMNS`; those that it has.
        relative: its cold time over that of `RELATIVE_TO`; None where that was not timed.
        steps: its training step over Simple's.
        claim: what the paper says of `relative`.
        floor: the least that a cold mix could take, as a share of its mean, in percent; None where nothing of it
            was counted, or mixes did not finish.
        megabytes: of tensors that a cold mix holds at once.
        notes: what to know of it.
    """

    method: str
    label: str
    columns: Mapping[str, Times]
    relative: Ratio | None
    steps: Ratio | None
    claim: Claim | None
    floor: float | None
    megabytes: float
    notes: Sequence[str]


@dataclass(frozen=True)
class Part:
    """A setting in one precision.

    Attributes:
        setting, precision: which.
        pictures: what was mixed.
        rounds: counted.
        lines: one for each method.
        left_out: methods that were not timed, and why.
        once: what is paid once.
    """

    setting: str
    precision: str
    pictures: str
    rounds: int
    lines: Sequence[Line]
    left_out: Sequence[str]
    once: Sequence[Once]


@dataclass(frozen=True)
class Once:
    """A run that others need once.

    Attributes:
        what: it makes: a teacher, a search, a bank.
        run: its folder.
        seconds: that it took, in the attempt that ended it.
        device: on which it ran.
        pays: beside which methods it pays, after how many runs; empty where it does beside none, or was made elsewhere.
    """

    what: str
    run: str
    seconds: float
    device: str
    pays: Mapping[str, int]


def parts(record: Record, claims: Mapping[Key, Claim] | None) -> list[Part]:
    """All parts of a record, with what the paper claims, if that is at hand."""
    return [_part(record, part, claims or {}) for part in record["parts"]]


def _part(record: Record, part: Record, claims: Mapping[Key, Claim]) -> Part:
    clock, size = record["clock"][0], record["batch_size"]
    found = {id(row): _milliseconds(row, clock) for row in part["rows"]}
    by_method = {row["method"]: found[id(row)] for row in reversed(part["rows"])}
    lines = [_line(row, found[id(row)], by_method, _claim(row, part, claims), size) for row in part["rows"]]
    once = [_once(one, part, lines, record) for one in part["once"]]
    source = f"{part['pictures']['source']}, {part['pictures']['batches']} batches by turns"
    rounds = len(part["rows"][0]["columns"]["cold"]["images"])
    return Part(part["setting"], part["precision"], source, rounds, lines, part["left_out"], once)


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
    found: Mapping[str, Sequence[float]],
    by_method: Mapping[str, Mapping[str, Sequence[float]]],
    claim: Claim | None,
    size: int,
) -> Line:
    columns = {name: times(values, mean=name == "amortised") for name, values in found.items()}
    other = by_method.get(RELATIVE_TO)
    least = 1000 * IMAGES / size * row["counted"]["seconds"]
    cold = columns["cold"].mean
    return Line(
        method=row["method"],
        label=row["label"],
        columns=columns,
        relative=ratio(found["cold"], other["cold"]) if other else None,
        steps=ratio(found["step"], by_method[SIMPLE]["step"]),
        claim=claim,
        floor=100 * least / cold if least and math.isfinite(cold) else None,
        megabytes=row["counted"]["peak"] / 1e6,
        notes=_notes(row),
    )


def _notes(row: Record) -> list[str]:
    inside = ["it mixes inside the network: its training step shows what that costs"] * row["inside"]
    given = [f"{link} {folder or UNLEARNED[link]}" for link, folder in row["runs"].items()]
    return [*given, *inside, *_steps(row["steps"])]


def _steps(counts: Sequence[int]) -> list[str]:
    """How many steps mixes took: the histogram, in a sentence."""
    if not sum(counts):
        return []
    told = ", ".join(f"{step}: {count}" for step, count in enumerate(counts) if count and step)
    return [f"times are for images that finished, {sum(counts[1:])} of {sum(counts)}; after so many steps: {told}"]


def _claim(row: Record, part: Record, claims: Mapping[Key, Claim]) -> Claim | None:
    """The paper's number: of the method as it is by default, on the data set, whatever the model."""
    dataset = part["setting"].partition("/")[0]
    return None if row["options"] else claims.get(Key("4", row["method"], dataset, "", "", "time_ratio"))


def _once(one: Record, part: Record, lines: Sequence[Line], record: Record) -> Once:
    """What is paid once, and beside whom it pays: those whose training step takes longer than its users'."""
    pays: dict[str, int] = {}
    asking = {row["label"] for row in part["rows"] if one["run"] in row["runs"].values()}
    users = [line for line in lines if line.label in asking]
    if users and one["device"] == record["machine"]["device"]:
        dearest = max(users, key=lambda line: line.columns["step"].middle)
        steps = record["protocol"]["epochs"] * part["train_images"] / IMAGES
        for line in lines:
            saved = (line.columns["step"].middle - dearest.columns["step"].middle) / 1000 * steps
            if saved > 0 and line not in users:
                pays[line.label] = math.ceil(one["seconds"] / saved)
    return Once(one["what"], one["run"], one["seconds"], one["device"], pays)
