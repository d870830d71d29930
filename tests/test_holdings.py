"""``mixbench data``: what is at hand, what is fetched, what is wrong; and nothing is ever overwritten."""

import contextlib
import hashlib
import pickle
import re
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision
from cifar_files import batch, rows, write_cifar10, write_cifar100
from imagenet_files import draw, write_imagenet

from mixbench.data import DATASETS, fetching

SWEEP = """\
settings: [imagenet/tiny]
methods: [simple]
seeds: [0]
recipes: {imagenet/tiny: {epochs: 1, batch_size: 4, test_images: 2, AUGMENT}}
"""


def states(out):
    return {name: state for name, state, *_ in (line.split(maxsplit=2) for line in out.splitlines())}


# ---- what is at hand


def test_list_has_every_data_set_with_its_state(mixbench, tmp_path):
    write_cifar10(tmp_path / "data")
    (write_cifar100(tmp_path / "data") / "test").write_bytes(b"no pickle")
    write_imagenet(tmp_path / "data")
    said = mixbench("data")
    assert said.code == 0
    assert states(said.out) == {
        "digits": "ready",
        "cifar10": "ready",
        "cifar100": "wrong",
        "tiny_imagenet": "missing",
        "imagenet": "ready",
    }


def test_list_says_what_is_official_what_is_a_cut_and_where_it_is(mixbench, tmp_path):
    write_imagenet(tmp_path / "pictures")
    out = mixbench("data", "--data", "pictures").out
    assert "the official release: 1,000 + 797 images of 10 classes\n" in out
    assert (
        "not the official release (1,281,167 + 50,000 images of 1,000 classes): 12 + 6 images of 3 classes in "
        "pictures/imagenet\n"
    ) in out


def test_list_says_what_to_put_where_and_what_is_wrong(mixbench, tmp_path):
    (write_cifar100(tmp_path / "data") / "test").write_bytes(b"no pickle")
    out = mixbench("data").out
    assert re.search(
        r"^imagenet +missing +data/imagenet/train is missing; .* into imagenet/train and ", out, re.MULTILINE
    )
    assert re.search(r"^cifar100 +wrong +data/cifar-100-python/test is cut off or damaged", out, re.MULTILINE)


def test_list_reads_nothing_twice(mixbench, tmp_path, monkeypatch):
    write_imagenet(tmp_path / "data")
    first = mixbench("data").out
    monkeypatch.setattr("mixbench.data.read.look", None)
    assert mixbench("data").out == first


# ---- checks


def test_check_counts_each_part_class_by_class(mixbench, tmp_path):
    folder = write_imagenet(tmp_path / "data")
    (folder / "train/n02/n02_3.JPEG").unlink()
    said = mixbench("data", "check", "imagenet")
    assert said.code == 0
    assert said.out.splitlines()[1:] == [
        "  training: 11 images, 3 to 4 of a class, labels 0 to 2",
        "  test: 6 images, 2 of each class, labels 0 to 2",
        "every image can be read",
    ]


def test_check_of_data_in_few_files(mixbench, tmp_path):
    write_cifar10(tmp_path / "data")
    said = mixbench("data", "check", "cifar10")
    assert said.code == 2  # it lacks most of its images
    assert "  training: 20 images, 0 to 5 of a class, labels 0 to 3\n" in said.out


def test_check_of_own_images(mixbench, tmp_path):
    for part in ("train", "val"):
        draw(tmp_path / "data/flowers" / part / "rose/1.jpg")
    assert mixbench("data", "check", "image_folder:flowers").out.startswith(
        "image_folder:flowers: your own: 1 + 1 images"
    )


def test_check_names_every_image_that_cannot_be_read_and_changes_nothing(mixbench, tmp_path):
    folder = write_imagenet(tmp_path / "data")
    bad = [folder / "train/n01/n01_0.JPEG", folder / "val/n03/ILSVRC2012_val_00000001.JPEG"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:300])
    said = mixbench("data", "check", "imagenet")
    assert said.code == 2
    assert all(f"{path.relative_to(tmp_path)} cannot be read as an image" in said.out for path in bad)
    assert re.fullmatch(
        r"mixbench: 2 of 18 images of imagenet cannot be read: data/imagenet/train/n01/\S+ [^\n]+\n", said.err
    )
    assert [path.stat().st_size for path in bad] == [300, 300]


def test_a_file_that_cannot_be_opened_is_wrong_and_hides_no_other_data_set(mixbench, tmp_path):
    broken = write_imagenet(tmp_path / "data") / "train/n01/n01_0.JPEG"
    broken.unlink()
    broken.symlink_to("nowhere")
    said = mixbench("data")
    assert (said.code, states(said.out)["imagenet"], states(said.out)["digits"]) == (0, "wrong", "ready")
    said = mixbench("data", "check", "imagenet")
    assert said.code == 2
    assert re.fullmatch(r"mixbench: data/imagenet/train/n01/n01_0.JPEG cannot be read: [^\n]+\n", said.err)


def test_check_says_that_images_of_a_data_set_with_all_its_classes_are_missing(mixbench, tmp_path):
    write_cifar10(tmp_path / "data")
    said = mixbench("data", "check", "cifar10")
    assert said.code == 2
    assert "cifar10 has all of its 10 classes, but lacks 59," in said.err


def test_folder_may_be_named_before_the_command_too(mixbench, tmp_path):
    write_imagenet(tmp_path / "pictures")
    assert mixbench("data", "--data", "pictures", "check", "imagenet").code == 0


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
@pytest.mark.parametrize("folder", ["data", "elsewhere"])
def test_check_of_what_is_missing_shows_where_it_belongs(mixbench, name, folder):
    said = mixbench("data", "check", name, "--data", folder)
    assert said.code == 2
    assert said.out.splitlines() == [
        f"{name} has its files here:",
        *(f"  {folder}/{line}" for line in DATASETS[name].layout),
    ]
    assert re.fullmatch(rf"mixbench: {folder}/\S+ is missing; [^\n]+\n", said.err)


def test_check_refuses_a_label_that_there_is_no_class_for(mixbench, tmp_path):
    (write_cifar10(tmp_path / "data") / "data_batch_2").write_bytes(batch(rows(1), [10]))
    said = mixbench("data", "check", "cifar10")
    assert said.code == 2
    assert "data_batch_2 says that image 0 has label 10, which is not one of 0 to 9" in said.err


def test_check_refuses_what_nobody_knows(refused):
    assert refused("data", "check", "cifar").startswith("there is no data set 'cifar'; there are: digits, cifar10")


def test_what_is_written_of_a_layout_is_what_is_read(tmp_path):
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    write_imagenet(tmp_path)
    for name in ("cifar10", "cifar100", "imagenet"):
        for line in DATASETS[name].layout:
            assert list(tmp_path.glob(line.partition(",")[0].replace("WNID", "*")))


# ---- fetching


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A server on this machine that torchvision takes for CIFAR-10's; the small archive that it has."""
    folder = write_cifar10(tmp_path / "made")
    names = {"label_names": [str(label) for label in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))
    archive = tmp_path / "source" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)

    def md5(path):
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()

    there = torchvision.datasets.CIFAR10
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=archive.parent))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(there, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    monkeypatch.setattr(there, "tgz_md5", md5(archive))
    for kind in ("train_list", "test_list"):
        monkeypatch.setattr(there, kind, [[name, md5(folder / name)] for name, _ in getattr(there, kind)])
    monkeypatch.setattr(there, "meta", there.meta | {"md5": md5(folder / "batches.meta")})
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield archive
        server.shutdown()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # torchvision asks once for the address alone
            super().copyfile(source, outputfile)


def test_get_fetches_and_checks(mixbench, source):
    said = mixbench("data", "get", "cifar10", "--data", "new/data")
    assert said.code == 0
    assert said.out.endswith("20 + 4 images of 10 classes in new/data/cifar-10-batches-py\n")
    assert [path.name for path in Path("new/data").iterdir()] == ["cifar-10-batches-py"]


def test_get_overwrites_nothing(mixbench, source, tmp_path):
    folder = write_cifar10(tmp_path / "data", per_batch=2)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = mixbench("data", "get", "cifar10")
    assert said.code == 0
    assert said.out.startswith("data/cifar-10-batches-py is there already; nothing is fetched\n")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_get_says_what_is_wrong_with_what_is_there(refused, source, tmp_path):
    (write_cifar10(tmp_path / "data") / "data_batch_3").unlink()
    assert refused("data", "get", "cifar10").startswith("data/cifar-10-batches-py/data_batch_3 is missing; ")


def test_get_of_something_damaged_leaves_nothing(mixbench, source):
    source.write_bytes(source.read_bytes()[:-20])
    said = mixbench("data", "get", "cifar10")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("mixbench: what came of cifar10 is damaged (")
    assert not list(Path("data").iterdir())


def test_get_without_a_network_fails_in_one_sentence(mixbench, source, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    said = mixbench("data", "get", "cifar10")
    assert said.code == 1
    assert re.fullmatch(
        r"mixbench: cifar10 cannot be fetched \([^\n]+\); try again, or unpack the official [^\n]+\n", said.err
    )
    assert not list(Path("data").iterdir())


@pytest.mark.parametrize("name", ["tiny_imagenet", "imagenet"])
def test_get_of_what_has_to_be_fetched_by_hand_says_from_where_and_where_to(mixbench, name):
    said = mixbench("data", "get", name)
    assert said.code == 2
    assert said.out.splitlines()[1:] == [f"  data/{line}" for line in DATASETS[name].layout]
    assert re.fullmatch(rf"mixbench: {name} has to be fetched by hand: [^\n]*http[^\n]+\n", said.err)


def test_get_of_digits_finds_them_installed(mixbench):
    assert mixbench("data", "get", "digits").out.startswith("digits: the official release: 1,000 + 797 images")


def test_what_torchvision_fetches_is_what_we_read():
    for name, there in fetching.CLASSES.items():
        theirs = getattr(torchvision.datasets, there)
        assert fetching.folder_of(name, root=Path("data")).name == theirs.base_folder


# ---- a sweep


def sweep(path, *, augment="augment: resized_crop"):
    path.write_text(SWEEP.replace("AUGMENT", augment))
    return path


def test_sweep_without_its_data_stops_before_anything_is_launched(refused, tmp_path):
    said = refused("run", sweep(tmp_path / "s.yaml"))
    assert re.match(
        r"data/imagenet/train is missing; .* below the data folder \(data\), or name another with --data$", said
    )


def test_sweep_of_pictures_that_differ_in_size_must_say_how_they_are_cropped(refused, tmp_path):
    said = refused("run", sweep(tmp_path / "s.yaml", augment="pad: 4"))
    assert said.endswith("augment is crop, but the pictures of ImageNet differ in size; write augment: resized_crop")
    assert said.startswith(f"{tmp_path / 's.yaml'}: simple: ")


def test_corrupt_image_ends_its_run_in_one_sentence(mixbench, tmp_path):
    bad = write_imagenet(tmp_path / "data", train=2, val=1) / "train/n02/n02_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:200])
    said = mixbench("run", sweep(tmp_path / "s.yaml"), "--slots", "1")
    assert said.code == 1
    assert re.search(
        r"failed: data/imagenet/train/n02/n02_1\.JPEG cannot be read as an image \([^\n]+\); replace", said.out
    )
