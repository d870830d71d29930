"""Which runs are done, who is at work, and what is recovered from what."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace

import pytest

from mixbench import attempts, files, pulse, traces
from mixbench.endings import FencedError, MissingNeedError, OtherDataError, StoppedError
from mixbench.execution import Execution
from mixbench.result import Result, StaleResultError, payload_of
from mixbench.spec import Run
from mixbench.store import Store

RUN = Run(method="mixup", dataset="digits", model="tiny", epochs=3)
RESULT = Result(
    metrics={"top1": 50.0},
    options={"alpha": 1.0, "draw": "batch"},
    notes={},
    content="c0ffee",
    official=True,
    attempt=1,
    seconds=1.0,
    device="a CPU",
    versions={},
    code="c0de",
    commit="abc",
    execution={},
)
ARTIFACTS = {
    "weights.pt": b"weights",
    "predictions.npz": b"predictions",
    "curve.json": files.encode({"schema": 1, "run": RUN.id, "curve": [{"epoch": 1}]}),
}


@pytest.fixture
def told():
    return []


@pytest.fixture
def store(tmp_path, told):
    return Store(tmp_path, tell=told.append)


def finish(store, attempt, artifacts=ARTIFACTS):
    with attempt:
        attempt.finish(payload_of(RUN, RESULT), artifacts)


def dead_attempt(store):
    """An attempt whose process was killed: claimed by a process that is gone."""
    code = (
        "from pathlib import Path; from mixbench.store import Store; from mixbench.execution import Execution;"
        "from mixbench.spec import Run; import sys;"
        "Store(Path(sys.argv[1]), tell=print).claim(Run.from_dict(eval(sys.argv[2])), Execution())"
    )
    subprocess.run([sys.executable, "-c", code, str(store.root), repr(RUN.to_dict())], check=True)
    return traces.numbers(store.folder(RUN))[-1]


def test_store_has_no_result_of_a_run_that_was_never_begun(store):
    assert store.result(RUN) is None
    assert store.weights(RUN) is None


def test_store_finds_the_result_and_the_weights_of_a_finished_run(store):
    finish(store, store.claim(RUN, Execution()))
    assert store.result(RUN) == RESULT
    assert store.weights(RUN).read_bytes() == b"weights"


def test_store_claims_a_run_once_while_somebody_is_at_it(store):
    attempt = store.claim(RUN, Execution())
    with attempt:
        assert store.alive(RUN)
        assert store.claim(RUN, Execution()) is None


def test_store_claims_no_finished_run(store):
    finish(store, store.claim(RUN, Execution()))
    assert store.claim(RUN, Execution()) is None


def test_store_claims_a_run_whose_process_is_gone_with_the_next_number(store):
    assert dead_attempt(store) == 1
    assert not store.alive(RUN)
    assert store.claim(RUN, Execution()).number == 2


def test_store_does_not_take_a_recycled_pid_for_the_process_that_claimed(store):
    number = dead_attempt(store)
    path = store.folder(RUN) / "attempts" / str(number) / "attempt.json"
    about = files.read(path)
    files.write(path, files.encode(about | {"pid": os.getpid()}))
    assert not store.alive(RUN)


def test_store_watches_the_heartbeat_of_another_machine_for_a_lease(store, monkeypatch):
    number = dead_attempt(store)
    place = store.folder(RUN) / "attempts" / str(number)
    files.write(place / "attempt.json", files.encode(files.read(place / "attempt.json") | {"boot": "elsewhere"}))
    clock = [1000.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: clock[0])
    assert store.claim(RUN, Execution()) is None
    clock[0] += pulse.LEASE_SECONDS - 1
    os.utime(place / "hb", ns=(1, 1))
    assert store.alive(RUN)
    clock[0] += pulse.LEASE_SECONDS - 1
    assert store.alive(RUN)
    clock[0] += 2
    assert not store.alive(RUN)
    assert store.claim(RUN, Execution()).number == number + 1


def test_store_sets_a_damaged_result_aside_and_publishes_it_again_from_the_attempt(store, told):
    finish(store, store.claim(RUN, Execution()))
    path = store.folder(RUN) / "result.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(files.DamagedError, match=r"result\.json"):
        store.result(RUN)
    assert store.claim(RUN, Execution()) is None
    assert store.result(RUN) == RESULT
    assert len(list(store.folder(RUN).glob("result.json.bad-*"))) == 1
    assert "damaged" in told[0]


def test_store_computes_again_where_a_damaged_result_cannot_be_recovered(store):
    finish(store, store.claim(RUN, Execution()))
    folder = store.folder(RUN)
    (folder / "result.json").write_bytes(b"{")
    (folder / "weights-a1.pt").write_bytes(b"damaged too")
    assert store.claim(RUN, Execution()).number == 2


def test_store_lets_a_done_run_be_claimed_for_its_weights_and_keeps_its_numbers(store):
    finish(store, store.claim(RUN, Execution()))
    (store.folder(RUN) / "weights-a1.pt").unlink()
    before = (store.folder(RUN) / "result.json").read_bytes()
    attempt = store.claim(RUN, Execution())
    assert attempt.number == 2
    finish(store, attempt, {"weights.pt": b"again"})
    assert store.weights(RUN).read_bytes() == b"again"
    assert (store.folder(RUN) / "result.json").read_bytes() == before


def test_store_refuses_a_result_made_with_another_default(store):
    old = payload_of(RUN, RESULT) | {"options": {"alpha": 0.4, "draw": "batch"}}
    with store.claim(RUN, Execution()) as attempt:
        attempt.finish(old, ARTIFACTS)
    with pytest.raises(StaleResultError, match=r"alpha=0\.4, the code's default is now 1\.0"):
        store.result(RUN)


def test_store_refuses_a_folder_that_asks_for_another_run(store):
    folder = store.folder(RUN)
    files.write(folder / "run.json", files.encode({"schema": 1, "run": RUN.id, "request": {"method": "other"}}))
    with pytest.raises(ValueError, match="asks for another run"):
        store.claim(RUN, Execution())


def test_store_writes_a_damaged_request_again(store, told):
    dead_attempt(store)
    (store.folder(RUN) / "run.json").write_bytes(b"")
    store.claim(RUN, Execution())
    assert list(store.known()) == [RUN]
    assert "run.json is damaged" in told[0]


def test_attempt_that_raises_ends_failed_with_type_text_and_traceback(store):
    with pytest.raises(ZeroDivisionError), store.claim(RUN, Execution()):
        _ = 1 / 0
    end = store.ending(RUN)
    assert (end["state"], end["type"], end["retryable"]) == ("failed", "ZeroDivisionError", False)
    assert "test_store.py" in end["traceback"]


def test_attempt_that_met_a_full_disk_may_be_tried_again(store):
    with pytest.raises(OSError, match="full"), store.claim(RUN, Execution()):
        raise OSError(28, "full")
    assert store.ending(RUN)["retryable"]


def test_attempt_saves_and_stops_when_asked(store):
    attempt = store.claim(RUN, Execution())
    attempt.stop.set()
    assert attempt.due(epoch_over=False)
    with pytest.raises(StoppedError, match="step 7"), attempt:
        attempt.save(7, b"state")
    assert store.ending(RUN)["state"] == "stopped"
    assert list(store.claim(RUN, Execution()).saved()) == [b"state"]


def test_attempt_keeps_the_last_two_checkpoints_newest_first(store):
    attempt = store.claim(RUN, Execution())
    for step in (5, 10, 1000):
        attempt.save(step, f"{step}".encode())
    assert list(attempt.saved()) == [b"1000", b"10"]


def test_attempt_falls_back_to_the_checkpoint_before_a_damaged_one_and_says_so(store, told):
    attempt = store.claim(RUN, Execution())
    attempt.save(5, b"five")
    attempt.save(10, b"ten")
    newest = store.folder(RUN) / "ckpt" / "000000000010-a1.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert list(attempt.saved()) == [b"five"]
    assert "damaged checkpoint" in told[0]
    assert not newest.exists()


def test_attempt_refuses_a_checkpoint_of_another_run_and_takes_one_that_does_not_say(store, told):
    attempt = store.claim(RUN, Execution())
    attempt.save(5, b"five")
    attempt.save(10, b"ten")
    before, newest = sorted((store.folder(RUN) / "ckpt").iterdir())
    before.write_bytes(before.read_bytes().replace(f" {RUN.folder}".encode(), b"", 1))  # as earlier versions wrote it
    newest.write_bytes(newest.read_bytes().replace(RUN.folder.encode(), b"another-run", 1))
    assert list(attempt.saved()) == [b"five"]
    assert "another run's" in told[0]


@pytest.mark.parametrize("late", ["save", "finish"])
def test_attempt_that_was_taken_over_writes_nothing(store, late):
    old = store.claim(RUN, Execution())
    assert attempts.claim(store.folder(RUN), 2, Execution(), tell=print)
    before = sorted(path for path in store.folder(RUN).rglob("*") if path.is_file())
    with pytest.raises(FencedError), old:
        old.save(1, b"state") if late == "save" else old.finish(payload_of(RUN, RESULT), ARTIFACTS)
    assert sorted(path for path in store.folder(RUN).rglob("*") if path.is_file()) == before


def test_attempt_notices_within_a_heartbeat_that_it_was_taken_over(store, monkeypatch):
    monkeypatch.setattr(attempts, "HEARTBEAT_SECONDS", 0.02)
    with store.claim(RUN, Execution()) as old:
        attempts.claim(store.folder(RUN), 2, Execution(), tell=print)
        assert old.stop.wait(5)


def test_attempt_says_who_it_is(store):
    attempt = store.claim(RUN, Execution(threads=2))
    about = files.read(attempt.place / "attempt.json")
    assert about["host"] == socket.gethostname()
    assert about["pid"] == os.getpid()
    assert about["execution"]["threads"] == 2
    assert about["commit"]


def test_attempt_end_names_its_files_with_their_checksums(store):
    finish(store, store.claim(RUN, Execution()))
    kept = store.ending(RUN)["files"]
    assert kept["weights-a1.pt"] == hashlib.sha256(b"weights").hexdigest()


def test_store_keeps_weights_and_predictions_of_which_no_attempt_can_tell(store):
    """In a copy without ``attempts/``, and where ``end.json`` is damaged: a stray file is better than a lost one."""
    finish(store, store.claim(RUN, Execution()))
    end = store.folder(RUN) / "attempts" / "1" / "end.json"
    end.write_bytes(end.read_bytes()[:50])
    store.tidy(RUN)
    assert (store.folder(RUN) / "weights-a1.pt").exists()
    shutil.rmtree(store.folder(RUN) / "attempts")
    store.tidy(RUN)
    assert (store.folder(RUN) / "weights-a1.pt").exists()
    assert (store.folder(RUN) / "predictions-a1.npz").exists()


def test_store_tidies_only_what_dead_attempts_left(store):
    assert dead_attempt(store) == 1
    folder = store.folder(RUN)
    (folder / "weights-a1.pt").write_bytes(b"of the dead")
    finish(store, store.claim(RUN, Execution()))
    assert not (folder / "weights-a1.pt").exists()
    assert store.weights(RUN) == folder / "weights-a2.pt"
    (folder / "weights-a3.pt").write_bytes(b"of somebody at work")
    store.tidy(RUN)
    assert (folder / "weights-a3.pt").exists()


def test_store_in_a_fresh_clone_trains_again_under_a_number_of_its_own(store, told):
    finish(store, store.claim(RUN, Execution()))
    folder = store.folder(RUN)
    shutil.rmtree(folder / "attempts")
    (folder / "weights-a1.pt").unlink()
    curve = (folder / "curve-a1.json").read_bytes()
    again = store.claim(RUN, Execution())
    assert again.number == 2
    with again:
        again.finish(payload_of(RUN, replace(RESULT, metrics={"top1": 51.0})), ARTIFACTS)
    assert store.result(RUN) == RESULT
    assert (folder / "curve-a1.json").read_bytes() == curve
    assert "came out as {'top1': 51.0}, not as {'top1': 50.0}" in told[-1]


def test_store_takes_no_result_of_another_run(store):
    finish(store, store.claim(RUN, Execution()))
    other = replace(RUN, seed=1)
    store.folder(other).mkdir(parents=True)
    shutil.copy(store.folder(RUN) / "result.json", store.folder(other))
    with pytest.raises(files.DamagedError, match=f"it is of run {RUN.id}"):
        store.result(other)


def test_store_hands_out_no_damaged_weights(store):
    finish(store, store.claim(RUN, Execution()))
    (store.folder(RUN) / "weights-a1.pt").write_bytes(b"weightz")
    with pytest.raises(MissingNeedError, match="is damaged; run again"):
        store.read_weights(RUN)
    assert store.weights(RUN) is None
    assert store.claim(RUN, Execution()).number == 2


def test_attempt_that_ended_done_stays_done_whatever_comes_after(store, monkeypatch):
    def full(path, data, publish=files.publish):
        if path.name == "result.json":
            raise OSError(28, "full")
        return publish(path, data)

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(OSError, match="full"):
        finish(store, store.claim(RUN, Execution()))
    monkeypatch.undo()
    assert store.ending(RUN)["state"] == "done"
    assert store.claim(RUN, Execution()) is None
    assert store.result(RUN) == RESULT


def test_store_believes_the_caller_that_an_attempt_of_another_machine_is_dead(store):
    number = dead_attempt(store)
    place = store.folder(RUN) / "attempts" / str(number)
    files.write(place / "attempt.json", files.encode(files.read(place / "attempt.json") | {"boot": "elsewhere"}))
    assert store.claim(RUN, Execution()) is None
    assert store.claim(RUN, Execution(), dead=number).number == number + 1


def test_attempt_begins_on_one_content_only(store):
    attempt = store.claim(RUN, Execution())
    attempt.begin("c0ffee")
    attempt.begin("c0ffee")
    assert store.content(RUN) == "c0ffee"
    with pytest.raises(OtherDataError, match="begun on data with fingerprint c0ffee, but those at hand have feedface"):
        attempt.begin("feedface")


@pytest.mark.parametrize("mark", ["a1b2c3d4", "a9ffffff", "0a1b2c3d"])
def test_store_tidies_whatever_a_half_written_file_is_called(store, mark):
    finish(store, store.claim(RUN, Execution()))
    mine = files._temporary_name("result.json")
    left = store.folder(RUN) / f"{mine.rpartition('-')[0].replace(str(os.getpid()), '999999999')}-{mark}.tmp"
    left.touch()
    store.tidy(RUN)
    assert not left.exists()
    assert store.weights(RUN).exists()
