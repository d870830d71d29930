import hashlib
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cifar_files import batch, rows, write_cifar10, write_cifar100
from PIL import Image

from mixbench.data import DATASETS, DataError, identify
from mixbench.data.read import Pictures, fingerprint, read

ROOT = Path(__file__).parents[1]
SHARED = ROOT / os.environ.get("MIXBENCH_SHARED", "../shared")


def draw(path, *, colour=(10, 20, 30), size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def flowers(tmp_path):
    """An own folder in parts: two classes, two training images and one test image of each."""
    for number, name in enumerate(("rose", "tulip")):
        for count, part in ((2, "train"), (1, "val")):
            for image in range(count):
                draw(tmp_path / "flowers" / part / name / f"{image}.png", colour=(number, image, count))
    return tmp_path / "flowers"


@pytest.fixture
def found(tmp_path):
    """Identifies what is in ``tmp_path``."""
    return lambda dataset, image_size=None: identify(
        dataset, root=tmp_path, image_size=image_size, cache=tmp_path / "kept" / "contents.json"
    )


@pytest.fixture
def blind(monkeypatch):
    """From now on, data cannot be read."""

    def refuse(dataset, *, root):
        raise AssertionError(f"{dataset} was read again")

    return lambda: monkeypatch.setattr("mixbench.data.read.look", refuse)


# ---- what may be imported


@pytest.mark.parametrize("module", ["mixbench.data", "mixbench.nets"])
def test_names_and_facts_are_known_without_a_heavy_import(module):
    heavy = {"torch", "torchvision", "numpy", "sklearn", "PIL"}
    say = f"import sys, {module}; print(*({heavy} & set(sys.modules)))"
    assert not subprocess.run(
        [sys.executable, "-c", say], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_reading_data_does_without_torch():
    say = "import sys, mixbench.data.read; print(*({'torch', 'sklearn'} & set(sys.modules)))"
    assert not subprocess.run(
        [sys.executable, "-c", say], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


# ---- digits


def test_digits_are_the_bundled_ones_in_256_greys(tmp_path):
    pictures = read("digits", root=tmp_path, image_size=None)
    assert (pictures.train_x.shape, pictures.test_x.shape) == ((1000, 8, 8, 1), (797, 8, 8, 1))
    assert sorted(set(pictures.train_x.ravel().tolist())) == [round(255 * value / 16) for value in range(17)]


def test_digits_are_official(found):
    content = found("digits").content
    assert (content.fingerprint, content.official) == ("d8de69a75fdfa5cb", True)


def test_mean_and_std_of_digits_are_those_of_their_training_images(tmp_path):
    x = read("digits", root=tmp_path, image_size=None).train_x / 255
    assert (round(x.mean(), 4),) == DATASETS["digits"].mean
    assert (round(x.std(), 4),) == DATASETS["digits"].std


# ---- CIFAR


def test_cifar10_is_read_in_the_order_of_its_files(tmp_path):
    write_cifar10(tmp_path)
    pictures = read("cifar10", root=tmp_path, image_size=None)
    told = np.concatenate([rows(4, seed=seed) for seed in range(5)])
    np.testing.assert_array_equal(pictures.train_x.transpose(0, 3, 1, 2).reshape(20, 3072), told)
    assert pictures.train_y.tolist() == [0, 1, 2, 3] * 5
    assert pictures.test_y.tolist() == [0, 1, 2, 3]


def test_a_row_of_a_cifar_file_is_red_then_green_then_blue(tmp_path):
    folder = write_cifar10(tmp_path)
    row = np.repeat(np.array([1, 2, 3], np.uint8), 1024)[None]
    row[0, 1] = 9
    (folder / "test_batch").write_bytes(batch(row, [0]))
    image = read("cifar10", root=tmp_path, image_size=None).test_x[0]
    assert image[0, 0].tolist() == [1, 2, 3]
    assert image[0, 1].tolist() == [9, 2, 3]


def test_cifar100_has_its_fine_labels(tmp_path):
    write_cifar100(tmp_path)
    assert read("cifar100", root=tmp_path, image_size=None).test_y.tolist() == [99, 98, 97, 96]


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"data_batch_3 is missing; unpack the official .* into the data folder"):
        read("cifar10", root=tmp_path, image_size=None)


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_part_without_images_is_refused(tmp_path, name):
    (write_cifar100(tmp_path) / name).write_bytes(batch(rows(0), [], key="fine_labels"))
    with pytest.raises(DataError, match=f"{name} has no images"):
        read("cifar100", root=tmp_path, image_size=None)


def test_a_cut_down_copy_is_unofficial_and_counts_what_is_there(tmp_path, found):
    write_cifar10(tmp_path)
    cut = found("cifar10")
    assert not cut.content.official
    assert (cut.facts.train_images, cut.facts.test_images) == (20, 4)
    assert cut.facts.mean == DATASETS["cifar10"].mean


def test_files_with_the_official_sums_are_official(tmp_path, found, monkeypatch):
    write_cifar100(tmp_path)
    sums = {name: hashlib.md5((tmp_path / name).read_bytes()).hexdigest() for name in DATASETS["cifar100"].files}  # noqa: S324
    known = {"cifar100": replace(DATASETS["cifar100"], files=sums)}
    monkeypatch.setattr("mixbench.data.DATASETS", known)
    monkeypatch.setattr("mixbench.data.read.DATASETS", known)
    assert found("cifar100").content.official


def test_one_file_with_another_sum_is_unofficial(tmp_path, found, monkeypatch):
    write_cifar100(tmp_path)
    train, test = DATASETS["cifar100"].files
    sums = {train: hashlib.md5((tmp_path / train).read_bytes()).hexdigest(), test: "0" * 32}  # noqa: S324
    known = {"cifar100": replace(DATASETS["cifar100"], files=sums)}
    monkeypatch.setattr("mixbench.data.DATASETS", known)
    monkeypatch.setattr("mixbench.data.read.DATASETS", known)
    assert not found("cifar100").content.official


def test_the_sums_are_those_that_torchvision_checks():
    (folder,) = importlib.util.find_spec("torchvision").submodule_search_locations  # found, not imported: that is slow
    source = (Path(folder) / "datasets" / "cifar.py").read_text()
    for name in ("cifar10", "cifar100"):
        for file, md5 in DATASETS[name].files.items():
            assert f'["{Path(file).name}", "{md5}"]' in source


def test_an_image_size_for_data_with_their_own_is_refused(tmp_path, found):
    with pytest.raises(ValueError, match="image_size is 64, but cifar10 has its own; leave it out"):
        found("cifar10", 64)


def test_an_unknown_data_set_is_refused_with_what_there_is(tmp_path, found):
    there = "digits, cifar10, cifar100, tiny_imagenet, imagenet, image_folder:PATH"
    with pytest.raises(ValueError, match=f"no data set 'cifar'; there are: {there}"):
        found("cifar")


# ---- fingerprints and what is kept of them


def some_pictures():
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3), np.array([0, 1])
    return Pictures(x, y, x + 1, y, classes=2)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, train_x=p.train_x[::-1]),
        lambda p: replace(p, train_y=p.train_y[::-1]),
        lambda p: replace(p, test_x=p.test_x + np.uint8(1)),
        lambda p: replace(p, train_x=p.test_x, test_x=p.train_x),
        lambda p: replace(p, train_x=p.train_x.reshape(2, 1, 4, 3)),
    ],
    ids=["order", "labels", "pixels", "parts", "shape"],
)
def test_a_fingerprint_changes_with_the_content(change):
    assert fingerprint(change(some_pictures())) != fingerprint(some_pictures())


def test_a_fingerprint_is_pinned():
    assert fingerprint(some_pictures()) == "81fedacf75933a14"


def test_a_second_look_reads_nothing(tmp_path, found, blind):
    write_cifar10(tmp_path)
    first = found("cifar10")
    blind()
    assert found("cifar10") == first


def test_a_second_look_at_digits_reads_nothing(found, blind):
    first = found("digits")
    blind()
    assert found("digits") == first


def test_a_file_of_another_time_is_read_again(tmp_path, found, blind):
    folder = write_cifar10(tmp_path)
    found("cifar10")
    os.utime(folder / "test_batch", ns=(1, 1))
    blind()
    with pytest.raises(AssertionError, match="was read again"):
        found("cifar10")


def test_changed_content_is_seen(tmp_path, found):
    folder = write_cifar10(tmp_path)
    before = found("cifar10").content.fingerprint
    (folder / "test_batch").write_bytes(batch(rows(4, seed=9), range(4)))
    assert found("cifar10").content.fingerprint != before


def test_what_is_known_of_one_data_set_survives_a_look_at_another(tmp_path, found, blind):
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    first = found("cifar10")
    found("cifar100")
    blind()
    assert found("cifar10") == first


def test_a_damaged_cache_is_made_anew(tmp_path, found, blind):
    write_cifar10(tmp_path)
    first = found("cifar10")
    (tmp_path / "kept" / "contents.json").write_text("{")
    assert found("cifar10") == first
    blind()
    assert found("cifar10") == first


# ---- own folders of images


def test_an_own_folder_says_its_own_facts(flowers, found):
    facts = found("image_folder:flowers", 4).facts
    assert (facts.label, facts.classes, facts.channels, facts.image_size) == ("flowers", 2, 3, 4)
    assert (facts.train_images, facts.test_images) == (4, 2)


def test_an_own_folder_is_never_official(flowers, found):
    assert not found("image_folder:flowers", 4).content.official


def test_an_own_folder_may_be_anywhere(flowers, found):
    assert found(f"image_folder:{flowers}", 4) == found("image_folder:flowers", 4)


def test_an_own_folder_is_read_by_class_and_name(flowers, tmp_path):
    pictures = read("image_folder:flowers", root=tmp_path, image_size=4)
    assert pictures.train_x[:, 0, 0].tolist() == [[0, 0, 2], [0, 1, 2], [1, 0, 2], [1, 1, 2]]
    assert pictures.train_y.tolist() == [0, 0, 1, 1]
    assert pictures.test_x[:, 0, 0].tolist() == [[0, 0, 1], [1, 0, 1]]


def test_without_parts_every_fifth_image_of_a_class_is_for_the_test(tmp_path):
    for name, count in (("a", 11), ("b", 5)):
        for number in range(count):
            draw(tmp_path / "own" / name / f"{number:02}.png", colour=(number, 0, 0))
    pictures = read("image_folder:own", root=tmp_path, image_size=6)
    assert pictures.test_x[:, 0, 0, 0].tolist() == [4, 9, 4]
    assert pictures.test_y.tolist() == [0, 0, 1]
    assert pictures.train_x[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 10, 0, 1, 2, 3]


def test_a_class_too_small_to_be_split_is_named(tmp_path, found):
    for number in range(4):
        draw(tmp_path / "own" / "a" / f"{number}.png")
    with pytest.raises(DataError, match=r"own/a has 4 images; 5 are needed .* or make train/ and val/"):
        found("image_folder:own", 4)


@pytest.mark.parametrize(("height", "width"), [(8, 25), (25, 8)])
def test_the_centre_of_an_oblong_image_is_taken(flowers, tmp_path, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(flowers / "val" / "rose" / "0.png")
    image = read("image_folder:flowers", root=tmp_path, image_size=8).test_x[0]
    centre = pixels[:, 8:16] if height == 8 else pixels[8:16]
    np.testing.assert_array_equal(image, centre)


@pytest.mark.parametrize(("size", "image_size"), [((40, 20), 5), ((3, 4), 9)])
def test_images_of_any_size_are_brought_to_one(flowers, tmp_path, size, image_size):
    draw(flowers / "val" / "rose" / "0.png", colour=(9, 8, 7), size=size)
    image = read("image_folder:flowers", root=tmp_path, image_size=image_size).test_x[0]
    assert image.reshape(-1, 3).tolist() == [[9, 8, 7]] * image_size**2


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [("L", 7, (7, 7, 7)), ("1", 1, (255,) * 3), ("LA", (7, 0), (7, 7, 7)), ("RGBA", (1, 2, 3, 0), (1, 2, 3))],
)
def test_grey_and_transparent_images_become_rgb(flowers, tmp_path, mode, colour, seen):
    draw(flowers / "val" / "rose" / "0.png", colour=colour, mode=mode)
    assert read("image_folder:flowers", root=tmp_path, image_size=6).test_x[0, 0, 0].tolist() == list(seen)


def test_indexed_images_become_rgb(flowers, tmp_path):
    Image.new("RGB", (6, 6), (250, 0, 0)).convert("P").save(flowers / "val" / "rose" / "0.png")
    red, green, blue = read("image_folder:flowers", root=tmp_path, image_size=6).test_x[0, 0, 0]
    assert red > 200
    assert max(green, blue) < 60


def test_an_image_of_16_bits_is_refused_and_not_clipped(flowers, tmp_path):
    draw(flowers / "val" / "rose" / "0.png", mode="I;16", colour=5000)
    with pytest.raises(DataError, match=r"rose/0.png has more than 8 bits a channel; save it with 8"):
        read("image_folder:flowers", root=tmp_path, image_size=6)


@pytest.mark.parametrize("keep", [0, 20, 45])
def test_an_unreadable_image_is_named(flowers, tmp_path, keep):
    broken = flowers / "train" / "tulip" / "1.png"
    broken.write_bytes(broken.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"tulip/1.png cannot be read as an image .*; replace or remove it"):
        read("image_folder:flowers", root=tmp_path, image_size=6)


def test_other_files_and_hidden_ones_are_left_alone(flowers, found):
    before = found("image_folder:flowers", 4).content
    draw(flowers / "train" / ".thumbnails" / "a.png")
    draw(flowers / "train" / "rose" / "._0.png")
    (flowers / "train" / "rose" / "notes.txt").write_text("roses are red")
    assert found("image_folder:flowers", 4).content == before


def test_endings_count_in_any_case(flowers, found):
    draw(flowers / "train" / "rose" / "2.JPG")
    assert found("image_folder:flowers", 4).facts.train_images == 5


def test_an_own_folder_needs_an_image_size(flowers, found):
    with pytest.raises(ValueError, match=r"image_size is None, but image_folder:flowers needs one; give the side"):
        found("image_folder:flowers")


def test_a_class_in_one_part_only_is_named(flowers, found):
    draw(flowers / "train" / "daisy" / "0.png")
    with pytest.raises(DataError, match="class daisy is in only one of train/ and val/"):
        found("image_folder:flowers", 4)


def test_an_empty_class_is_named(flowers, found):
    (flowers / "train" / "rose" / "0.png").unlink()
    (flowers / "train" / "rose" / "1.png").unlink()
    with pytest.raises(DataError, match=r"train/rose has no images; put some right into it"):
        found("image_folder:flowers", 4)


def test_a_folder_without_classes_is_named(tmp_path, found):
    draw(tmp_path / "own" / "0.png")
    with pytest.raises(DataError, match="own has no class folders; put the images of each class into a folder"):
        found("image_folder:own", 4)


def test_one_part_alone_is_refused(tmp_path, found):
    draw(tmp_path / "own" / "train" / "a" / "0.png")
    with pytest.raises(DataError, match="own has only one of train/ and val/; add the other"):
        found("image_folder:own", 4)


def test_a_folder_that_is_not_there_is_named(tmp_path, found):
    with pytest.raises(DataError, match="own is not there; put class folders of images into it"):
        found("image_folder:own", 4)


def test_an_own_folder_is_known_by_its_files_whatever_the_image_size(flowers, found):
    assert found("image_folder:flowers", 4).content == found("image_folder:flowers", 6).content


def change_a_pixel(folder):
    draw(folder / "train" / "rose" / "0.png", colour=(1, 1, 1))


def rename_a_file(folder):
    (folder / "train" / "rose" / "0.png").rename(folder / "train" / "rose" / "9.png")


def rename_a_class(folder):
    for part in ("train", "val"):
        (folder / part / "rose").rename(folder / part / "pink")


def swap_parts(folder):
    (folder / "train").rename(folder / "other")
    (folder / "val").rename(folder / "train")
    (folder / "other").rename(folder / "val")


@pytest.mark.parametrize("change", [change_a_pixel, rename_a_file, rename_a_class, swap_parts])
def test_the_fingerprint_of_an_own_folder_changes_with_names_bytes_and_parts(flowers, found, change):
    before = found("image_folder:flowers", 4).content.fingerprint
    change(flowers)
    assert found("image_folder:flowers", 4).content.fingerprint != before


def test_a_second_look_at_an_own_folder_reads_nothing(flowers, found, blind):
    first = found("image_folder:flowers", 4)
    blind()
    assert found("image_folder:flowers", 4) == first


# ---- real data


@pytest.fixture(scope="module")
def packs():
    """The script that opens the packs of real images."""
    path = SHARED / "data" / "unpack_cifar.py"
    if not path.exists():
        pytest.skip(f"no {path}; MIXBENCH_SHARED names the folder of real images")
    spec = importlib.util.spec_from_file_location("unpack_cifar", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cifar100(packs):
    return packs.load(*(SHARED / "data" / f"cifar100_{part}.npz" for part in "ab"))


def test_the_official_fingerprint_is_that_of_the_official_pixels_and_labels(cifar100):
    whole = Pictures(*(cifar100[name] for name in ("train_x", "train_y", "test_x", "test_y")), classes=100)
    assert fingerprint(whole) in DATASETS["cifar100"].official


def test_a_cut_of_real_data_is_read_as_it_was_written(cifar100, packs, tmp_path):
    names = [f"{part}_{what}" for part in ("train", "test") for what in ("x", "y", "index")]
    packs.write_official({**cifar100, **{name: cifar100[name][:50] for name in names}}, tmp_path)
    pictures = read("cifar100", root=tmp_path, image_size=None)
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(pictures, name), cifar100[name][:50])
