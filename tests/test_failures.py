"""When a run, the disk or the data go wrong: what is said, with which exit code, and what becomes of the rest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cifar_files import write_cifar10
from PIL import Image

from mixbench import files

RECIPE = "{epochs: 2, batch_size: 40, pad: 1, flip: false, train_images: 100}"


def sweep(folder, text):
    (folder / "sweep.yaml").write_text(text)
    return folder / "sweep.yaml"


def mixbench(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "mixbench", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def bytes_of(results):
    return {path: path.read_bytes() for path in results.rglob("result.json")}


def test_a_run_that_diverges_fails_with_epoch_and_step_blocks_what_needs_it_and_the_others_go_on(tmp_path):
    path = sweep(
        tmp_path,
        f"""
settings: [digits/tiny]
methods: {{mixup: , softmax_cam: {{teacher: {{method: simple, recipe: wild}}}}}}
seeds: [0, 1]
recipes: {{digits/tiny: {RECIPE}, wild: {{lr: 1.0e+30}}}}
""",
    )
    code, said, bad = mixbench("run", path, "--results", tmp_path / "r")
    assert code == 1
    assert "DivergedError: the loss became nan in epoch" in said
    assert ", step " in said
    assert bad.count("failed: simple-digits-tiny") == 2
    assert said.count("blocked: needs simple-digits-tiny") == 2
    assert len(bytes_of(tmp_path / "r")) == 2
    code, said, _ = mixbench("run", path, "--results", tmp_path / "r")
    assert (code, "nothing to do" in said) == (1, True)
    code, said, _ = mixbench("run", path, "--results", tmp_path / "r", "--retry-failed")
    assert said.count("DivergedError") == 2


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="needs to mount a small disk, as root")
def test_a_disk_that_fills_costs_nothing_that_was_done(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        path = sweep(
            tmp_path,
            f"""
settings: [digits/tiny]
methods: [simple, mixup]
seeds: [0, 1, 2, 3, 4]
recipes: {{digits/tiny: {RECIPE}}}
""",
        )
        code, _, bad = mixbench("run", path, "--results", disk, "--slots", 1)
        assert code == 74
        assert "full" in bad
        done = bytes_of(disk)
        assert done
        assert all(files.read(result) for result in done)
        assert list(disk.rglob("*.tmp")) == []
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        code, said, bad = mixbench("run", path, "--results", disk)
        assert code == 0, said + bad
        assert len(bytes_of(disk)) == 10
        assert bytes_of(disk) | done == bytes_of(disk)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def cifar(folder, **changes):
    write_cifar10(folder, **changes)
    return folder


CIFAR = """
settings: [cifar10/resnet8]
methods: [simple, mixup]
seeds: [0]
table: {caption: A cut., paper: 8}
recipes: {cifar10/resnet8: {epochs: 1, batch_size: 8}}
"""


def test_a_cut_of_cifar10_is_trained_on_and_marked_as_unofficial(tmp_path):
    path = sweep(tmp_path, CIFAR)
    code, said, bad = mixbench("run", path, "--data", cifar(tmp_path / "data"), "--results", tmp_path / "r")
    assert code == 0, said + bad
    code, table, _ = mixbench("report", path, "--results", tmp_path / "r")
    assert code == 0
    assert "†" in table
    assert "not the official release of CIFAR-10" in table


def test_other_data_than_finished_runs_saw_are_refused(tmp_path):
    path = sweep(tmp_path, CIFAR)
    first, second = cifar(tmp_path / "a", per_batch=4), cifar(tmp_path / "b", per_batch=5)
    code, *_ = mixbench("run", path, "--only", "simple", "--data", first, "--results", tmp_path / "r")
    assert code == 0
    before = bytes_of(tmp_path / "r")
    code, _, bad = mixbench("run", path, "--data", second, "--results", tmp_path / "r")
    assert code == 2
    assert bad.count("\n") == 1
    assert "was trained on other data" in bad
    assert "--results" in bad
    assert bytes_of(tmp_path / "r") == before


def test_a_batch_larger_than_the_data_at_hand_is_refused(tmp_path):
    path = sweep(tmp_path, CIFAR.replace("batch_size: 8", "batch_size: 1000"))
    code, _, bad = mixbench("run", path, "--data", cifar(tmp_path / "data"), "--results", tmp_path / "r")
    assert code == 2
    assert bad.count("\n") == 1
    assert "batches of 1000" in bad


def test_missing_data_stop_a_sweep_before_it_starts(tmp_path):
    path = sweep(tmp_path, CIFAR)
    code, _, bad = mixbench("run", path, "--data", tmp_path / "nowhere", "--results", tmp_path / "r")
    assert code == 2
    assert bad.count("\n") == 1
    assert "data_batch_1 is missing" in bad
    assert not list((tmp_path / "r").rglob("attempts"))


def test_a_damaged_result_is_set_aside_and_recovered(tmp_path):
    path = sweep(
        tmp_path,
        f"""
settings: [digits/tiny]
methods: [simple]
seeds: [0, 1]
recipes: {{digits/tiny: {RECIPE}}}
""",
    )
    results = tmp_path / "r"
    assert mixbench("run", path, "--results", results)[0] == 0
    before = bytes_of(results)
    damaged = min(before)
    damaged.write_bytes(before[damaged][:200])
    code, table, _ = mixbench("report", path, "--results", results)
    assert code == 0
    assert "(1/2)" in table
    assert "is damaged" in table
    code, said, bad = mixbench("run", path, "--results", results)
    assert code == 0, said + bad
    assert "set aside" in said + bad
    assert bytes_of(results) == before


def test_damaged_checkpoints_are_passed_over_and_the_numbers_stay(tmp_path):
    text = f"""
settings: [digits/tiny]
methods: [simple]
seeds: [0]
recipes: {{digits/tiny: {RECIPE.replace("epochs: 2", "epochs: 40, checkpoint_seconds: 0")}}}
"""
    path = sweep(tmp_path, text)
    assert mixbench("run", path, "--results", tmp_path / "whole")[0] == 0
    killing = {
        "PYTHONPATH": str(Path(__file__).parent / "killing"),
        "MIXBENCH_KILL_AFTER": rf"ckpt/0+90-a1\.pt$|{tmp_path / 'killed'}",
    }
    results = tmp_path / "r"
    assert mixbench("run", path, "--results", results, **killing)[0] == 1
    checkpoints = sorted(results.rglob("*-a1.pt"))
    assert len(checkpoints) == 3  # it was killed before it could remove the oldest
    for checkpoint in checkpoints:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-5])
    code, said, bad = mixbench("run", path, "--results", results)
    assert code == 0, said + bad
    assert (said + bad).count("is a damaged checkpoint") == 3
    (mine,), (theirs,) = bytes_of(results), bytes_of(tmp_path / "whole")
    assert files.read(mine)["metrics"] == files.read(theirs)["metrics"]


def picture_folder(folder):
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for number, name in enumerate(("rose", "tulip")):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 100, (20, 24, 3), np.uint8)
                pixels[..., number] += 120
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return folder


OWN = """
settings: [image_folder:{folder}/resnet8]
methods: [simple, cutmix]
seeds: [0]
table: {{caption: Flowers.}}
recipes: {{"image_folder:{folder}/resnet8": {{image_size: 16, epochs: 2, batch_size: 8, lr: 0.05}}}}
"""


@pytest.mark.parametrize("absolute", [True, False])
def test_own_images_are_trained_on_and_belong_to_what_a_run_is(tmp_path, absolute):
    folder = picture_folder(tmp_path / "data" / "flowers")
    path = sweep(tmp_path, OWN.format(folder=folder if absolute else "flowers"))
    places = ("--data", tmp_path / "data", "--results", tmp_path / "r")
    code, said, bad = mixbench("run", path, *places)
    assert code == 0, said + bad
    code, table, _ = mixbench("report", path, *places)
    assert "flowers" in table
    assert "own" in table
    code, said, _ = mixbench("run", path, *places)
    assert "nothing to do" in said
    Image.new("RGB", (20, 20)).save(folder / "train" / "rose" / "new.png")
    code, said, _ = mixbench("run", path, *places, "--dry-run")
    assert "0 done, 2 to do" in said


def test_an_unreadable_own_image_is_named_and_nothing_starts(tmp_path):
    folder = picture_folder(tmp_path / "data" / "flowers")
    (folder / "train" / "rose" / "3.png").write_bytes(b"no picture")
    path = sweep(tmp_path, OWN.format(folder="flowers"))
    code, said, bad = mixbench("run", path, "--data", tmp_path / "data", "--results", tmp_path / "r")
    assert code == 2
    assert "3.png cannot be read as an image" in said + bad
