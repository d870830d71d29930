"""Measurements that are done, `Measured`, as their runs keep them. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixbench import catalog
from mixbench.spec import Run
from mixbench.store import Store

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """A measurement that is done.

    Attributes:
        run: it.
        record: what was read of the clock, see `mixbench.timing.measuring`.
        label: how tables call it.
        rows: of its table.
        once: what the runs cost that its subjects ask.
    """

    run: Run
    record: Record
    label: str
    rows: Sequence[Named]
    once: Sequence[Cost]


@dataclass(frozen=True)
class Named:
    """What a row is called.

    Attributes:
        name: among the paper's figures; "" where it has none.
        label: in tables.
    """

    name: str
    label: str


@dataclass(frozen=True)
class Cost:
    """What a run cost that others need once.

    Attributes:
        what: it makes: a teacher, a search, a bank.
        run: its folder.
        seconds: that it took, in the attempt that ended it.
        device: on which it ran.
    """

    what: str
    run: str
    seconds: float
    device: str


def measured(run: Run, store: Store, *, label: str = "", rows: Sequence[Named] | None = None) -> Measured | None:
    """A measurement as it was kept; None where it is not done, or its readings are not here.

    Args:
        run: which.
        store: where it is.
        label: how tables call it; "": by its setting.
        rows: what they are called; None: by their methods, those with options of their own without the paper's name.

    Raises:
        mixbench.files.DamagedError: a file of it is damaged; names it.
    """
    record = store.times(run)
    if record is None:
        return None
    costs = [_cost(need, store) for need in run.needs()]
    plain = [Named("" if one.options else one.method, catalog.label(one)) for one in run.subjects]
    return Measured(run, record, label or run.setting, rows or plain, [one for one in costs if one])


def _cost(run: Run, store: Store) -> Cost | None:
    result = store.recorded(run)
    what = {"classify": "teacher", "import": "teacher"}.get(run.task, run.task)
    return Cost(what, run.folder, result.seconds, result.device) if result and run.task != "import" else None
