"""The experiments in sweeps/: they load, are as large as they say, and ask for what the paper's tables report."""

import re
from pathlib import Path

import pytest

from analysis import paper
from analysis.table import build
from analysis.timetable import claim_of
from mixbench import catalog
from mixbench.resolve import load_sweep
from mixbench.store import Store

ROOT = Path(__file__).parents[1]
SWEEPS = sorted(path.stem for path in (ROOT / "sweeps").glob("*.yaml") if path.stem != "recipes")
TABLES = [name for name in SWEEPS if re.fullmatch(r"table\d+", name) and name != "table4"]
"""Tables of accuracies."""
OF_THE_PAPER = [*TABLES, "figure7"]
NOT_IN_THE_PAPER = {
    ("table6", "comixup", "tiny_imagenet/preactresnet18"): {"top5"},
    ("table2", "supermix", "cifar100/wrn28_10"): {"top5"},
}
SEARCHED = {"wo_mpn", "wo_stn", "transformmix"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """The sweep of a file or name; neither data nor results are at hand."""
    monkeypatch.chdir(tmp_path)

    def loaded(name):
        return load_sweep(ROOT / "sweeps" / f"{name}.yaml", data=tmp_path / "data", results=tmp_path / "results")

    return loaded


def runs_of(sweep, row):
    return [run for cell in sweep.cells if cell.row == row for run in cell.runs]


def searches(sweep):
    return [run for stage in sweep.stages() for run in stage if run.task == "search"]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_has_the_cells_and_runs_that_its_first_line_says(name, load):
    comment = (ROOT / "sweeps" / f"{name}.yaml").read_text().partition("\n")[0]
    said = re.fullmatch(r"# .*\. (\d+) cells?, (\d+) runs? in (\d+) stages?\.", comment)
    sweep = load(name)
    assert [len(sweep.cells), sum(map(len, sweep.stages())), len(sweep.stages())] == [*map(int, said.groups())]


@pytest.mark.parametrize("name", [*OF_THE_PAPER, "table4"])
def test_every_sweep_of_the_paper_has_a_trial_of_the_same_cells_for_a_small_machine(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, places = ROOT / "sweeps" / f"{name}.yaml", {"data": tmp_path / "data", "results": tmp_path / "results"}
    trial, real = load_sweep(path, **places, mini=True), load_sweep(path, **places)
    assert [(cell.row, cell.column) for cell in trial.cells] == [(cell.row, cell.column) for cell in real.cells]
    runs = [run for stage in trial.stages() for run in stage]
    assert all(run.mini and run.model == "resnet8" for run in runs)
    assert all(run.epochs * run.train_images <= 400 for run in runs if run.task not in ("bank", "time"))
    assert all(len(cell.runs) == 1 for cell in trial.cells)
    assert len(trial.stages()) == len(real.stages())


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_of_a_table_stands_beside_the_papers_number(name, load, tmp_path):
    grid = build(load(name), Store(tmp_path, tell=print), "last")
    assert name == f"table{grid.sweep.table.paper}"
    for (row, column), entry in grid.entries.items():
        assert entry.claims.keys() == set(grid.names) - NOT_IN_THE_PAPER.get((name, row, column), set())


@pytest.mark.parametrize("name", TABLES)
def test_table_has_every_row_of_the_papers_whose_method_there_is(name, load):
    sweep = load(name)
    claimed = {key.method for key in paper.load(ROOT / "results" / "paper.csv") if f"table{key.table}" == name}
    assert not {row for row in claimed - set(sweep.rows) if row in catalog.names()}
    assert set(sweep.rows) <= claimed


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_sweep_of_the_paper_has_three_seeds_which_share_teacher_and_policy_of_the_first(name, load):
    sweep = load(name)
    assert {tuple(run.seed for run in cell.runs) for cell in sweep.cells} == {(0, 1, 2)}
    needs = [need for cell in sweep.cells for run in cell.runs for need in run.needs()]
    assert {need.seed for need in needs} == {0}
    assert all(len({run.needs() for run in cell.runs}) == 1 for cell in sweep.cells)


@pytest.mark.parametrize("name", [*OF_THE_PAPER, "table4", "table5_mini"])
def test_search_is_the_papers_but_for_momentum_where_masks_are_missing(name, load):
    for search in searches(load(name)):
        said = (search.lr, search.weight_decay, search.batch_size, search.nesterov, search.schedule, search.criterion)
        assert said == (5e-4, 0.01, 128, False, "step", "ce")  # constant is step without milestones
        assert (search.milestones, search.warmup) == ((), 0)
        assert search.momentum == (0.0 if search.method == "wo_mpn" else 0.9)
        assert search.epochs == (10 if name == "table5_mini" else 100)


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_teacher_of_task_and_search_is_the_simple_row_itself(name, load):
    sweep = load(name)
    simple = {run.setting: run for run in runs_of(sweep, "simple") if run.seed == 0}
    asking = [run for stage in sweep.stages() for run in stage if run.teacher and run.setting in simple]
    assert asking
    assert all(run.teacher == simple[run.setting] for run in asking)


@pytest.mark.parametrize("name", ["table5", "table5_mini"])
def test_each_ablation_that_learns_is_searched_on_its_own(name, load):
    sweep = load(name)
    assert {search.method for search in searches(sweep)} == SEARCHED
    assert all(run.policy.method == run.method for row in SEARCHED for run in runs_of(sweep, row))
    assert all(run.policy.setting == run.setting for row in SEARCHED for run in runs_of(sweep, row))


def test_table6_searches_for_as_many_images_as_it_mixes(load):
    sweep = load("table6")
    for row, options in (("transformmix_k2", {}), ("transformmix_k3", {"k": 3})):
        for run in runs_of(sweep, row):
            assert dict(run.options) == dict(run.policy.options) == options


def test_table10_searches_on_cifar10_with_its_teacher_and_mixes_with_the_targets_own(load):
    sweep = load("table10")
    for run in runs_of(sweep, "transformmix_transfer"):
        assert run.policy.setting == run.policy.teacher.setting == "cifar10/resnet18"
        assert (run.teacher.method, run.teacher.setting) == ("simple", run.setting)
        assert (run.policy.teacher.method, run.policy.teacher.epochs) == ("simple", 200)
    direct = {run.policy.setting for run in runs_of(sweep, "transformmix")}
    assert direct == {"cifar100/wrn28_10", "tiny_imagenet/preactresnet18"}


def test_table10_asks_for_the_very_runs_of_tables_5_and_8_where_it_can(load):
    five, eight, ten = load("table5"), load("table8"), load("table10")
    direct = {run for run in runs_of(five, "transformmix") if run.dataset != "cifar10"}
    assert direct == set(runs_of(ten, "transformmix"))
    transferred = {run.policy for run in runs_of(ten, "transformmix_transfer")}
    assert transferred == {run.policy for run in runs_of(eight, "transformmix") if run.model == "resnet18"}


def test_figure7_searches_each_value_again_and_knows_the_default_as_one_run(load):
    sweep = load("figure7")
    varied = [run for cell in sweep.cells if cell.row != "simple" for run in cell.runs]
    assert all(run.options == run.policy.options for run in varied)
    values = {
        name: {dict(run.options).get(name) for run in varied} - {None} for run in varied for name, _ in run.options
    }
    assert values == {
        "mask_layers": {2, 4},
        "mask_channels": {8, 16, 64},
        "mask_kernel": {5, 7},
        "alpha": {0.2, 0.5, 2.0, 3.0, 4.0},
    }
    default = [cell.row for cell in sweep.cells if cell.runs[0].method == "transformmix" and not cell.runs[0].options]
    assert default == [
        "layers[mask_layers=3]",
        "channels[mask_channels=32]",
        "kernel[mask_kernel=3]",
        "mixing[alpha=1]",
    ]


def test_table5_mini_searches_for_400_steps(load):
    assert {
        search.epochs * -(-search.train_images // search.batch_size) for search in searches(load("table5_mini"))
    } == {400}


def test_quickstart_trains_teachers_then_searches_then_what_uses_them(load):
    teachers, searched, used = load("quickstart").stages()
    assert {run.task for run in searched} == {"search", "classify"}
    assert [run.method for run in used] == ["transformmix"] * 5
    assert {run.policy for run in used} == {run for run in searched if run.task == "search"}
    assert {run.teacher for run in used} <= set(teachers)


def test_table_4_times_every_method_of_the_papers_side_by_side_beside_its_claims(load):
    sweep = load("table4")
    runs = dict.fromkeys(run for cell in sweep.cells for run in cell.runs)
    assert [(run.setting, run.batch_size) for run in runs] == [("cifar10/resnet18", 128), ("imagenet/resnet50", 128)]
    claims = paper.load(ROOT / "results" / "paper.csv")
    for run in runs:
        assert len(run.subjects) == len(sweep.rows)
        asking = [need for subject in run.subjects for need in subject.needs()]
        assert {need.setting for need in asking} == {run.setting}
        assert [row for row in sweep.rows if claim_of(row, run, claims)] == ["puzzlemix", "supermix"]
