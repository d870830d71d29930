"""The facts of every data set, and what content is at hand; without torch, and quick at a second look."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench import files
from mixbench.data.facts import DATASETS, Facts

if TYPE_CHECKING:
    from mixbench.data.folder import Listing

__all__ = [
    "CACHE",
    "DATASETS",
    "OWN_FOLDER",
    "Content",
    "DataError",
    "Facts",
    "Identified",
    "MissingError",
    "checked_size",
    "data_files",
    "facts_of",
    "identify",
    "list_images",
    "missing",
    "own_folder",
]

CACHE = "contents.json"
"""Where, in a results folder, `identify` keeps what it found."""

OWN_FOLDER = "image_folder:"
"""What the name of an own folder of images begins with; its path, below the data folder or absolute, follows."""


class DataError(ValueError):
    """Data are missing or damaged; the message names the file and what to do."""


class MissingError(DataError):
    """Data are not there at all."""


@dataclass(frozen=True)
class Content:
    """What is at hand.

    Attributes:
        fingerprint: 16 hex digits of a SHA-256 over pixels and labels, or over the names and bytes of image files.
        official: whether this is the official release.
        classes, train_images, test_images: counts; a cut-down copy has fewer images than its data set.
    """

    fingerprint: str
    official: bool
    classes: int
    train_images: int
    test_images: int


@dataclass(frozen=True)
class Identified:
    """A data set at hand: ``facts`` are the data set's, with the counts of the ``content`` that was found."""

    facts: Facts
    content: Content


def own_folder(dataset: str, *, root: Path) -> Path | None:
    """Where an own folder of images is; None for a data set that `DATASETS` knows.

    Raises:
        ValueError: it is neither.
    """
    if dataset.startswith(OWN_FOLDER):
        return root / dataset.removeprefix(OWN_FOLDER)
    if dataset not in DATASETS:
        raise ValueError(f"there is no data set '{dataset}'; there are: {', '.join(DATASETS)}, {OWN_FOLDER}PATH")
    return None


def data_files(dataset: str, *, root: Path) -> list[Path]:
    """The files that hold the images of one of `DATASETS`, the test images' last; see `Facts.files`.

    Raises:
        DataError: one is missing.
    """
    paths = [root / name for name in DATASETS[dataset].files]
    for path in paths:
        if not path.is_file():
            raise missing(path, dataset, root=root)
    return paths


def missing(path: Path, dataset: str, *, root: Path) -> MissingError:
    """What to say of a file or folder of one of `DATASETS` that is not there."""
    return MissingError(f"{path} is missing; {DATASETS[dataset].put} ({root}), or name another with --data")


def list_images(dataset: str, *, root: Path) -> Listing | None:
    """Which images there are, if each is a file of its own; None if not, and of ImageNet, which has its own list.

    Raises:
        DataError: something is missing or contradicts itself.
        ValueError: there is no such data set.
    """
    from mixbench.data import folder, tiny_imagenet

    own = own_folder(dataset, root=root)
    if own is not None:
        return folder.list_images(own)
    return tiny_imagenet.list_images(root) if dataset == "tiny_imagenet" else None


def checked_size(dataset: str, *, image_size: int | None) -> int:
    """The side that images are brought to.

    Raises:
        ValueError: an own folder needs an ``image_size``, or a data set has another.
    """
    own = dataset.startswith(OWN_FOLDER)
    if own and (image_size is None or image_size < 1):
        raise ValueError(f"image_size is {image_size}, but {dataset} needs one; give the side in pixels, like 64")
    if not own and image_size not in (None, DATASETS[dataset].image_size):
        raise ValueError(f"image_size is {image_size}, but {dataset} has its own; leave it out")
    return image_size or DATASETS[dataset].image_size


def identify(dataset: str, *, root: Path, image_size: int | None, cache: Path) -> Identified:
    """What content is at hand.

    Args:
        dataset: a name in `DATASETS`, or ``image_folder:PATH``.
        root: the data folder.
        image_size: the side that an own folder's images are brought to; None for all others.
        cache: a JSON file that keeps what was found by names, sizes and times of the files, so that nothing is read
            twice. It may be deleted at any time.

    Raises:
        MissingError: something is missing.
        DataError: it is damaged.
        ValueError: there is no such data set, or `image_size` is wrong.
    """
    own_folder(dataset, root=root)  # refuses a name that nobody knows before anything is looked for
    checked_size(dataset, image_size=image_size)
    with unreadable_told():
        place, stamp = f"{dataset} in {root.resolve()}", _stamp(dataset, root)
    entry = _remembered(cache).get(place)
    if entry is None or entry["stamp"] != stamp:
        from mixbench.data.read import look

        with unreadable_told():
            entry = {"stamp": stamp, "content": asdict(look(dataset, root=root))}
        with contextlib.suppress(OSError):  # without the cache the next look is slower, no more
            files.write(cache, files.encode({**_remembered(cache), place: entry}))
    content = Content(**entry["content"])
    return Identified(facts_of(dataset, root=root, image_size=image_size, content=content), content)


@contextlib.contextmanager
def unreadable_told() -> Iterator[None]:
    """Make a `DataError` of what the system says of a file that is listed and cannot be opened."""
    try:
        yield
    except OSError as error:
        file, reason = error.filename or "a file of the data", error.strerror or error
        raise DataError(f"{file} cannot be read: {reason}; mend or remove it") from error


def _remembered(cache: Path) -> dict[str, Any]:
    """All that the cache holds. A damaged one is made anew: nothing in it is not found again by reading the data."""
    try:
        return files.read(cache) or {}
    except files.DamagedError:
        return {}


def _stamp(dataset: str, root: Path) -> str:
    """Changes when a file does, by its name, size or time, or its class, or what counts as official."""
    listing = list_images(dataset, root=root)
    if dataset == "imagenet":
        from mixbench.data import imagenet

        found = imagenet.list_files(root)
        lines = [imagenet.names_of(found), *(_seen(path) for path in imagenet.sample(found))]
    elif listing is not None:
        lines = [*listing.classes, *(f"{_seen(image.path)} {image.label}" for image in listing.images)]
    elif dataset == "digits":
        from importlib.metadata import version

        lines = [version("scikit-learn")]
    else:
        lines = [_seen(path) for path in data_files(dataset, root=root)]
    if dataset in DATASETS:
        lines += sorted(DATASETS[dataset].official)
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()


def _seen(path: Path) -> str:
    about = path.stat()
    return f"{path} {about.st_size} {about.st_mtime_ns}"


def facts_of(dataset: str, *, root: Path, image_size: int | None, content: Content) -> Facts:
    """The facts of a data set, with the counts of what is at hand. Arguments as for `identify`."""
    folder = own_folder(dataset, root=root)
    counts = {name: getattr(content, name) for name in ("classes", "train_images", "test_images")}
    if folder is None:
        return replace(DATASETS[dataset], **counts)
    return Facts(
        label=folder.name,
        channels=3,
        image_size=checked_size(dataset, image_size=image_size),
        # ImageNet's, as torchvision has them: what is in common use for photographs of any origin.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        put=f"put class folders of images into {folder}",
        **counts,
    )
