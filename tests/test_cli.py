import csv
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixbench import catalog
from mixbench.data import DATASETS
from mixbench.nets import MODELS
from mixbench.resolve import load_sweep

ROOT = Path(__file__).parent.parent

THOUSAND = """\
settings: [digits/tiny]
methods:
  simple:
  mixup:
  mixup_02: {method: mixup, alpha: 0.2}
  mixup_04: {method: mixup, alpha: 0.4}
  cutmix:
  cutmix_05: {method: cutmix, prob: 0.5}
  lr:
  softmax_cam:
  softmax_cam_05: {method: softmax_cam, alpha: 0.5}
  softmax_cam_lam: {method: softmax_cam, label_from: lam}
seeds: [SEEDS]
teacher: {method: simple}
recipes: {digits/tiny: {epochs: 2}}
"""


def named(said):
    """The runs that a dry run names, in its order."""
    return [line.strip() for line in said.out.splitlines() if line.startswith("  ")]


def runs_of(path):
    sweep = load_sweep(path, data=path.parent / "data", results=path.parent / "results")
    return [run for stage in sweep.stages() for run in stage]


def process(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_dry_run_prints_the_plan_in_the_order_of_the_work(mixbench, tiny):
    said = mixbench("run", tiny, "--dry-run")
    lines = said.out.splitlines()
    assert (said.code, said.err) == (0, "")
    assert lines[:2] == ["6 runs in 2 stages: 0 done, 6 to do", "stage 1 of 2"]
    assert lines[6] == "stage 2 of 2"
    assert named(said) == [run.folder for run in runs_of(tiny)]


def test_dry_run_touches_nothing(mixbench, tiny, tmp_path):
    mixbench("run", tiny, "--dry-run")
    assert list(tmp_path.iterdir()) == [tiny]


def test_dry_run_does_not_list_what_is_done(mixbench, tiny, tmp_path, finish):
    done, *others = runs_of(tiny)
    finish(tmp_path / "results", done)
    said = mixbench("run", tiny, "--dry-run")
    assert said.out.startswith("6 runs in 2 stages: 1 done, 5 to do\n")
    assert named(said) == [run.folder for run in others]


def test_dry_run_says_how_long_it_would_take_and_from_what(mixbench, tiny, tmp_path, finish):
    done, *_ = runs_of(tiny)
    finish(tmp_path / "results", done, seconds=100.0)
    tiny.write_text(tiny.read_text().replace("epochs: 2,", "epochs: 2, hours: 3,"))
    lines = mixbench("run", tiny, "--dry-run").out.splitlines()[-2:]
    assert lines == [
        "1 run would take 2 min, by what other seeds took here",
        "4 runs would take 14.0 GPU-hours in float32: Simple's by recipe, times passes",  # 2 x 1 and 2 x 1.33
    ]


def test_dry_run_does_not_mind_another_runs_damaged_result(mixbench, tiny, tmp_path, finish):
    done = replace(runs_of(tiny)[0], epochs=77)
    finish(tmp_path / "results", done)
    (tmp_path / "results" / "runs" / done.folder / "result.json").write_text("damaged")
    assert mixbench("run", tiny, "--dry-run").code == 0


def test_dry_run_says_of_what_it_does_not_know_how_long_it_would_take(mixbench, tiny):
    last = mixbench("run", tiny, "--dry-run").out.splitlines()[-1]
    assert last == "6 runs: unknown, neither recipes nor runs of other seeds say how long"


def test_dry_run_of_some_rows_has_what_they_need(mixbench, tiny):
    said = mixbench("run", tiny, "--dry-run", "--only", "softmax_cam")
    assert said.out.startswith("4 runs in 2 stages: 0 done, 4 to do\n")
    assert [name.split("-")[0] for name in named(said)] == ["simple", "simple", "softmax_cam", "softmax_cam"]


def test_dry_run_of_a_thousand_runs_counts_each_once(mixbench, tmp_path):
    path = tmp_path / "thousand.yaml"
    path.write_text(THOUSAND.replace("SEEDS", ", ".join(map(str, range(100)))))
    said = mixbench("run", path, "--dry-run")
    assert said.out.splitlines()[0] == "1000 runs in 2 stages: 0 done, 1000 to do"
    assert len(set(named(said))) == 1000


def test_run_of_a_finished_sweep_does_nothing_and_says_so(mixbench, tiny, tmp_path, finish):
    for run in runs_of(tiny):
        finish(tmp_path / "results", run, content=next(iter(DATASETS["digits"].official)))
    mixbench("run", tiny)  # looks at the data once, and remembers them
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = mixbench("run", tiny)
    assert (said.code, said.err) == (0, "")
    assert "6 runs in 2 stages: 6 done, 0 to do" in said.out
    assert "nothing to do" in said.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_run_never_says_done_for_other_data_than_the_results_are_from(mixbench, tiny, tmp_path, finish):
    for run in runs_of(tiny):
        finish(tmp_path / "results", run, content="feedface")
    said = mixbench("run", tiny)
    assert said.code == 2
    assert "was trained on other data (fingerprint feedface)" in said.err


def test_help_and_no_command_at_all_say_what_there_is(mixbench):
    said = mixbench("--help")
    assert (said.code, said.err) == (0, "")
    assert all(f"\n  {command} " in said.out for command in ("list", "report", "run", "show", "why"))
    assert mixbench() == said


@pytest.mark.parametrize("command", ["list", "report", "run", "show", "why"])
def test_help_of_a_command_begins_with_how_to_call_it(command, mixbench):
    assert mixbench(command, "--help").out.startswith(f"Usage: mixbench {command} ")


def test_version_is_told(mixbench):
    assert mixbench("--version").out.startswith("mixbench, version ")


def test_list_shows_every_method_with_its_options_and_needs(mixbench):
    lines = mixbench("list").out.splitlines()
    for name in catalog.names():
        declared = catalog.declaration(name)
        (place,) = [place for place, line in enumerate(lines) if line.startswith(f"  {name} ")]
        assert f"{declared.label}" in lines[place]
        assert lines[place].endswith(declared.summary)
        line = lines[place + 1]
        assert all(f"{option}={default!r}" in line for option, default in declared.options.items())
        assert not declared.given or line.endswith(f"needs {', '.join(declared.given)}")


def test_list_of_methods_tells_of_each_whose_it_is_what_it_needs_and_draws_and_whose_its_defaults_are(mixbench):
    blocks = {block.partition(":")[0]: block for block in re.split(r"\n(?=\S)", mixbench("list", "--methods").out)}
    assert list(blocks) == catalog.names()
    for name, block in blocks.items():
        declared = catalog.declaration(name)
        told = " ".join(block.split())
        assert all(f"{option}={default!r}" in told for option, default in declared.options.items())
        assert f"({declared.source})" in told or name == "simple"
        assert not declared.options or (declared.defaults in told and declared.draws in told)
        assert ("a teacher" in told) == ("teacher" in declared.given)
        assert ("a mixing module" in told) == ("policy" in declared.given)
    assert "the gradient of the images" in blocks["puzzlemix"]


@pytest.mark.parametrize("name", [name for name in catalog.names() if name != "simple"])
def test_every_method_declares_its_paper_and_year_its_draws_and_whose_its_defaults_are(name):
    declared = catalog.declaration(name)
    assert re.search(r", \d{4}\b", declared.source)
    assert declared.defaults
    assert declared.draws
    assert declared.passes >= 1


def test_list_shows_data_sets_models_and_recipes(mixbench, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text("digits/tiny: {epochs: 1}\nmine: {lr: 1.0}\n")
    out = mixbench("list").out
    assert all(f"\n  {name} " in out for name in DATASETS)
    assert f"models\n  {', '.join(MODELS)}\n" in out
    assert out.endswith("recipes\n  digits/tiny        epochs=1\n  mine               lr=1.0\n")


def test_list_works_where_there_are_no_recipes(mixbench):
    assert mixbench("list").code == 0


def test_python_m_mixbench_is_the_same_command(tiny, tmp_path):
    words = ["run", str(tiny), "--dry-run"]
    script = process(str(Path(sys.executable).parent / "mixbench"), *words, cwd=tmp_path)
    module = process(sys.executable, "-m", "mixbench", *words, cwd=tmp_path)
    assert script.returncode == 0
    assert (module.returncode, module.stdout, module.stderr) == (script.returncode, script.stdout, script.stderr)


def test_reader_that_leaves_early_is_no_failure(tiny, tmp_path):
    words = [sys.executable, "-m", "mixbench", "run", str(tiny), "--dry-run"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes) as command:
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 0


def test_why_says_what_a_run_is_and_what_came_out(mixbench, tiny, tmp_path, finish):
    run = runs_of(tiny)[0]
    finish(tmp_path / "results", run, top1=87.25)
    said = mixbench("why", run.id)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{run.folder}: done\n")
    assert "\n  train_images: 100\n" in said.out
    assert "  lr:" not in said.out
    assert "top1 87.25" in said.out


def test_why_shows_the_fields_in_which_the_nearest_finished_run_differs(mixbench, tiny, tmp_path, finish):
    run = next(run for run in runs_of(tiny) if run.method == "mixup")
    near, far = replace(run, options=(("alpha", 0.3),), lr=0.2), replace(run, epochs=5, lr=0.2, pad=0)
    for one in (run, near, far):
        finish(tmp_path / "results", one)
    said = mixbench("why", run.id)
    assert said.out.partition("nearest finished run: ")[2].splitlines() == [
        f"{near.folder}; it differs in",
        "  alpha: its default here, 0.3 there",
        "  lr: 0.1 here, 0.2 there",
    ]


def test_why_shows_in_what_the_runs_that_are_asked_differ(mixbench, tiny, tmp_path, finish):
    run = runs_of(tiny)[-1]
    near = replace(run, teacher=replace(run.teacher, seed=5))
    for one in (run, near):
        finish(tmp_path / "results", one)
    assert "  teacher's seed: 1 here, 5 there\n" in mixbench("why", run.id).out


def test_why_says_if_no_other_run_has_finished(mixbench, tiny, tmp_path, finish):
    run = runs_of(tiny)[0]
    finish(tmp_path / "results", run)
    assert mixbench("why", run.id).out.endswith("\nno other run has finished here\n")


def test_why_takes_the_beginning_of_a_folders_name(mixbench, tiny, tmp_path, finish):
    run = runs_of(tiny)[0]
    finish(tmp_path / "results", run)
    assert mixbench("why", "simple-digits").out == mixbench("why", run.id[:4]).out


def test_report_prints_the_table_and_the_command_that_fills_it(mixbench, tiny, tmp_path, finish):
    finish(tmp_path / "results", runs_of(tiny)[0], top1=87.25)
    said = mixbench("report", tiny)
    assert (said.code, said.err) == (0, "")
    assert "87.25" in said.out
    assert f"mixbench run {tiny}" in said.out


def test_report_quotes_names_in_the_command_that_fills_it(mixbench, tiny, tmp_path):
    spaced = tiny.rename(tmp_path / "two words.yaml")
    assert (
        f"mixbench run '{spaced}' --results 'my results'" in mixbench("report", spaced, "--results", "my results").out
    )


def test_report_as_csv_is_nothing_but_the_csv(mixbench, tiny, tmp_path, finish):
    for run in runs_of(tiny):
        finish(tmp_path / "results", run)
    said = mixbench("report", tiny, "--format", "csv")
    header, *lines = csv.reader(said.out.splitlines())
    assert len(lines) == 3
    assert {len(line) for line in lines} == {len(header)}
