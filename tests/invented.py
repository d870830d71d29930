"""Sweeps and results made up for the tests of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mixbench import catalog, files
from mixbench.execution import Execution
from mixbench.grid import Cell, Sweep, Table
from mixbench.result import Result, payload_of
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing.rounds import rounds

LABELS = {
    "simple": "Simple",
    "mixup": "Mixup",
    "cutmix": "CutMix",
    "cifar10/resnet18": "CIFAR-10, ResNet-18",
    "cifar100/resnet18": "CIFAR-100, ResNet-18",
    "digits/tiny": "Digits, tiny",
}


def make_sweep(
    *,
    rows: Sequence[str] = ("simple", "mixup"),
    columns: Sequence[str] = ("cifar10/resnet18",),
    seeds: int = 3,
    table: Table | None = None,
    **recipe: Any,
) -> Sweep:
    def run(row: str, column: str, seed: int) -> Run:
        dataset, _, model = column.rpartition("/")
        return Run(method=row, dataset=dataset, model=model, seed=seed, **{"epochs": 12, **recipe})

    cells = [
        Cell(row, column, tuple(run(row, column, seed) for seed in range(seeds))) for row in rows for column in columns
    ]
    return Sweep("invented", tuple(cells), LABELS, table or Table(), {}, {})


def result_of(run: Run, top1: float, *, bits: Mapping[str, Any] | None = None, **other: Any) -> Result:
    usual = Result(
        metrics={"top1": top1, "top5": top1 / 2 + 50},
        options=catalog.options_of(run),
        notes={},
        content="c0ffee",
        official=True,
        attempt=1,
        seconds=60.0,
        device="Some CPU",
        versions={"python": "3.11.1", "torch": "2.11.0"},
        code=catalog.code_of(run),
        commit="1f3c9ab",
        execution=Execution().bits() | (bits or {}),
    )
    return replace(usual, **other)


def finish(store: Store, run: Run, top1: float, **other: Any) -> None:
    result = result_of(run, top1, **other)
    files.publish(store.folder(run) / "result.json", files.encode(payload_of(run, result)))


def finish_cell(store: Store, cell: Cell, values: Sequence[float], **other: Any) -> None:
    for run, value in zip(cell.runs, values, strict=False):
        finish(store, run, value, **other)


def write_curve(store: Store, run: Run, top1: Mapping[int, float], *, start: Mapping[str, float] | None = None) -> None:
    """A curve with a loss for each epoch, and metrics after those that ``top1`` has; and before the first."""
    before = [{"epoch": 0, **start}] if start else []
    curve = before + [
        {"epoch": epoch, "train_loss": 1.0} | ({"top1": top1[epoch], "top5": 99.0} if epoch in top1 else {})
        for epoch in range(1, run.epochs + 1)
    ]
    files.publish(store.folder(run) / "curve-a1.json", files.encode({"schema": 1, "run": run.id, "curve": curve}))


def measure(works, clock, limits, **more):
    """All rounds; the readings of each work."""
    found = {name: [] for name in works}
    for _ in rounds(works, clock, limits, found, **more):
        pass
    return found
