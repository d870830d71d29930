"""A measurement of ``mixbench time`` as text: Markdown, LaTeX, and CSV or JSON for machines."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from csv import DictWriter
from typing import Any

from analysis.footnotes import DASH
from analysis.paper import Claim, Key
from analysis.ratios import Ratio, Times
from analysis.render import WIDTH, aligned
from analysis.timetable import COLUMNS, IMAGES, RELATIVE_TO, Line, Once, Part, Record, parts
from mixbench import catalog

Claims = Mapping[Key, Claim] | None

CLOCKS = {"cpu": "CPU time of the process", "wall": "time that passes, until the device has done all"}
"""What tables say of the clock that leads."""

LEAST_RATIO = 0.1
"""Below which two digits behind the point say too little."""

LEGEND = (
    "kernel: mixing alone, maps and gradients given; where a method asks while it mixes there is no such thing.",
    "cold: all that a new batch needs. The ratio and the floor are of this column.",
    "amortised: the mean over {epochs} epochs in which images are cropped after padding by {pad} and flipped, {views} "
    "views each, and what is known of a view is kept; filling is counted. Methods that keep nothing have none, nor "
    "have pictures of more than {largest} pixels a side, which are cropped at random sizes.",
    "training step: a cold mix, and forward, backward and update of the network.",
    "floor: the least that this device could take for a cold mix as it is computed, as a share of its mean, from what "
    "torch's operations compute and move; compiled loops outside torch are not counted.",
    "MB: of tensors that a cold mix of a batch holds at once.",
)


def markdown(record: Record, claims: Claims) -> str:
    """All parts, each with its table, and what to know before trusting it."""
    found = parts(record, claims)
    return "\n\n".join([_heading(record), *(_block(record, part) for part in found), _legend(record)]) + "\n"


def latex(record: Record, claims: Claims) -> str:
    """A ``tabular`` for each part; needs the package booktabs."""
    return "\n".join(_tabular(record, part) for part in parts(record, claims))


def csv(record: Record, claims: Claims) -> str:
    """One line for each part, method and column, in full precision."""
    lines = [line for part in parts(record, claims) for line in _records(part)]
    text = io.StringIO()
    writer = DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def plain(record: Record, claims: Claims) -> str:  # noqa: ARG001
    """The record itself as JSON, every reading in it."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


FORMS: Mapping[str, Callable[[Record, Claims], str]] = {"md": markdown, "tex": latex, "csv": csv, "json": plain}


def _heading(record: Record) -> str:
    """Where it was measured."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    rates = "; ".join(
        f"{precision} {rate['flops'] / 1e9:,.0f} GFLOP/s in matrix products, {rate['bytes'] / 1e9:,.1f} GB/s in copies"
        for precision, rate in record["rates"].items()
    )
    driver = f", driver {machine['driver']}" if machine["driver"] else ""
    loads = " to ".join(f"{load:.1f}" for load in record["load"])
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)} on {machine['cores']} cores, load {loads}"
    where = f"{machine['device']}{driver}; {threads}; {versions}; commit {machine['commit']}."
    return textwrap.fill(where, WIDTH) + "\n" + textwrap.fill(f"At best: {rates}.", WIDTH)


def _block(record: Record, part: Part) -> str:
    clock = CLOCKS[record["clock"][0]]
    above = (
        f"{part.setting}, {part.precision}. Milliseconds for {IMAGES} images produced, in batches of "
        f"{record['batch_size']}: median of {part.rounds} round{'s' * (part.rounds > 1)} (quartiles), {clock}; ratios "
        f"with 95 % bootstrap intervals over the rounds. {part.pictures[0].upper()}{part.pictures[1:]}."
    )
    table = aligned(_head(), [_texts(line) for line in part.lines])
    notes = [f"{line.label}: {'; '.join(line.notes)}" for line in part.lines if line.notes]
    left_out = [f"left out: {one}" for one in part.left_out]
    below = "\n".join(
        textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in (*notes, *left_out)
    )
    blocks = [textwrap.fill(above, WIDTH), table, below, _paid_once(part.once)]
    return "\n\n".join(block for block in blocks if block)


def _head() -> list[str]:
    reference = catalog.declaration(RELATIVE_TO).label
    return ["Method", *COLUMNS.values(), "× Simple", f"× {reference}", "paper", "% of floor", "MB"]


def _texts(line: Line) -> list[str]:
    """The cells of a line."""
    floor = DASH if line.floor is None else f"{line.floor:.2g}"
    return [
        line.label,
        *(_time(line.columns.get(name), name) for name in COLUMNS),
        _ratio(line.steps),
        _ratio(line.relative),
        "" if line.claim is None else f"{line.claim:.2f}",
        floor,
        f"{line.megabytes:.3g}",
    ]


def _time(found: Times | None, column: str) -> str:
    """``12.3 (11.9 to 12.9)``; of a mean no quartiles."""
    if found is None or not math.isfinite(found.middle):
        return DASH
    if column == "amortised":
        return _short(found.middle)
    return f"{_short(found.middle)} ({' to '.join(map(_short, found.quartiles))})"


def _short(number: float) -> str:
    """Three digits, and never an exponent."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.{max(0, 2 - math.floor(math.log10(max(number, 1e-3))))}f}"


def _ratio(found: Ratio | None) -> str:
    if found is None:
        return DASH
    return f"{found:.2f}" if found.value >= LEAST_RATIO else f"{found:.1g}"


def _paid_once(once: Sequence[Once]) -> str:
    """The table of what is paid once."""
    if not once:
        return ""
    rows = [
        [
            one.what,
            one.run,
            f"{one.seconds / 60:.1f}",
            one.device,
            ", ".join(f"{n} beside {m}" for m, n in one.pays.items()),
        ]
        for one in once
    ]
    return "Paid once, and after how many runs the methods that need it have made up for it:\n\n" + aligned(
        ["What", "run", "minutes", "on", "pays after"], rows
    )


def _legend(record: Record) -> str:
    protocol = record["protocol"]
    return "\n".join(textwrap.fill(one.format(**protocol), WIDTH, subsequent_indent="  ") for one in LEGEND)


def _tabular(record: Record, part: Part) -> str:
    """One part in LaTeX; its first lines say where it was measured."""
    head = [text.replace("%", r"\%").replace("× ", r"$\times$ ") for text in _head()]
    rows = [[_escaped(text) for text in _texts(line)] for line in part.lines]
    body = [" & ".join(row) + r" \\" for row in rows]
    about = [
        f"% {line}"
        for line in (*_heading(record).splitlines(), f"{part.setting}, {part.precision}: ms, {IMAGES} images")
    ]
    columns = "l" + "r" * (len(head) - 1)
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule", *body]
    return "\n".join([*about, *table, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace(DASH, "--")


def _records(part: Part) -> Iterator[dict[str, Any]]:
    for line in part.lines:
        for name, found in line.columns.items():
            low, high = found.interval or ("", "")
            relative = line.relative if name == "cold" else line.steps if name == "step" else None
            of = {"cold": RELATIVE_TO, "step": "simple"}.get(name, "")
            ratio_low, ratio_high = (relative.interval if relative else None) or ("", "")
            yield {
                "setting": part.setting,
                "precision": part.precision,
                "method": line.label,
                "column": name,
                "ms": found.middle,
                "quartile1": found.quartiles[0],
                "quartile3": found.quartiles[1],
                "low": low,
                "high": high,
                "mean_ms": found.mean,
                "rounds": found.n,
                "relative_to": of if relative else "",
                "ratio": relative.value if relative else "",
                "ratio_low": ratio_low,
                "ratio_high": ratio_high,
                "paper": line.claim.value if line.claim and name == "cold" else "",
                "floor_percent": line.floor if line.floor is not None and name == "cold" else "",
                "peak_mb": line.megabytes if name == "cold" else "",
            }
