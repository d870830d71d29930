import re
from dataclasses import replace

import pytest

from mixbench.data import identify
from mixbench.execution import Execution
from mixbench.files import DISK_ERRORS
from mixbench.launch import check_data, check_searched, execution_of, plan
from mixbench.resolve import load_sweep
from mixbench.store import Store


@pytest.fixture
def sweep(tiny, tmp_path):
    return load_sweep(tiny, data=tmp_path, results=tmp_path)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results", tell=print)


@pytest.fixture
def done(store, finish):
    """Makes runs done."""
    return lambda *runs: [finish(store.root, run) for run in runs]


def fail(store, run, error=None):
    """An attempt at this run that fails."""
    error = error or RuntimeError("no")
    with pytest.raises(type(error)), store.claim(run, Execution()):
        raise error


def rows(sweep):
    return {cell.row: list(cell.runs) for cell in sweep.cells}


def test_plan_of_a_new_sweep_is_everything_stage_by_stage(sweep, store):
    planned = plan(sweep, store)
    assert planned.todo == [run for stage in sweep.stages() for run in stage]
    assert set(planned.states.values()) == {"new"}
    assert planned.sentence() == "6 runs in 2 stages: 0 done, 6 to do"


def test_plan_leaves_out_what_is_done(sweep, store, done):
    done(*rows(sweep)["simple"])
    planned = plan(sweep, store)
    assert planned.todo == rows(sweep)["mixup"] + rows(sweep)["softmax_cam"]
    assert planned.sentence() == "6 runs in 2 stages: 2 done, 4 to do"


def test_plan_of_a_finished_sweep_is_nothing(sweep, store, done):
    done(*(run for stage in sweep.stages() for run in stage))
    assert plan(sweep, store).todo == []


def test_plan_waits_for_what_is_at_work_elsewhere(sweep, store):
    run = rows(sweep)["mixup"][0]
    assert store.claim(run, Execution())
    planned = plan(sweep, store)
    assert planned.states[run] == "running"
    assert run in planned.todo
    assert planned.sentence() == "6 runs in 2 stages: 0 done, 1 running, 5 to do"


def test_plan_does_not_try_again_what_failed_unless_asked(sweep, store):
    run = rows(sweep)["mixup"][0]
    fail(store, run)
    planned = plan(sweep, store)
    assert run not in planned.todo
    assert planned.sentence() == "6 runs in 2 stages: 0 done, 1 failed, 5 to do"
    assert run in plan(sweep, store, retry_failed=True).todo


@pytest.mark.parametrize("number", sorted(DISK_ERRORS))
def test_plan_tries_again_what_failed_for_want_of_a_disk(number, sweep, store):
    run = rows(sweep)["mixup"][0]
    fail(store, run, OSError(number, "disk"))
    assert run in plan(sweep, store).todo


def test_plan_does_not_start_what_needs_a_run_that_failed(sweep, store):
    teacher, asking = rows(sweep)["simple"][0], rows(sweep)["softmax_cam"][0]
    fail(store, teacher)
    planned = plan(sweep, store)
    assert {teacher, asking}.isdisjoint(planned.todo)
    assert len(planned.todo) == 4
    assert planned.sentence() == "6 runs in 2 stages: 0 done, 1 failed, 1 blocked by them, 4 to do"
    assert {teacher, asking} <= set(plan(sweep, store, retry_failed=True).todo)


def test_plan_trains_a_teacher_again_of_which_only_the_numbers_are_here(sweep, store, done):
    done(*rows(sweep)["simple"], *rows(sweep)["mixup"])
    teacher = rows(sweep)["simple"][0]
    (store.folder(teacher) / "weights-a1.pt").unlink()
    planned = plan(sweep, store)
    assert planned.todo == [teacher, *rows(sweep)["softmax_cam"]]
    assert planned.sentence() == "6 runs in 2 stages: 4 done, 3 to do, 1 of them for their weights only"


def test_plan_does_not_train_again_a_teacher_whom_nobody_asks_any_more(sweep, store, done):
    done(*(run for stage in sweep.stages() for run in stage))
    (store.folder(rows(sweep)["simple"][0]) / "weights-a1.pt").unlink()
    assert plan(sweep, store).todo == []


def test_plan_takes_up_a_run_whose_result_is_damaged(sweep, store, done):
    run = rows(sweep)["mixup"][0]
    done(run)
    result = store.folder(run) / "result.json"
    result.write_bytes(result.read_bytes()[:-20])
    assert run in plan(sweep, store).todo


def test_plan_of_one_run_counts_in_the_singular(sweep, store):
    cell = sweep.cells[0]
    alone = replace(sweep, cells=(replace(cell, runs=cell.runs[:1]),))
    assert plan(alone, store).sentence() == "1 run in 1 stage: 0 done, 1 to do"


def test_check_data_refuses_to_go_on_with_other_data_than_finished_runs_saw(sweep, store, done, tmp_path):
    run = rows(sweep)["simple"][0]
    done(run)
    with pytest.raises(ValueError, match=f"{run.folder} was trained on other data .* than {tmp_path} holds now"):
        check_data(plan(sweep, store), store, Execution(data=str(tmp_path)))


def test_check_data_takes_the_data_that_finished_runs_saw(sweep, store, finish, tmp_path):
    about = {"root": tmp_path, "image_size": None, "cache": tmp_path / "cache.json"}
    content = identify("digits", **about).content
    finish(store.root, rows(sweep)["simple"][0], content=content.fingerprint)
    check_data(plan(sweep, store), store, Execution(data=str(tmp_path)))


@pytest.fixture
def searching(tmp_path):
    path = tmp_path / "searching.yaml"
    path.write_text(
        "settings: [digits/tiny]\nmethods: [transformmix]\nseeds: [0]\nteacher: {method: simple}\n"
        "policy: {recipe: search}\nrecipes: {digits/tiny: {epochs: 2}, search: {task: search, epochs: 1}}\n"
    )
    return load_sweep(path, data=tmp_path, results=tmp_path)


def test_check_searched_refuses_what_needs_a_search_that_is_not_done(searching, store, done):
    (use,) = searching.cells[0].runs
    said = f"--no-search: {use.folder} needs the search {use.policy.folder}, which is not done; do: this"
    with pytest.raises(ValueError, match=re.escape(said)):
        check_searched(plan(searching, store), command="this")
    done(use.teacher, use.policy)
    check_searched(plan(searching, store), command="this")


def test_check_searched_refuses_to_search_again_for_weights_that_are_gone(searching, store, done):
    (use,) = searching.cells[0].runs
    done(use.teacher, use.policy)
    (store.folder(use.policy) / "weights-a1.pt").unlink()
    with pytest.raises(ValueError, match=f"needs the search {use.policy.folder}"):
        check_searched(plan(searching, store), command="this")


def test_each_run_is_computed_as_its_recipe_says(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "settings: [digits/tiny]\nmethods: [softmax_cam]\nseeds: [0]\nteacher: {method: simple, recipe: often}\n"
        "recipes: {digits/tiny: {epochs: 2, evaluate_every: 7}, often: {evaluate_every: 3, checkpoint_seconds: 4}}\n"
    )
    sweep = load_sweep(path, data=tmp_path, results=tmp_path)
    (run,) = sweep.cells[0].runs
    execution = Execution(threads=3, data="pictures")
    chosen = execution_of(sweep, execution)
    assert chosen(run) == replace(execution, evaluate_every=7)
    assert chosen(run.teacher) == replace(execution, evaluate_every=3, checkpoint_seconds=4.0)
