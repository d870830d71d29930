"""Tiny-ImageNet's folder: which images there are, of which class, in which part; and whether all of it is official."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from mixbench.data import DATASETS, DataError, missing
from mixbench.data.folder import Image, Listing, class_folders, fingerprint, image_files

FOLDER = "tiny-imagenet-200"
FACTS = DATASETS["tiny_imagenet"]
MEND = "put that right, or unpack the official archive again"


def list_images(root: Path) -> Listing:
    """The images of ``train/WNID/images/`` and ``val/images/`` below ``root/tiny-imagenet-200``, whole or cut down.

    Classes are in the order of ``wnids.txt``; training images by class and name; test images, which are those of
    ``val/``, in the order of ``val_annotations.txt``. The official ``test/`` has no labels.

    Raises:
        DataError: something is missing, or what the two files say is not what is there.
    """
    folder = root / FOLDER
    for name in ("wnids.txt", "train", "val/val_annotations.txt", "val/images"):
        if not (folder / name).exists():
            raise missing(folder / name, "tiny_imagenet", root=root)
    labels = _labels(folder)
    return Listing(tuple(labels), (*_train(folder, labels), *_test(folder, labels)))


def is_official(listing: Listing) -> bool:
    """Whether all images are there, and those of a `sample` have the official names, classes and bytes."""
    found = len(listing.classes), len(listing.part(test=False)), len(listing.part(test=True))
    wanted = FACTS.classes, FACTS.train_images, FACTS.test_images
    return found == wanted and fingerprint(sample(listing)) in FACTS.official


def sample(listing: Listing) -> Listing:
    """Of every tenth class, 250 of its 500 training images and all test images, sorted by name.

    So much was at hand when the official fingerprint was taken.
    """
    chosen = sorted(listing.classes)[::10]
    names = {f"{wnid}_{number}.JPEG" for wnid in chosen for number in range(250)}
    images = [
        image
        for image in listing.images
        if (listing.classes[image.label] in chosen if image.test else image.path.name in names)
    ]
    return Listing(listing.classes, tuple(sorted(images, key=lambda image: image.path.name)))


def _labels(folder: Path) -> dict[str, int]:
    """The number of each class."""
    file, train = folder / "wnids.txt", folder / "train"
    wnids = _lines(file)
    _agree(file, wnids, train, {path.name for path in class_folders(train)})
    return {wnid: label for label, wnid in enumerate(wnids)}


def _train(folder: Path, labels: Mapping[str, int]) -> Iterator[Image]:
    for wnid, label in labels.items():
        images = folder / "train" / wnid / "images"
        paths = image_files(images) if images.is_dir() else []
        if not paths:
            raise DataError(f"{images} has no images; {MEND}")
        yield from (Image(path, label, test=False) for path in paths)


def _test(folder: Path, labels: Mapping[str, int]) -> Iterator[Image]:
    file, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
    said = [_annotation(line, file, labels) for line in _lines(file)]
    there = {path.name: path for path in image_files(images)}
    _agree(file, [name for name, _ in said], images, set(there))
    yield from (Image(there[name], label, test=True) for name, label in said)


def _annotation(line: str, file: Path, labels: Mapping[str, int]) -> tuple[str, int]:
    """Name and label of an image. A line has its name, its class and its box, with tabs between."""
    name, wnid, *_ = [*line.split("\t"), ""]
    if wnid not in labels:
        raise DataError(f"{file} says that {name} is of class '{wnid}', which wnids.txt does not name; {MEND}")
    return name, labels[wnid]


def _lines(file: Path) -> list[str]:
    # What is no text cannot be the name of anything, and is refused as such.
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        raise DataError(f"{file} is empty; {MEND}")
    return lines


def _agree(file: Path, names: list[str], folder: Path, there: set[str]) -> None:
    """Refuse a file that does not name what is in a folder, each once."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{file} names {twice[0]} more than once; {MEND}")
    for name in sorted(there - set(names)):
        raise DataError(f"{folder / name} is not named in {file}; {MEND}")
    for name in sorted(set(names) - there):
        raise DataError(f"{file} names {name}, which is not in {folder}; {MEND}")
