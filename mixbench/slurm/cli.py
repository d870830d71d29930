"""``mixbench status``, ``cancel``, ``logs`` and ``doctor``. Imports stand inside the commands."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.options import command_for, data_option, mini_option, results_option
from mixbench.running import DONE, FAILED, INTERRUPTED, UNKNOWN

if TYPE_CHECKING:
    from mixbench.grid import Sweep
    from mixbench.slurm.standing import Standings
    from mixbench.store import Store

WATCH_SECONDS = 15.0
"""Between two looks, each of which asks the queue once."""


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Look again every 15 seconds, until nothing is in flight.")
@mini_option
@data_option
@results_option
def status(sweep: Path, watch: bool, mini: bool, data: Path, results: Path) -> int:
    """Show where the runs of a SWEEP stand: done, running, queued and why, failed, lost.

    From any host that sees the results, whether they are computed there, elsewhere or on a cluster.
    """
    grid, store = _loaded(sweep, mini=mini, data=data, results=results)
    command = command_for(sweep, data, results, mini=mini)
    return follow(grid, store, command) if watch else show(grid, store, command)


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@mini_option
@data_option
@results_option
def cancel(sweep: Path, mini: bool, data: Path, results: Path) -> int:
    """Cancel the jobs of a SWEEP on the cluster. What is at work is saved, and `mixbench run` goes on there."""
    from mixbench.slurm import cancelling

    grid, store = _loaded(sweep, mini=mini, data=data, results=results)
    for line in cancelling.cancel(grid, store):
        click.echo(line)
    return DONE


@click.command()
@click.argument("run", metavar="RUN")
@click.option("--lines", "count", type=click.IntRange(1), default=40, show_default=True, help="From the end.")
@results_option
def logs(run: str, count: int, results: Path) -> int:
    """Print what the newest attempt at a RUN (an id or its beginning) printed, its epochs, and where all of it is."""
    from mixbench import status as states
    from mixbench.slurm.standing import log_of_job

    store = _store(results)
    found = states.find(run, store)
    place = store.folder(found) / "attempts" / str(store.newest(found))
    job = log_of_job(found, store)
    for path in (place / "log.jsonl", place / "out.txt", *([job] if job else [])):
        click.echo(f"{path}:" if path.exists() else f"{path}: not there")
        if path.exists():
            click.echo(
                "".join(f"  {line}\n" for line in path.read_text(errors="replace").splitlines()[-count:]), nl=False
            )
    return DONE


@click.command()
@results_option
def doctor(results: Path) -> int:
    """Say what this cluster can do, and what is missing."""
    from mixbench.slurm.doctor import report

    bad = False
    for mark, sentence in report(results):
        click.echo(f"{mark:4}  {sentence}")
        bad |= mark == "bad"
    return FAILED if bad else DONE


def show(sweep: Sweep, store: Store, command: str) -> int:
    """Say where a sweep stands; how the command ends."""
    from mixbench.slurm.standing import lines, standings

    now = standings(sweep, store)
    for line in lines(now, command=command):
        click.echo(line)
    return _code(now)


def follow(sweep: Sweep, store: Store, command: str) -> int:
    """Say where a sweep stands again and again, until nothing is in flight; Ctrl-C only ends the looking."""
    from mixbench.slurm.standing import lines, standings

    said: list[str] = []
    try:
        while True:
            now = standings(sweep, store)
            told = list(lines(now, command=command))
            if told[:1] != said[:1] or sys.stdout.isatty():
                click.clear()
                click.echo("\n".join(told))
            said = told
            if not now.is_moving and not now.unknown:
                return _code(now)
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        flying = sum(one.flight is not None for one in now.runs)
        click.echo(
            f"no longer looking; {flying} run{'s' if flying != 1 else ''} stay in flight: see `mixbench status`, end "
            "them with `mixbench cancel`",
            err=True,
        )
        return INTERRUPTED


def _code(now: Standings) -> int:
    if now.unknown:
        return UNKNOWN
    return FAILED if now.counts["failed"] else DONE


def _loaded(sweep: Path, *, mini: bool, data: Path, results: Path) -> tuple[Sweep, Store]:
    from mixbench.resolve import load_sweep

    return load_sweep(sweep, data=data, results=results, mini=mini), _store(results)


def _store(results: Path) -> Store:
    from mixbench.store import Store

    return Store(results, tell=lambda sentence: click.echo(sentence, err=True))


COMMANDS: tuple[Any, ...] = (status, cancel, logs, doctor)
