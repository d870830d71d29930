"""Looks at a whole data set: what it has of each class, and whether every image can be read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mixbench import devices
from mixbench.data import DATASETS, Content, DataError, imagenet, list_images, unreadable_told
from mixbench.data.read import content_of, content_of_files, read, rgb
from mixbench.data.standing import described

AT_ONCE = 1000
"""Images handed out to threads at a time: a million at once would fill the memory."""


@dataclass(frozen=True)
class Held:
    """A data set that could be listed; where its images are no files of their own, they were read for it.

    Attributes:
        about: what it is, in words.
        content: what it holds.
        labels: of each part's images, by the part's name.
        paths: of all images, if they are files.
    """

    about: str
    content: Content
    labels: dict[str, NDArray[np.int64]]
    paths: Iterable[Path]

    @property
    def images(self) -> int:
        """How many, in all parts."""
        return sum(map(len, self.labels.values()))

    def lines(self) -> Iterator[str]:
        """What it has, part by part."""
        yield self.about
        for part, labels in self.labels.items():
            counts = np.bincount(labels, minlength=self.content.classes)
            least, most = int(counts.min()), int(counts.max())
            each = f"{most:,} of each class" if least == most else f"{least:,} to {most:,} of a class"
            yield f"  {part}: {len(labels):,} images, {each}, labels {labels.min()} to {labels.max()}"


def hold(dataset: str, *, root: Path) -> Held:
    """List a data set.

    Raises:
        MissingError: something is not there.
        DataError: it contradicts itself, or has a label that there is no class for.
        ValueError: there is no such data set.
    """
    with unreadable_told():
        content, labels, paths = _opened(dataset, root)
    return Held(f"{dataset}: {described(dataset, content, root=root)}", content, labels, paths)


def _opened(dataset: str, root: Path) -> tuple[Content, dict[str, NDArray[np.int64]], Iterable[Path]]:
    listing = list_images(dataset, root=root)
    if listing is not None:
        parts = {"training": listing.part(test=False), "test": listing.part(test=True)}
        labels = {name: np.array([image.label for image in images]) for name, images in parts.items()}
        return content_of_files(dataset, listing), labels, [image.path for image in listing.images]
    if dataset == "imagenet":
        found = imagenet.list_files(root)
        labels = {"training": found.train_y, "test": found.test_y}
        return imagenet.content_of(found), labels, itertools.chain(found.train.paths(), found.test.paths())
    pictures = read(dataset, root=root, image_size=None)
    labels = {"training": pictures.train_y, "test": pictures.test_y}
    return content_of(dataset, pictures, root=root), labels, ()


def problems(paths: Iterable[Path]) -> Iterator[str]:
    """Decode every image; what is wrong with each, "" where nothing is, in order."""
    with ThreadPoolExecutor(devices.cores()) as pool:
        left = iter(paths)
        while some := list(itertools.islice(left, AT_ONCE)):
            yield from pool.map(_problem, some)


def _problem(path: Path) -> str:
    try:
        rgb(path)
    except DataError as error:
        return str(error)
    return ""


def judge(dataset: str, problems: Sequence[str], held: Held) -> None:
    """Refuse a data set of which images cannot be read, or, where it has all classes, are missing.

    Raises:
        DataError: says how many, and names the first that cannot be read.
    """
    if problems:
        raise DataError(f"{len(problems):,} of {held.images:,} images of {dataset} cannot be read: {problems[0]}")
    facts, content = DATASETS.get(dataset), held.content
    missing = 0 if facts is None else facts.train_images + facts.test_images - held.images
    if facts is not None and facts.classes == content.classes and missing > 0:
        raise DataError(
            f"{dataset} has all of its {facts.classes:,} classes, but lacks {missing:,} of its images: if it is not a "
            f"cut of your own, unpack it again"
        )
