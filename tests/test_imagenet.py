"""ImageNet's class folders, made up in small, and pictures of the real one: what is listed, decoded and refused."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from imagenet_files import WNIDS, draw, write_imagenet
from PIL import Image
from torchvision.transforms import v2

from mixbench import materials
from mixbench.data import DataError, MissingError, crops, identify, imagenet
from mixbench.data.decoded import Decoded
from mixbench.data.read import class_names
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import Classify

SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")


@pytest.fixture
def folder(tmp_path):
    return write_imagenet(tmp_path)


@pytest.fixture
def found(tmp_path):
    return lambda: identify("imagenet", root=tmp_path, image_size=None, cache=tmp_path / "contents.json")


def decoded(part, **changes):
    options = {"size": 32, "interpolation": "bilinear", "flip": True, "device": torch.device("cpu"), "workers": 0}
    return Decoded(part, **{"channels_last": True, **options, **changes})


def batches(data, *, seed=0, epoch=0, batch_size=5, skip=0):
    return list(data.epoch(Streams(seed), epoch, batch_size, skip=skip))


# ---- what is listed


def test_training_images_are_sorted_by_class_and_the_first_test_images_are_of_every_class(folder, tmp_path):
    files = imagenet.list_files(tmp_path)
    assert files.classes == WNIDS
    assert files.train_y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert files.test_y.tolist() == [0, 1, 2, 0, 1, 2]
    assert files.train.path(5) == folder / "train/n02/n02_1.JPEG"
    assert [files.test.path(number).name[-6:] for number in range(6)] == [
        f"{place}.JPEG" for place in (3, 2, 1, 6, 5, 4)
    ]


def test_a_cut_has_the_classes_and_counts_that_are_there_and_is_not_official(folder, found):
    facts, content = found().facts, found().content
    assert (facts.classes, facts.train_images, facts.test_images) == (3, 12, 6)
    assert (facts.label, facts.image_size) == ("ImageNet", 224)
    assert not content.official


def test_a_second_look_reads_no_image(folder, found, monkeypatch):
    first = found()
    monkeypatch.setattr("mixbench.data.read.look", None)
    assert found() == first


def test_names_of_all_images_and_bytes_of_a_sample_are_what_the_content_is_known_by(folder, found):
    before = found().content.fingerprint
    draw(folder / "train/n02/n02_0.JPEG", seed=77)  # of the second class, which is not in the sample
    assert found().content.fingerprint == before
    draw(folder / "train/n01/n01_0.JPEG", seed=77)
    assert found().content.fingerprint != before
    before = found().content.fingerprint
    (folder / "train/n02/n02_1.JPEG").rename(folder / "train/n02/n02_9.JPEG")
    assert found().content.fingerprint != before


def test_a_run_finds_the_content_that_the_plan_found(folder, found, tmp_path):
    run = Run(method="simple", dataset="imagenet", model="resnet18", epochs=1, augment="resized_crop")
    _, content = materials.load(run, Execution(data=str(tmp_path)))
    assert content == found().content


def test_classes_are_named_by_their_folders(folder, tmp_path):
    assert class_names("imagenet", root=tmp_path) == WNIDS


@pytest.fixture
def small_official(folder, tmp_path, monkeypatch):
    """The small folder is the official release."""
    files = imagenet.list_files(tmp_path)
    size = sum(path.stat().st_size for path in files.test.paths())
    official = frozenset({imagenet.mark(WNIDS)})
    facts = replace(imagenet.FACTS, classes=3, train_images=12, test_images=6, official=official)
    monkeypatch.setattr(imagenet, "FACTS", facts)
    monkeypatch.setattr(imagenet, "TEST_BYTES", round(1.01 * size))
    return folder


def test_a_whole_copy_is_official(small_official, tmp_path):
    assert imagenet.is_official(imagenet.list_files(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "train/n01/n01_0.JPEG").unlink(),
        lambda folder: [(folder / part / "n01").rename(folder / part / "n00") for part in ("train", "val")],
        lambda folder: (folder / "val/n03/ILSVRC2012_val_00000001.JPEG").rename(folder / "val/n03/one.JPEG"),
        lambda folder: [draw(path, size=(26, 20)) for path in folder.glob("val/*/*.JPEG")],
    ],
    ids=["an image too few", "another class", "another name", "made smaller"],
)
def test_a_copy_is_not_official(small_official, change, tmp_path):
    change(small_official)
    assert not imagenet.is_official(imagenet.list_files(tmp_path))


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder / "train/n02"), "class n02 is in only one of train/ and val/"),
        (lambda folder: [path.unlink() for path in folder.glob("val/n02/*")], "n02 has no images"),
        (lambda folder: [shutil.rmtree(path) for path in folder.glob("val/*")], "val has no class folders"),
        (lambda folder: (folder / "train/n01/n01_0.JPEG").write_bytes(b"no picture"), "n01_0.JPEG cannot be read"),
    ],
)
def test_folder_that_contradicts_itself_is_refused(folder, found, change, sentence):
    change(folder)
    with pytest.raises(DataError, match=sentence):
        found()


@pytest.mark.parametrize("part", ["train", "val"])
def test_part_that_is_not_there_is_missing_and_the_sentence_says_where_it_belongs(folder, found, part):
    shutil.rmtree(folder / part)
    with pytest.raises(MissingError, match=rf"imagenet/{part} is missing; .* class folders .* into imagenet/train and"):
        found()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""], ids=["cut off", "empty"])
def test_corrupt_image_is_named_in_one_sentence_when_its_batch_comes(folder, tmp_path, workers, damage):
    path = folder / "train/n02/n02_3.JPEG"
    path.write_bytes(damage(path.read_bytes()))
    data = decoded(imagenet.list_files(tmp_path).train, workers=workers)
    with pytest.raises(DataError, match=r"^\S+/n02_3\.JPEG cannot be read as an image \(.*\); replace or remove it$"):
        batches(data)


# ---- what is decoded


def test_crop_is_torchvisions_of_the_drawn_box(folder, tmp_path):
    part, seen = imagenet.list_files(tmp_path).train, {}
    for batch in batches(decoded(part)):
        seen |= {image.sum().item(): image for image in batch.x}
    for number in range(12):
        draws = torch.rand(1, crops.DRAWS, dtype=torch.float64, generator=Streams(0).generator("views", 0, number))
        image = Image.open(part.path(number))
        box = crops.boxes(draws, image.height, image.width)[0].tolist()
        told = v2.functional.resized_crop(image, *box, [32, 32], v2.InterpolationMode.BILINEAR)
        told = v2.functional.to_dtype(v2.functional.pil_to_tensor(told), torch.float32, scale=True)
        told = told.flip(2) if crops.mirrored(draws) else told
        assert any(torch.allclose(told, image) for image in seen.values())


def test_every_image_comes_once_and_with_its_label(folder, tmp_path):
    for path in folder.rglob("train/*/*.JPEG"):  # the class is the colour
        Image.new("RGB", (50, 40), (80 * int(path.parent.name[1:]),) * 3).save(path)
    found = batches(decoded(imagenet.list_files(tmp_path).train))
    assert [len(batch.x) for batch in found] == [5, 5, 2]
    x, y = torch.cat([batch.x for batch in found]), torch.cat([batch.y for batch in found])
    assert ((x.mean((1, 2, 3)) * 255 / 80).round() - 1).tolist() == y.argmax(1).tolist()
    assert y.sum(0).tolist() == [4, 4, 4]


def test_test_images_are_the_middle_of_the_resized_picture(folder, tmp_path):
    part = imagenet.list_files(tmp_path).test
    usual = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    told = torch.stack([usual(Image.open(path)) for path in part.paths()])
    found = list(decoded(part, size=224).test_batches(4))
    assert torch.allclose(torch.cat([batch.x for batch in found]), told)
    assert torch.cat([batch.y for batch in found]).argmax(1).tolist() == part.labels.tolist()


def test_test_images_come_in_the_order_that_is_asked_for(folder, tmp_path):
    data = decoded(imagenet.list_files(tmp_path).test)
    (batch,) = data.test_batches(9, order=torch.tensor([4, 0]), first_id=100)
    (whole,) = data.test_batches(9)
    assert torch.equal(batch.x, whole.x[[4, 0]])
    assert batch.view is None


def test_number_of_workers_changes_nothing(folder, tmp_path):
    part = imagenet.list_files(tmp_path).train
    one, *others = (batches(decoded(part, workers=workers), epoch=3) for workers in (0, 1, 2))
    for other in others:
        assert all(torch.equal(mine.x, theirs.x) for mine, theirs in zip(one, other, strict=True))


def test_decoding_draws_from_no_stream_but_its_own(folder, tmp_path):
    streams = Streams(0)
    before = torch.get_rng_state(), streams.mix.get_state()
    list(decoded(imagenet.list_files(tmp_path).train, workers=2).epoch(streams, 0, 5))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(streams.mix.get_state(), before[1])


def test_epoch_follows_seed_and_number_and_not_the_batch_size(folder, tmp_path):
    data = decoded(imagenet.list_files(tmp_path).train)
    first = torch.cat([batch.x for batch in batches(data)])
    assert torch.equal(first, torch.cat([batch.x for batch in batches(data, batch_size=4)]))
    assert not torch.equal(first, torch.cat([batch.x for batch in batches(data, seed=1)]))
    assert not torch.equal(first, torch.cat([batch.x for batch in batches(data, epoch=1)]))


def test_epoch_goes_on_where_it_is_taken_up_and_decodes_nothing_before(folder, tmp_path, monkeypatch):
    data = decoded(imagenet.list_files(tmp_path).train)
    whole, opened = batches(data), []
    monkeypatch.setattr(imagenet.Part, "path", lambda part, number: opened.append(number) or path(part, number))
    rest = batches(data, skip=2)
    assert len(opened) == 2
    assert torch.equal(rest[0].x, whole[2].x)


path = imagenet.Part.path


def test_crops_are_the_images_own_whatever_the_subset(folder, tmp_path):
    part = imagenet.list_files(tmp_path).train
    (few,) = batches(decoded(part, subset=torch.tensor([3, 7])))
    every = torch.cat([batch.x for batch in batches(decoded(part))])
    assert all(any(torch.equal(image, other) for other in every) for image in few.x)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batch_is_of_floats_in_the_memory_format_that_was_asked_for(folder, tmp_path, channels_last):
    batch = batches(decoded(imagenet.list_files(tmp_path).train, channels_last=channels_last))[0]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.x.stride() == torch.empty(batch.x.shape, memory_format=memory_format).stride()
    assert (batch.x.dtype, batch.view) == (torch.float32, None)
    assert batch.x.max() <= 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_pictures_become_rgb(folder, tmp_path, mode):
    draw(folder / "train/n01/n01_0.JPEG", mode=mode)
    assert batches(decoded(imagenet.list_files(tmp_path).train))[0].x.shape == (5, 3, 32, 32)


def test_rest_of_one_image_is_left_out(folder, tmp_path):
    part = imagenet.list_files(tmp_path).train
    data = decoded(part, subset=torch.arange(11))
    assert [len(batch.x) for batch in batches(data)] == [5, 5]
    assert data.steps(5) == 2


def test_task_trains_and_tests_on_it_without_knowing(folder, tmp_path):
    options = {"train_images": 6, "test_images": 4, "batch_size": 4, "augment": "resized_crop"}
    run = Run(method="mixup", dataset="imagenet", model="tiny", epochs=1, **options)
    task = Classify(run, Streams(0), Execution(data=str(tmp_path), workers=0), None)
    sizes = [task.prepare(batch).x.shape for batch in task.batches(0, 0)]
    assert sizes == [(4, 3, 224, 224), (2, 3, 224, 224)]
    assert task.evaluate().predictions["classes"].shape == (4, 3)


def test_stop_that_is_sent_to_all_processes_leaves_the_decoding_to_go_on(folder, tmp_path):
    going = decoded(imagenet.list_files(tmp_path).train, workers=2).epoch(Streams(0), 0, 2)
    next(going)
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    assert len(workers) == 2
    assert sum(len(batch.x) for batch in going) == 10


def test_stop_that_comes_while_the_decoding_begins_leaves_it_to_go_on(folder, tmp_path, monkeypatch):
    start = multiprocessing.process.BaseProcess.start

    def stopped(worker):
        start(worker)
        os.kill(worker.pid, signal.SIGTERM)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", stopped)
    images = decoded(imagenet.list_files(tmp_path).train, workers=2).epoch(Streams(0), 0, 2)
    assert sum(len(batch.x) for batch in images) == 12
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


FAILING = """
import sys
from pathlib import Path

import torch

from mixbench.data import imagenet
from mixbench.data.decoded import Decoded
from mixbench.streams import Streams

options = {"interpolation": "bilinear", "flip": True, "device": torch.device("cpu"), "channels_last": True}
part = imagenet.list_files(Path(sys.argv[1])).train
held = Decoded(part, size=32, workers=2, **options).epoch(Streams(0), 0, 2)
next(held)
raise RuntimeError("out of memory")
"""


def test_error_while_workers_decode_ends_the_process(folder, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.endswith("RuntimeError: out of memory\n")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_the_same_on_every_device(folder, tmp_path):
    part = imagenet.list_files(tmp_path).train
    here = batches(decoded(part))
    there = batches(decoded(part, device=torch.device("cuda"), workers=2))
    for one, other in zip(here, there, strict=True):
        assert other.x.is_cuda
        assert torch.allclose(one.x, other.x.cpu())
        assert torch.equal(one.y, other.y.cpu())


# ---- the real one


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    pack = SHARED / "data" / "imagenette_mini.tar.xz"
    if not pack.exists():
        pytest.skip(f"no {pack}; MIXBENCH_SHARED names the folder of real images")
    root = tmp_path_factory.mktemp("real")
    with tarfile.open(pack) as tar:
        tar.extractall(root, filter="data")
    (root / "imagenette_mini" / "imagenette2-160").rename(root / "imagenet")
    return root


def test_real_pictures_are_listed_and_all_decoded(real):
    files = imagenet.list_files(real)
    assert np.bincount(files.train_y).tolist() == [55] * 10
    assert np.bincount(files.test_y).tolist() == [20] * 10
    x = torch.cat([batch.x for batch in decoded(files.test, size=224).test_batches(100)])
    assert x.shape == (200, 3, 224, 224)
    assert (x.mean((0, 2, 3)) - torch.tensor(imagenet.FACTS.mean)).abs().max() < 0.05
    assert len(np.unique(files.test_y[:50])) == 10


def test_the_classes_of_the_real_one_are_those_that_count_as_official(tmp_path):
    pack = SHARED / "data" / "imagenet_sample.tar.xz"
    if not pack.exists():
        pytest.skip(f"no {pack}; MIXBENCH_SHARED names the folder of real images")
    with tarfile.open(pack) as tar:
        lines = tar.extractfile("imagenet_sample/classes.txt").read().decode().splitlines()
    wnids = tuple(line.split("\t")[1] for line in lines)
    assert wnids == tuple(sorted(wnids))
    assert imagenet.mark(wnids) in imagenet.FACTS.official
