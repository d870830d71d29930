"""From a sweep and its results to the grid of a table."""

import subprocess
import sys
from dataclasses import replace

import pytest
from invented import finish, finish_cell, make_sweep, write_curve

from analysis import paper
from analysis.footnotes import footnotes
from analysis.stats import Estimate
from analysis.table import build
from mixbench.grid import Table
from mixbench.store import Store

CIFAR10, CIFAR100 = "cifar10/resnet18", "cifar100/resnet18"
HEAD = "table,method,dataset,model,column,metric,value,std,n,source,note\n"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, tell=pytest.fail)


def notes_of(sweep, store, metric="last"):
    return "\n".join(footnotes(build(sweep, store, metric)))


def fill(sweep, store, **other):
    for number, cell in enumerate(sweep.cells):
        finish_cell(store, cell, [90.0 + number, 90.2 + number, 90.7 + number], **other)


# --- averages


def test_cell_averages_its_own_runs_and_no_others(store):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 91.0, 92.0])
    finish_cell(store, make_sweep(epochs=13).cells[0], [10.0, 10.0, 10.0])
    entry = build(sweep, store, "last").entries["simple", CIFAR10]
    assert entry.estimates == {"top1": Estimate(91.0, 1.0, 3, 3)}


def test_cell_shows_every_metric_that_its_format_asks_for(store):
    sweep = make_sweep(table=Table(cell="{top5:.1f} of {top1:.2f}"))
    finish_cell(store, sweep.cells[0], [90.0, 91.0, 92.0])
    estimates = build(sweep, store, "last").entries["simple", CIFAR10].estimates
    assert {name: estimate.mean for name, estimate in estimates.items()} == {"top5": 95.5, "top1": 91.0}


def test_cell_without_a_result_has_no_estimate(store):
    entry = build(make_sweep(), store, "last").entries["mixup", CIFAR10]
    assert (entry.estimates, entry.complete) == ({}, False)


def test_incomplete_cell_knows_how_many_runs_it_should_have(store):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 91.0])
    grid = build(sweep, store, "last")
    assert grid.entries["simple", CIFAR10].estimates["top1"].n == 2
    assert grid.entries["simple", CIFAR10].estimates["top1"].of == 3
    assert (len(grid.gathered.unfinished), grid.gathered.asked) == (4, 6)


def test_metric_that_no_result_has_is_refused_with_those_there_are(store):
    sweep = make_sweep(table=Table(cell="{top3:.2f}"))
    finish(store, sweep.cells[0].runs[0], 90.0)
    with pytest.raises(ValueError, match=r"table.cell is '{top3:.2f}', but simple-.* no metric 'top3'.* top1, top5"):
        build(sweep, store, "last")


@pytest.mark.parametrize("cell", ["{top1", "accuracy", "{top1}", "{top1:>9}", "{top1!r}", "{}"])
def test_cell_that_formats_no_number_is_refused(store, cell):
    with pytest.raises(ValueError, match=r"cell is .* like {top1:.2f}"):
        build(make_sweep(table=Table(cell=cell)), store, "last")


def test_value_of_a_run_that_does_not_exist_is_refused(store):
    with pytest.raises(ValueError, match="choose of last, median10, best"):
        build(make_sweep(), store, "first")


# --- whose network


def learned(top1, **beside):
    """What a result says whose numbers are those of a network called k."""
    return {"notes": {"scored": "k"}, "metrics": {"top1": top1, "top5": 99.0, "k_top1": top1, **beside}}


def test_row_whose_numbers_are_of_another_network_than_was_trained_is_told(store):
    sweep = make_sweep()
    for run in sweep.cells[0].runs:
        finish(store, run, 90.0)
    for run in sweep.cells[1].runs:
        finish(store, run, 91.0, **learned(91.0))
    told = "Mixup: top1 of 'k', a network that the method keeps beside the one in training, where other methods show"
    assert told in notes_of(sweep, store)


def test_rows_of_the_network_that_was_trained_need_no_word(store):
    sweep = make_sweep()
    for run in sweep.cells[0].runs:
        finish(store, run, 90.0)
    assert "beside the one in training" not in notes_of(sweep, store)


def test_row_whose_steps_are_dearer_than_those_of_plain_training_is_told(store):
    sweep = make_sweep()
    cost = {"images_per_sample": 2, "forward_passes": 4, "backward_passes": 3}
    for cell, notes in zip(sweep.cells, ({}, cost), strict=True):
        for run in cell.runs:
            finish(store, run, 90.0, notes=notes)
    assert (
        "Mixup: in each step the network learns from 2 images for each one of plain training, and the method takes 4 "
        "passes forward and 3 backward, where plain training takes one each"
    ) in notes_of(sweep, store)
    assert "Simple: in each step" not in notes_of(sweep, store)


def test_metric_of_an_average_can_be_asked_for_and_is_told(store):
    sweep = make_sweep(rows=["simple"], ema=0.99, table=Table(cell="{top1:.2f} / {top5:.2f}"))
    for run, ema in zip(sweep.cells[0].runs, (92.0, 93.0, 94.0), strict=True):
        finish(store, run, 90.0, metrics={"top1": 90.0, "top5": 99.0, "ema_top1": ema})
    grid = build(sweep, store, "ema_top1")
    assert (grid.names, grid.metric) == (("ema_top1",), "last")
    assert grid.entries["simple", CIFAR10].estimates["ema_top1"].mean == 93.0
    assert "ema_top1: of a moving average of each network's weights" in notes_of(sweep, store, "ema_top1")
    assert "keeps a share of 0.99, and not of the network itself" in notes_of(sweep, store, "ema_top1")
    assert "moving average" not in notes_of(sweep, store)


def test_metric_of_an_average_that_was_not_kept_is_refused_with_what_would_keep_it(store):
    sweep = make_sweep()
    finish(store, sweep.cells[0].runs[0], 90.0)
    with pytest.raises(ValueError, match=r"has no metric 'ema_top1'; it has: top1, top5; .* comes of ema: 0.999"):
        build(sweep, store, "ema_top1")


def test_rows_of_a_column_may_differ_in_their_average_only_where_the_table_says_so():
    def both(**table):
        cells = [make_sweep(rows=[row], ema=ema).cells[0] for row, ema in (("simple", 0.0), ("mixup", 0.99))]
        return replace(make_sweep(), cells=tuple(cells), table=Table(**table))

    with pytest.raises(ValueError, match=r"differ in ema \(0.0 and 0.99\)"):
        both()
    assert both(unlike=("ema",)).rows == ["simple", "mixup"]


# --- which epoch


def test_median10_is_the_median_of_the_last_ten_epochs(store):
    sweep = make_sweep(seeds=1, rows=["simple"])
    run = sweep.cells[0].runs[0]
    finish(store, run, 90.0)
    write_curve(store, run, {1: 99.0, 2: 98.0} | {epoch: float(epoch) for epoch in range(3, 13)})
    assert build(sweep, store, "median10").entries["simple", CIFAR10].estimates["top1"].mean == 7.5


def test_best_is_the_best_epoch_of_each_metric(store):
    sweep = make_sweep(seeds=1, rows=["simple"])
    run = sweep.cells[0].runs[0]
    finish(store, run, 12.0)
    write_curve(store, run, {1: 99.0} | {epoch: float(epoch) for epoch in range(3, 13)})
    assert build(sweep, store, "best").entries["simple", CIFAR10].estimates["top1"].mean == 99.0


@pytest.mark.parametrize("metric", ["median10", "best"])
def test_curve_without_one_of_the_last_ten_epochs_counts_as_missing(store, metric):
    sweep = make_sweep(seeds=1, rows=["simple"])
    run = sweep.cells[0].runs[0]
    finish(store, run, 90.0)
    write_curve(store, run, {epoch: 90.0 for epoch in range(1, 13) if epoch != 5})
    assert build(sweep, store, metric).entries["simple", CIFAR10].estimates == {}
    assert f"the curve of {run.folder} lacks epoch 5 of 12" in notes_of(sweep, store, metric)


def test_curve_of_a_short_run_need_hold_no_more_epochs_than_there_were(store):
    sweep = make_sweep(seeds=1, rows=["simple"], epochs=2)
    run = sweep.cells[0].runs[0]
    finish(store, run, 90.0)
    write_curve(store, run, {1: 80.0, 2: 90.0}, start={"top1": 10.0, "top5": 50.0})
    assert build(sweep, store, "median10").entries["simple", CIFAR10].estimates["top1"].mean == 85.0


def test_damaged_curve_is_named(store):
    sweep = make_sweep(seeds=1, rows=["simple"])
    run = sweep.cells[0].runs[0]
    finish(store, run, 90.0)
    (store.folder(run) / "curve-a1.json").write_text("{}")
    assert "curve-a1.json is damaged" in notes_of(sweep, store, "best")
    assert build(sweep, store, "last").entries["simple", CIFAR10].estimates["top1"].mean == 90.0


# --- what must not be averaged


def test_damaged_result_is_named_and_will_be_made_again(store):
    sweep = make_sweep()
    fill(sweep, store)
    path = store.folder(sweep.cells[0].runs[1]) / "result.json"
    path.write_bytes(path.read_bytes().replace(b"90.2", b"99.9"))
    grid = build(sweep, store, "last")
    assert grid.gathered.unfinished == (sweep.cells[0].runs[1],)
    assert f"{path} is damaged" in notes_of(sweep, store)
    assert grid.entries["simple", CIFAR10].estimates["top1"].n == 2


def test_result_of_another_default_is_left_out_and_the_cell_says_so_once(store):
    sweep = make_sweep()
    fill(sweep, store)
    stale = make_sweep(rows=["mixup"], columns=[CIFAR100])
    finish_cell(store, stale.cells[0], [1.0, 2.0, 3.0], options={"alpha": 0.25})
    both = replace(sweep, cells=sweep.cells + stale.cells)
    grid = build(both, store, "last")
    assert grid.entries["mixup", CIFAR100].estimates == {}
    assert grid.gathered.unfinished == ()
    assert notes_of(both, store).count("was trained with alpha=0.25") == 1
    assert "likewise for 2 more of this cell's runs" in notes_of(both, store)


def test_column_keeps_the_content_of_most_of_its_results(store):
    sweep = make_sweep()
    simple, mixup = sweep.cells
    finish_cell(store, simple, [1.0, 90.0, 91.0], content="many")
    finish_cell(store, mixup, [92.0, 93.0], content="many")
    (store.folder(simple.runs[0]) / "result.json").unlink()
    finish(store, simple.runs[0], 1.0, content="few")
    grid = build(sweep, store, "last")
    assert grid.columns[CIFAR10].content == "many"
    assert grid.entries["simple", CIFAR10].estimates["top1"] == Estimate(90.5, pytest.approx(0.5**0.5), 2, 3)
    assert "Simple (seed 0) left out: trained on other data (fingerprint few)" in notes_of(sweep, store)


def test_column_keeps_the_content_of_its_first_result_where_two_are_equally_frequent(store):
    sweep = make_sweep(seeds=1)
    finish_cell(store, sweep.cells[0], [90.0], content="first")
    finish_cell(store, sweep.cells[1], [91.0], content="second")
    grid = build(sweep, store, "last")
    assert grid.columns[CIFAR10].content == "first"
    assert grid.entries["mixup", CIFAR10].estimates == {}


def test_columns_settle_their_content_apart(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], rows=["simple"])
    finish_cell(store, sweep.cells[0], [90.0, 90.0, 90.0], content="ten")
    finish_cell(store, sweep.cells[1], [70.0, 70.0, 70.0], content="hundred")
    assert [column.content for column in build(sweep, store, "last").columns.values()] == ["ten", "hundred"]
    assert "left out" not in notes_of(sweep, store)


# --- the paper's numbers

TABLE8 = Table(paper=8)


def test_paper_stands_beside_the_row_setting_and_metric_that_it_is_about(store):
    sweep = make_sweep(rows=["simple", "cutmix"], columns=[CIFAR10, CIFAR100], table=TABLE8)
    fill(sweep, store)
    entries = build(sweep, store, "last").entries
    assert entries["cutmix", CIFAR10].claims["top1"].value == 96.22
    assert entries["cutmix", CIFAR100].claims == {}


def test_paper_in_the_results_folder_is_preferred(store):
    (store.root / "paper.csv").write_text(HEAD + "8,simple,cifar10,resnet18,,top1,12.5,,,made up,\n")
    sweep = make_sweep(table=TABLE8)
    assert build(sweep, store, "last").entries["simple", CIFAR10].claims["top1"].value == 12.5


def test_paper_that_is_not_at_hand_is_told(store, monkeypatch, tmp_path):
    monkeypatch.setattr(paper, "CHECKOUT", tmp_path / "elsewhere")
    sweep = make_sweep(table=TABLE8)
    assert build(sweep, store, "last").entries["simple", CIFAR10].claims == {}
    assert "the numbers of the paper's table 8 are not shown: there is no paper.csv" in notes_of(sweep, store)


def test_paper_table_that_is_about_something_else_is_told(store):
    sweep = make_sweep(table=Table(paper=3))
    assert "the paper's table 3 has no number for any of these cells" in notes_of(sweep, store)


def test_table_that_asks_for_no_paper_has_no_word_of_it(store):
    sweep = make_sweep()
    fill(sweep, store)
    assert "paper" not in notes_of(sweep, store)


def test_unofficial_data_have_no_number_of_the_paper_beside_them(store):
    sweep = make_sweep(table=TABLE8)
    fill(sweep, store, official=False)
    grid = build(sweep, store, "last")
    assert all(entry.claims == {} for entry in grid.entries.values())
    assert "† not the official release of CIFAR-10" in notes_of(sweep, store)


def test_one_unofficial_result_is_enough_to_keep_the_paper_away(store):
    sweep = make_sweep(table=TABLE8)
    finish_cell(store, sweep.cells[0], [90.0, 90.1])
    finish_cell(store, sweep.cells[1], [90.0], official=False)
    assert build(sweep, store, "last").entries["simple", CIFAR10].claims == {}


def test_own_pictures_claim_nothing_official(store):
    sweep = make_sweep(columns=["image_folder:flowers/resnet18"], content="abc", image_size=64, table=TABLE8)
    fill(sweep, store)
    grid = build(sweep, store, "last")
    assert grid.columns["image_folder:flowers/resnet18"].official is None
    assert "own pictures (fingerprint c0ffee); no number of the paper" in notes_of(sweep, store)
    assert "†" not in notes_of(sweep, store)


@pytest.mark.parametrize("share", [{"train_images": 1000}, {"test_images": 1000}])
def test_part_of_a_data_set_has_no_number_of_the_paper_beside_it(store, share):
    sweep = make_sweep(table=TABLE8, **share)
    fill(sweep, store)
    assert build(sweep, store, "last").entries["simple", CIFAR10].claims == {}
    assert "on 1000 images only; no number of the paper" in notes_of(sweep, store)


def test_contradictions_of_the_paper_stand_below_the_table_that_shows_them(store):
    setting = "tiny_imagenet/preactresnet18"
    sweep = make_sweep(rows=["simple", "mixup", "lr"], columns=[setting], table=Table(paper=5))
    found = [note for note in footnotes(build(sweep, store, "last")) if "swapped" in note]
    assert len(found) == 1
    assert found[0].startswith("paper, Mixup, lr: ")


# --- differences by seed


def test_differences_are_taken_seed_by_seed_within_a_column(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], table=Table(compare="simple"))
    for cell, values in zip(sweep.cells, ([90, 92, 94], [10, 20, 30], [91, 93, 95], [10, 20, 30]), strict=True):
        finish_cell(store, cell, [float(value) for value in values])
    differences = build(sweep, store, "last").differences
    assert set(differences) == {("mixup", CIFAR10), ("mixup", CIFAR100)}
    pair = differences["mixup", CIFAR10]["top1"]
    assert (pair.mean, pair.interval, pair.correlation) == (1.0, (1.0, 1.0), pytest.approx(1.0))


def test_differences_use_only_the_columns_content(store):
    sweep = make_sweep(table=Table(compare="simple"))
    finish_cell(store, sweep.cells[0], [90.0, 90.0, 90.0])
    finish_cell(store, sweep.cells[1], [91.0, 91.0])
    finish(store, sweep.cells[1].runs[2], 50.0, content="other")
    pair = build(sweep, store, "last").differences["mixup", CIFAR10]["top1"]
    assert (pair.mean, pair.n) == (1.0, 2)


# --- where the numbers come from


def test_one_clean_commit_and_one_way_of_computing_need_no_word(store):
    sweep = make_sweep()
    fill(sweep, store)
    assert footnotes(build(sweep, store, "last")) == []


def test_results_of_two_commits_are_told_with_the_place_of_the_fewer(store):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2])
    finish_cell(store, sweep.cells[1], [90.0, 90.1])
    finish(store, sweep.cells[1].runs[2], 90.2, commit="2d4e6f8+")
    assert "1f3c9ab (5 results), 2d4e6f8+ (Mixup (seed 2)); + marks uncommitted changes" in notes_of(sweep, store)


def test_a_dirty_tree_is_told(store):
    sweep = make_sweep()
    fill(sweep, store, commit="1f3c9ab+")
    assert "all results were made by the code of 1f3c9ab+; + marks uncommitted changes" in notes_of(sweep, store)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"bits": {"threads": 2}}, "threads: 1 (3 results), 2 (Mixup)"),
        ({"bits": {"channels_last": False}}, "layout: channels_last (3 results), contiguous (Mixup)"),
        (
            {"bits": {"device": "cuda:1"}, "device": "Some GPU"},
            "device: Some CPU (cpu) (3 results), Some GPU (cuda) (Mixup)",
        ),
        ({"versions": {"python": "3.11.1", "torch": "2.12.0"}}, "torch: 2.11.0 (3 results), 2.12.0 (Mixup)"),
    ],
)
def test_different_ways_of_computing_within_a_column_are_told(store, other, said):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2])
    finish_cell(store, sweep.cells[1], [90.0, 90.1, 90.2], **other)
    assert said in notes_of(sweep, store)


def test_steps_that_were_replayed_for_a_part_of_a_column_are_told(store):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2], bits={"device": "cuda", "cuda_graph": True})
    finish_cell(store, sweep.cells[1], [90.0, 90.1, 90.2], bits={"device": "cuda", "cuda_graph": False})
    assert "cuda_graph: True (3 results), False (Mixup)" in notes_of(sweep, store)


def test_the_number_of_the_gpu_is_no_difference(store):
    sweep = make_sweep()
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2], bits={"device": "cuda:0"})
    finish_cell(store, sweep.cells[1], [90.0, 90.1, 90.2], bits={"device": "cuda:1"})
    assert footnotes(build(sweep, store, "last")) == []


def test_two_columns_may_be_computed_differently(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], rows=["simple"])
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2])
    finish_cell(store, sweep.cells[1], [90.0, 90.1, 90.2], bits={"threads": 2})
    assert footnotes(build(sweep, store, "last")) == []


# --- what went wrong


def searching(sweep):
    """The same sweep, of which each run uses a policy of its own seed."""

    def use(run):
        return replace(run, policy=replace(run, task="search", method="transformmix"))

    cells = tuple(replace(cell, runs=tuple(use(run) for run in cell.runs)) for cell in sweep.cells)
    return replace(sweep, cells=cells)


def test_cells_that_used_a_policy_from_a_collapsed_search_are_told(store):
    sweep = searching(make_sweep())
    fill(sweep, store)
    collapsed, fine, _ = (run.policy for run in sweep.cells[1].runs)
    finish(store, collapsed, 0.0, notes={"warning": "the search has collapsed: so it is"})
    finish(store, fine, 0.0, notes={"k": 2})
    said = notes_of(sweep, store)
    told = f"Simple (seed 0), Mixup (seed 0): {collapsed.folder}: the search has collapsed: so it is"
    assert said.count("collapsed") == 1
    assert told in said


def test_a_search_that_collapsed_is_told_in_its_own_table(store):
    sweep = make_sweep(rows=["simple"])
    fill(sweep, store, notes={"warning": "it collapsed"})
    told = [f"Simple (seed {run.seed}): {run.folder}: it collapsed" for run in sweep.cells[0].runs]
    assert notes_of(sweep, store).splitlines() == told


def test_a_damaged_result_of_a_policy_takes_no_number_away(store):
    sweep = searching(make_sweep())
    fill(sweep, store)
    finish(store, sweep.cells[0].runs[0].policy, 0.0, notes={"warning": "it collapsed"})
    result = store.folder(sweep.cells[0].runs[0].policy) / "result.json"
    result.write_bytes(result.read_bytes()[:-20])
    assert build(sweep, store, "last").entries["simple", CIFAR10].complete


# --- as data


def test_frame_is_tidy_and_tells_the_missing(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], table=replace(TABLE8, cell="{top1:.2f} / {top5:.2f}"))
    finish_cell(store, sweep.cells[0], [90.0, 91.0])
    frame = build(sweep, store, "last").frame()
    assert len(frame) == 8
    first = frame.iloc[0]
    assert (first["row"], first["column"], first["metric"], first["mean"]) == ("simple", CIFAR10, "top1", 90.5)
    assert (first["n"], first["of"], first["missing_seeds"]) == (2, 3, "2")
    assert (first["paper"], first["content"], first["official"]) == (95.28, "c0ffee", True)
    assert frame["mean"].isna().sum() == 6


def test_building_a_table_loads_nothing_heavy():
    code = (
        "import sys, analysis.table, analysis.render\n"
        "print({'torch', 'numpy', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
