"""The local queue: what it waits for, what it takes over, and how it stops."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mixbench import devices, files, pulse, traces
from mixbench.execution import Execution
from mixbench.pool import Pool
from mixbench.spec import Run
from mixbench.store import Store

RUN = Run(method="mixup", dataset="digits", model="tiny", epochs=2, batch_size=50, pad=1, train_images=100)
LONG = Run.from_dict(RUN.to_dict() | {"epochs": 100_000})


class Heard:
    """A watcher that remembers."""

    def __init__(self):
        self.endings = []
        self.moving = False

    def started(self, run):
        pass

    def moved(self, run, at):
        self.moving = True

    def ended(self, run, state, text):
        self.endings.append((run, state, text))

    def told(self, sentence):
        pass


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, tell=print)


@pytest.fixture
def heard():
    return Heard()


def pool(store, heard, slots=1):
    return Pool(store, lambda run: Execution(), heard, [{"OMP_NUM_THREADS": "1"}] * slots)


def attempt_of_another_machine(store, run):
    store.claim(run, Execution())
    place = store.folder(run) / "attempts" / "1" / "attempt.json"
    files.write(place, files.encode(files.read(place) | {"boot": "another"}))


def test_pool_takes_over_from_a_machine_whose_heart_has_stopped(store, heard, monkeypatch):
    monkeypatch.setattr(pulse, "LEASE_SECONDS", 1.0)
    attempt_of_another_machine(store, RUN)
    outcome = pool(store, heard).work([RUN])
    assert (outcome.stopped, outcome.disk_full) == (False, False)
    assert [state for _, state, _ in heard.endings] == ["elsewhere", "done"]
    assert store.result(RUN).attempt == 2


def test_pool_leaves_a_run_alone_while_the_other_machine_is_alive(store, heard, monkeypatch):
    monkeypatch.setattr(pulse, "LEASE_SECONDS", 3.0)
    attempt_of_another_machine(store, RUN)
    heartbeat = store.folder(RUN) / "attempts" / "1" / "hb"
    beating = subprocess.Popen([sys.executable, "-c", BEAT, str(heartbeat)])
    working = pool(store, heard)
    working._look_elsewhere = ending_after(working, working._look_elsewhere, seconds=8)
    working.work([RUN])
    beating.kill()
    beating.wait()
    assert [state for _, state, _ in heard.endings] == ["elsewhere"]
    assert traces.numbers(store.folder(RUN)) == [1]


BEAT = "import pathlib, sys, time\nwhile True:\n    pathlib.Path(sys.argv[1]).touch()\n    time.sleep(0.2)"


def ending_after(working, look, *, seconds):
    """Asks the pool to stop after a while, as Ctrl-C would."""
    begun = time.monotonic()

    def looking():
        look()
        if time.monotonic() - begun > seconds:
            working._stop.hear(signal.SIGINT)

    return looking


def test_pool_tells_a_failure_in_another_process_and_does_not_repeat_it(store, heard):
    with pytest.raises(ZeroDivisionError), store.claim(RUN, Execution()):
        _ = 1 / 0
    working = pool(store, heard)
    working._elsewhere[RUN] = time.monotonic()
    working._look_elsewhere()
    assert heard.endings == [(RUN, "failed", "division by zero (in another process)")]


def test_pool_that_is_interrupted_twice_kills_its_workers(tmp_path):
    sweep = tmp_path / "long.yaml"
    sweep.write_text("""
settings: [digits/tiny]
methods: [simple]
seeds: [0]
recipes: {digits/tiny: {epochs: 1000000, batch_size: 50, pad: 1, flip: false, train_images: 100, checkpoint_seconds: 0}}
""")
    results = tmp_path / "r"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "mixbench", "run", str(sweep), "--results", str(results)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(results.glob("runs/*/ckpt/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (about,) = results.glob("runs/*/attempts/1/attempt.json")
    os.kill(files.read(about)["pid"], signal.SIGSTOP)  # it cannot save: only force ends it
    launcher.send_signal(signal.SIGINT)
    time.sleep(1)
    launcher.send_signal(signal.SIGINT)
    said, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 130, said
    assert not (about.parent / "end.json").exists()


def test_pool_lets_a_busy_worker_save_when_it_fails_itself(store, heard):
    working = pool(store, heard)

    def fail():
        if heard.moving:
            raise RuntimeError("the launcher's own fault")

    working._look_elsewhere = fail
    with pytest.raises(RuntimeError, match="own fault"):
        working.work([LONG])
    assert store.ending(LONG)["state"] == "stopped"


def test_slots_are_as_many_as_cores_by_threads():
    cores = len(os.sched_getaffinity(0))
    assert len(devices.environments("cpu", None, 1)) == cores
    assert len(devices.environments("cpu", None, cores)) == 1
    assert devices.environments("cpu", 3, 2) == [{"OMP_NUM_THREADS": "2"}] * 3


def test_slots_take_the_visible_gpus_by_turns(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc")
    assert [one["CUDA_VISIBLE_DEVICES"] for one in devices.environments("cuda", 3, 1)] == ["4", "GPU-abc", "4"]


def test_gpus_are_counted_without_their_mig_parts(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g.10gb Device 0: (UUID: MIG-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert devices.visible_gpus() == ["0"]
