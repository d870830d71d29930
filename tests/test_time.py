"""`mixbench time` from the command line, and what its tables say."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import contents

from analysis import paper, timeplot
from analysis.measured import Cost, Measured, Named, measured
from analysis.timetable import part
from analysis.timetext import FORMS
from mixbench import catalog, devices, files
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.timing.measuring import Measure
from mixbench.timing.request import rows_of
from mixbench.timing.runs import side_by_side, timed
from mixbench.train import train

QUICK = ("time", "--device", "cpu", "--batch-size", 6, "--trials", 2)


def column(*seconds, images=4.0):
    return {"images": [images] * len(seconds), "cpu": list(seconds), "wall": [2 * one for one in seconds]}


def row(method, *, label, cold, step, runs=None, steps=(), **more):
    columns = {"cold": column(*cold), "step": column(*step)} | more.pop("columns", {})
    return {
        "method": method,
        "options": {},
        "label": label,
        "runs": runs or {},
        "built": 0.1,
        "told": [],
        "inside": False,
        "keeps": False,
        "columns": columns,
        "counted": {"flops": 8e9, "bytes": 1e6, "peak": 2e6, "seconds": 0.001},
        "steps": list(steps),
    } | more


SUBJECTS = [
    timed(Run(method=method, dataset="cifar10", model="resnet18", epochs=1), batch_size=4)
    for method in ("simple", "puzzlemix", "transformmix")
]
MEASUREMENT = side_by_side(SUBJECTS, machine="Some CPU")


@pytest.fixture
def record():
    """A measurement of batches of 4 images on CIFAR-10, in three rounds."""
    about = {"driver": "", "versions": {"torch": "2.11"}, "threads": 1, "cores": 2, "commit": "abc"}
    return {
        "machine": {"device": "Some CPU", **about},
        "rates": {"flops": 1e12, "bytes": 1e11},
        "clock": ["cpu", "wall"],
        "load": [1.0, 2.0],
        "pictures": {"source": "made-up 8-bit pictures", "batches": 3, "cache": 1},
        "train_images": 50_000,
        "protocol": {"epochs": 200, "pad": 4, "views": 162, "largest": 64},
        "rows": [
            row("simple", label="Simple", cold=[1e-5] * 3, step=[0.10, 0.11, 0.90]),
            row("puzzlemix", label="PuzzleMix", cold=[0.02, 0.03, 0.9], step=[0.2, 0.33, 0.4], built=2.5),
            row(
                "transformmix",
                label="TransformMix",
                cold=[0.01, 0.01, 0.04],
                step=[0.1, 0.22, 0.3],
                runs={"teacher": "", "policy": "the-search"},
                columns={"amortised": column(0.004, 0.006, 0.008)},
            ),
        ],
    }


def measurement_of(record, run=MEASUREMENT):
    """The measurement, its rows called as they call themselves, and the search that one of them asks."""
    rows = [Named(one.method, catalog.label(one)) for one in run.subjects]
    return Measured(run, record, run.setting, rows, [Cost("search", "the-search", 3600.0, "Some CPU")])


def text_of(record, claims=None, *, form="md", run=MEASUREMENT):
    return FORMS[form]([measurement_of(record, run)], claims)


@pytest.fixture
def kept(tmp_path, finish, record):
    """The measurement among the results, as if it had been made."""

    def keep(results, run=MEASUREMENT, told=record):
        times = files.encode({"schema": 1, "run": run.id, "record": told})
        finish(results, run, artifacts={"times.json": times}, metrics={"rounds": 3.0})

    return keep


def lines(text):
    """Cells of the first table by method and head."""
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: dict(zip(table[0], cells, strict=True)) for cells in table[2:] if len(cells) == len(table[0])}


@pytest.fixture
def paper_claims():
    return paper.load(Path(__file__).parents[1] / "results" / "paper.csv")


def test_table_gives_medians_for_128_images_ratios_and_the_papers_number(record, paper_claims):
    found = lines(text_of(record, paper_claims))["PuzzleMix"]
    assert found["cold"] == "960 (800 to 14,880)"
    assert found["× TransformMix"] == "3.00"
    assert found["× Simple"] == "3.00"
    assert found["paper"] == "3.61"
    assert found["MB"] == "2"


def take(record, clock, seconds, rounds):
    """As if each row had taken about so long in each round, by the reading that leads."""
    for of_row, each in zip(record["rows"], seconds, strict=True):
        for of in of_row["columns"].values():
            of |= {"images": [4.0] * rounds, clock[0]: [(0.99, 1.01)[number % 2] * each for number in range(rounds)]}
    record["clock"] = clock


GPU, CPU = ["wall", "events"], ["cpu", "wall"]


@pytest.mark.parametrize(
    ("clock", "puzzlemix", "rounds", "said"),
    [
        (GPU, 0.0361, 13, "3.61 (reproduced)"),
        (GPU, 0.05, 12, "3.61 (differs)"),
        (GPU, 0.05, 3, "3.61"),
        (CPU, 0.05, 12, "3.61"),
    ],
)
def test_a_gpus_ratio_is_held_against_the_papers_where_it_has_an_interval(
    record, paper_claims, clock, puzzlemix, rounds, said
):
    take(record, clock, (0.001, puzzlemix, 0.01), rounds)
    assert lines(text_of(record, paper_claims))["PuzzleMix"]["paper"] == said


def test_table_says_what_it_stands_on(record):
    text = " ".join(text_of(record).split())
    for words in (
        "Some CPU; 1 thread on 2 cores; torch 2.11; commit abc",
        "load 1.0 to 2.0",
        "1,000 GFLOP/s",
        "median of 3 rounds",
        "teacher of random weights; policy the-search",
        "PuzzleMix: its constructor took 2.5 s, which no column shows",
    ):
        assert words in text


def test_amortised_is_a_mean(record):
    assert lines(text_of(record))["TransformMix"]["amortised"] == "192"


def test_floor_is_the_share_of_the_mean_that_could_not_be_less(record):
    assert lines(text_of(record))["TransformMix"]["% of floor"] == "5"


def test_what_is_paid_once_pays_beside_a_method_whose_steps_take_longer(record):
    (found,) = [line for line in text_of(record).splitlines() if line.startswith("| search")]
    # A run has 200 x 50,000 / 128 steps, of which each is 32 x 0.11 s shorter than PuzzleMix's.
    assert "1 beside PuzzleMix" in found
    assert "Simple" not in found
    record["machine"]["device"] = "another"
    assert "beside" not in next(line for line in text_of(record).splitlines() if line.startswith("| search"))


def test_images_that_finished_are_what_a_searching_method_is_timed_by(record):
    counts = [1, 0, 2, 3]
    record["rows"].append(row("supermix", label="SuperMix", cold=[0.01] * 3, step=[1.0] * 3, steps=counts))
    record["rows"][-1]["columns"]["cold"]["images"] = [2.0, 2.0, 0.0]
    supermix = replace(SUBJECTS[0], method="supermix")
    text = text_of(record, run=replace(MEASUREMENT, subjects=(*SUBJECTS, supermix)))
    assert lines(text)["SuperMix"]["cold"].startswith("640")
    assert "5 of 6; after so many steps: 2: 2, 3: 3" in " ".join(text.split())


def test_csv_has_every_column_with_its_interval(record):
    found = list(csv.DictReader(io.StringIO(text_of(record, form="csv"))))
    assert [(one["method"], one["column"]) for one in found[-3:]] == [
        ("TransformMix", name) for name in ("cold", "step", "amortised")
    ]
    assert float(found[2]["ms"]) == 960


def test_latex_has_as_many_cells_in_every_line(record):
    body = [line for line in text_of(record, form="tex").splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {9}
    assert "%" not in re.sub(r"\\%", "", body[0])


def test_methods_that_search_are_timed_on_the_cpu_only_if_named():
    assert "supermix" not in [one.method for one in rows_of(None, device="cpu")]
    assert "supermix" in [one.method for one in rows_of(None, device="cuda")]
    assert [one.method for one in rows_of(["supermix"], device="cpu")] == ["simple", "supermix"]


def test_two_published_forms_of_a_method_are_two_rows():
    options = [one.options for one in rows_of(["saliencymix"], device="cpu")]
    assert options == [{}, {}, {"saliency": "official"}]


@pytest.fixture(scope="module")
def words():
    return ("--methods", "puzzlemix,transformmix", "--size", "16", "--model", "resnet8")


def measurements(results):
    store = Store(results, tell=print)
    return [(run, store.times(run)) for run in store.known() if run.task == "time"]


def test_time_needs_nothing_and_keeps_every_reading(mixbench, tmp_path, words):
    said = mixbench(*QUICK, *words)
    assert said.code == 0, said.err
    assert "teacher of random weights" in said.out
    ((run, record),) = measurements(tmp_path / "results")
    assert [one.method for one in run.subjects] == ["simple", "puzzlemix", "transformmix"]
    assert {len(times) for row in record["rows"] for of in row["columns"].values() for times in of.values()} == {2}


def test_time_measures_again_when_asked_again(mixbench, tmp_path):
    words = ("--methods", "mixup", "--size", "16", "--model", "resnet8")
    assert mixbench(*QUICK, *words).code == mixbench(*QUICK, *words).code == 0
    assert [run.seed for run, _ in measurements(tmp_path / "results")] == [0, 1]


def test_time_takes_real_pictures_and_both_precisions(mixbench):
    said = mixbench(
        *QUICK, "--methods", "softmax_cam", "--settings", "digits/tiny", "--precision", "float32,bfloat16",
        "--format", "json",
    )  # fmt: skip
    found = json.loads(said.out)
    assert [one["run"].get("precision", "float32") for one in found] == ["float32", "bfloat16"]
    assert {one["record"]["pictures"]["source"] for one in found} == {"training images of Digits"}


def test_made_up_pictures_are_another_measurement_than_real_ones(mixbench, tmp_path):
    words = ("--methods", "mixup", "--settings", "cifar10/resnet8")
    assert mixbench(*QUICK, *words).code == 0
    ((run, _),) = measurements(tmp_path / "results")
    assert run.made_up
    assert run.id != replace(run, made_up=False).id


def test_time_refuses_batches_that_the_data_cannot_fill(mixbench, tmp_path):
    words = ("time", "--device", "cpu", "--methods", "mixup", "--settings", "digits/tiny", "--batch-size", 5000)
    said = mixbench(*words)
    assert said.code == 2
    assert "--batch-size 5000: Digits has only 1000 images to train on; take smaller batches" in said.err
    assert not (tmp_path / "results" / "runs").exists()


def test_time_asks_the_networks_that_finished_runs_trained(mixbench, tiny):
    assert mixbench("run", tiny, "--only", "simple", "--device", "cpu").code == 0
    said = mixbench(*QUICK, "--methods", "softmax_cam", "--settings", "digits/tiny")
    assert said.code == 0, said.err
    assert "teacher simple-digits-tiny-s0-" in " ".join(said.out.split())


def test_time_refuses_a_named_method_that_cannot_be_timed(refused):
    sentence = refused(*QUICK, "--methods", "supermix", "--size", "16", "--model", "resnet8")
    assert "SuperMix on 16/resnet8: it mixes until its teacher recognises" in sentence


def test_time_leaves_out_what_nobody_named_and_says_so(mixbench, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "names", lambda: ["mixup", "puzzlemix"])
    said = mixbench(*QUICK, "--size", "12", "--model", "resnet8")
    assert said.code == 0, said.err
    assert "left out: PuzzleMix on 12/resnet8: " in said.err
    ((run, _),) = measurements(tmp_path / "results")
    assert [one.method for one in run.subjects] == ["simple", "mixup"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "mixdown"], "--methods: there is no method 'mixdown'"),
        (["--settings", "cifar10/resnet19"], "--settings: there is no model 'resnet19'"),
        (["--settings", "mnist/resnet8"], "--settings: there is no data set 'mnist'"),
        (["--settings", "digits"], "--settings: 'digits' is no setting; write dataset/model, like cifar10/resnet8"),
        (["--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["--size", "32"], "--size needs the network that is asked: --model NAME"),
        (["--size", "big", "--model", "tiny"], "--size is a side in pixels"),
        (["--size", "32", "--model", "resnet50"], "too small for resnet50"),
        (["--size", "32", "--settings", "cifar10/tiny"], "give one of them"),
        (["--model", "tiny"], "--model is the network of --size"),
        (["--precision", "float16"], "--precision is of float32, bfloat16, not 'float16'"),
    ],
)
def test_time_refuses_what_there_is_not(refused, words, sentence):
    assert sentence in refused("time", "--device", "cpu", *words)


def test_a_measurement_is_printed_again(mixbench, tmp_path, record, kept):
    kept(tmp_path / "results")
    before = contents(tmp_path)
    said = mixbench("time", "--again", "several-time")
    found = measured(MEASUREMENT, Store(tmp_path / "results", tell=print))
    assert said.out == FORMS["md"]([found], paper.known(tmp_path))
    assert contents(tmp_path) == before


def test_time_refuses_to_print_what_was_never_measured(refused):
    assert "no run in results begins with 'several'" in refused("time", "--again", "several")
    assert "has read no clock; name a finished run of task: time" in refused("time", "--again", "simple-digits-tiny-s0")


@pytest.fixture
def accuracies(tmp_path, finish):
    """Finished runs of two methods, and one under another protocol."""
    simple = Run(method="simple", dataset="cifar10", model="resnet18", epochs=3)
    for seed, top1 in enumerate((80.0, 81.0, 82.0)):
        finish(tmp_path / "results", replace(simple, seed=seed), top1=top1)
        finish(tmp_path / "results", replace(simple, seed=seed, method="puzzlemix"), top1=top1 + 2)
    finish(tmp_path / "results", replace(simple, epochs=9), top1=99.0)


def test_plot_sets_costs_against_accuracies_of_one_protocol(mixbench, tmp_path, record, kept, accuracies):
    found = timeplot.accuracies(["cifar10/resnet18"], Store(tmp_path / "results", tell=print))
    assert found == {"cifar10/resnet18": {"Simple": [80, 81, 82], "PuzzleMix": [82, 83, 84]}}
    (axes,) = timeplot.draw([part(measurement_of(record), None)], found).axes
    points = [tuple(float(bar.lines[0].get_data()[one][0]) for one in (0, 1)) for bar in axes.containers]
    assert points == [(1, 81), (3, 83)]
    kept(tmp_path / "results")
    said = mixbench("time", "--again", "several", "--plot", "plot.svg")
    assert said.code == 0
    assert "not drawn for cifar10/resnet18: TransformMix; the step was not timed, or no finished run" in said.err
    assert "PuzzleMix (3)" in (tmp_path / "plot.svg").read_text()


def a_measurement(trials):
    alone = timed(Run(method="simple", dataset="16", model="resnet8", epochs=1), batch_size=4)
    return side_by_side([alone], machine=devices.here(), made_up=True, trials=trials)


def measure(run, attempt, store, told):
    return train(run, attempt, Execution(), store.read_weights, told)


def test_a_measurement_that_is_stopped_goes_on_with_the_readings_that_it_has(tmp_path):
    run, store, steps = a_measurement(5), Store(tmp_path, tell=print), []
    with pytest.raises(StoppedError), store.claim(run, Execution()) as attempt:
        measure(run, attempt, store, lambda *_: attempt.stop.set())
    with store.claim(run, Execution()) as attempt:
        trained = measure(run, attempt, store, lambda done, of, known: steps.append(done))
    assert steps == [2, 3, 4, 5]
    assert trained.evaluation.metrics == {"rounds": 5}
    (row,) = json.loads(trained.files["times.json"])["record"]["rows"]
    assert {len(times) for of in row["columns"].values() for times in of.values()} == {5}


def test_a_measurement_is_refused_on_another_machine(tmp_path):
    with pytest.raises(ValueError, match="is to be measured on 'Some CPU', and this is"):
        Measure(MEASUREMENT, Streams(0), Execution(data=str(tmp_path)), None)


def test_plot_is_refused_before_anything_is_measured(refused):
    words = ("--methods", "mixup", "--settings", "cifar10/resnet8")
    assert "--plot sets costs against accuracies, but no run" in refused("time", *words, "--plot", "plot.svg")
    assert "--plot plot.txt" in refused("time", *words, "--plot", "plot.txt")


def test_time_refuses_what_a_later_setting_cannot_do_before_it_measures_the_first(refused):
    words = ("--methods", "puzzlemix", "--size", "16,8", "--model", "resnet8")
    assert "PuzzleMix on 8/resnet8: block_num holds 16" in refused(*QUICK, *words)
