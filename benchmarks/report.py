"""How long `mixbench report` takes over 10,000 finished runs: the first time, and when asked again.

    python benchmarks/report.py [--rounds N] [--seeds N] [--out DIR]

A sweep of 25 rows and 8 columns under 50 seeds each, whose results are made up and written as runs write them. Timed is
the whole command, in a process of its own, by the clock on the wall; its CPU time stands beside that. The first time
nothing is kept from before. What it takes where the system too has forgotten the files, and must read 10,000 of them
from the disk, is told, but is the disk's.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from claims import measured, options, publish
from machine import as_a_worker, heading

from analysis import answers
from mixbench import catalog, files, provenance
from mixbench.execution import Execution
from mixbench.grid import Sweep
from mixbench.resolve import load_sweep
from mixbench.result import Result, payload_of
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.traces import SCHEMA

COLUMNS = [
    f"{data}/{net}" for data in ("cifar10", "cifar100") for net in ("resnet8", "resnet20", "resnet18", "wrn28_10")
]
FROM_DISK, FIRST, AGAIN = "the first time, from the disk", "the first time", "again"
ALPHAS = "{alpha: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}"
ROWS = f"{{simple:, lr:, resizemix:, saliencymix:, softmax_cam:, mixup: {ALPHAS}, cutmix: {ALPHAS}}}"


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=7)
    parser.add_argument("--seeds", type=int, default=50, help="of each of 200 cells")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "many.yaml").write_text(written(asked.seeds))
        runs = fill(load_sweep(folder / "many.yaml", data=folder, results=folder / "results"), folder / "results")
        spent = timed(folder, asked.rounds)
    how = f"`mixbench report` over {runs:,} finished runs, of {asked.rounds} times"
    lines = [heading("Report", how), "| | s on the wall | CPU s |", "|---|---|---|"]
    lines += [f"| {name} | {told(wall)} | {told(cpu)} |" for name, (wall, cpu) in spent.items()]
    claims = [
        measured(f"report over {runs:,} runs, {name}", spent[name][0], target, "s", at_most=True)
        for name, target in ((FIRST, 1.0), (AGAIN, 0.3))
    ]
    publish("report", asked.out, "\n".join([*lines, ""]), claims)


def written(seeds: int) -> str:
    """The sweep file."""
    recipes = "".join(f"  {column}: {{epochs: 200, schedule: cosine}}\n" for column in COLUMNS)
    return (
        f"settings: [{', '.join(COLUMNS)}]\nmethods: {ROWS}\nseeds: {list(range(seeds))}\nteacher: {{method: simple}}\n"
        f"table: {{caption: Made up., compare: simple}}\nrecipes:\n{recipes}"
    )


def fill(sweep: Sweep, results: Path) -> int:
    """Make every run of a sweep done, as a worker leaves it in a fresh clone; how many there are."""
    store, drawn, versions = Store(results, tell=print), random.Random(0), provenance.versions()
    runs = [run for cell in sweep.cells for run in cell.runs]
    for run in runs:
        store.folder(run).mkdir(parents=True)
        request = {"schema": SCHEMA, "run": run.id, "request": run.to_dict()}
        (store.folder(run) / "run.json").write_bytes(files.encode(request))
        result = payload_of(run, made_up(run, drawn.gauss(90, 1), versions))
        (store.folder(run) / "result.json").write_bytes(files.encode(result))
    return len(runs)


def made_up(run: Run, top1: float, versions: Mapping[str, str]) -> Result:
    """A result as a worker writes it."""
    return Result(
        metrics={"top1": top1, "top5": 50 + top1 / 2, "test_loss": 1 - top1 / 100},
        options=catalog.filled(run.method, dict(run.options)),
        notes={"train_loss": 1 - top1 / 110, "images_per_second": 1000 * top1},
        content="0123456789abcdef",
        official=True,
        attempt=1,
        seconds=60 * top1,
        device=provenance.processor(),
        versions=versions,
        code=catalog.code(run.method),
        commit="0123456789",
        execution=Execution().bits(),
    )


def timed(folder: Path, rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds on the wall and of CPU, by what is still known; one more round comes first and does not count."""
    time.sleep(answers.SETTLED_SECONDS)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in (FROM_DISK, FIRST, AGAIN)}
    for number in range(rounds + 1):
        for name, (wall, cpu) in found.items():
            if name != AGAIN:
                shutil.rmtree(folder / "results" / answers.FOLDER, ignore_errors=True)
            if name == FROM_DISK:
                forget(folder)
            begun, used = time.monotonic(), children()
            command = [sys.executable, "-m", "mixbench", "report", "many.yaml"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            if number:
                wall.append(time.monotonic() - begun)
                cpu.append(children() - used)
    return found


def children() -> float:
    """CPU seconds of processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def forget(folder: Path) -> None:
    """Have the system drop what it keeps of the files' content; names and times it may keep."""
    os.sync()
    for path in folder.rglob("result.json"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def told(each: Sequence[float]) -> str:
    """The median of several times, the least and the largest."""
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


if __name__ == "__main__":
    as_a_worker()
    main()
