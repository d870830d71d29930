"""What is handed to SLURM: the runs of a sweep as job arrays, one for each stage and shape of a job."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from mixbench.estimate import passes
from mixbench.execution import Execution
from mixbench.grid import Sweep
from mixbench.slurm.site import Site
from mixbench.spec import Run

T = TypeVar("T")

SAFETY = 2.0
"""How often a run's expected time fits into its job's: GPUs differ, and a job that runs out of time goes on later."""

GPU_CPUS = 4
"""Of each process beside its GPU, where the recipe says nothing: clusters give one unasked, which images wait for."""

GPU_MEM_GB, CPU_MEM_GB = 16.0, 2.0
"""Of the host's memory, for each process of a run whose recipe says nothing: what clusters give unasked is often less
than torch alone takes, and a job that takes more is killed."""

LIMITS = (60, 120, 240, 480, 720, 1440, 2880, 4320)
"""Time limits in minutes that jobs are given: few, so that arrays are few."""


@dataclass(frozen=True)
class Wishes:
    """How a sweep is to be cut into jobs.

    Attributes:
        pack: runs of a job.
        slots: of them at a time.
        max_jobs: at work at a time; None: as many as the cluster likes.
    """

    pack: int = 1
    slots: int = 1
    max_jobs: int | None = None


@dataclass(frozen=True)
class Shape:
    """What a job needs for the runs that it does at a time.

    Attributes:
        processes: that share a run.
        minutes: for one run after the other; None: nobody says.
        mem_gb: of memory.
        cpus: of each process.
    """

    processes: int
    minutes: int | None
    mem_gb: float
    cpus: int


@dataclass(frozen=True)
class Array:
    """A job array.

    Attributes:
        stage: of its runs, counted from 0.
        shape: of each of its jobs.
        tasks: the runs of each, in order.
        slots: runs at a time in a task.
        parallel: tasks at a time; None: as many as the cluster likes.
    """

    stage: int
    shape: Shape
    tasks: Sequence[Sequence[Run]]
    slots: int
    parallel: int | None

    @cached_property
    def runs(self) -> list[Run]:
        """Its runs in a row."""
        return [run for task in self.tasks for run in task]

    @property
    def minutes(self) -> int | None:
        """Of a job, by what its runs are expected to take; None where nobody says."""
        if self.shape.minutes is None:
            return None
        return self.shape.minutes * math.ceil(max(map(len, self.tasks)) / self.slots)

    def parameters(self, execution: Execution, site: Site) -> dict[str, object]:
        """The options that sbatch is given for it, by their long names with underscores, the site's over ours."""
        shape = self.shape
        ours: dict[str, object] = {
            "nodes": 1,
            "ntasks_per_node": shape.processes,
            "cpus_per_task": shape.cpus * self.slots,
            "mem": f"{math.ceil(1024 * shape.mem_gb * self.slots)}M",
            "time": self.minutes,
            "gpus_per_node": shape.processes if execution.device.startswith("cuda") else None,
        }
        if site.sets("gres", "gpus", "gpus_per_node", "gpus_per_task", "gpus_per_socket"):
            del ours["gpus_per_node"]
        if site.sets("mem", "mem_per_cpu", "mem_per_gpu"):
            del ours["mem"]
        return {name: value for name, value in ours.items() if value is not None} | dict(site.options)

    def halves(self) -> tuple[Array, Array]:
        """Two arrays of half the tasks."""
        middle = len(self.tasks) // 2
        return replace(self, tasks=self.tasks[:middle]), replace(self, tasks=self.tasks[middle:])


def arrange(todo: Sequence[Run], sweep: Sweep, execution: Execution, wishes: Wishes, *, longest: int) -> list[Array]:
    """The arrays of what there is to do, those of a stage behind all of the stage before.

    Args:
        todo: the runs.
        sweep: says what they need.
        execution: how they are computed.
        wishes: how they are to be cut.
        longest: tasks of an array at most.

    Raises:
        ValueError: a run cannot be done so; names it.
    """
    wanted = set(todo)
    arrays: list[Array] = []
    for number, stage in enumerate(sweep.stages()):
        shapes: dict[Shape, list[Run]] = {}
        for run in stage:
            if run in wanted:
                _check(run, wishes)
                shapes.setdefault(_shape(run, sweep, execution), []).append(run)
        for shape, runs in shapes.items():
            tasks = list(_parts(runs, wishes.pack))
            arrays += [
                Array(number, shape, part, wishes.slots, wishes.max_jobs and min(wishes.max_jobs, len(part)))
                for part in _parts(tasks, longest)
            ]
    return arrays


def _check(run: Run, wishes: Wishes) -> None:
    if run.task == "time":
        raise ValueError(
            f"{run.folder} measures a machine, and which one a job would get is not known; measure on a node that you "
            "have to yourself: srun --exclusive mixbench run SWEEP"
        )
    if run.gpus > 1 and wishes.slots > 1:
        raise ValueError(
            f"--slots {wishes.slots}: {run.folder} has {run.gpus} processes and needs a GPU for each; only runs of one "
            "process go side by side on a GPU: leave --slots out"
        )


def _shape(run: Run, sweep: Sweep, execution: Execution) -> Shape:
    told = sweep.resources[run]
    on_gpu = execution.device.startswith("cuda")
    cpus = told.cpus or (GPU_CPUS if on_gpu else execution.threads)
    minutes = _limit(60 * SAFETY * sweep.hours[run] * passes(run)) if on_gpu and run in sweep.hours else None
    memory = told.mem_gb or (GPU_MEM_GB if on_gpu else CPU_MEM_GB) * run.gpus
    return Shape(run.gpus, minutes, memory, cpus)


def _limit(minutes: float) -> int:
    """The time limit for a run that needs so long; of days for what needs longer than any."""
    day = 1440
    return next((limit for limit in LIMITS if limit >= minutes), day * math.ceil(minutes / day))


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def needs_of(array: Array, made_by: Mapping[Run, str]) -> list[str]:
    """The jobs, by their numbers, that train what an array needs."""
    return sorted({made_by[need] for run in array.runs for need in run.needs() if need in made_by})
