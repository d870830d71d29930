"""Reaches into the processes of jobs, as the environment says; Python imports it where its folder is on PYTHONPATH.

The code under test knows nothing of it. Variables:
    MIXBENCH_TEST_STEPS: a folder; every step that is computed is noted there, a file for each attempt's process.
    MIXBENCH_TEST_STEP_SECONDS: how long each step takes at least.
    MIXBENCH_TEST_IMPORT_SECONDS: how long the worker takes to import what trains.
    MIXBENCH_TEST_SET: ``module:NAME=number,...``, constants that are otherwise.
    MIXBENCH_TEST_DIE: ``run id:step|marker``; the process of that run kills itself once behind that step.
    MIXBENCH_TEST_FAIL: ``run id:step``; that run raises an error behind that step.
    MIXBENCH_TEST_MEMORY: ``run id:step|megabytes``; that run takes so much behind that step, and keeps it for a while.
    MIXBENCH_TEST_CLOCK: ``node1=3600,...``; Python's clock on these nodes is so many seconds ahead.
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


def of_run(variable):
    """The run and the step that a variable names; what stands behind a bar."""
    where, _, rest = os.environ.get(variable, "").partition("|")
    run, _, step = where.partition(":")
    return run, int(step or 0), rest


def note(run, step):
    folder = os.environ.get("MIXBENCH_TEST_STEPS")
    if folder:
        with (Path(folder) / f"{run.id}-{os.environ.get('SLURMD_NODENAME', 'here')}-{os.getpid()}").open("a") as file:
            file.write(f"{step}\n")
    dying, at, marker = of_run("MIXBENCH_TEST_DIE")
    if (dying, at) == (run.id, step) and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    failing, at, _ = of_run("MIXBENCH_TEST_FAIL")
    if (failing, at) == (run.id, step):
        raise RuntimeError("asked to fail")
    hungry, at, megabytes = of_run("MIXBENCH_TEST_MEMORY")
    if (hungry, at) == (run.id, step):
        taken = bytearray(b"1") * (int(megabytes) << 20)
        time.sleep(60)
        del taken


def traced(module):
    """Training steps are noted, and take their time."""
    steps = module.steps

    def tracing(run, epoch, task, step, state):
        for _ in steps(run, epoch, task, step, state):
            note(run, epoch * task.steps + state.step)
            time.sleep(float(os.environ.get("MIXBENCH_TEST_STEP_SECONDS", 0)))
            yield

    module.steps = tracing
    time.sleep(float(os.environ.get("MIXBENCH_TEST_IMPORT_SECONDS", 0)))


def told_apart(module):
    """Each node is a machine of its own."""
    boot = module.boot
    module.boot = lambda: f"{boot()} {os.environ.get('SLURMD_NODENAME', '')}"


CHANGES = {"mixbench.train": traced, "mixbench.provenance": told_apart}


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
