"""What several tests need: a small sweep, and the command line without a process of its own."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads that wait for a busy core are slow

import re
import shutil
from dataclasses import dataclass

import pytest
from invented import result_of

from mixbench import cli, files
from mixbench.execution import Execution
from mixbench.resolve import load_sweep
from mixbench.result import payload_of
from mixbench.store import Store

TINY = """\
settings: [digits/tiny]
methods: [simple, mixup, softmax_cam]
seeds: [0, 1]
teacher: {method: simple}
recipes:
  digits/tiny: {epochs: 2, batch_size: 50, schedule: cosine, pad: 1, flip: false, train_images: 100}
"""


@pytest.fixture
def tiny(tmp_path):
    """A sweep file: 3 cells, 6 runs in 2 stages, each trained in a moment."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def finish():
    """Makes a run done, as if it had been trained."""

    def done(results, run, *, top1=90.0, artifacts=None, **other):
        curve = [{"epoch": epoch, "top1": top1, "top5": 99.0} for epoch in range(1, run.epochs + 1)]
        told = {"weights.pt": b"weights", "curve.json": files.encode({"schema": 1, "run": run.id, "curve": curve})}
        with Store(results, tell=print).claim(run, Execution()) as attempt:
            attempt.finish(payload_of(run, result_of(run, top1, **other)), told | (artifacts or {}))

    return done


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str


@pytest.fixture
def mixbench(tmp_path, monkeypatch, capsys):
    """The command line, called in a folder in which there is nothing but what the test puts there."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["mixbench", *map(str, words)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        return Said(ending.value.code or 0, *capsys.readouterr())

    return call


def contents(folder):
    """Every file below a folder with its bytes and the time of its last change."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def some_results(tmp_path_factory, finish):
    """A results folder in which the first row of the small sweep is done; to be copied, not to be used."""
    folder = tmp_path_factory.mktemp("some")
    (folder / "tiny.yaml").write_text(TINY)
    for run in load_sweep(folder / "tiny.yaml", data=folder, results=folder).cells[0].runs:
        finish(folder / "results", run)
    return folder / "results"


@pytest.fixture
def refused(mixbench, tmp_path, some_results):
    """Calls a command that must be refused; its one sentence. Results are there and must be left alone."""
    shutil.copytree(some_results, tmp_path / "results")
    before = contents(tmp_path / "results")

    def call(*words):
        said = mixbench(*words)
        assert said.code == 2, said
        assert re.fullmatch(r"mixbench: [^\n]+\n", said.err), said.err
        assert contents(tmp_path / "results") == before
        return said.err.removeprefix("mixbench: ").rstrip("\n")

    return call
