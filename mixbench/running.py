"""What stands around the work of ``mixbench run``: how it is done, who watches, how it is summed up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mixbench.display import Quiet
    from mixbench.execution import Execution
    from mixbench.launch import Plan
    from mixbench.store import Store

DONE, FAILED, BAD_INPUT, LOCKED, DISK, UNKNOWN, INTERRUPTED = 0, 1, 2, 73, 74, 75, 130
"""How a command ends: its exit code."""


def execution(how: Mapping[str, Any], places: Mapping[str, str] | None = None) -> Execution:
    """How a sweep is computed, by the options of the command line.

    Args:
        how: the options.
        places: where own image folders and checkpoints lie, see `Execution.places`; None: there are none.

    Raises:
        ValueError: a GPU is asked for and none is there.
    """
    from mixbench.devices import choose
    from mixbench.execution import Execution

    return Execution(
        device=choose(how["device"]),
        threads=how["threads"],
        data=str(how["data"]),
        places=places or {},
        channels_last=how["layout"] == "channels_last",
        workers=how["workers"],
        cuda_graph=how["cuda_graph"],
        cam_cache=how["cam_cache"],
    )


def check_here(how: Mapping[str, Any]) -> None:
    """Refuse what only a cluster understands, where the sweep is to be done here.

    Raises:
        ValueError: names the option.
    """
    asked = {"--slurm": how["pairs"], "--slurm-file": how["slurm_file"], "--max-jobs": how["max_jobs"]}
    asked |= {"--pack": how["pack"] > 1, "--wait": how["wait"]}
    for option, value in asked.items():
        if value:
            raise ValueError(f"{option} is about a cluster; say --on slurm too, or leave it out")


def machine(how: Mapping[str, Any]) -> Callable[[], str]:
    """What names the machine that a sweep of measurements would be about."""
    from mixbench import devices

    return lambda: devices.machine(execution(how))


def watcher(*, quiet: bool, total: int = 0, aside: bool = False) -> Quiet:
    """Who shows so many runs at work: bars on a terminal, lines in a pipe, or bad news only.

    Args:
        quiet: bad news only.
        total: runs.
        aside: on standard error.
    """
    from mixbench.display import Lines, Live, Quiet

    if quiet:
        return Quiet()
    stream = sys.stderr if aside else sys.stdout
    return (Live if stream.isatty() else Lines)(total, aside=aside)


def work(planned: Plan, store: Store, execution: Execution, slots: int | None, watched: Quiet) -> int:
    """Have done what a plan has to do; `DONE` also where runs failed, else how the command ends."""
    from mixbench.launch import launch

    with watched:
        outcome = launch(planned, store, execution, slots, watched)
    if outcome.stopped:
        saved = "what was not saved in time is done again" if outcome.forced else "what was at work is saved"
        click.echo(f"stopped; {saved}, and the same command goes on there", err=True)
        return INTERRUPTED
    if outcome.disk_full:
        click.echo(f"mixbench: the disk of {store.root} is full or failing; free some and run again", err=True)
        return DISK
    return DONE


def list_todo(planned: Plan, store: Store) -> int:
    """Name what there is to do, stage by stage, and say how long it would take."""
    from mixbench.estimate import estimate

    todo = set(planned.todo)
    for number, stage in enumerate(planned.stages, 1):
        runs = [run for run in stage if run in todo]
        if runs:
            click.echo(f"stage {number} of {len(planned.stages)}")
        for run in runs:
            click.echo(f"  {run.folder}")
    for sentence in estimate(planned.todo, planned.sweep, store).sentences():
        click.echo(sentence)
    return DONE


def summary(planned: Plan, *, quiet: bool) -> int:
    """Say how a sweep stands, run by run where one is not done; 1 where any is not."""
    missing = [run for run, state in planned.states.items() if state != "done"]
    if not quiet:
        click.echo(f"{len(planned.states) - len(missing)} of {len(planned.states)} runs are done")
    for run in missing:
        click.echo(f"  {planned.states[run]}: {run.folder}; see `mixbench why {run.id}`", err=True)
    if any(planned.states[run] == "failed" for run in missing):
        click.echo("failed runs are tried again with --retry-failed", err=True)
    return FAILED if missing else DONE
