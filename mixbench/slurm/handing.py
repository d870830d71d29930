"""``mixbench run --on slurm``: what a sweep still lacks is handed to the cluster, and the prompt comes back."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mixbench import running
from mixbench.display import counted
from mixbench.execution import Execution
from mixbench.launch import Plan, prepare
from mixbench.running import DONE, FAILED
from mixbench.slurm import UnknownError, commands, snapshot
from mixbench.slurm.arrays import Wishes, arrange
from mixbench.slurm.cluster import Cluster
from mixbench.slurm.flights import Flight, in_flight, is_at_work, is_mine, let_go, settle
from mixbench.slurm.looking import follow
from mixbench.slurm.site import Site, settings
from mixbench.slurm.submissions import Submission, Submissions
from mixbench.slurm.submit import Given, Handover, submit
from mixbench.spec import Run
from mixbench.store import Store


def run(
    planned: Plan, store: Store, sweep: Path, how: Mapping[str, Any], *, again: Callable[[], Plan], dry_run: bool
) -> int:
    """Hand over what a plan has to do, as the options of the command line say; how the command ends.

    Args:
        planned: what there is to do, by the files.
        store: where results are.
        sweep: the file.
        how: the options.
        again: plans once more, when it is known what is in flight: runs may have ended meanwhile.
        dry_run: only say it.

    Raises:
        ValueError, UnknownError, mixbench.slurm.LockedError: as `hand_over`.
    """
    site = settings(how["slurm_file"], how["pairs"])
    wishes = Wishes(how["pack"], how["slots"] or 1, how["max_jobs"])
    if wishes.slots > wishes.pack:
        raise ValueError(
            f"--slots {wishes.slots}: a job has {counted(wishes.pack, 'run')}; say --pack {wishes.slots} or more"
        )
    here = running.execution({**how, "device": "cpu"}, planned.sweep.places)
    there = execution_there(here, how["device"])
    if dry_run:
        return list_arrays(planned, store, there, wishes, site)
    facts = prepare(planned, store, here)

    def check(todo: Plan) -> None:
        from mixbench.checking import rehearse

        rehearse(todo, facts, sweep, here)

    code = hand_over(again, store, there, wishes, site, check=check)
    if how["wait"] and code == DONE:
        return follow(planned.sweep, store, typed())
    return code


def typed() -> str:
    """The command that was given, to be given again: it says how, of which nothing is to be lost."""
    return shlex.join(["mixbench", *(word for word in sys.argv[1:] if word not in ("--wait", "--retry-failed"))])


def whole(command: str) -> str:
    """A command for the whole sweep, where it was given for some rows."""
    return re.sub(r" --only(=| )('[^']*'|\S+)", "", command)


def execution_there(execution: Execution, asked: str | None) -> Execution:
    """How runs are computed in jobs, whose machines are not this one: on GPUs, unless the CPU is asked for."""
    return replace(execution, device=asked or "cuda", data=str(Path(execution.data).resolve()))


def hand_over(
    plan: Callable[[], Plan],
    store: Store,
    execution: Execution,
    wishes: Wishes,
    site: Site,
    *,
    check: Callable[[Plan], None],
) -> int:
    """Submit what is neither done nor in flight, and say what was; how the command ends.

    Args:
        plan: says what there is to do, by the files.
        store: where results are.
        execution: how runs are computed there.
        wishes: how they are cut into jobs.
        site: what the cluster wants to be told.
        check: refuses what could not work, before anything is submitted.

    Raises:
        UnknownError: what is in flight, or whether something was submitted, cannot be known now.
        mixbench.slurm.LockedError: another launcher is submitting.
        ValueError: it cannot be done so, or SLURM refuses it.
    """
    submissions = Submissions(store.root.resolve())
    with submissions.locked():
        cluster = Cluster.asked()
        known = submissions.live()
        mine = [one for one in known if is_mine(one, cluster.name)]
        live = settle(mine, submissions, cluster.tasks, patience=cluster.patience)
        released = let_go(live, cluster.tasks)
        flights = in_flight(live, cluster.tasks)
        planned = plan()  # behind the queue: what has left that since is done, by its files
        todo = wanted(planned, store, flights)
        check_nobody_else(todo, [one for one in known if one not in mine])
        arrays = arrange(todo, planned.sweep, execution, wishes, longest=cluster.longest)
        cluster.check_time(arrays, site)
        if arrays:
            check(replace(planned, todo=todo))
        snapshot.drop_unused(submissions.root, [one.code for one in live])
        code = snapshot.take(submissions.root) if arrays else ""
        usual = cluster.usual_minutes(site)
        handover = Handover(planned.sweep, submissions, execution, site, code, usual, cluster.name, whole(typed()))
        made_by = {run: flights[run.id].task.job for run in planned.states if run.id in flights}
        behind = sorted(set(made_by.values())) if wishes.max_jobs is not None else None
        given = submit(arrays, handover, made_by, behind=behind, tell=_tell)
    if released:
        click.echo(released)
    return _end(planned, todo, given, sum(planned.states[run] != "done" for run in made_by))


def check_nobody_else(todo: Sequence[Run], others: Sequence[Submission]) -> None:
    """Refuse runs that another user, or this one on another cluster, has handed over: their queue is not ours to see.

    Raises:
        UnknownError: names who and where.
    """
    wanted = {run.id for run in todo}
    for one in others:
        if wanted & one.runs.keys():
            raise UnknownError(
                f"{one.user} has handed {one.name} to cluster {one.cluster} from {one.host}, and what is in flight "
                "there cannot be seen from here: go on there, or `mixbench cancel` there first"
            )


def _tell(submission: Submission) -> None:
    runs, jobs = counted(len(submission.runs), "run"), counted(len(submission.tasks), "job")
    click.echo(f"submitted {submission.name}: {runs} in {jobs}, job {submission.job}")


def _end(planned: Plan, todo: Sequence[Run], given: Given, flying: int) -> int:
    """Say what was not handed over, and why; how the command ends."""
    failed = Counter(planned.states.values())["failed"]
    elsewhere = len(planned.todo) - len(todo) - flying
    if not given.submissions:
        why = [f"{counted(flying, 'run')} in flight"] if flying else []
        why += [f"{counted(elsewhere, 'run')} at work elsewhere, or waiting for one that is"] if elsewhere > 0 else []
        click.echo(", ".join(["nothing submitted", *why]) if len(why) != 1 else f"nothing submitted: {why[0]}")
    if given.waiting:
        click.echo(
            f"{counted(given.waiting, 'run')} wait: SLURM takes no more for now ({given.reason}); `{typed()}` again, "
            "when some have ended, submits them"
        )
    if failed and not given.submissions and not flying:
        click.echo(f"{counted(failed, 'run')} failed: see `mixbench status`; --retry-failed tries again", err=True)
        return FAILED
    return DONE


def list_arrays(planned: Plan, store: Store, execution: Execution, wishes: Wishes, site: Site) -> int:
    """Say what would be handed over, with the script of each array."""
    submissions = Submissions(store.root.resolve())
    try:
        cluster = Cluster.asked()
    except UnknownError as error:
        click.echo(f"what is in flight is not known: {error}", err=True)
        cluster = Cluster()
    todo = wanted(planned, store, in_flight(submissions.live(), cluster.tasks))
    arrays = arrange(todo, planned.sweep, execution, wishes, longest=cluster.longest)
    cluster.check_time(arrays, site)
    handover = Handover(planned.sweep, submissions, execution, site, "CODE", cluster.usual_minutes(site))
    for number, array in enumerate(arrays, 1):
        script = handover.script(array, handover.submission(array), []) if commands.is_there() else ""
        click.echo(
            f"array {number} of {len(arrays)}: {counted(len(array.runs), 'run')} of stage {array.stage + 1} in "
            f"{counted(len(array.tasks), 'job')}"
        )
        for line in script.splitlines():
            if line.strip() and not line.startswith(("#!", "# ")):
                click.echo(f"  {line}")
    click.echo(f"{counted(len(todo), 'run')} in {counted(len(arrays), 'array')}; nothing was submitted")
    return DONE


def wanted(planned: Plan, store: Store, flights: dict[str, Flight]) -> list[Run]:
    """Of what there is to do, what nobody is at already: no task in the queue, and no launcher on another machine.

    What needs a run that such a launcher is at would come too early.
    """
    todo, found = set(planned.todo), dict[Run, None]()
    for run in planned.todo:
        needs = (need for need in run.needs() if planned.states[need] != "done" or need in todo)
        is_free = run.id not in flights and not is_at_work(run, store)
        if is_free and all(need in found or need.id in flights for need in needs):
            found[run] = None
    return list(found)
