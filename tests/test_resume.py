"""Whatever kills a sweep, and whenever: started again it ends as if nothing had happened."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mixbench import files

SWEEP = """
settings: [digits/tiny]
methods: [softmax_cam, automix]
seeds: [0, 1]
teacher: {method: simple}
recipes:
  digits/tiny: {epochs: 30, batch_size: 25, schedule: cosine, pad: 1, flip: false, train_images: 200,
                checkpoint_seconds: 0, ema: 0.9, options: {automix: {momentum: 0.9, end_momentum: 0.99}}}
"""
ALLOWED = re.compile(
    r"runs/[^/]+/(run\.json|data\.json|result\.json|curve-a\d+\.json|(weights|mixer)-a\d+\.pt|predictions-a\d+\.npz"
    r"|attempts/\d+/(attempt\.json|hb|log\.jsonl|out\.txt|end\.json))|contents\.json"
)


def command(folder, results):
    return [sys.executable, "-m", "mixbench", "run", str(folder / "sweep.yaml"), "--results", str(results)]


def run(folder, results, **environment):
    done = subprocess.run(
        command(folder, results), env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def outcome(results):
    """Metrics, curve and weights of every run below a results folder."""
    found = {}
    for path in sorted((results / "runs").iterdir()):
        (curve,) = path.glob("curve-a*.json")
        state = {
            (learned.name.partition("-")[0], name): tensor.numpy().tobytes()
            for learned in [*path.glob("weights-a*.pt"), *path.glob("mixer-a*.pt")]
            for name, tensor in torch.load(learned).items()
        }
        found[path.name] = files.read(path / "result.json")["metrics"], files.read(curve)["curve"], state
    return found


def strays(results):
    paths = (str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())
    return [path for path in paths if not ALLOWED.fullmatch(path)]


def attempts(results):
    """How often each run was tried."""
    return {path.name: len(list(path.glob("attempts/[0-9]*"))) for path in results.glob("runs/*")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder):
    results = folder / "undisturbed"
    code, said = run(folder, results)
    assert code == 0, said
    assert strays(results) == []
    return outcome(results)


POINTS = {
    "the claim": (r"simple[^/]*-s0-[^/]*/attempts/1$", 2),
    "a checkpoint": (r"simple[^/]*-s0-[^/]*/ckpt/0+80-a1\.pt$", 2),
    "the weights": (r"simple[^/]*-s0-[^/]*/weights-a1\.pt$", 2),
    "the end": (r"simple[^/]*-s0-[^/]*/attempts/1/end\.json$", 1),
    "the result": (r"simple[^/]*-s0-[^/]*/result\.json$", 1),
}


@pytest.mark.parametrize("point", POINTS)
def test_resume_after_a_kill_right_after(point, folder, undisturbed, tmp_path):
    pattern, expected_attempts = POINTS[point]
    killing = {
        "PYTHONPATH": str(Path(__file__).parent / "killing"),
        "MIXBENCH_KILL_AFTER": f"{pattern}|{tmp_path / 'killed'}",
    }
    results = tmp_path / "results"
    code, said = run(folder, results, **killing)
    assert (tmp_path / "killed").exists(), "the point was never reached"
    assert code == (0 if point == "the result" else 1), said
    code, said = run(folder, results)
    assert code == 0, said
    assert outcome(results) == undisturbed
    assert strays(results) == []
    (teacher,) = [name for name in attempts(results) if name.startswith("simple-digits-tiny-s0")]
    assert attempts(results)[teacher] == expected_attempts


def test_resume_after_kills_at_random_moments(folder, undisturbed, tmp_path):
    """Twenty of them: of the launcher, of a worker, or of both at once."""
    moments = random.Random(3)
    results = tmp_path / "results"
    done: dict[str, int] = {}
    for _ in range(20):
        launcher = subprocess.Popen(command(folder, results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.2, 7.0))
        workers = children(launcher.pid)
        victims = moments.choice([[launcher.pid], workers[:1], [launcher.pid, *workers]])
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if launcher.pid not in victims:
            time.sleep(moments.uniform(0.0, 1.0))
            launcher.kill()
        launcher.wait()
        tried = attempts(results)
        assert tried | done == tried, "a run that was done was tried again"
        done = {name: tried[name] for name in tried if (results / "runs" / name / "result.json").exists()}
    code, said = run(folder, results)
    assert code == 0, said
    assert outcome(results) == undisturbed
    assert strays(results) == []


def test_resume_after_ctrl_c_goes_on_at_the_very_step(folder, undisturbed, tmp_path):
    results = tmp_path / "results"
    launcher = subprocess.Popen(command(folder, results), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not list(results.glob("runs/*/ckpt/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.send_signal(signal.SIGINT)
    said, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said
    assert "stopped" in said
    ends = [files.read(path) for path in results.glob("runs/*/attempts/*/end.json")]
    assert {end["state"] for end in ends} <= {"stopped", "done"}
    assert any(end["state"] == "stopped" for end in ends)
    assert children(launcher.pid) == []
    code, said = run(folder, results)
    assert code == 0, said
    assert outcome(results) == undisturbed
    assert strays(results) == []


def test_resume_twice_at_once_trains_every_run_exactly_once(folder, undisturbed, tmp_path):
    results = tmp_path / "results"
    launchers = [
        subprocess.Popen(command(folder, results), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    for launcher in launchers:
        said, _ = launcher.communicate(timeout=300)
        assert launcher.returncode == 0, said
    assert set(attempts(results).values()) == {1}
    assert outcome(results) == undisturbed
    assert strays(results) == []


def test_resume_of_a_finished_sweep_does_nothing_and_says_so(folder, undisturbed):
    before = {path: path.stat().st_mtime_ns for path in (folder / "undisturbed").rglob("*")}
    code, said = run(folder, folder / "undisturbed")
    assert code == 0
    assert "nothing to do" in said
    assert {path: path.stat().st_mtime_ns for path in (folder / "undisturbed").rglob("*")} == before


def children(pid):
    """Worker processes of a launcher, from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found
