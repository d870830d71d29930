"""Reaches into the processes of jobs, as the environment says; Python imports it where its folder is on PYTHONPATH.

The code under test knows nothing of it. Variables:
    MIXBENCH_TEST_STEPS: a folder; every step that is computed is noted there, a file for each attempt's process.
    MIXBENCH_TEST_STEP_SECONDS: how long each step takes at least.
    MIXBENCH_TEST_IMPORT_SECONDS: how long a job's worker takes to import what trains.
    MIXBENCH_TEST_JOB_SECONDS: how long a job takes to import what works off its runs.
    MIXBENCH_TEST_DEAF: anything; no process hears SIGUSR2, as where a cluster does not send it.
    MIXBENCH_TEST_SET: ``module:NAME=number,...``, constants that are otherwise.
    MIXBENCH_TEST_DIE: ``run id:step|marker,...``; the process of that run kills itself behind that step; where
        a marker, a file, is named, only once.
    MIXBENCH_TEST_FAIL: the same; that run raises an error.
    MIXBENCH_TEST_MEMORY: ``run id:step|megabytes``; that run takes so much behind that step, and keeps it for a while.
    MIXBENCH_TEST_CLOCK: ``node1=3600,...``; Python's clock on these nodes is so many seconds ahead.
    MIXBENCH_TEST_WARN: anything; a job is warned by SIGUSR2 when one of its runs has come out and is written down.
Every node of a cluster on one machine looks like a machine of its own, as far as boots tell them apart.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from pathlib import Path

SET = [item for item in os.environ.get("MIXBENCH_TEST_SET", "").split(",") if item]


def asked(variable, run, step):
    """What a variable says behind a bar where it names this run and step; None where it does not."""
    found = (item.partition("|") for item in os.environ.get(variable, "").split(","))
    return next((rest for where, _, rest in found if where == f"{run.id}:{step}"), None)


def is_asked(variable, run, step):
    """Whether a variable names this run and step, and its marker is not there yet."""
    marker = asked(variable, run, step)
    if not marker:
        return marker is not None
    first = not Path(marker).exists()
    Path(marker).touch()
    return first


def note(run, step):
    folder = os.environ.get("MIXBENCH_TEST_STEPS")
    if folder:
        with (Path(folder) / f"{run.id}-{os.environ.get('SLURMD_NODENAME', 'here')}-{os.getpid()}").open("a") as file:
            file.write(f"{step}\n")
    if is_asked("MIXBENCH_TEST_DIE", run, step):
        os.kill(os.getpid(), signal.SIGKILL)
    if is_asked("MIXBENCH_TEST_FAIL", run, step):
        raise RuntimeError("asked to fail")
    megabytes = asked("MIXBENCH_TEST_MEMORY", run, step)
    if megabytes:
        taken = bytearray(b"1") * (int(megabytes) << 20)
        time.sleep(60)
        del taken


def dawdle(variable):
    """Take so many seconds, in a job."""
    if "SLURM_JOB_ID" in os.environ:
        time.sleep(float(os.environ.get(variable, 0)))


def traced(module):
    """Training steps are noted, and take their time."""
    steps = module.steps

    def tracing(run, epoch, task, step, state):
        for _ in steps(run, epoch, task, step, state):
            note(run, epoch * task.steps + state.step)
            time.sleep(float(os.environ.get("MIXBENCH_TEST_STEP_SECONDS", 0)))
            yield

    module.steps = tracing
    dawdle("MIXBENCH_TEST_IMPORT_SECONDS")


def warned(module):
    """The process above is warned when an attempt begins to write down what came out."""
    finish = module.Attempt.finish

    def warning(attempt, result, artifacts):
        if "MIXBENCH_TEST_WARN" in os.environ:
            os.kill(os.getppid(), signal.SIGUSR2)
        finish(attempt, result, artifacts)

    module.Attempt.finish = warning


def deafened(module):
    """SIGUSR2 stays held back for ever."""
    if "MIXBENCH_TEST_DEAF" in os.environ:
        module.STOPS = frozenset({signal.SIGTERM})


def told_apart(module):
    """Each node is a machine of its own."""
    boot = module.boot
    module.boot = lambda: f"{boot()} {os.environ.get('SLURMD_NODENAME', '')}"


CHANGES = {
    "mixbench.train": traced,
    "mixbench.provenance": told_apart,
    "mixbench.signals": deafened,
    "mixbench.attempts": warned,
    "mixbench.pool": lambda module: dawdle("MIXBENCH_TEST_JOB_SECONDS"),
}


class Changing(importlib.abc.MetaPathFinder):
    """Changes modules of ours right after they were imported."""

    def find_spec(self, name, path, target=None):
        constants = [item.partition(":")[2] for item in SET if item.partition(":")[0] == name]
        if name not in CHANGES and not constants:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def changing(module):
            execute(module)
            CHANGES.get(name, lambda module: None)(module)
            for constant in constants:
                key, _, value = constant.partition("=")
                setattr(module, key, float(value))

        spec.loader.exec_module = changing
        return spec


def shift_clock():
    """Have this process live at another time, where its node is to."""
    shifts = dict(item.split("=") for item in os.environ.get("MIXBENCH_TEST_CLOCK", "").split(",") if item)
    seconds = int(shifts.get(os.environ.get("SLURMD_NODENAME"), 0))
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + seconds * 10**9


shift_clock()
sys.meta_path.insert(0, Changing())
