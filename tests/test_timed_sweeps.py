"""Sweeps of measurements: what they mean, that nothing disturbs them, and what a report makes of them."""

import json
import re

import pytest

from analysis import answers
from mixbench import catalog, devices, files
from mixbench.execution import Execution
from mixbench.launch import launch, plan
from mixbench.resolve import load_sweep
from mixbench.status import state_of
from mixbench.store import Store

TIMES = """\
settings: [digits/tiny, {digits/tiny: other}]
methods: {simple: , mixup: , softmax_cam: {label: CAM}}
seeds: [0]
set: {task: time, batch_size: 6}
teacher: {method: simple}
table: {caption: What mixing costs.}
recipes:
  digits/tiny: {epochs: 1, batch_size: 50, pad: 1, flip: false, train_images: 100}
  other: {label: Another protocol, weight_decay: 0.0, precision: bfloat16}
  searching: {task: search}
"""


class Watcher:
    """Who is at work, and with whom."""

    def __init__(self):
        self.at_work, self.beside, self.bad = set(), {}, []

    def started(self, run):
        self.at_work.add(run)
        for one in self.at_work:
            self.beside.setdefault(one, set()).update(self.at_work - {one})

    def moved(self, run, at):
        pass

    def ended(self, run, state, text):
        self.at_work.discard(run)
        if state != "done":
            self.bad.append(text)

    def told(self, sentence):
        self.bad.append(sentence)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "times.yaml"
    path.write_text(TIMES)
    return path


@pytest.fixture
def load(tmp_path, written):
    def loaded(*replaced, machine=None):
        text = TIMES
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        written.write_text(text)
        return load_sweep(written, data=tmp_path, results=tmp_path / "results", machine=machine)

    return loaded


def test_cells_of_a_column_are_one_run_that_measures_all_its_rows(load):
    sweep = load(machine=lambda: "Some CPU")
    runs = {
        column: {run for cell in sweep.cells if cell.column == column for run in cell.runs} for column in sweep.columns
    }
    for found, precision in zip(runs.values(), ("float32", "bfloat16"), strict=True):
        (run,) = found
        assert [one.method for one in run.subjects] == ["simple", "mixup", "softmax_cam"]
        assert (run.task, run.batch_size, run.precision, run.machine) == ("time", 6, precision, "Some CPU")
        assert all((one.epochs, one.lr, one.batch_size) == (1, 0.1, 6) for one in run.subjects)
    assert len(sweep.stages()) == 2


def test_teachers_are_trained_as_their_setting_is_whatever_the_measurement_sets(load, tmp_path):
    (first, second) = [run for stage in load().stages() for run in stage if run.task == "classify"]
    assert (first.batch_size, first.precision, second.precision) == (50, "float32", "bfloat16")
    alone = tmp_path / "alone.yaml"
    alone.write_text(TIMES.replace("set: {task: time, batch_size: 6}\n", ""))
    trained = load_sweep(alone, data=tmp_path, results=tmp_path).cells[0].runs[0]
    assert first == trained


@pytest.mark.parametrize(
    ("replaced", "sentence"),
    [
        (("task: time,", "task: time, epochs: 3,"), "set: epochs says how to train, and task: time does not; it reads"),
        (("simple: , ", ""), "task: time gives each training step beside Simple's; add the row simple"),
        (("mixup: ,", "mixup: , again: {method: mixup},"), "two of its rows mix alike"),
        (
            ("{label: CAM}", "{recipe: searching}"),
            "row softmax_cam is of task: search, and only methods can be timed",
        ),
        (("  other: {", "  other: {task: time, "), "task: time measures subjects, and only that does"),
        (
            ("{label: CAM}", "{set: {lr: 0.2}}"),
            "methods: softmax_cam: set: all rows are measured alike, with task: time",
        ),
        (
            (", weight_decay: 0.0, precision: bfloat16", ""),
            "columns digits/tiny and digits/tiny + other differ in nothing",
        ),
    ],
)
def test_a_sweep_of_measurements_that_would_mean_nothing_is_refused(load, replaced, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        load(replaced)
    assert str(refused.value).count("times.yaml") == 1


def test_rows_of_a_measurement_cannot_be_taken_alone(mixbench, written):
    said = mixbench("run", written, "--only", "mixup", "--device", "cpu")
    assert said.code == 2
    assert "--only: its rows are measured side by side, all or none; some alone: mixbench time --methods" in said.err


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results of the sweep, computed by two slots, and who worked beside whom."""
    folder, watcher = tmp_path_factory.mktemp("measured"), Watcher()
    (folder / "times.yaml").write_text(TIMES)
    sweep = load_sweep(folder / "times.yaml", data=folder, results=folder / "results")
    store = Store(folder / "results", tell=watcher.told)
    launch(plan(sweep, store), store, Execution(data=str(folder), minutes=0.01), 2, watcher)
    assert not watcher.bad
    return folder, watcher


def test_nothing_is_at_work_beside_a_measurement(measured):
    _, watcher = measured
    assert {run.task: bool(beside) for run, beside in watcher.beside.items()} == {"classify": True, "time": False}
    assert len(watcher.beside) == 4


def test_report_prints_each_column_as_it_was_measured(measured, mixbench):
    folder, _ = measured
    said = mixbench("report", folder / "times.yaml", "--results", folder / "results", "--data", folder)
    assert said.code == 0, said.err
    assert said.out.startswith("What mixing costs.")
    assert re.findall(r"(.*), (\w+)\. Milliseconds", said.out) == [
        ("Digits, tiny", "float32"),
        ("Another protocol", "bfloat16"),
    ]
    assert said.out.count("| CAM ") == 2
    assert "CAM: teacher simple-digits-tiny-s0-" in " ".join(said.out.split())


def test_what_was_measured_is_not_measured_again(measured, mixbench):
    folder, _ = measured
    places = ("--results", folder / "results", "--data", folder, "--device", "cpu")
    assert "nothing to do" in mixbench("run", folder / "times.yaml", *places).out


def test_report_as_csv_says_on_which_machine(measured, mixbench):
    folder, _ = measured
    places = ("--results", folder / "results", "--data", folder)
    out = mixbench("report", folder / "times.yaml", "--format", "csv", *places).out
    assert {line.partition(",digits")[0] for line in out.splitlines()[1:]} <= {devices.here(), f'"{devices.here()}"'}


@pytest.fixture
def elsewhere(tmp_path, load, finish):
    """Makes the sweep's first column measured on another machine, its readings invented."""

    def measure(machine):
        run = load(machine=lambda: machine).cells[0].runs[0]
        columns = {name: {"images": [6.0], "cpu": [0.1], "wall": [0.1]} for name in ("cold", "step")}
        row = {
            "label": "",
            "runs": {},
            "built": 0.0,
            "told": [],
            "inside": False,
            "keeps": False,
            "columns": columns,
            "steps": [],
        }
        row |= {"counted": {"flops": 1.0, "bytes": 1.0, "peak": 1.0, "seconds": 0.01}}
        about = {"device": machine, "driver": "", "versions": {}, "threads": 1, "cores": 2, "commit": "abc"}
        record = {
            "machine": about,
            "rates": {"flops": 1e12, "bytes": 1e11},
            "clock": ["cpu", "wall"],
            "load": [0.0, 0.0],
        }
        record |= {"pictures": {"source": "pictures", "batches": 1, "cache": 1}, "train_images": 100}
        record |= {"protocol": {"epochs": 1, "pad": 1, "views": 1, "largest": 1}}
        record["rows"] = [{**row, "method": one.method} for one in run.subjects]
        times = files.encode({"schema": 1, "run": run.id, "record": record})
        finish(tmp_path / "results", run, artifacts={"times.json": times}, metrics={"rounds": 1.0})

    return measure


def test_report_shows_another_machines_times_where_this_one_has_none(mixbench, written, elsewhere):
    elsewhere("A large GPU")
    said = mixbench("report", "times.yaml")
    assert said.out.count("A large GPU; 1 thread") == 1
    assert "Not measured on A large GPU: digits/tiny; there, do `mixbench run times.yaml`." in " ".join(
        said.out.split()
    )


def test_report_never_mixes_machines(mixbench, written, elsewhere):
    elsewhere("A large GPU")
    elsewhere("A small GPU")
    refused = mixbench("report", "times.yaml")
    assert refused.code == 2
    assert "there are times of A large GPU; A small GPU, none of" in refused.err
    said = mixbench("report", "times.yaml", "--machine", "A small GPU")
    assert "A small GPU; 1 thread" in said.out
    assert "A large GPU" not in said.out
    nobody = mixbench("report", "times.yaml", "--machine", "Mine")
    assert nobody.code == 2
    assert "--machine Mine: it has no times of times; there are: A large GPU; A small GPU" in nobody.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["times.yaml", "--metric", "best"], "--metric best: times has times and no such metric; leave it out"),
        (["tiny.yaml", "--machine", "Mine"], "--machine Mine: tiny.yaml has no times; leave it out"),
    ],
)
def test_report_refuses_options_that_mean_nothing(mixbench, written, tiny, words, sentence):
    said = mixbench("report", *words)
    assert (said.code, sentence in said.err) == (2, True)


def test_report_refuses_a_machine_also_where_its_text_is_kept(mixbench, tiny, tmp_path, finish, monkeypatch):
    for run in [run for cell in load_sweep(tiny, data=tmp_path, results=tmp_path).cells for run in cell.runs]:
        finish(tmp_path / "results", run)
    monkeypatch.setattr(answers, "SETTLED_SECONDS", -1e9)  # as if all of it were old
    assert mixbench("report", "tiny.yaml").code == 0
    assert list((tmp_path / "results" / answers.FOLDER).iterdir())
    assert mixbench("report", "tiny.yaml", "--machine", "Mine").code == 2


def test_report_says_when_the_methods_are_not_those_that_were_measured(mixbench, written, elsewhere, monkeypatch):
    elsewhere("A large GPU")
    monkeypatch.setattr(catalog, "code_of", lambda run: "another")
    said = " ".join(mixbench("report", "times.yaml").out.split())
    assert "Digits, tiny was measured with another version of the code of its methods than today's" in said


def test_a_measurement_without_its_readings_is_made_again(elsewhere, load, tmp_path):
    elsewhere("A large GPU")
    run = load(machine=lambda: "A large GPU").cells[0].runs[0]
    store = Store(tmp_path / "results", tell=print)
    assert store.complete(run)
    next(store.folder(run).glob("times-*")).unlink()
    assert not store.complete(run)
    assert state_of(run, store) != "done"
    assert store.claim(run, Execution()) is not None


def test_what_is_not_the_usual_is_another_machine():
    plain = devices.machine(Execution())
    assert devices.machine(Execution(threads=2, channels_last=False)) == f"{plain}, 2 threads, contiguous"


def test_report_of_what_was_never_measured_says_what_to_do(mixbench, written):
    said = mixbench("report", "times.yaml")
    assert said.code == 0
    assert "there, do `mixbench run times.yaml`." in " ".join(said.out.split())
    assert "nothing of times was measured yet" in mixbench("report", "times.yaml", "--format", "csv").err


def test_why_says_what_a_measurement_is_of(mixbench, written, elsewhere):
    elsewhere("A large GPU")
    said = mixbench("why", "several")
    assert "subjects: Simple, Mixup, " in said.out
    assert "machine: A large GPU" in said.out


def test_a_damaged_record_is_told_and_not_shown(mixbench, written, elsewhere, tmp_path):
    elsewhere("A large GPU")
    (path,) = tmp_path.glob("results/runs/several-*/times-a1.json")
    path.write_text(json.dumps(files.read(path))[:-40])
    said = mixbench("report", "times.yaml")
    assert said.code == 2
    assert f"{path.name} is damaged" in said.err
