"""What a user can get wrong: one sentence that names the place and says what would be right, exit 2, nothing lost."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NO_YAML = {
    "tab": ("  digits/tiny:", "\tdigits/tiny:", "line 6 is indented with a tab; YAML allows only spaces there"),
    "key twice": (
        "seeds: [0, 1]",
        "seeds: [0, 1]\nseeds: [3]",
        "line 4: the key 'seeds' stands here and in line 3; leave one out",
    ),
    "key twice in a recipe": (
        "epochs: 2",
        "epochs: 2, epochs: 3",
        "line 6: the key 'epochs' stands here and in line 6; leave one out",
    ),
    "key that is no text": ("settings:", "1:", "line 1: the key 1 must be text; put it in quotes"),
    "unclosed bracket": ("[0, 1]", "[0, 1", "line 4 is no valid YAML"),
    "merge key": ("{epochs: 2", "{<<: {lr: 1.0}, epochs: 2", "line 6: '<<' is not followed here; write its keys out"),
    "alias in itself": (
        "{method: simple}",
        "&me {method: simple, teacher: *me}",
        "line 4 is no valid YAML: found unconstructable recursive node",
    ),
    "unknown alias": ("[0, 1]", "*nobody", "line 3 is no valid YAML: found undefined alias 'nobody'"),
    "tag": ("[0, 1]", "!!python/tuple [0, 1]", "line 3 is no valid YAML: could not determine a constructor"),
    "unprintable character": ("simple", "simp\0le", "there is an unprintable character, 0x0; take it out"),
    "nested too deeply": ("[0, 1]", "[" * 3000, "it is nested too deeply"),
}


@pytest.mark.parametrize("case", NO_YAML)
def test_file_that_is_no_yaml_is_refused_with_the_line(case, refused, tiny):
    old, new, sentence = NO_YAML[case]
    text = tiny.read_text()
    assert old in text
    tiny.write_text(text.replace(old, new, 1))
    assert re.match(re.escape(f"{tiny}: ") + sentence, refused("run", tiny))


@pytest.mark.parametrize("command", ["run", "report"])
@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (b"", "the file is empty; it must be a mapping"),
        (b"# nothing\n", "the file is empty; it must be a mapping"),
        (b"---\n", "the file is empty; it must be a mapping"),
        (b"{}", "the file holds no keys; it must be a mapping"),
        (b"- settings\n- methods\n", "the file holds no keys; it must be a mapping"),
        (b"simple", "the file holds no keys; it must be a mapping"),
        (b"settings: [\xff]", "this is no text file in UTF-8"),
        (None, "there is no such file"),
    ],
)
def test_file_that_holds_no_sweep_is_refused(command, written, sentence, refused, tmp_path):
    path = tmp_path / "sweep.yaml"
    if written is not None:
        path.write_bytes(written)
    assert refused(command, path) == f"{path}: {sentence}"


def test_folder_that_stands_for_a_sweep_is_refused(refused, tmp_path):
    assert refused("run", tmp_path) == f"{tmp_path}: there is no such file"


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("digits/tiny:\n\tepochs: 1\n", "line 2 is indented with a tab; YAML allows only spaces there"),
        ("- 1\n", "the file holds no keys; it must be a mapping"),
        ("", "the file is empty; it must be a mapping"),
        ("digits/tiny: {epochs: 1\n", "line 2 is no valid YAML"),
        ("digits/tiny: 1\n", "recipe 'digits/tiny': 1 stands where keys and values are expected"),
        ("digits/tiny: {epochs: 1, lr: 1e-4}\n", "recipe 'digits/tiny': lr must be a number, not '1e-4' (to YAML"),
        ("digits/tiny: {epoch: 1}\n", "recipe 'digits/tiny': unknown key 'epoch'; known keys: "),
    ],
)
def test_recipes_that_are_damaged_are_named_with_their_file(written, sentence, refused, tiny, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text(written)
    tiny.write_text(tiny.read_text().partition("recipes:")[0])
    assert refused("run", tiny).startswith(f"sweeps/recipes.yaml: {sentence}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "SWEEP", "--only", "mixupp"], "--only: tiny has no row mixupp; its rows: simple, mixup, softmax_cam"),
        (["run", "SWEEP", "--only", "simple,x"], "--only: tiny has no row x; its rows: simple, mixup, softmax_cam"),
        (["run", "SWEEP", "--only", ""], "--only: tiny has no row ; its rows: simple, mixup, softmax_cam"),
        (["run", "SWEEP", "--device", "cuda"], "--device cuda: no GPU is visible here; use --device cpu"),
        (["run", "SWEEP", "--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of 'cpu', 'cuda'."),
        (["run", "SWEEP", "--slots", "0"], "Invalid value for '--slots': 0 is not in the range x>=1."),
        (["run", "SWEEP", "--threads", "two"], "Invalid value for '--threads': 'two' is not a valid integer range."),
        (["run", "SWEEP", "--results", "SWEEP"], "Invalid value for '--results': Directory 'SWEEP' is a file."),
        (["run", "SWEEP", "--data", "SWEEP"], "Invalid value for '--data': Directory 'SWEEP' is a file."),
        (["run", "SWEEP", "--results", "/proc/x"], "--results /proc/x: no folder can be written there; name another"),
        (["run", "SWEEP", "--results", "SWEEP/x"], "SWEEP/x/runs/"),
        (["run", "SWEEP", "--retry"], "No such option"),
        (["run"], "Missing argument"),
        (["run", "SWEEP", "SWEEP"], "Got unexpected extra argument (SWEEP)"),
        (["rum", "SWEEP"], "No such command 'rum'."),
        (["--versoin"], "No such option"),
        (["report"], "name a sweep file, or a table of the paper with --table N, and not both"),
        (
            ["report", "SWEEP", "--table", "1"],
            "name a sweep file, or a table of the paper with --table N, and not both",
        ),
        (
            ["report", "--table", "99"],
            "--table 99: there is no sweeps/table99.yaml; in ./sweeps there are: none yet",
        ),
        (["report", "SWEEP", "--format", "tex"], "Invalid value for '--format': 'tex' is not one of 'md', 'csv'."),
        (
            ["report", "SWEEP", "--metric", "mean"],
            "'mean' is no value of a run that a table can show; choose of last, ",
        ),
        (
            ["report", "SWEEP", "--metric", "ema_top1"],
            "tiny: table.cell is '{ema_top1:.2f}', but simple-digits-tiny-s0-",
        ),
        (["why", "zz"], "no run in results begins with 'zz'; one that has not begun has no folder"),
        (["why", "simple"], "2 runs in results begin with 'simple': simple-digits-tiny-s0-"),
        (["why", ""], "2 runs in results begin with '': simple-digits-tiny-s0-"),
        (["why", "zz", "--results", "gone"], "no run in gone begins with 'zz'; one that has not begun has no folder"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_command_that_is_wrong_is_refused(words, sentence, refused, tiny, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = refused(*(word.replace("SWEEP", str(tiny)) for word in words))
    assert said.startswith(sentence.replace("SWEEP", str(tiny)))


def test_results_that_are_not_writable_are_refused_before_anything_starts(refused, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path))
    said = refused("run", tiny, "--results", "locked")
    assert said == "--results locked: no folder can be written there; name another with --results"


CIFAR = """\
settings: [cifar10/resnet8]
methods: [simple]
seeds: [0]
recipes: {cifar10/resnet8: {epochs: 1}}
"""


def test_data_that_are_missing_are_refused_with_what_to_put_where(refused, tmp_path):
    (tmp_path / "cifar.yaml").write_text(CIFAR)
    said = refused("run", "cifar.yaml", "--data", "pictures")
    assert said.startswith("pictures/cifar-10-batches-py/data_batch_1 is missing; unpack the official 'python version'")


def test_data_that_are_missing_do_not_hinder_a_dry_run(mixbench, tmp_path):
    (tmp_path / "cifar.yaml").write_text(CIFAR)
    assert mixbench("run", "cifar.yaml", "--dry-run").code == 0


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("image_folder:gone/tiny", "simple: data/gone is not there; put class folders of images into it"),
        ("image_folder:/tiny", "settings: 'image_folder:/tiny': there is no data set 'image_folder:'; there are: "),
    ],
)
def test_own_folder_that_is_not_there_is_refused(setting, sentence, refused, tiny, tmp_path):
    tiny.write_text(tiny.read_text().replace("digits/tiny", f"'{setting}'").replace("epochs", "image_size: 8, epochs"))
    assert refused("run", tiny).startswith(f"{tiny}: {sentence}")


def test_command_in_its_own_process_shows_no_traceback(tiny, tmp_path):
    tiny.write_text(tiny.read_text().replace("mixup", "mixupp"))
    words = [sys.executable, "-m", "mixbench", "run", str(tiny)]
    said = subprocess.run(
        words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (said.returncode, said.stdout) == (2, "")
    assert re.fullmatch(r"mixbench: .*tiny\.yaml: methods: mixupp: there is no method 'mixupp'; .*\n", said.stderr)
