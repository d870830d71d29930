"""Images that are files: which there are, of which class, in which part; here of an own folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mixbench.data import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""What an image's name ends with, in any case; other files are not looked at, nor what begins with a dot."""
EVERY = 5
"""Where there is no ``val/``, every fifth image of a class, by name, is a test image."""


@dataclass(frozen=True)
class Image:
    """A file, the number of its class, and whether it is a test image."""

    path: Path
    label: int
    test: bool


@dataclass(frozen=True)
class Listing:
    """What is in a folder: ``classes`` by name, ``images`` by part (training first), class and name."""

    classes: tuple[str, ...]
    images: tuple[Image, ...]

    def part(self, *, test: bool) -> tuple[Image, ...]:
        """The training images, or the test images."""
        return tuple(image for image in self.images if image.test == test)


def list_images(folder: Path) -> Listing:
    """The images of ``folder/train/CLASS/`` and ``folder/val/CLASS/``, or of ``folder/CLASS/`` alone.

    Without ``train/`` and ``val/`` the fifth, tenth, ... image of each class, sorted by name, are the test images.

    Raises:
        DataError: there is no such folder, a class is empty or too small to be split, or the parts' classes differ.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not there; put class folders of images into it, or name another folder")
    train, val = folder / "train", folder / "val"
    if train.is_dir() != val.is_dir():
        raise DataError(f"{folder} has only one of train/ and val/; add the other, or put class folders right into it")
    if not train.is_dir():
        return _split(_classes(folder), folder)
    parts = {part: _classes(part) for part in (train, val)}
    odd = sorted(set(parts[train]) ^ set(parts[val]))
    if odd:
        raise DataError(f"{folder}: class {odd[0]} is in only one of train/ and val/; both must have the same classes")
    names = tuple(parts[train])
    images = [
        Image(path, label, test=part == val)
        for part, classes in parts.items()
        for label, name in enumerate(names)
        for path in classes[name]
    ]
    return Listing(names, tuple(images))


def fingerprint(listing: Listing) -> str:
    """16 hex digits of a SHA-256 over part, class, name and bytes of every file; no pixel is decoded."""
    digest = hashlib.sha256()
    for image in listing.images:
        name = os.fsencode(f"{'val' if image.test else 'train'}/{listing.classes[image.label]}/{image.path.name}")
        data = image.path.read_bytes()
        # Lengths go first, so that no bytes can pass from a name to a file, or from one file to the next.
        digest.update(b"%d %d %s" % (len(name), len(data), name))
        digest.update(data)
    return digest.hexdigest()[:16]


def class_folders(folder: Path) -> list[Path]:
    """The folders right in a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def image_files(folder: Path) -> list[Path]:
    """The images right in a folder, sorted by name."""
    return [folder / name for name in image_names(folder)]


def image_names(folder: Path) -> list[str]:
    """Their names alone, which is quicker where there are a million."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(name for name in names if name.lower().endswith(tuple(SUFFIXES)) and name[0] != ".")


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder, classes and images sorted by name."""
    classes = {path.name: image_files(path) for path in class_folders(folder)}
    if not classes:
        raise DataError(f"{folder} has no class folders; put the images of each class into a folder of that name")
    for name, images in classes.items():
        if not images:
            raise DataError(f"{folder / name} has no images; put some right into it ({', '.join(sorted(SUFFIXES))})")
    return classes


def _split(classes: dict[str, list[Path]], folder: Path) -> Listing:
    for name, paths in classes.items():
        if len(paths) < EVERY:
            least = f"{EVERY} are needed to set every fifth aside for the test"
            raise DataError(f"{folder / name} has {len(paths)} images; {least}, or make train/ and val/")
    images = [
        Image(path, label, test=number % EVERY == EVERY - 1)
        for label, paths in enumerate(classes.values())
        for number, path in enumerate(paths)
    ]
    return Listing(tuple(classes), tuple(sorted(images, key=lambda image: image.test)))
