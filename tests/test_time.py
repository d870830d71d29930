"""`mixbench time` from the command line, and what its tables say."""

import csv
import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from analysis import paper, timeplot
from analysis.timetable import parts
from analysis.timetext import FORMS
from mixbench import files
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing.request import rows_of

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
        "inside": False,
        "keeps": False,
        "columns": columns,
        "counted": {"flops": 8e9, "bytes": 1e6, "peak": 2e6, "seconds": 0.001},
        "steps": list(steps),
    } | more


@pytest.fixture
def record():
    """A measurement of batches of 4 images on CIFAR-10, in three rounds."""
    search = {"what": "search", "method": "transformmix", "run": "the-search", "seconds": 3600.0, "device": "Some CPU"}
    return {
        "machine": {
            "device": "Some CPU",
            "driver": "",
            "versions": {"torch": "2.11"},
            "threads": 1,
            "cores": 2,
            "commit": "abc",
        },
        "rates": {"float32": {"flops": 1e12, "bytes": 1e11}},
        "clock": ["cpu", "wall"],
        "batch_size": 4,
        "protocol": {"epochs": 200, "pad": 4, "views": 162, "largest": 64},
        "load": [1.0, 2.0],
        "parts": [
            {
                "setting": "cifar10/resnet18",
                "precision": "float32",
                "train_images": 50_000,
                "pictures": {"source": "made-up 8-bit pictures", "batches": 3, "cache": 1},
                "rows": [
                    row("simple", label="Simple", cold=[1e-5] * 3, step=[0.10, 0.11, 0.90]),
                    row("puzzlemix", label="PuzzleMix", cold=[0.02, 0.03, 0.9], step=[0.2, 0.33, 0.4]),
                    row(
                        "transformmix",
                        label="TransformMix",
                        cold=[0.01, 0.01, 0.04],
                        step=[0.1, 0.22, 0.3],
                        runs={"teacher": "", "policy": "the-search"},
                        columns={"amortised": column(0.004, 0.006, 0.008)},
                    ),
                ],
                "left_out": ["ResizeMix: too small"],
                "once": [search],
            }
        ],
    }


def lines(text):
    """Cells of the first table by method and head."""
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {cells[0]: dict(zip(table[0], cells, strict=True)) for cells in table[2:] if len(cells) == len(table[0])}


@pytest.fixture
def paper_claims():
    return paper.load(Path(__file__).parents[1] / "results" / "paper.csv")


def test_table_gives_medians_for_128_images_ratios_and_the_papers_number(record, paper_claims):
    found = lines(FORMS["md"](record, paper_claims))["PuzzleMix"]
    assert found["cold"] == "960 (800 to 14,880)"
    assert found["× TransformMix"] == "3.00"
    assert found["× Simple"] == "3.00"
    assert found["paper"] == "3.61"
    assert found["MB"] == "2"


def test_table_says_what_it_stands_on(record):
    text = " ".join(FORMS["md"](record, None).split())
    for words in (
        "Some CPU; 1 thread on 2 cores, load 1.0 to 2.0",
        "1,000 GFLOP/s",
        "median of 3 rounds",
        "teacher of random weights; policy the-search",
        "left out: ResizeMix: too small",
    ):
        assert words in text


def test_amortised_is_a_mean(record):
    assert lines(FORMS["md"](record, None))["TransformMix"]["amortised"] == "192"


def test_floor_is_the_share_of_the_mean_that_could_not_be_less(record):
    assert lines(FORMS["md"](record, None))["TransformMix"]["% of floor"] == "5"


def test_what_is_paid_once_pays_beside_a_method_whose_steps_take_longer(record):
    (found,) = [line for line in FORMS["md"](record, None).splitlines() if line.startswith("| search")]
    # A run has 200 x 50,000 / 128 steps, of which each is 32 x 0.11 s shorter than PuzzleMix's.
    assert "1 beside PuzzleMix" in found
    assert "Simple" not in found
    record["parts"][0]["once"][0]["device"] = "another"
    assert "beside" not in next(line for line in FORMS["md"](record, None).splitlines() if line.startswith("| search"))


def test_images_that_finished_are_what_a_searching_method_is_timed_by(record):
    counts = [1, 0, 2, 3]
    record["parts"][0]["rows"].append(row("supermix", label="SuperMix", cold=[0.01] * 3, step=[1.0] * 3, steps=counts))
    record["parts"][0]["rows"][-1]["columns"]["cold"]["images"] = [2.0, 2.0, 0.0]
    text = FORMS["md"](record, None)
    assert lines(text)["SuperMix"]["cold"].startswith("640")
    assert "5 of 6; after so many steps: 2: 2, 3: 3" in " ".join(text.split())


def test_csv_has_every_column_with_its_interval(record):
    found = list(csv.DictReader(io.StringIO(FORMS["csv"](record, None))))
    assert [(one["method"], one["column"]) for one in found[-3:]] == [
        ("TransformMix", name) for name in ("cold", "step", "amortised")
    ]
    assert float(found[2]["ms"]) == 960


def test_latex_has_as_many_cells_in_every_line(record):
    body = [line for line in FORMS["tex"](record, None).splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {9}
    assert "%" not in re.sub(r"\\%", "", body[0])


def test_methods_that_search_are_timed_on_the_cpu_only_if_named():
    assert "supermix" not in [one.method for one in rows_of(None, device="cpu")]
    assert "supermix" in [one.method for one in rows_of(None, device="cuda")]
    assert [one.method for one in rows_of(["supermix"], device="cpu")] == ["simple", "supermix"]


def test_two_published_forms_of_a_method_are_two_rows():
    labels = [one.label for one in rows_of(["saliencymix"], device="cpu")]
    assert labels == ["Simple", "SaliencyMix", "SaliencyMix[saliency=official]"]


@pytest.fixture(scope="module")
def words():
    return ("--methods", "puzzlemix,transformmix", "--size", "16", "--model", "resnet8")


def test_time_needs_nothing_and_keeps_every_reading(mixbench, tmp_path, words):
    said = mixbench(*QUICK, *words)
    assert said.code == 0, said.err
    assert "teacher of random weights" in said.out
    (kept,) = (tmp_path / "results" / "times").glob("*.json")
    (part,) = files.read(kept)["parts"]
    assert [row["method"] for row in part["rows"]] == ["simple", "puzzlemix", "transformmix"]
    assert {len(times) for row in part["rows"] for of in row["columns"].values() for times in of.values()} == {2}


def test_time_takes_real_pictures_and_both_precisions(mixbench):
    said = mixbench(
        *QUICK, "--methods", "softmax_cam", "--settings", "digits/tiny", "--precision", "float32,bfloat16",
        "--format", "json",
    )  # fmt: skip
    found = json.loads(said.out)
    assert [part["precision"] for part in found["parts"]] == ["float32", "bfloat16"]
    assert {part["pictures"]["source"] for part in found["parts"]} == {"training images of Digits"}


def test_time_refuses_a_named_method_that_cannot_be_timed(refused):
    sentence = refused(*QUICK, "--methods", "supermix", "--size", "16", "--model", "resnet8")
    assert "SuperMix on 16/resnet8: it mixes until its teacher recognises" in sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "mixdown"], "--methods: there is no method 'mixdown'"),
        (["--settings", "cifar10/resnet19"], "--settings: there is no model 'resnet19'"),
        (["--settings", "mnist/resnet8"], "--settings: there is no data set 'mnist'"),
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


def test_a_kept_record_is_printed_again(mixbench, tmp_path, record):
    files.write(tmp_path / "kept.json", files.encode(record))
    said = mixbench("time", "--again", "kept.json")
    assert said.out == FORMS["md"](record, None)
    assert not (tmp_path / "results").exists()


def test_time_refuses_to_print_a_record_that_is_none(refused):
    assert "--again nothing.json: there is no record" in refused("time", "--again", "nothing.json")


@pytest.fixture
def accuracies(tmp_path, finish):
    """Finished runs of two methods, and one under another protocol."""
    simple = Run(method="simple", dataset="cifar10", model="resnet18", epochs=3)
    for seed, top1 in enumerate((80.0, 81.0, 82.0)):
        finish(tmp_path / "results", replace(simple, seed=seed), top1=top1)
        finish(tmp_path / "results", replace(simple, seed=seed, method="puzzlemix"), top1=top1 + 2)
    finish(tmp_path / "results", replace(simple, epochs=9), top1=99.0)


def test_plot_sets_costs_against_accuracies_of_one_protocol(mixbench, tmp_path, record, accuracies):
    found = timeplot.accuracies(["cifar10/resnet18"], Store(tmp_path / "results", tell=print))
    assert found == {"cifar10/resnet18": {"Simple": [80, 81, 82], "PuzzleMix": [82, 83, 84]}}
    (axes,) = timeplot.draw(parts(record, None), found).axes
    points = [tuple(float(bar.lines[0].get_data()[one][0]) for one in (0, 1)) for bar in axes.containers]
    assert points == [(1, 81), (3, 83)]
    files.write(tmp_path / "kept.json", files.encode(record))
    said = mixbench("time", "--again", "kept.json", "--plot", "plot.svg")
    assert said.code == 0
    assert "not drawn for cifar10/resnet18: TransformMix; the step was not timed, or no finished run" in said.err
    assert "PuzzleMix (3)" in (tmp_path / "plot.svg").read_text()


def test_time_that_is_stopped_says_that_nothing_is_kept(mixbench, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", mock.Mock(side_effect=KeyboardInterrupt))
    said = mixbench("time", "--methods", "mixup", "--settings", "cifar10/resnet8", "--device", "cpu")
    assert (said.code, said.err.strip()) == (130, "stopped; a measurement that has not ended is not kept")
    assert not (tmp_path / "results").exists()


def test_plot_is_refused_before_anything_is_measured(refused):
    words = ("--methods", "mixup", "--settings", "cifar10/resnet8")
    assert "--plot sets costs against accuracies, but no run" in refused("time", *words, "--plot", "plot.svg")
    assert "--plot plot.txt" in refused("time", *words, "--plot", "plot.txt")


def test_time_refuses_what_a_later_setting_cannot_do_before_it_measures_the_first(refused):
    words = ("--methods", "puzzlemix", "--size", "16,8", "--model", "resnet8")
    assert "PuzzleMix on 8/resnet8: block_num holds 16" in refused(*QUICK, *words)
