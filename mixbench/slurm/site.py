"""What a cluster wants to be told that no sweep says: partition, account and whatever else sbatch takes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixbench import yamlfile
from mixbench.recipes import blaming
from mixbench.slurm import commands

VARIABLE = "MIXBENCH_SLURM"
"""Names the file of site settings where no ``--slurm-file`` does."""

OURS = {
    "array": "mixbench makes the arrays; --max-jobs N says how many of its jobs may be at work at a time",
    "job_name": "a job's name tells mixbench whose it is",
    "output": "logs stand beside each submission; see them with `mixbench logs RUN`",
    "error": "logs stand beside each submission; see them with `mixbench logs RUN`",
    "open_mode": "logs are continued when a job goes on",
    "dependency": "mixbench knows what must come first",
    "requeue": "jobs are always requeued",
    "no_requeue": "jobs are always requeued",
    "signal": "say signal_delay, the seconds between the warning and the end of a job's time",
    "wrap": "mixbench says what a job does",
    "ntasks": "gpus in a recipe says how many processes share a run",
    "ntasks_per_node": "gpus in a recipe says how many processes share a run",
    "nodes": "the processes of a run are on one node",
    "export": "jobs inherit the environment; say setup for what is to be done before",
    "test_only": "that is --dry-run",
    "wait": "say --wait to mixbench",
    "clusters": "submit from a host of that cluster: mixbench asks its queue too",
    "parsable": "mixbench reads what sbatch says",
}
"""Options of sbatch that are no site's business, and why."""

SIGNAL_DELAY = 120
"""Seconds before the end of its time at which a job is warned; Slurm may do so up to a minute early."""


@dataclass(frozen=True)
class Site:
    """Settings of a cluster.

    Attributes:
        options: of sbatch, by their long names with underscores; True for those that take no value.
        setup: lines of shell that a job begins with, ``module load cuda``.
        signal_delay: seconds before the end of its time at which a job is warned.
    """

    options: Mapping[str, str | bool]
    setup: tuple[str, ...]
    signal_delay: int

    @property
    def minutes(self) -> float | None:
        """The time limit that it sets for every job; None where it sets none."""
        return commands.minutes(str(self.options["time"])) if "time" in self.options else None

    def sets(self, *names: str) -> bool:
        """Whether it sets any of these options."""
        return any(option in names for option in self.options)


def settings(file: Path | None, pairs: Sequence[str]) -> Site:
    """Those of a file, ``--slurm-file`` or else the one that $MIXBENCH_SLURM names, with ``KEY=VALUE`` over them.

    Raises:
        ValueError: a setting is impossible; names where it was said, and what would be right.
    """
    variable = os.environ.get(VARIABLE)
    path = file or (Path(variable) if variable else None)
    found: dict[str, Any] = {}
    if path is not None:
        written = yamlfile.load(path)
        with blaming(str(path)):
            found = _checked(written)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        with blaming("--slurm"):
            found |= _checked({name: True if value == "true" or not sign else value})  # as in a file
    setup, delay = found.pop("setup", ()), found.pop("signal_delay", SIGNAL_DELAY)
    return Site(found, setup, delay)


def _checked(written: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for written_name, value in written.items():
        name = written_name.lstrip("-").replace("-", "_")
        if name in OURS:
            raise ValueError(f"{written_name} is not a site's to set: {OURS[name]}")
        if not name.isidentifier():
            raise ValueError(f"'{written_name}' is no option of sbatch; write KEY=VALUE, like partition=gpu")
        checked[name] = _value(name, value)
    return checked


def _value(name: str, value: Any) -> Any:
    if name == "setup":
        lines = value if isinstance(value, list) else [value]
        if not all(isinstance(line, str) for line in lines):
            raise ValueError(f"setup must be a list of lines of shell, not {value!r}")
        return tuple(lines)
    if name == "signal_delay":
        if not str(value).isdigit() or int(value) < 1:
            raise ValueError(f"signal_delay must be a whole number of seconds, 1 or more, not {value!r}")
        return int(value)
    if value is True:
        return True
    if not isinstance(value, str | int | float) or value in ("", False) or "\n" in str(value):
        raise ValueError(f"{name} must be text or a number, not {value!r}; an option that takes no value is true")
    if name == "time":
        commands.minutes(str(value))
    return str(value)
