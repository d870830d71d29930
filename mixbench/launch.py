"""From a sweep to work: `plan` says what is done, in flight and to do; `launch` has the rest done."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mixbench import catalog, devices, pool
from mixbench.data import CACHE, DataError, Facts, Identified, identify
from mixbench.execution import Execution
from mixbench.files import DISK_ERRORS
from mixbench.grid import Sweep
from mixbench.pool import Outcome
from mixbench.spec import Run
from mixbench.status import state_of
from mixbench.store import Store
from mixbench.watching import Watcher


@dataclass(frozen=True)
class Plan:
    """What a sweep needs.

    Attributes:
        sweep: the sweep.
        stages: all its runs, each behind what it needs.
        states: of each run, see `mixbench.status.state_of`.
        todo: what to execute, in this order.
    """

    sweep: Sweep
    stages: list[list[Run]]
    states: dict[Run, str]
    todo: list[Run]

    def outdated(self, store: Store) -> list[str]:
        """Methods of which results stand here that another version of their file made, a sentence each."""
        made: Counter[tuple[str, str]] = Counter()
        for run, state in self.states.items():
            result = store.recorded(run) if state == "done" else None
            if result is not None and result.code != catalog.code_of(run):
                made[run.method, run.folder if run.subjects else f"{run.family}-*"] += 1
        return [
            f"{count} results of {method} were made by another version of its code than today's, and stand; to have "
            f"them made again, delete {store.root / 'runs' / folders}"
            for (method, folders), count in made.items()
        ]

    def sentence(self) -> str:
        """``94 runs in 2 stages: 61 done, 3 running, 30 to do``."""
        counts = Counter(self.states.values())
        todo = set(self.todo)
        running = counts["running"]
        parts = [f"{counts['done']} done", *([f"{running} running"] if running else ())]
        left = Counter(state == "failed" for run, state in self.states.items() if state != "done" and run not in todo)
        parts += [f"{left[True]} failed"] if left[True] else []
        parts += [f"{left[False]} blocked by them"] if left[False] else []
        again = sum(self.states[run] == "done" for run in self.todo)
        parts += [f"{len(self.todo) - running} to do"] + ([f"{again} of them for their weights only"] if again else [])
        stages = f"{len(self.stages)} stage{'s' if len(self.stages) != 1 else ''}"
        runs = f"{len(self.states)} run{'s' if len(self.states) != 1 else ''}"
        return f"{runs} in {stages}: {', '.join(parts)}"


def plan(sweep: Sweep, store: Store, *, retry_failed: bool = False) -> Plan:
    """What there is to do for a sweep, judged by the results that are there.

    A run that failed is not tried again unless asked for, or if only the disk was at fault.

    Raises:
        mixbench.result.StaleResultError: a result was made with other defaults than the code has now.
    """
    stages = sweep.stages()
    states = {run: state_of(run, store) for stage in stages for run in stage}

    def is_to_do(run: Run) -> bool:
        if states[run] == "failed":
            end = store.ending(run) or {}
            return retry_failed or end.get("retryable", False)
        return states[run] != "done"

    wanted = {run for run in states if is_to_do(run)}
    for stage in stages:  # what needs a run that failed, and is not tried again, would fail for want of it
        wanted -= {run for run in stage if any(states[need] != "done" and need not in wanted for need in run.needs())}
    for stage in reversed(stages):  # a needed run of which only the numbers are here is trained again
        for run in stage:
            if run in wanted:
                wanted |= {need for need in run.needs() if states[need] == "done" and not store.weights(need)}
    return Plan(sweep, stages, states, [run for stage in stages for run in stage if run in wanted])


def prepare(planned: Plan, store: Store, execution: Execution) -> dict[Run, Facts]:
    """Make sure, before anything starts, that the work can be done; tidy up after attempts that died.

    Returns:
        the facts of each run's data at hand; none where data are missing and there is nothing to do with them.

    Raises:
        mixbench.data.DataError: data are missing or damaged, and there is something to do with them.
        ValueError: nothing can be written, finished runs saw other data, or a batch is larger than what is at hand.
    """
    if planned.todo:
        check_writable(store.root)  # before the data are looked at, since what is found there is kept here
    facts: dict[Run, Facts] = {}
    try:
        facts = check_data(planned, store, execution)
    except DataError:
        if planned.todo:
            raise
    for run, state in planned.states.items():
        if state == "done":
            store.tidy(run)
    return facts


def check_searched(planned: Plan, command: str) -> None:
    """Refuse a plan that has something to search.

    Raises:
        ValueError: names a run, the search that it lacks, and the ``command`` that would make it.
    """
    search = next((run for run in planned.todo if run.task == "search"), None)
    if search is not None:
        asking = next((run.folder for run in planned.todo if search in run.needs()), planned.sweep.name)
        raise ValueError(f"--no-search: {asking} needs the search {search.folder}, which is not done; do: {command}")


def check_writable(results: Path) -> None:
    """Refuse a results folder in which nothing can be made, before anything starts."""
    try:
        (results / "runs").mkdir(parents=True, exist_ok=True)
        writable = os.access(results / "runs", os.W_OK)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        writable = False
    if not writable:
        raise ValueError(f"--results {results}: no folder can be written there; name another with --results")


def check_data(planned: Plan, store: Store, execution: Execution) -> dict[Run, Facts]:
    """Make sure that the data are there and are those that runs were begun on; the facts of each run's.

    Raises:
        mixbench.data.DataError: data are missing or damaged.
        ValueError: finished runs saw another content, or a batch is larger than what is at hand.
    """
    found: dict[tuple[str, int | None], Identified] = {}
    for run in planned.states:
        name = execution.source(run)
        if (name, run.image_size) not in found:
            found[name, run.image_size] = identify(
                name, root=Path(execution.data), image_size=run.image_size, cache=store.root / CACHE
            )
        _check_content(run, found[name, run.image_size], planned, store, execution)
    return {run: found[execution.source(run), run.image_size].facts for run in planned.states}


def _check_content(run: Run, at_hand: Identified, planned: Plan, store: Store, execution: Execution) -> None:
    result = store.result(run) if planned.states[run] == "done" else None
    begun = result.content if result else store.content(run)
    if begun is not None and begun != at_hand.content.fingerprint:
        raise ValueError(
            f"{run.folder} was {'trained' if result else 'begun'} on other data (fingerprint {begun}) than "
            f"{execution.data} holds now ({at_hand.content.fingerprint}); put those back, or choose another "
            "--results folder"
        )
    images = run.train_images or at_hand.facts.train_images
    if (run.task != "import" and run.batch_size > images) or images > at_hand.facts.train_images:
        raise ValueError(
            f"{run.folder} asks for batches of {run.batch_size} out of {images} training images, but "
            f"{execution.data} holds {at_hand.facts.train_images} of {at_hand.facts.label}"
        )


def launch(planned: Plan, store: Store, execution: Execution, slots: int | None, watcher: Watcher) -> Outcome:
    """Execute what a plan has to do, on this machine.

    Raises:
        ValueError: a run needs more GPUs than are visible.
    """
    gpus = max((run.gpus for run in planned.todo), default=1)
    visible = devices.visible_gpus() if execution.device.startswith("cuda") else []
    if visible and gpus > len(visible):
        large = next(run for run in planned.todo if run.gpus == gpus)
        raise ValueError(f"{large.folder} needs {gpus} GPUs, {len(visible)} are visible; change gpus in its recipe")
    environments = devices.environments(execution.device, slots, execution.threads, gpus)
    execution = replace(execution, workers=devices.decoders(execution.workers, len(environments) * gpus))
    worker = pool.Pool(store, execution_of(planned.sweep, execution), watcher, environments)
    return worker.work(planned.todo)


def execution_of(sweep: Sweep, execution: Execution) -> Callable[[Run], Execution]:
    """How each run of a sweep is computed: as asked, with what its recipes say of resources."""

    def chosen(run: Run) -> Execution:
        told = sweep.resources[run]
        return replace(execution, evaluate_every=told.evaluate_every, checkpoint_seconds=told.checkpoint_seconds)

    return chosen
