"""Tiny-ImageNet's official folder, made up in small, and a cut of the real one."""

import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mixbench.data import DATASETS, DataError, identify, list_images, tiny_imagenet
from mixbench.data.folder import Image as File
from mixbench.data.folder import Listing, fingerprint
from mixbench.data.read import read
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import Classify

SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")

WNIDS = ("n03", "n01", "n02")
VAL = {"val_0.JPEG": "n01", "val_10.JPEG": "n03", "val_2.JPEG": "n02"}


def draw(path, colour, *, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), colour).save(path, quality=100)


@pytest.fixture
def folder(tmp_path):
    """Three classes, two training images and a test image of each, every image in a grey of its own."""
    folder = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(WNIDS):
        for image in (0, 1):
            draw(folder / "train" / wnid / "images" / f"{wnid}_{image}.JPEG", (100 * number + 10 * image,) * 3)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    for number, name in enumerate(VAL):
        draw(folder / "val" / "images" / name, 50 * number, mode="L")
    draw(folder / "test" / "images" / "test_0.JPEG", (0, 0, 0))
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in VAL.items()]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    return folder


@pytest.fixture
def found(tmp_path):
    return lambda: identify("tiny_imagenet", root=tmp_path, image_size=None, cache=tmp_path / "contents.json")


def greys(x):
    return x.astype(int).mean((1, 2, 3)).round().tolist()


# ---- what is read


def test_classes_are_in_the_order_of_wnids_and_training_images_sorted_within(folder, tmp_path):
    pictures = read("tiny_imagenet", root=tmp_path, image_size=None)
    assert pictures.train_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert greys(pictures.train_x) == [0, 10, 100, 110, 200, 210]


def test_test_images_are_those_of_val_with_the_classes_and_in_the_order_of_its_annotations(folder, tmp_path):
    pictures = read("tiny_imagenet", root=tmp_path, image_size=None)
    assert pictures.test_y.tolist() == [1, 0, 2]
    assert greys(pictures.test_x) == [0, 50, 100]


def test_grey_files_become_rgb(folder, tmp_path):
    pictures = read("tiny_imagenet", root=tmp_path, image_size=None)
    assert pictures.test_x.shape == (3, 64, 64, 3)
    assert np.ptp(pictures.test_x, axis=3).max() == 0


def test_a_cut_has_the_classes_and_counts_that_are_there_and_is_not_official(folder, found):
    facts, content = found().facts, found().content
    assert (facts.classes, facts.train_images, facts.test_images) == (3, 6, 3)
    assert (facts.label, facts.image_size, facts.mean) == ("Tiny-ImageNet", 64, (0.5, 0.5, 0.5))
    assert not content.official


def test_a_cut_is_trained_on_with_as_many_answers_as_there_are_classes(folder, tmp_path):
    run = Run(method="simple", dataset="tiny_imagenet", model="resnet8", epochs=1, batch_size=3)
    task = Classify(run, Streams(0), Execution(data=str(tmp_path)), None)
    batch = next(task.batches(0, 0))
    assert task.net(batch.x).shape == batch.y.shape == (3, 3)


def test_a_second_look_reads_no_image(folder, found, monkeypatch):
    first = found()
    monkeypatch.setattr("mixbench.data.read.look", None)
    assert found() == first


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: draw(folder / "train" / "n01" / "images" / "n01_0.JPEG", (1, 2, 3)),
        lambda folder: draw(folder / "val" / "images" / "val_2.JPEG", (1, 2, 3)),
        lambda folder: (folder / "wnids.txt").write_text("n01\nn02\nn03\n"),
        lambda folder: replace_in(folder / "val" / "val_annotations.txt", "val_0.JPEG\tn01", "val_0.JPEG\tn02"),
    ],
    ids=["a training image", "a test image", "the order of classes", "a label"],
)
def test_changed_content_is_another_content(folder, found, change):
    before = found().content
    change(folder)
    assert found().content.fingerprint != before.fingerprint


# ---- what is refused


def replace_in(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("name", ["wnids.txt", "train", "val/val_annotations.txt", "val/images"])
def test_a_missing_part_is_named_with_what_to_do(folder, found, tmp_path, name):
    (folder / name).rename(tmp_path / "away")
    with pytest.raises(DataError, match=rf"{name} is missing; unpack .*tiny-imagenet-200.zip into the data folder"):
        found()


def test_a_data_folder_without_it_is_refused(tmp_path, found):
    with pytest.raises(DataError, match=r"tiny-imagenet-200/wnids.txt is missing; unpack"):
        found()


VAL_IMAGES, ANNOTATIONS = "val/images", "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda folder: draw(folder / VAL_IMAGES / "val_7.JPEG", (0, 0, 0)),
            r"val/images/val_7.JPEG is not named in \S*val_annotations.txt; put that right, or unpack",
        ),
        (
            lambda folder: (folder / VAL_IMAGES / "val_2.JPEG").unlink(),
            r"val_annotations.txt names val_2.JPEG, which is not in \S*val/images;",
        ),
        (
            lambda folder: replace_in(folder / ANNOTATIONS, "val_2.JPEG", "val_0.JPEG"),
            "val_annotations.txt names val_0.JPEG more than once;",
        ),
        (
            lambda folder: replace_in(folder / ANNOTATIONS, "n02", "n09"),
            "val_annotations.txt says that val_2.JPEG is of class 'n09', which wnids.txt does not name;",
        ),
        (
            lambda folder: replace_in(folder / ANNOTATIONS, "val_2.JPEG\tn02\t0\t32\t44\t62", "val_2.JPEG"),
            "val_annotations.txt says that val_2.JPEG is of class '', which",
        ),
        (lambda folder: (folder / ANNOTATIONS).write_bytes(b"\xff\xfe\x00"), "is of class '', which wnids.txt"),
        (lambda folder: (folder / ANNOTATIONS).write_text(""), "val_annotations.txt is empty;"),
        (lambda folder: (folder / "wnids.txt").write_text(""), "wnids.txt is empty;"),
        (
            lambda folder: replace_in(folder / "wnids.txt", "n02\n", ""),
            r"train/n02 is not named in \S*wnids.txt;",
        ),
        (
            lambda folder: replace_in(folder / "wnids.txt", "n02\n", "n02\nn09\n"),
            r"wnids.txt names n09, which is not in \S*train;",
        ),
        (
            lambda folder: replace_in(folder / "wnids.txt", "n02\n", "n02\nn02\n"),
            "wnids.txt names n02 more than once;",
        ),
        (
            lambda folder: [path.unlink() for path in (folder / "train" / "n02" / "images").iterdir()],
            "train/n02/images has no images;",
        ),
        (lambda folder: shutil.rmtree(folder / "train" / "n02" / "images"), "train/n02/images has no images;"),
    ],
)
def test_what_does_not_agree_is_named(folder, found, damage, sentence):
    damage(folder)
    with pytest.raises(DataError, match=sentence):
        found()


@pytest.mark.parametrize("part", ["train/n01/images/n01_1.JPEG", "val/images/val_2.JPEG"])
def test_a_damaged_image_is_named(folder, found, part):
    (folder / part).write_bytes((folder / part).read_bytes()[:200])
    with pytest.raises(DataError, match=rf"{part} cannot be read as an image .*; replace or remove it"):
        found()


# ---- what is official


@pytest.fixture
def complete(folder, tmp_path, monkeypatch):
    """What is in the folder is all that there is, and its sample has the official fingerprint."""
    listing = list_images("tiny_imagenet", root=tmp_path)
    mark = frozenset({fingerprint(tiny_imagenet.sample(listing))})
    facts = replace(tiny_imagenet.FACTS, classes=3, train_images=6, test_images=3, official=mark)
    monkeypatch.setattr(tiny_imagenet, "FACTS", facts)
    return folder


def test_a_complete_copy_with_the_official_bytes_is_official(complete, found):
    assert found().content.official


@pytest.mark.parametrize("image", ["train/n01/images/n01_0.JPEG", "val/images/val_0.JPEG"])
def test_a_complete_copy_with_other_bytes_is_not(complete, found, image):
    draw(complete / image, (9, 9, 9))
    assert not found().content.official


def test_a_copy_that_lacks_an_image_is_not(complete, found):
    (complete / "train" / "n02" / "images" / "n02_1.JPEG").unlink()
    assert not found().content.official


# ---- the real one, cut


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A data folder with 20 of the 200 classes, half of their training images and all test images."""
    pack = SHARED / "data" / "tiny_imagenet_mini.tar.xz"
    if not pack.exists():
        pytest.skip(f"no {pack}; MIXBENCH_SHARED names the folder of real images")
    root = tmp_path_factory.mktemp("mini")
    with tarfile.open(pack) as archive:
        archive.extractall(root, filter="data")
    return root / "tiny_imagenet_mini"


def test_the_mini_is_read_whole(mini, tmp_path):
    there = identify("tiny_imagenet", root=mini, image_size=None, cache=tmp_path / "contents.json")
    assert (there.facts.classes, there.facts.train_images, there.facts.test_images) == (20, 5000, 1000)
    assert not there.content.official
    pictures = read("tiny_imagenet", root=mini, image_size=None)
    assert np.bincount(pictures.train_y).tolist() == [250] * 20
    assert np.bincount(pictures.test_y).tolist() == [50] * 20
    assert pictures.train_x.shape == (5000, 64, 64, 3)


def test_the_official_fingerprint_is_that_of_official_images(mini):
    """The mini has just the images of the sample; only that its classes are the 200 official ones must be added."""
    words = (mini / "tiny-imagenet-200" / "words.txt").read_text().splitlines()
    wnids = tuple(line.partition("\t")[0] for line in words)
    cut = list_images("tiny_imagenet", root=mini)
    images = tuple(File(one.path, wnids.index(cut.classes[one.label]), one.test) for one in cut.images)
    sample = tiny_imagenet.sample(Listing(wnids, images))
    assert len(sample.images) == 6000
    assert fingerprint(sample) in DATASETS["tiny_imagenet"].official
