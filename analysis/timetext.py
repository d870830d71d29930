"""A measurement of ``mixbench time`` as text: Markdown, LaTeX, and CSV or JSON for machines."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from csv import DictWriter
from itertools import groupby
from typing import Any

from analysis.footnotes import DASH
from analysis.measured import Measured, Record
from analysis.ratios import Ratio, Times
from analysis.render import BULLET, WIDTH, aligned
from analysis.timetable import COLUMNS, IMAGES, RELATIVE_TO, Claims, Line, Part, part
from mixbench import catalog

CLOCKS = {"cpu": "CPU time of the process", "wall": "time that passes, until the device has done all"}
"""What tables say of the clock that leads."""

INTERVALS = "; ratios with 95 % bootstrap intervals over the rounds"

LEAST_RATIO = 0.1
"""Below which two digits behind the point say too little."""

LEGEND = (
    "kernel: mixing alone, maps and gradients given; where a method asks while it mixes there is no such thing.",
    "cold: all that a new batch needs. The ratio to {reference}, the paper's number and the floor are of this column.",
    "amortised: the mean over {epochs} epochs in which images are cropped after padding by {pad} and flipped, {views} "
    "views each, and what is known of a view is kept; filling is counted. Methods that keep nothing have none, nor "
    "have pictures of more than {largest} pixels a side, which are cropped at random sizes.",
    "training step: a cold mix, and forward, backward and update of the network. The ratio to Simple is of this "
    "column.",
    "floor: the least that this device could take for a cold mix as it is computed, as a share of its mean, from what "
    "torch's operations compute and move; compiled loops outside torch are not counted.",
    "MB: of tensors that a cold mix of a batch holds at once.",
)


def markdown(found: Sequence[Measured], claims: Claims) -> str:
    """All measurements, each with its table, and what to know before trusting it."""
    blocks: list[str] = []
    for heading, ones in groupby(found, key=_heading):
        blocks += [heading, *(_block(one, claims) for one in ones)]
    return "\n\n".join([*blocks, _legend(found[0].record)]) + "\n"


def latex(found: Sequence[Measured], claims: Claims) -> str:
    """A ``tabular`` for each measurement; needs the package booktabs."""
    return "\n".join(_tabular(one, part(one, claims)) for one in found)


def csv(found: Sequence[Measured], claims: Claims) -> str:
    """One line for each measurement, method and column, in full precision."""
    lines = [line for one in found for line in _records(one, part(one, claims))]
    text = io.StringIO()
    writer = DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def plain(found: Sequence[Measured], claims: Claims) -> str:  # noqa: ARG001
    """The measurements as JSON, every reading in them."""
    told = [{"run": one.run.to_dict(), "record": one.record} for one in found]
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


FORMS: Mapping[str, Callable[[Sequence[Measured], Claims], str]] = {
    "md": markdown,
    "tex": latex,
    "csv": csv,
    "json": plain,
}


def _heading(found: Measured) -> str:
    """Where it was measured."""
    machine = found.record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    driver = f", driver {machine['driver']}" if machine["driver"] else ""
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)} on {machine['cores']} cores"
    where = f"{machine['device']}{driver}; {threads}; {versions}; commit {machine['commit']}."
    return textwrap.fill(where, WIDTH)


def _block(found: Measured, claims: Claims) -> str:
    record, about = found.record, part(found, claims)
    clock = CLOCKS[record["clock"][0]]
    spread = INTERVALS * any(line.steps and line.steps.interval for line in about.lines)
    loads = " to ".join(f"{load:.1f}" for load in record["load"])
    flops, moved = record["rates"]["flops"] / 1e9, record["rates"]["bytes"] / 1e9
    rounds = f"{about.rounds} round{'s' * (about.rounds > 1)}"
    above = (
        f"{about.label}, {about.precision}. Milliseconds for {IMAGES} images produced, in batches of "
        f"{found.run.batch_size}: median of {rounds} (quartiles), {clock}{spread}. "
        f"{about.pictures[0].upper()}{about.pictures[1:]}; load {loads}. At best the device does {flops:,.0f} GFLOP/s "
        f"in matrix products and {moved:,.1f} GB/s in copies."
    )
    table = aligned(_head(), [_texts(line) for line in about.lines])
    notes = [f"{line.label}: {'; '.join(line.notes)}" for line in about.lines if line.notes]
    below = "\n".join(textwrap.fill(note, WIDTH, **BULLET) for note in notes)
    blocks = [textwrap.fill(above, WIDTH), table, below, _paid_once(about)]
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
        "" if line.claim is None else f"{line.claim:.2f}" + f" ({line.verdict})" * bool(line.verdict),
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


def _paid_once(about: Part) -> str:
    """The table of what is paid once."""
    if not about.once:
        return ""
    rows = [
        [
            cost.what,
            cost.run,
            f"{cost.seconds / 60:.1f}",
            cost.device,
            ", ".join(f"{runs} beside {label}" for label, runs in pays.items()),
        ]
        for cost, pays in about.once
    ]
    return "Paid once, and after how many runs the methods that need it have made up for it:\n\n" + aligned(
        ["What", "run", "minutes", "on", "pays after"], rows
    )


def _legend(record: Record) -> str:
    protocol = {**record["protocol"], "reference": catalog.declaration(RELATIVE_TO).label}
    return "\n".join(textwrap.fill(one.format(**protocol), WIDTH, subsequent_indent="  ") for one in LEGEND)


def _tabular(found: Measured, about: Part) -> str:
    """One measurement in LaTeX; its first lines say where it was measured."""
    head = [text.replace("%", r"\%").replace("× ", r"$\times$ ") for text in _head()]
    rows = [[_escaped(text) for text in _texts(line)] for line in about.lines]
    body = [" & ".join(row) + r" \\" for row in rows]
    above = (*_heading(found).splitlines(), f"{about.setting}, {about.precision}: ms, {IMAGES} images")
    columns = "l" + "r" * (len(head) - 1)
    table = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule", *body]
    return "\n".join([*(f"% {line}" for line in above), *table, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace(DASH, "--")


def _records(measured: Measured, about: Part) -> Iterator[dict[str, Any]]:
    for line in about.lines:
        for name, found in line.columns.items():
            low, high = found.interval or ("", "")
            relative = line.relative if name == "cold" else line.steps if name == "step" else None
            of = {"cold": RELATIVE_TO, "step": "simple"}.get(name, "")
            ratio_low, ratio_high = (relative.interval if relative else None) or ("", "")
            yield {
                "machine": measured.run.machine,
                "setting": about.setting,
                "precision": about.precision,
                "seed": measured.run.seed,
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
