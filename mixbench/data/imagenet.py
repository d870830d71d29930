"""ImageNet's class folders: a million files by name, in arrays; which are looked at; and whether all is official."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixbench.data import DATASETS, Content, DataError, missing
from mixbench.data.folder import SUFFIXES, class_folders, image_names

FOLDER = "imagenet"
FACTS = DATASETS["imagenet"]

TEST_BYTES = 6_744_924_160
"""Of the archive of the official test images, ILSVRC2012_img_val.tar, as image-net.org serves it."""


@dataclass(frozen=True)
class Part:
    """The training or the test images. An object for each would fill a gigabyte, again in every worker.

    Attributes:
        folder: its class folders lie right in it.
        classes: their names, sorted: labels are places in it.
        names: (N,) bytes, of the files.
        labels: (N,) int64.
    """

    folder: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def path(self, number: int) -> Path:
        """The file of an image."""
        wnid, name = self.classes[self.labels[number]], os.fsdecode(bytes(self.names[number]))
        return self.folder.joinpath(wnid, name)

    def paths(self) -> Iterator[Path]:
        """All files, one after the other."""
        return map(self.path, range(len(self.labels)))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(classes,) int64: an image of each class, the first by its name."""
        by_name = np.lexsort((self.names, self.labels))
        return by_name[np.searchsorted(self.labels[by_name], np.arange(len(self.classes)))]


@dataclass(frozen=True)
class Files:
    """Both parts, which have the same ``classes``."""

    classes: tuple[str, ...]
    train: Part
    test: Part

    @property
    def train_y(self) -> NDArray[np.int64]:
        """Labels of the training images, which are sorted by class and name."""
        return self.train.labels

    @property
    def test_y(self) -> NDArray[np.int64]:
        """Labels of the test images: the first of each class, by name, then the second: a few are of many classes."""
        return self.test.labels


def list_files(root: Path) -> Files:
    """The images of ``train/WNID/`` and ``val/WNID/`` below ``root/imagenet``, whole or cut down.

    Nothing but names is looked at: on a local disk a second or two for all of them.

    Raises:
        MissingError: a part is not there.
        DataError: a part or class is empty, or the parts' classes differ.
    """
    folders = [root / FOLDER / name for name in ("train", "val")]
    for folder in folders:
        if not folder.is_dir():
            raise missing(folder, "imagenet", root=root)
    found = [{path.name: _names(path) for path in class_folders(folder)} for folder in folders]
    for folder, classes in zip(folders, found, strict=True):
        if not classes:
            raise DataError(f"{folder} has no class folders; {FACTS.put}")
    odd = sorted(set(found[0]) ^ set(found[1]))
    if odd:
        raise DataError(f"{root / FOLDER}: class {odd[0]} is in only one of train/ and val/; {FACTS.put}")
    train, test = (_part(folder, classes) for folder, classes in zip(folders, found, strict=True))
    of_its_class = np.arange(len(test.labels)) - np.searchsorted(test.labels, test.labels)
    order = np.argsort(of_its_class, kind="stable")
    return Files(train.classes, train, Part(test.folder, test.classes, test.names[order], test.labels[order]))


def _names(folder: Path) -> list[str]:
    names = image_names(folder)
    if not names:
        raise DataError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}); put them there, or remove it")
    return names


def _part(folder: Path, classes: dict[str, list[str]]) -> Part:
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in classes.values()])
    names = np.array([os.fsencode(name) for names in classes.values() for name in names])
    return Part(folder, tuple(classes), names, labels)


def sample(found: Files) -> list[Path]:
    """What is looked at: of every tenth class, the first image of each part."""
    return [part.path(int(number)) for part in (found.train, found.test) for number in part.starts[::10]]


def names_of(found: Files) -> str:
    """A SHA-256 over part, class and name of every image."""
    digest = hashlib.sha256("\0".join(found.classes).encode(errors="surrogateescape"))
    for part in (found.train, found.test):
        digest.update(f"\0{len(part.names)}\0".encode() + part.labels.tobytes() + b"\0".join(part.names.tolist()))
    return digest.hexdigest()


def fingerprint(found: Files) -> str:
    """16 hex digits of a SHA-256 over all names, and the bytes of a `sample`: those of all are 140 GB."""
    digest = hashlib.sha256(names_of(found).encode())
    for path in sample(found):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def mark(classes: tuple[str, ...]) -> str:
    """16 hex digits of a SHA-256 over the classes' names."""
    return hashlib.sha256("\n".join(classes).encode(errors="surrogateescape")).hexdigest()[:16]


def content_of(found: Files) -> Content:
    """What is known of these files by their names and a `sample`."""
    return Content(fingerprint(found), is_official(found), len(found.classes), len(found.train_y), len(found.test_y))


def is_official(found: Files) -> bool:
    """Whether the classes, the counts and the test images' names are official, and their size is likely.

    No bytes of the official images were at hand to be compared with. A copy that was made smaller gives itself away
    by its size; the archive is a little larger than what is in it.
    """
    counts = len(found.train_y), len(found.test_y)
    if mark(found.classes) not in FACTS.official or counts != (FACTS.train_images, FACTS.test_images):
        return False
    if sorted(found.test.names.tolist()) != [
        b"ILSVRC2012_val_%08d.JPEG" % number for number in range(1, counts[1] + 1)
    ]:
        return False
    size = sum(found.test.path(number).stat().st_size for number in range(counts[1]))
    return 0.98 * TEST_BYTES < size < TEST_BYTES
