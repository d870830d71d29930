"""``mixbench run --on slurm``: what a sweep still lacks is handed to the cluster, and the prompt comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mixbench import pulse, running
from mixbench.execution import Execution
from mixbench.launch import Plan, prepare
from mixbench.running import DONE
from mixbench.slurm import commands, snapshot
from mixbench.slurm.arrays import Array, Wishes, arrange
from mixbench.slurm.cli import follow
from mixbench.slurm.commands import UnknownError
from mixbench.slurm.flights import Flight, in_flight, let_go, settle
from mixbench.slurm.site import Site, settings
from mixbench.slurm.submissions import Submissions
from mixbench.slurm.submit import Given, Handover, submit
from mixbench.spec import Run
from mixbench.store import Store

PATIENCE = 3
"""MessageTimeouts after which a job that is not in the queue will not come there any more."""


def run(planned: Plan, store: Store, sweep: Path, how: Mapping[str, Any], command: str, *, dry_run: bool) -> int:
    """Hand over what a plan has to do, as the options of the command line say; how the command ends.

    Raises:
        ValueError, UnknownError, mixbench.slurm.submissions.LockedError: as `hand_over`.
    """
    site = settings(how["slurm_file"], how["pairs"])
    wishes = Wishes(how["pack"], how["slots"] or 1, how["max_jobs"])
    if wishes.slots > wishes.pack:
        raise ValueError(f"--slots {wishes.slots}: a job has {wishes.pack} runs; say --pack {wishes.slots} or more")
    here = running.execution({**how, "device": "cpu"}, planned.sweep.places)
    there = execution_there(here, how["device"])
    if dry_run:
        return list_arrays(planned, store, there, wishes, site)
    facts = prepare(planned, store, here)
    if planned.todo:
        from mixbench.checking import rehearse

        rehearse(planned, facts, sweep, here)
    code = hand_over(planned, store, there, wishes, site, command=f"{command} --on slurm")
    return follow(planned.sweep, store, command) if how["wait"] else code


def execution_there(execution: Execution, asked: str | None) -> Execution:
    """How runs are computed in jobs, whose machines are not this one: on GPUs, unless the CPU is asked for."""
    places = {content: str(Path(place).resolve()) for content, place in execution.places.items()}
    data = str(Path(execution.data).resolve())
    return replace(execution, device=asked or "cuda", data=data, places=places)


def hand_over(planned: Plan, store: Store, execution: Execution, wishes: Wishes, site: Site, *, command: str) -> int:
    """Submit what is neither done nor in flight, and say what was.

    Raises:
        UnknownError: what is in flight, or whether something was submitted, cannot be known now.
        mixbench.slurm.submissions.LockedError: another launcher is submitting.
        ValueError: it cannot be done so, or SLURM refuses it.
    """
    submissions = Submissions(store.root.resolve())
    with submissions.locked():
        tasks, config, partitions = commands.tasks(), commands.config(), commands.partitions()
        patience = PATIENCE * commands.reads(config, "MessageTimeout", 10)
        live = settle(submissions, tasks, patience=patience)
        released = let_go(live, tasks)
        flights = in_flight(live, tasks)
        todo = wanted(planned, store, flights)
        arrays = arranged(todo, planned, execution, wishes, config)
        check_time(arrays, site, partitions)
        snapshot.drop_unused(submissions.root, [one.code for one in live])
        code = snapshot.take(submissions.root) if arrays else ""
        handover = Handover(planned.sweep, submissions, execution, site, code)
        made_by = {run: flights[run.id].task.job for run in planned.states if run.id in flights}
        given = submit(arrays, handover, made_by, one_by_one=wishes.max_jobs is not None)
    if released:
        click.echo(released)
    for line in _said(given, len(flights.keys() & {run.id for run in planned.states}), command):
        click.echo(line)
    return DONE


def list_arrays(planned: Plan, store: Store, execution: Execution, wishes: Wishes, site: Site) -> int:
    """Say what would be handed over, with the script of each array."""
    submissions = Submissions(store.root.resolve())
    try:
        tasks, config, partitions = commands.tasks(), commands.config(), commands.partitions()
    except UnknownError as error:
        click.echo(f"what is in flight is not known: {error}", err=True)
        tasks, config, partitions = [], {}, {}
    todo = wanted(planned, store, in_flight(submissions.live(), tasks))
    arrays = arranged(todo, planned, execution, wishes, config)
    check_time(arrays, site, partitions)
    handover = Handover(planned.sweep, submissions, execution, site, "CODE")
    for number, array in enumerate(arrays, 1):
        lines = handover.script(array, handover.submission(array), []).splitlines()
        click.echo(
            f"array {number} of {len(arrays)}: {_counted(len(array.runs), 'run')} of stage {array.stage + 1} in "
            f"{_counted(len(array.tasks), 'job')}"
        )
        for line in lines:
            if line.strip() and not line.startswith(("#!", "# ")):
                click.echo(f"  {line}")
    click.echo(f"{_counted(len(todo), 'run')} in {_counted(len(arrays), 'array')}; nothing was submitted")
    return DONE


def wanted(planned: Plan, store: Store, flights: dict[str, Flight]) -> list[Run]:
    """Of what there is to do, what nobody is at already: no task in the queue, and no launcher on another machine."""
    return [run for run in planned.todo if run.id not in flights and not is_at_work(run, store)]


def is_at_work(run: Run, store: Store) -> bool:
    """Whether somebody outside of the cluster's queue is at a run now: what was in the queue and is not, is gone."""
    if store.about(run).get("job"):
        return False
    return store.alive(run) and store.standing(run)[1] < pulse.LEASE_SECONDS


def arranged(
    todo: Sequence[Run], planned: Plan, execution: Execution, wishes: Wishes, config: dict[str, str]
) -> list[Array]:
    """The arrays of what is to be handed over."""
    longest = commands.reads(config, "MaxArraySize", 1001)
    return arrange(todo, planned.sweep, execution, wishes, longest=longest)


def check_time(arrays: Sequence[Array], site: Site, partitions: dict[str, dict[str, str]]) -> None:
    """Refuse jobs that would wait for ever, since their partition allows less time than they ask for.

    Raises:
        ValueError: so it is; names the partition and its limit.
    """
    name = str(site.options.get("partition", next(iter(partitions), "")))
    about = partitions.get(name)
    if about is None:
        return
    most = commands.minutes(about.get("MaxTime", "UNLIMITED"))
    asked = [minutes for array in arrays if (minutes := site.minutes or array.minutes)]
    if most is not None and asked and max(asked) > most:
        raise ValueError(
            f"partition {name} allows {about['MaxTime']}, and a job would ask for {max(asked):.0f} minutes: it would "
            f"never start; say --slurm time={about['MaxTime']}, and runs go on from job to job, or name another one"
        )


def _said(given: Given, flying: int, command: str) -> list[str]:
    lines = [
        f"submitted {one.name}: {_counted(len(one.runs), 'run')} in {_counted(len(one.tasks), 'job')}, job {one.job}"
        for one in given.submissions
    ]
    if not given.submissions:
        lines.append("nothing submitted" + (f": {_counted(flying, 'run')} in flight" if flying else ""))
    if given.waiting:
        lines.append(
            f"{_counted(given.waiting, 'run')} wait: SLURM takes no more for now ({given.reason}); `{command}` "
            "again, when some have ended, submits them"
        )
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' if count != 1 else ''}"
