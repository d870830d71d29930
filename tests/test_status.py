from dataclasses import replace

import pytest

from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.result import StaleResultError
from mixbench.spec import Run
from mixbench.status import differences, find, state_of, why
from mixbench.store import Store

RUN = Run(method="mixup", dataset="digits", model="tiny", epochs=10)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results", tell=print)


def ended(store, error):
    with pytest.raises(type(error)), store.claim(RUN, Execution()):
        raise error


def test_state_of_a_run_that_nobody_began_is_new(store):
    assert state_of(RUN, store) == "new"


def test_state_of_a_run_that_is_at_work_is_running(store):
    assert store.claim(RUN, Execution())
    assert state_of(RUN, store) == "running"


def test_state_of_a_run_whose_process_died_without_a_word_is_lost(store, monkeypatch):
    assert store.claim(RUN, Execution())
    monkeypatch.setattr(Store, "alive", lambda self, run: False)
    assert state_of(RUN, store) == "lost"


@pytest.mark.parametrize(("error", "state"), [(StoppedError("asked"), "stopped"), (RuntimeError("no"), "failed")])
def test_state_of_a_run_that_ended_is_how_it_ended(error, state, store):
    ended(store, error)
    assert state_of(RUN, store) == state


def test_state_of_a_finished_run_is_done(store, finish):
    finish(store.root, RUN)
    assert state_of(RUN, store) == "done"


def test_state_of_a_run_whose_result_is_damaged_is_not_done(store, finish):
    finish(store.root, RUN)
    result = store.folder(RUN) / "result.json"
    result.write_bytes(result.read_bytes()[:-20])
    assert state_of(RUN, store) == "lost"


def test_state_of_a_run_made_with_another_default_is_refused(store, finish):
    finish(store.root, RUN, options={"alpha": 9.0})
    with pytest.raises(StaleResultError, match=r"was trained with alpha=9\.0"):
        state_of(RUN, store)


def test_why_tells_of_a_stale_result_without_failing(store, finish):
    finish(store.root, RUN, options={"alpha": 9.0})
    assert next(why(RUN, store)).startswith(f"{RUN.folder}: stale: ")


def test_why_tells_why_a_run_failed(store):
    ended(store, RuntimeError("no such luck"))
    said = "\n".join(why(RUN, store))
    assert "--retry-failed" in said
    assert "Traceback" in said
    assert said.count("RuntimeError: no such luck") == 1


def test_why_tells_what_a_result_notes(store, finish):
    finish(store.root, RUN, notes={"k": 2, "excess_at_start": 4.4666, "teacher": "c0ffee", "warning": "it went wrong"})
    lines = list(why(RUN, store))
    assert "  k 2, excess_at_start 4.47, teacher c0ffee" in lines
    assert "  it went wrong" in lines


def test_why_tells_what_went_wrong_in_a_run_that_is_used(store, finish):
    use = replace(RUN, policy=RUN)
    finish(store.root, RUN, notes={"warning": "it went wrong"})
    assert f"\nuses {RUN.folder}: it went wrong" in list(why(use, store))


def test_find_takes_the_beginning_of_an_id_or_of_a_folders_name(store, finish):
    others = [replace(RUN, seed=seed) for seed in range(5)]
    for run in others:
        finish(store.root, run)
    for run in others:
        assert find(run.id, store) == run
        assert find(f"mixup-digits-tiny-s{run.seed}", store) == run


def test_find_names_the_runs_that_it_could_be(store, finish):
    for seed in (0, 1):
        finish(store.root, replace(RUN, seed=seed))
    with pytest.raises(ValueError, match=r"2 runs in .* begin with 'mixup': mixup-digits-tiny-s0-\w+, mixup-digits-t"):
        find("mixup", store)


def test_differences_have_both_values():
    assert differences(RUN, replace(RUN, lr=0.2, seed=3)) == {"lr": (0.1, 0.2), "seed": (0, 3)}


def test_differences_of_equal_runs_are_none():
    assert differences(RUN, replace(RUN)) == {}


def test_differences_name_options_one_by_one():
    one = replace(RUN, options=(("a", 1.0), ("b", 2.0), ("same", 5.0)))
    other = replace(RUN, options=(("b", 3.0), ("c", 4.0), ("same", 5.0)))
    assert differences(one, other) == {"a": (1.0, "its default"), "b": (2.0, 3.0), "c": ("its default", 4.0)}


def test_differences_look_into_links():
    one, other = replace(RUN, teacher=RUN), replace(RUN, teacher=replace(RUN, lr=0.2))
    assert differences(one, other) == {"teacher's lr": (0.1, 0.2)}
    assert differences(one, RUN) == {"teacher": (RUN.folder, "none")}


def test_why_still_tells_what_is_stored_of_a_run_whose_mixer_is_gone(store, finish, monkeypatch):
    finish(store.root, RUN, top1=87.5)

    def gone(method, options):
        raise ValueError(f"there is no method '{method}'")

    monkeypatch.setattr("mixbench.result.catalog.filled", gone)
    said = "\n".join(why(RUN, store))
    assert "done, but there is no method 'mixup'" in said
    assert "top1 87.50" in said
