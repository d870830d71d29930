"""Pictures and labels as arrays, whatever they are stored as."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mixbench.data import (
    DATASETS,
    Content,
    DataError,
    checked_size,
    data_files,
    folder,
    imagenet,
    list_images,
    tiny_imagenet,
)
from mixbench.data.cifar import read_batch, read_names

LABELS = {"cifar10": "labels", "cifar100": "fine_labels"}
"""Under which key a file has its labels."""

NAMES = {
    "cifar10": ("cifar-10-batches-py/batches.meta", "label_names"),
    "cifar100": ("cifar-100-python/meta", "fine_label_names"),
}
"""Which file has the names of the classes, and under which key."""


@dataclass(frozen=True)
class Pictures:
    """A data set in memory.

    Attributes:
        train_x, test_x: (N, H, W, C) uint8.
        train_y, test_y: (N,) int64, below `classes`.
        classes: how many there are.
    """

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    classes: int


def read(dataset: str, *, root: Path, image_size: int | None) -> Pictures:
    """All pictures of a data set.

    Digits are scikit-learn's, 0 to 16 as round(255 v / 16): the first 1,000 for training, 797 for the test. CIFAR is
    read from the official files. Images that are files, Tiny-ImageNet's or an own folder's, become RGB, be they grey,
    indexed or transparent (what lies behind transparency is shown); the largest centred square is resized to
    `image_size`, which Tiny-ImageNet's have already.

    Args:
        dataset: a name in `DATASETS`, or ``image_folder:PATH``.
        root: the data folder.
        image_size: the side that an own folder's images are brought to; None for all others.

    Raises:
        DataError: something is missing or damaged.
        ValueError: there is no such data set, or `image_size` is wrong.
    """
    listing = list_images(dataset, root=root)
    size = checked_size(dataset, image_size=image_size)
    if listing is not None:
        return _listed(listing, size)
    return _digits() if dataset == "digits" else _cifar(dataset, root)


def class_names(dataset: str, *, root: Path) -> tuple[str, ...]:
    """The names of a data set's classes: of their folders, or as CIFAR's files have them; numbers where there are none.

    Raises:
        DataError: a file or folder is missing or damaged; but a copy of CIFAR may do without the file of the names.
    """
    listing = imagenet.list_files(root) if dataset == "imagenet" else list_images(dataset, root=root)
    if listing is not None:
        return listing.classes
    classes = DATASETS[dataset].classes
    name, key = NAMES.get(dataset, ("", ""))
    if name and (root / name).exists():
        return read_names(root / name, key=key, classes=classes)
    return tuple(map(str, range(classes)))


def fingerprint(pictures: Pictures) -> str:
    """16 hex digits of a SHA-256 over shapes, types and bytes; images that are files go by these, see `look`."""
    digest = hashlib.sha256()
    for array in (pictures.train_x, pictures.train_y, pictures.test_x, pictures.test_y):
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def look(dataset: str, *, root: Path) -> Content:
    """What content is at hand, by reading all of it, of ImageNet a sample; `identify` remembers the answer."""
    if dataset == "imagenet":
        found = imagenet.list_files(root)
        for path in imagenet.sample(found):
            rgb(path)
        return imagenet.content_of(found)
    listing = list_images(dataset, root=root)
    if listing is None:
        return content_of(dataset, read(dataset, root=root, image_size=None), root=root)
    for image in listing.images:
        _decoded(image.path, size=1)  # an unreadable one is found now, and not hours later by a run
    return content_of_files(dataset, listing)


def content_of(dataset: str, pictures: Pictures, *, root: Path) -> Content:
    """What is known of pictures that `read` just gave; where they are single files, those are hashed for it."""
    listing = list_images(dataset, root=root)
    if listing is not None:
        return content_of_files(dataset, listing)
    mark = fingerprint(pictures)
    official = mark in DATASETS[dataset].official or _has_official_files(dataset, root)
    return Content(mark, official, pictures.classes, len(pictures.train_y), len(pictures.test_y))


def content_of_files(dataset: str, listing: folder.Listing) -> Content:
    """What is known of images that are files, by their names and bytes."""
    official = dataset == "tiny_imagenet" and tiny_imagenet.is_official(listing)
    counts = (len(listing.part(test=False)), len(listing.part(test=True)))
    return Content(folder.fingerprint(listing), official, len(listing.classes), *counts)


def _has_official_files(dataset: str, root: Path) -> bool:
    sums = {root / name: md5 for name, md5 in DATASETS[dataset].files.items()}
    return bool(sums) and all(_md5(path) == md5 for path, md5 in sums.items())


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _digits() -> Pictures:
    from sklearn.datasets import load_digits  # takes 1.5 s to import, and only the digits need it

    digits = load_digits()
    x = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    y = digits.target.astype(np.int64)
    count = DATASETS["digits"].train_images
    return Pictures(x[:count], y[:count], x[count:], y[count:], classes=DATASETS["digits"].classes)


def _cifar(dataset: str, root: Path) -> Pictures:
    classes = DATASETS[dataset].classes
    paths = data_files(dataset, root=root)
    batches = [read_batch(path, labels=LABELS[dataset], classes=classes) for path in paths]
    train_x, train_y = (np.concatenate(part) for part in zip(*batches[:-1], strict=True))
    for path, y in ((paths[0], train_y), (paths[-1], batches[-1][1])):
        if not len(y):
            raise DataError(f"{path} has no images; {DATASETS[dataset].put}")
    return Pictures(train_x, train_y, *batches[-1], classes=classes)


def _listed(listing: folder.Listing, size: int) -> Pictures:
    parts = [_part(listing.part(test=test), size) for test in (False, True)]
    return Pictures(*parts[0], *parts[1], classes=len(listing.classes))


def _part(images: Sequence[folder.Image], size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    x = np.empty((len(images), size, size, 3), np.uint8)
    for number, image in enumerate(images):
        x[number] = _decoded(image.path, size)
    return x, np.array([image.label for image in images], np.int64)


def _decoded(path: Path, size: int) -> NDArray[np.uint8]:
    return np.asarray(_centre(rgb(path)).resize((size, size), Image.Resampling.BILINEAR))


def rgb(path: Path) -> Image.Image:
    """An image file, decoded, in three channels of 8 bits.

    Raises:
        DataError: it is damaged, or has more bits.
    """
    try:
        with Image.open(path) as image:
            # Pillow would cut 16 bits off at 255: a white picture, without a word.
            if image.mode[0] in "IF":
                raise DataError(f"{path} has more than 8 bits a channel; save it with 8")
            return image.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise DataError(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def _centre(image: Image.Image) -> Image.Image:
    """The largest centred square, by whole pixels: half a pixel would blur an image that has the right size."""
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))
