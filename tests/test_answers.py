"""A report is printed again at once, and never with a number that does not stand there any more."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from analysis import answers, table
from mixbench import catalog, files
from mixbench.execution import Execution
from mixbench.resolve import load_sweep
from mixbench.result import payload_of
from mixbench.store import Store


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """What a test has just written counts as settled."""
    monkeypatch.setattr(answers, "SETTLED_SECONDS", 0.0)


@pytest.fixture
def runs(tiny, tmp_path, finish):
    """The runs of a small sweep, all done, with 90 percent under seed 0 and 92 under seed 1."""
    sweep = load_sweep(tiny, data=tmp_path, results=tmp_path)
    made = [run for cell in sweep.cells for run in cell.runs]
    for run in made:
        finish(tmp_path / "results", run, top1=90.0 + 2 * run.seed)
    return made


@pytest.fixture
def report(mixbench, runs):
    """Prints the report of the sweep; with whatever words besides."""
    return lambda *words: mixbench("report", "tiny.yaml", *words).out


@pytest.fixture
def unread(monkeypatch):
    """Lets nothing be made anew."""
    return lambda: monkeypatch.setattr(table, "build", None)


def result_file(tmp_path, run):
    return tmp_path / "results" / "runs" / run.folder / "result.json"


def rewrite(tmp_path, run, top1):
    """Put another number where the result stands, in as many bytes and with the time that it had."""
    path, store = result_file(tmp_path, run), Store(tmp_path / "results", tell=print)
    before, result = path.stat(), store.result(run)
    data = files.encode(payload_of(run, result) | {"metrics": {"top1": top1, "top5": 99.0}})
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_report_is_given_again_without_being_made(report, unread):
    first = report()
    unread()
    assert "91.00 ± 1.41" in first
    assert report() == first


@pytest.mark.parametrize("words", [("--format", "csv"), ("--metric", "top5")])
def test_report_of_another_form_or_metric_is_an_answer_of_its_own(report, words):
    plain = report()
    other = report(*words)
    assert other != plain
    assert (report(), report(*words)) == (plain, other)


def test_changed_result_is_read_again_even_with_its_old_size_and_time(report, runs, tmp_path):
    report()
    rewrite(tmp_path, runs[0], 94.0)
    assert "93.00 ± 1.41" in report()


def test_deleted_result_is_missing(report, runs, tmp_path):
    report()
    result_file(tmp_path, runs[0]).unlink()
    assert "1 of 6 runs is missing" in report()


def test_damaged_result_is_told(report, runs, tmp_path):
    report()
    path = result_file(tmp_path, runs[0])
    path.write_bytes(path.read_bytes().replace(b"90.0", b"99.0"))
    assert f"{path.relative_to(tmp_path)} is damaged" in " ".join(report().split())


def test_result_that_was_not_there_is_found(report, runs, tmp_path):
    path = result_file(tmp_path, runs[0])
    path.rename(tmp_path / "elsewhere")
    assert "missing" in report()
    (tmp_path / "elsewhere").rename(path)
    assert "missing" not in report()


def test_changed_sweep_file_is_read_again(report, tiny):
    report()
    tiny.write_text(tiny.read_text() + "table: {caption: Another caption.}\n")
    assert "Another caption." in report()


def test_recipes_that_appear_beside_the_sweep_are_read(report, tmp_path, unread):
    report()
    (tmp_path / "recipes.yaml").write_text("other: {epochs: 1}\n")
    unread()
    with pytest.raises(TypeError):
        report()


def test_changed_code_makes_the_report_anew(report, monkeypatch, tmp_path, unread):
    source = tmp_path / "code.py"
    source.write_text("a = 1")
    monkeypatch.setattr(answers, "code", lambda: [source])
    report()
    source.write_text("a = 2")
    unread()
    with pytest.raises(TypeError):
        report()


def test_code_is_every_source_file_and_where_packages_are():
    seen = {str(path) for path in answers.code()}
    assert {table.__file__, files.__file__, str(Path(pytest.__file__).parents[1])} <= seen


def test_answer_is_not_kept_while_its_files_have_only_just_changed(report, monkeypatch, unread):
    monkeypatch.setattr(answers, "SETTLED_SECONDS", 60.0)
    report()
    unread()
    with pytest.raises(TypeError):
        report()


def test_result_that_changes_while_the_report_is_made_is_not_missed(report, runs, tmp_path, monkeypatch):
    build = table.build

    def meanwhile(*words):
        grid = build(*words)
        rewrite(tmp_path, runs[0], 94.0)
        return grid

    monkeypatch.setattr(table, "build", meanwhile)
    assert "91.00 ± 1.41" in report()
    assert "93.00 ± 1.41" in report()


def test_missing_run_that_fails_meanwhile_is_told(report, runs, tmp_path):
    shutil.rmtree(tmp_path / "results" / "runs" / runs[0].folder)
    assert "failed" not in report()
    with (
        pytest.raises(ZeroDivisionError),
        Store(tmp_path / "results", tell=print).claim(runs[0], Execution()),
    ):
        raise ZeroDivisionError
    assert "(1 failed: see `mixbench why`)" in report()


def test_report_of_another_packages_mixer_is_always_made_anew(report, monkeypatch, unread):
    monkeypatch.setattr(catalog, "is_ours", lambda method: method != "mixup")
    report()
    unread()
    with pytest.raises(TypeError):
        report()


def test_report_of_own_pictures_is_always_made_anew(mixbench, tmp_path, finish):
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")):
        (tmp_path / "data" / "own" / part / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / "own" / part / name / "1.png")
    sweep = tmp_path / "own.yaml"
    sweep.write_text(
        "settings: [image_folder:own/tiny]\nmethods: [simple]\nseeds: [0]\n"
        "recipes: {image_folder:own/tiny: {image_size: 8, epochs: 1, batch_size: 2}}\n"
    )
    (cell,) = load_sweep(sweep, data=tmp_path / "data", results=tmp_path / "results").cells
    finish(tmp_path / "results", cell.runs[0])
    assert "missing" not in mixbench("report", "own.yaml").out
    Image.new("RGB", (8, 8), "white").save(tmp_path / "data" / "own" / "train" / "a" / "1.png")
    assert "1 of 1 run is missing" in mixbench("report", "own.yaml").out


def test_report_of_curves_is_always_made_anew(report, runs, tmp_path):
    assert "91.00 ± 1.41" in report("--metric", "best")
    (tmp_path / "results" / "runs" / runs[0].folder / "curve-a1.json").unlink()
    assert "lacks epoch" in report("--metric", "best")


def test_damaged_answer_is_replaced(report, tmp_path, unread):
    first = report()
    (path,) = (tmp_path / "results" / answers.FOLDER).iterdir()
    path.write_bytes(path.read_bytes().replace(b"91.00", b"99.00"))
    assert report() == first
    unread()
    assert report() == first


def test_results_that_cannot_be_written_to_are_reported_all_the_same(report, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write", refuse)
    assert "91.00 ± 1.41" in report()
