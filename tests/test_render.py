"""A grid as text."""

import csv as csv_module
import io

import pytest
from invented import finish, finish_cell, make_sweep, write_curve

from analysis.render import csv, markdown
from analysis.table import build
from mixbench.grid import Table
from mixbench.store import Store

CIFAR10, CIFAR100 = "cifar10/resnet18", "cifar100/resnet18"
COMMAND = "mixbench run sweeps/invented.yaml"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, tell=pytest.fail)


def rendered(sweep, store, metric="last"):
    return markdown(build(sweep, store, metric), COMMAND)


def cells_of(text, row):
    """The texts of the row's first line."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} "))
    return [part.strip() for part in line.strip("|").split("|")][1:]


def test_markdown_is_this_text(store):
    sweep = make_sweep(
        rows=["simple", "mixup", "cutmix"],
        table=Table(caption="Invented accuracy (%).", compare="simple", note="Do not believe it.", paper=8),
    )
    finish_cell(store, sweep.cells[0], [95.1, 95.3, 95.5])
    finish_cell(store, sweep.cells[1], [95.9, 95.8])
    assert rendered(sweep, store) == (
        """\
Invented accuracy (%).
Last epoch; mean ± sample standard deviation over 3 seeds.

| Method | CIFAR-10, ResNet-18 | paper              |
| ------ | ------------------- | ------------------ |
| Simple | 95.30 ± 0.20        | 95.28 (compatible) |
| Mixup  | 95.85 ± 0.07 (2/3)  | 95.55              |
| CutMix | –                   | 96.22 (not run)    |

Difference to Simple in percentage points, seed by seed: mean [95 % t-interval], not adjusted for the number
of comparisons; r is the correlation of the two rows over the seeds.

| Method | CIFAR-10, ResNet-18 | r   |
| ------ | ------------------- | --- |
| Mixup  | +0.65 (2/3)         |     |
| CutMix | –                   |     |

- (n/m): n of the cell's m runs are in its numbers; –: none is
- paper: table 8 of TransformMix, which does not say of which epoch its numbers are
- paper, sources: this paper (not stated whether run or quoted) for all
- compatible: not shown to be that small, and not shown to be other than zero either; not run: no result of
  ours counts here
- intervals of the difference to the paper: Welch's, where it gives a deviation and a number of runs; else its
  number is assumed to come of 1 run that scatters as ours do
- fewer than 3 runs of ours: no verdict

Do not believe it.

4 of 9 runs are missing: `mixbench run sweeps/invented.yaml`
"""
    )


def test_markdown_of_a_complete_table_asks_for_nothing(store):
    sweep = make_sweep()
    for cell in sweep.cells:
        finish_cell(store, cell, [90.0, 90.1, 90.2])
    text = rendered(sweep, store)
    assert cells_of(text, "Mixup") == ["90.10 ± 0.10"]
    assert "missing" not in text
    assert "(n/m)" not in text


def test_markdown_has_one_run_missing_in_the_singular(store):
    sweep = make_sweep(rows=["simple"])
    finish_cell(store, sweep.cells[0], [90.0, 90.1])
    assert f"1 of 3 runs is missing: `{COMMAND}`" in rendered(sweep, store)


def test_markdown_does_not_promise_to_fill_what_running_would_not(store):
    sweep = make_sweep(rows=["simple"])
    finish_cell(store, sweep.cells[0], [90.0, 90.1])
    finish(store, sweep.cells[0].runs[2], 90.0, content="other")
    text = rendered(sweep, store)
    assert cells_of(text, "Simple") == ["90.05 ± 0.07 (2/3)"]
    assert "missing" not in text


def test_markdown_lines_of_a_table_are_equally_long(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], table=Table(compare="simple"))
    finish_cell(store, sweep.cells[0], [9.0, 10.1])
    finish_cell(store, sweep.cells[3], [90.0, 90.1, 90.2], official=False)
    for block in rendered(sweep, store).split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({len(line) for line in lines}) == 1


def test_markdown_marks_unofficial_data_at_every_head_and_in_a_footnote(store):
    sweep = make_sweep(columns=[CIFAR10, CIFAR100], table=Table(compare="simple", paper=8))
    for cell in sweep.cells:
        finish_cell(store, cell, [90.0, 90.1, 90.2], official=cell.column == CIFAR100)
    text = rendered(sweep, store)
    assert text.count("| CIFAR-10, ResNet-18 † ") == 2
    assert "CIFAR-100, ResNet-18 †" not in text
    assert "- † not the official release of CIFAR-10 (fingerprint c0ffee); no number of the paper" in text


def test_markdown_marks_own_pictures(store):
    sweep = make_sweep(columns=["image_folder:flowers/resnet18"], content="abc", image_size=64)
    assert "| image_folder:flowers/resnet18 (own data) |" in rendered(sweep, store)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("last", "Last epoch; mean ±"),
        ("median10", "Median of the last 10 epochs on the test set, a selection on the test set; mean ±"),
        (
            "best",
            "Best of the evaluated epochs by top-1, chosen on the test set, so higher than",
        ),
    ],
)
def test_markdown_says_of_which_epoch_the_numbers_are(store, metric, said):
    sweep = make_sweep(rows=["simple"])
    finish_cell(store, sweep.cells[0], [90.0, 90.1, 90.2])
    for run in sweep.cells[0].runs:
        write_curve(store, run, dict.fromkeys(range(1, 13), 90.0))
    assert said in " ".join(rendered(sweep, store, metric).split())


def test_markdown_of_single_runs_shows_no_spread(store):
    sweep = make_sweep(seeds=1)
    finish_cell(store, sweep.cells[0], [90.0])
    text = rendered(sweep, store)
    assert "Last epoch; one seed each." in text
    assert cells_of(text, "Simple") == ["90.00"]


def test_markdown_joins_metrics_claims_and_verdicts_as_the_cell_says(store):
    sweep = make_sweep(
        rows=["simple", "supermix"],
        columns=["cifar100/wrn28_10"],
        table=Table(cell="{top1:.2f} / {top5:.1f}", paper=2),
    )
    finish_cell(store, sweep.cells[0], [78.86, 78.87, 78.85])
    text = rendered(sweep, store)
    assert cells_of(text, "Simple") == ["78.86 ± 0.01 / 89.4 ± 0.0", "78.86 / 93.67 (reproduced / differs)"]
    assert cells_of(text, "supermix") == ["–", "83.60 / – (not run)"]


def test_markdown_shows_the_papers_own_deviation(store):
    sweep = make_sweep(rows=["transformmix"], table=Table(paper=8))
    assert cells_of(rendered(sweep, store), "transformmix") == ["–", "96.40 ± 0.026 (not run)"]


def test_markdown_leaves_a_cell_that_the_sweep_skips_blank(store):
    both = make_sweep(columns=[CIFAR10, CIFAR100], rows=["simple"])
    one = make_sweep(rows=["mixup"])
    sweep = type(both)("invented", both.cells + one.cells, both.labels, Table(compare="simple"), {}, {})
    assert cells_of(rendered(sweep, store), "Mixup") == ["–", ""]


def test_markdown_differences_have_interval_and_correlation(store):
    sweep = make_sweep(table=Table(compare="simple", cell="{top1:.1f}"))
    finish_cell(store, sweep.cells[0], [90.0, 91.0, 92.0])
    finish_cell(store, sweep.cells[1], [91.0, 92.0, 94.0])
    # Differences 1, 1, 2: mean 4/3, deviation 0.577, half an interval 4.3027 * 0.577 / sqrt(3) = 1.434.
    assert "| Mixup  | +1.3 [-0.1, +2.8]   | +0.98 |" in rendered(sweep, store)


def test_markdown_differences_have_a_line_for_each_metric(store):
    sweep = make_sweep(table=Table(compare="simple", cell="{top1:.2f} / {top5:.2f}"))
    for cell, first in zip(sweep.cells, (90.0, 91.0), strict=True):
        finish_cell(store, cell, [first, first + 1, first + 3])
    text = rendered(sweep, store)
    assert "| Mixup  | top1   | +1.00 [+1.00, +1.00] | +1.00 |" in text
    assert "| Mixup  | top5   | +0.50 [+0.50, +0.50] | +1.00 |" in text


def test_markdown_escapes_what_would_end_a_cell(store):
    sweep = make_sweep(rows=["simple"])
    odd = type(sweep)("invented", sweep.cells, {"simple": "a|b"}, Table(), {}, {})
    assert "| a\\|b " in rendered(odd, store)


def test_csv_keeps_full_precision_and_can_be_read_back(store):
    sweep = make_sweep(table=Table(compare="simple", paper=8))
    finish_cell(store, sweep.cells[0], [95.1, 95.3, 95.6])
    finish_cell(store, sweep.cells[1], [95.9, 95.8, 95.7])
    grid = build(sweep, store, "last")
    simple, mixup = csv_module.DictReader(io.StringIO(csv(grid)))
    assert float(simple["mean"]) == grid.entries["simple", CIFAR10].estimates["top1"].mean
    assert (simple["paper"], simple["verdict"], simple["compared_to"]) == ("95.28", "compatible", "")
    low, high = grid.differences["mixup", CIFAR10]["top1"].interval
    assert (float(mixup["difference_low"]), float(mixup["difference_high"])) == (low, high)
    assert (mixup["paper_source"], mixup["commits"]) == ("this paper (not stated whether run or quoted)", "1f3c9ab")


def test_csv_has_a_line_for_a_missing_cell_too(store):
    (line,) = csv_module.DictReader(io.StringIO(csv(build(make_sweep(rows=["simple"]), store, "last"))))
    assert (line["mean"], line["n"], line["of"], line["missing_seeds"]) == ("", "0", "3", "0 1 2")
