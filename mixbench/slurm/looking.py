"""Says where a sweep stands, once or again and again: ``mixbench status``, and ``run --on slurm --wait``."""

from __future__ import annotations

import sys
import time

import click

from mixbench.display import counted
from mixbench.grid import Sweep
from mixbench.running import DONE, FAILED, INTERRUPTED, UNKNOWN
from mixbench.slurm import commands
from mixbench.slurm.standing import Standings, standings
from mixbench.slurm.telling import lines
from mixbench.store import Store

WATCH_SECONDS = 15.0
"""Between two looks, each of which asks the queue once."""


def show(sweep: Sweep, store: Store, command: str) -> int:
    """Say where a sweep stands; how the command ends."""
    now = standings(sweep, store)
    for line in lines(now, command=command):
        click.echo(line)
    return _code(now)


def follow(sweep: Sweep, store: Store, command: str) -> int:
    """Say where a sweep stands again and again, until nothing is in flight; Ctrl-C only ends the looking.

    How the command ends: well only if every run is done.
    """
    now, said = standings(sweep, store), list[str]()
    try:
        while True:
            told = list(lines(now, command=command))
            if told[:1] != said[:1] or sys.stdout.isatty():
                click.clear()
                click.echo("\n".join(told))
            said = told
            if not now.is_moving and (not now.unknown or not commands.is_there()):
                break
            time.sleep(WATCH_SECONDS)
            now = standings(sweep, store)
    except KeyboardInterrupt:
        flying = sum(one.flight is not None for one in now.runs)
        click.echo(
            f"no longer looking; {counted(flying, 'run')} stay in flight: see `mixbench status`, end "
            "them with `mixbench cancel`",
            err=True,
        )
        return INTERRUPTED
    return UNKNOWN if now.unknown else DONE if now.counts["done"] == len(now.runs) else FAILED


def _code(now: Standings) -> int:
    if now.unknown:
        return UNKNOWN
    return FAILED if now.counts["failed"] else DONE
