from dataclasses import replace

import pytest

from mixbench.grid import Cell, Sweep, Table, of_any_seed
from mixbench.spec import Run


def a_run(**values):
    return Run(**({"method": "simple", "dataset": "digits", "model": "tiny", "epochs": 10} | values))


def a_cell(row="simple", column="digits/tiny", seeds=(0, 1), **values):
    return Cell(row, column, tuple(a_run(seed=seed, **values) for seed in seeds))


def a_sweep(*cells):
    return Sweep("made_up", cells, {}, Table(), {}, {})


def asking(row="softmax_cam", seeds=(0, 1), **teacher):
    """A cell whose runs each ask one of their own seed, or of the seed that is given."""
    runs = [a_run(method="softmax_cam", seed=seed, teacher=a_run(**{"seed": seed, **teacher})) for seed in seeds]
    return Cell(row, "digits/tiny", tuple(runs))


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"method": "mixup"}, {"options": (("alpha", 1.0),)}, {"epochs": 11}])
def test_cell_refuses_runs_that_differ_in_more_than_their_seed(change):
    with pytest.raises(ValueError, match="row mixup, column c: its runs differ in more than their seed"):
        Cell("mixup", "c", (a_run(seed=0), a_run(seed=1, **change)))


def test_cell_refuses_runs_whose_links_differ_in_more_than_their_seed():
    with pytest.raises(ValueError, match="differ in more than their seed"):
        Cell("r", "c", (a_run(teacher=a_run(lr=0.1)), a_run(seed=1, teacher=a_run(lr=0.2))))


def test_cell_refuses_runs_of_which_only_some_have_a_link():
    with pytest.raises(ValueError, match="differ in more than their seed"):
        Cell("r", "c", (a_run(teacher=a_run()), a_run(seed=1)))


def test_cell_takes_runs_that_differ_in_their_links_seeds():
    assert len(asking(seeds=(0, 1, 2)).runs) == 3


def test_sweep_refuses_a_column_of_unlike_recipes_and_says_where_they_differ():
    with pytest.raises(ValueError, match=r"column digits/tiny: .* unlike recipes, they differ in lr \(0.1 and 0.2\)"):
        a_sweep(a_cell(), a_cell("mixup", method="mixup", lr=0.2))


def test_sweep_takes_unlike_recipes_in_unlike_columns():
    assert a_sweep(a_cell(), a_cell(column="other", lr=0.2)).columns == ["digits/tiny", "other"]


def test_sweep_takes_rows_that_differ_in_method_options_and_links():
    sweep = a_sweep(a_cell(), a_cell("mixup", method="mixup", options=(("alpha", 0.5),)), asking())
    assert sweep.rows == ["simple", "mixup", "softmax_cam"]


def test_stages_put_each_run_behind_what_it_needs():
    chained = a_run(method="softmax_cam", teacher=a_run(method="softmax_cam", teacher=a_run()))
    stages = a_sweep(Cell("chained", "digits/tiny", (chained,))).stages()
    assert stages == [[chained.teacher.teacher], [chained.teacher], [chained]]


def test_stages_have_a_teacher_that_is_a_rows_own_run_once():
    simple = a_cell()
    first, second = a_sweep(asking(), simple).stages()
    assert sorted(run.seed for run in first) == [0, 1]
    assert set(first) == set(simple.runs)
    assert second == list(asking().runs)


def test_stages_have_a_teacher_that_all_ask_once():
    first, second = a_sweep(asking(seeds=(1, 2, 3), seed=0)).stages()
    assert first == [a_run(seed=0)]
    assert len(second) == 3


def test_stages_have_a_run_once_that_stands_in_two_cells():
    assert a_sweep(a_cell("one"), a_cell("other")).stages() == [list(a_cell().runs)]


def test_stages_place_a_run_by_what_it_needs_itself_and_not_by_the_cell_it_is_in():
    first, second = a_sweep(asking(), a_cell("mixup", method="mixup")).stages()
    assert {run.method for run in first} == {"simple", "mixup"}
    assert {run.method for run in second} == {"softmax_cam"}


def test_stages_of_no_cells_are_none():
    assert a_sweep().stages() == []


def test_only_keeps_the_rows_that_are_named_in_the_sweeps_order():
    sweep = a_sweep(a_cell("a"), a_cell("b"), a_cell("c"))
    assert sweep.only(["c", "a"]).rows == ["a", "c"]


def test_only_keeps_what_the_rows_need_in_the_stages():
    assert a_sweep(a_cell(), asking()).only(["softmax_cam"]).stages() == a_sweep(asking()).stages()


def test_only_keeps_all_else_of_the_sweep():
    sweep = a_sweep(a_cell("a"), a_cell("b"))
    assert replace(sweep.only(["a"]), cells=sweep.cells) == sweep


def test_only_names_the_rows_that_there_are_if_one_is_unknown():
    with pytest.raises(ValueError, match="made_up has no row mixupp, x; its rows: simple, mixup"):
        a_sweep(a_cell(), a_cell("mixup", method="mixup")).only(["mixupp", "simple", "x"])


def test_sweep_names_the_row_of_a_run_or_the_row_and_links_by_which_it_is_needed():
    teacher, own = a_run(epochs=5), a_run()
    search = a_run(method="transformmix", task="search", teacher=teacher)
    mixing = a_run(method="transformmix", teacher=own, policy=search)
    askers = a_sweep(Cell("moved", "digits/tiny", (mixing,)), Cell("plain", "digits/tiny", (own,))).asked_by()
    assert askers == {
        mixing: "moved",
        own: "plain",
        search: "moved -> policy transformmix",
        teacher: "moved -> policy transformmix -> teacher simple",
    }


def test_sweep_names_the_column_where_there_are_several():
    there, here = a_run(epochs=5), a_run()
    askers = a_sweep(Cell("r", "digits/tiny", (here,)), Cell("r", "digits/tiny + short", (there,))).asked_by()
    assert askers == {here: "r, digits/tiny", there: "r, digits/tiny + short"}


def test_runs_of_any_seed_are_alike_and_those_that_another_teaches_are_not():
    one, other = a_run(method="simple"), a_run(method="simple", epochs=9)
    taught = [
        a_run(method="softmax_cam", seed=seed, teacher=teacher)
        for seed, teacher in ((0, one), (1, one.reseeded(1, {})), (0, other))
    ]
    assert of_any_seed(taught[0]) == of_any_seed(taught[1]) != of_any_seed(taught[2])
