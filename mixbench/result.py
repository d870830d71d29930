"""What came out of a run, `Result`, and the files that hold it and what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mixbench import catalog
from mixbench.spec import Run
from mixbench.traces import SCHEMA

RESULT = "result.json"
"""The file that makes a run done."""

MIXER = "mixer.pt"
"""The file that holds the state of a mixer that learned."""

TIMES = "times.json"
"""The file that holds every reading of a measurement."""


class StaleResultError(ValueError):
    """A result was made with other defaults than the code has now: it is not what its run asks for."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a run.

    Attributes:
        metrics: of the last epoch, in percent: ``{"top1": 84.11, "top5": 96.93}``.
        options: the mixer's, defaults filled in.
        notes: what the task adds: losses, images per second.
        content: fingerprint of the data it saw.
        official: whether that is the official release.
        attempt: the number of the attempt that made it.
        seconds: of that attempt, from reading the data to the last evaluation.
        device: the processor or GPU, by its name; several, in their order, where a run went on elsewhere.
        versions: of Python and the packages that decide the numbers.
        code: of the mixer's source file, see `mixbench.catalog.code`.
        commit: of the code, with a ``+`` for uncommitted changes; several likewise.
        execution: what of it can change the last bits, see `Execution.bits`; several values likewise.
    """

    metrics: Mapping[str, float]
    options: Mapping[str, Any]
    notes: Mapping[str, Any]
    content: str
    official: bool
    attempt: int
    seconds: float
    device: str
    versions: Mapping[str, str]
    code: str
    commit: str
    execution: Mapping[str, Any]


def payload_of(run: Run, result: Result) -> dict[str, Any]:
    """What ``result.json`` holds: the result, and whose it is."""
    return {"schema": SCHEMA, "run": run.id} | asdict(result)


def check_defaults(run: Run, result: Result) -> None:
    """Refuse a result whose options, defaults filled in, are not those that the code would use today."""
    asked = catalog.options_of(run)
    for name, was in result.options.items():
        now = asked.get(name)
        if now != (tuple(was) if isinstance(was, list) else was):
            raise StaleResultError(
                f"{run.folder} was trained with {name}={was}, the code's default is now {now}: "
                f"put the default back and write {now} into the recipe"
            )
