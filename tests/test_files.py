"""Half a file is never seen, and a claim has one winner."""

import errno
import os
import threading

import pytest

from mixbench import files


def leftovers(folder):
    return [path.name for path in folder.rglob("*.tmp")]


def test_files_write_replaces_the_whole_content(tmp_path):
    files.write(tmp_path / "a", b"long content")
    files.write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert leftovers(tmp_path) == []


def test_files_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    files.write(tmp_path / "a", b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_files_publish_lets_the_first_one_win(tmp_path):
    assert files.publish(tmp_path / "a", b"first")
    assert not files.publish(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert leftovers(tmp_path) == []


def test_files_claim_has_exactly_one_winner_among_many(tmp_path):
    for number in range(30):
        start = threading.Barrier(8)
        won = []

        def claim(who, number=number, start=start, won=won):
            start.wait()
            if files.claim(tmp_path / str(number), {"who": who.encode()}):
                won.append(who)

        threads = [threading.Thread(target=claim, args=(f"{n}",)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert (tmp_path / str(number) / "who").read_text() == won[0]
    assert leftovers(tmp_path) == []


def test_files_read_returns_what_was_encoded(tmp_path):
    payload = {"a": [1, 2.5, None], "ü": {"b": "text\nwith lines"}}
    files.write(tmp_path / "a.json", files.encode(payload))
    assert files.read(tmp_path / "a.json") == payload


def test_files_read_of_a_missing_file_is_none(tmp_path):
    assert files.read(tmp_path / "a.json") is None


@pytest.mark.parametrize("keep", [0, 1, 40, 90, -1])
def test_files_read_notices_every_cut(tmp_path, keep):
    whole = files.encode({"value": 1.25, "text": "something"})
    (tmp_path / "a.json").write_bytes(whole[:keep])
    with pytest.raises(files.DamagedError, match=r"a\.json is damaged"):
        files.read(tmp_path / "a.json")


def test_files_read_notices_a_changed_digit(tmp_path):
    (tmp_path / "a.json").write_bytes(files.encode({"value": 1.25}).replace(b"1.25", b"9.25"))
    with pytest.raises(files.DamagedError):
        files.read(tmp_path / "a.json")


def test_files_sweep_removes_what_the_dead_left_and_nothing_of_the_living(tmp_path):
    mine = tmp_path / files._temporary_name("a")
    dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", "-999999999-")
    folder = tmp_path / dead.name.replace(".a.", ".b.")
    mine.touch()
    dead.touch()
    folder.mkdir()
    files.sweep(tmp_path)
    assert mine.exists()
    assert not dead.exists()
    assert not folder.exists()
