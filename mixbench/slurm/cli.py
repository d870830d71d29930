"""``mixbench status``, ``cancel``, ``logs`` and ``doctor``. Imports stand inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.options import command_for, data_option, mini_option, results_option
from mixbench.running import DONE, FAILED

if TYPE_CHECKING:
    from mixbench.grid import Sweep
    from mixbench.store import Store


EPOCHS = 3
"""Of a run's log of epochs, the last so many are shown."""


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
    from mixbench.slurm.looking import follow, show

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
    from mixbench.slurm.standing import Look

    store = _store(results)
    look = Look(store)
    found = look.find(run) or states.find(run, store)
    place = store.folder(found) / "attempts" / str(store.newest(found))
    job = look.log(found)
    shown = {place / "log.jsonl": EPOCHS, place / "out.txt": count} if store.newest(found) else {}
    for path, most in (shown | ({job: count} if job else {})).items():
        click.echo(f"{path}:" if path.exists() else f"{path}: not there")
        for line in path.read_text(errors="replace").splitlines()[-most:] if path.exists() else ():
            click.echo(f"  {line}")
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


def _loaded(sweep: Path, *, mini: bool, data: Path, results: Path) -> tuple[Sweep, Store]:
    from mixbench.resolve import load_sweep

    return load_sweep(sweep, data=data, results=results, mini=mini), _store(results)


def _store(results: Path) -> Store:
    from mixbench.store import Store

    return Store(results, tell=lambda sentence: click.echo(sentence, err=True))


COMMANDS: tuple[Any, ...] = (status, cancel, logs, doctor)
