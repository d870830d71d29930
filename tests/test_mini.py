"""A trial of a sweep on a small machine: what a recipe's ``mini:`` changes, and that it is never taken for the real."""

import csv
import io

import pytest

from mixbench.resolve import load_sweep

SWEEP = """\
settings: [digits/resnet8, {digits/resnet8: other}]
methods:
  simple:
  cutmix: {prob: 0.5}
  transformmix: {policy: {recipe: search, set: {momentum: 0.0}}}
seeds: [3, 4, 5]
set: {lr: 0.3}
teacher: {method: simple, seed: 3}
policy: {recipe: search}
table: {caption: "A caption.", paper: 8}
recipes:
  digits/resnet8:
    epochs: 90
    milestones: [30, 60]
    pad: 1
    mini:
      model: tiny
      seeds: 2
      epochs: 2
      milestones: []
      train_images: 100
      batch_size: 50
      options: {cutmix: {alpha: 0.5}}
  other: {weight_decay: 0.01, mini: {epochs: 1, seeds: 1}}
  search: {task: search, epochs: 100, batch_size: 10, mini: {lr: 0.001}}
"""
COLUMN, OTHER = "digits/resnet8", "digits/resnet8 + other"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "trial.yaml"
    file.write_text(SWEEP)
    return file


@pytest.fixture
def cells(path):
    sweep = load_sweep(path, data=path.parent, results=path.parent / "results", mini=True)
    return {(cell.row, cell.column): cell for cell in sweep.cells}


def everything(path, *, mini):
    sweep = load_sweep(path, data=path.parent, results=path.parent / "results", mini=mini)
    return {run for stage in sweep.stages() for run in stage}


def test_mini_is_laid_over_all_that_a_run_is_told(cells):
    run = cells["cutmix", COLUMN].runs[0]
    assert (run.model, run.epochs, run.batch_size, run.milestones, run.train_images) == ("tiny", 2, 50, (), 100)
    assert (run.lr, run.options) == (0.3, (("alpha", 0.5), ("prob", 0.5)))


def test_mini_of_a_recipe_on_top_is_laid_over_those_below(cells):
    run = cells["simple", OTHER].runs[0]
    assert (run.model, run.epochs, run.weight_decay) == ("tiny", 1, 0.01)


def test_mini_takes_the_first_of_the_seeds(cells):
    assert [run.seed for run in cells["simple", COLUMN].runs] == [3, 4]
    assert [run.seed for run in cells["simple", OTHER].runs] == [3]


def test_whom_a_trial_asks_is_a_trial_too(cells):
    search = cells["transformmix", COLUMN].runs[0].policy
    assert (search.mini, search.model, search.epochs, search.lr, search.momentum) == (True, "tiny", 2, 0.001, 0.0)
    assert search.teacher == cells["simple", COLUMN].runs[0]


def test_no_run_of_a_trial_is_one_of_the_real_sweep_and_its_folder_says_so(path):
    trial, real = everything(path, mini=True), everything(path, mini=False)
    assert not trial & real
    assert all(run.folder.startswith("mini-") for run in trial)
    assert not any(run.folder.startswith("mini-") for run in real)


def test_report_shows_a_trial_only_when_asked_for_it_and_without_the_papers_numbers(mixbench, path, finish):
    for run in everything(path, mini=True):
        finish(path.parent / "results", run, top1=12.34)
    assert "12.34" not in mixbench("report", path).out
    said = mixbench("report", path, "--mini").out
    assert said.startswith("MINI, a trial of another experiment than this: small networks, few steps. A caption.\n")
    assert "12.34" in said
    assert "mini: Digits, for resnet8" in said
    assert "| paper" not in said
    assert "the paper's table" not in said


def test_report_of_an_unfinished_trial_names_the_command_for_a_trial(mixbench, path):
    assert "`mixbench run trial.yaml --mini`" in mixbench("report", path.name, "--mini").out


def test_a_trial_is_run_as_it_is_asked_for(mixbench, path):
    assert "12 runs in 3 stages" in mixbench("run", path, "--mini", "--dry-run").out


def test_a_trial_is_marked_as_one_for_machines_too(mixbench, path, finish):
    for run in everything(path, mini=True):
        finish(path.parent / "results", run)
    for flag, said in ((["--mini"], "True"), ([], "False")):
        first, *_ = csv.DictReader(io.StringIO(mixbench("report", path, "--format", "csv", *flag).out))
        assert first["mini"] == said


def test_what_is_to_be_deleted_of_a_trial_are_trials(mixbench, path, finish, monkeypatch):
    for run in everything(path, mini=True):
        finish(path.parent / "results", run, code="0123456789")
    for words in (("run", path, "--mini", "--dry-run"), ("report", path, "--mini")):
        said = mixbench(*words)
        told = " ".join((said.out + said.err).split())
        assert "mini-cutmix-*" in told
        assert "/cutmix-*" not in told
        assert " cutmix-*" not in told


def test_a_link_to_a_setting_without_a_mini_is_no_trial(refused, path):
    path.write_text(
        path.read_text()
        .replace("policy: {recipe: search,", "policy: {setting: digits/resnet20, recipe: search,")
        .replace("recipes:\n", "recipes:\n  digits/resnet20: {epochs: 400, pad: 1}\n")
    )
    assert refused("run", path.name, "--mini").endswith(
        "the recipe for digits/resnet20 says nothing of it; add 'mini:'"
    )


def test_an_imported_network_keeps_its_model_in_a_trial(path, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"weights")
    path.write_text(
        path.read_text()
        .replace("teacher: {method: simple, seed: 3}", "teacher: {method: simple, recipe: theirs}")
        .replace("recipes:\n", "recipes:\n  theirs: {task: import, checkpoint: net.pt, mean: [0.5], std: [0.5]}\n")
    )
    imports = [run for run in everything(path, mini=True) if run.task == "import"]
    assert {run.model for run in imports} == {"resnet8"}


def test_show_does_not_take_a_trials_run_for_one_of_its_small_network(mixbench, path, finish, tmp_path):
    for run in everything(path, mini=True):
        finish(tmp_path / "results", run)
    said = mixbench("show", "--methods", "transformmix", "--setting", "digits/tiny", "--seed", "3", "--out", "x.png")
    assert (said.code, "no search of transformmix on digits/tiny" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("mini", "sentence"),
    [
        ("{model: resnet9}", "recipe 'digits/tiny': mini: there is no model 'resnet9'; there are: tiny, "),
        ("{seeds: 0}", "mini: seeds must be 1 or more, not 0"),
        ("{epoch: 1}", "mini: unknown key 'epoch'"),
        ("{options: {cutmix: {bet: 1}}}", "mini: method 'cutmix' has no option bet"),
        ("3", "mini: 3 stands where keys and values are expected"),
    ],
)
def test_a_mini_that_makes_no_sense_is_refused(refused, tmp_path, mini, sentence):
    recipe = f"{{epochs: 2, mini: {mini}}}"
    (tmp_path / "one.yaml").write_text(
        f"settings: [digits/tiny]\nmethods: [simple]\nseeds: [0]\nrecipes: {{digits/tiny: {recipe}}}\n"
    )
    assert sentence in refused("run", "one.yaml", "--mini")


def test_a_sweep_without_a_mini_has_no_trial(refused, tmp_path):
    (tmp_path / "one.yaml").write_text(
        "settings: [digits/tiny]\nmethods: [simple]\nseeds: [0]\nrecipes: {digits/tiny: {epochs: 2}}\n"
    )
    said = refused("run", "one.yaml", "--mini")
    assert said == "one.yaml: --mini: the recipe for digits/tiny says nothing of it; add 'mini:'"
