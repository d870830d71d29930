"""The facts of every data set, and what content is at hand; without torch, and quick at a second look."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mixbench import files

OWN_FOLDER = "image_folder:"
"""What the name of an own folder of images begins with; its path, below the data folder or absolute, follows."""


class DataError(ValueError):
    """Data are missing or damaged; the message names the file and what to do."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What holds of a data set.

    Attributes:
        label: how tables print it.
        classes, channels, image_size, train_images, test_images: counts; `image_size` is the side in pixels.
        mean, std: of each channel over the training images, pixels in [0, 1].
        put: what to put where if it is missing.
        official: fingerprints of the official content.
        files: where its files lie below the data folder, the test images' last, and their official MD5 sums.
    """

    label: str
    classes: int
    channels: int
    image_size: int
    train_images: int
    test_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    put: str
    official: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)


_PUT = "unpack the official 'python version' from https://www.cs.toronto.edu/~kriz/cifar.html into the data folder"

DATASETS: Mapping[str, Facts] = {
    "digits": Facts(
        label="Digits",
        classes=10,
        channels=1,
        image_size=8,
        train_images=1000,
        test_images=797,
        # Counted over the 1,000 training images.
        mean=(0.3070,),
        std=(0.3762,),
        put="install scikit-learn, which brings them",
        official=frozenset({"d8de69a75fdfa5cb"}),
    ),
    "cifar10": Facts(
        label="CIFAR-10",
        classes=10,
        channels=3,
        image_size=32,
        train_images=50_000,
        test_images=10_000,
        # Over the 50,000 official training images; the figures in common use (std of all pixels, not mean of stds).
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        put=_PUT,
        # The sums that torchvision.datasets.CIFAR10 and CIFAR100 check.
        files={
            "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
            "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
            "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    "cifar100": Facts(
        label="CIFAR-100",
        classes=100,
        channels=3,
        image_size=32,
        train_images=50_000,
        test_images=10_000,
        # As for CIFAR-10.
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        put=_PUT,
        official=frozenset({"e87be4d9dfcf707a"}),
        files={
            "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
            "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
}


@dataclass(frozen=True)
class Content:
    """What is at hand.

    Attributes:
        fingerprint: 16 hex digits of a SHA-256 over pixels and labels, or over an own folder's names and bytes.
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
    """The files of one of `DATASETS`, the test images' last; none for digits, which come with scikit-learn.

    Raises:
        DataError: one is missing.
    """
    facts = DATASETS[dataset]
    paths = [root / name for name in facts.files]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing; {facts.put} ({root}), or name another with --data")
    return paths


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
        DataError: something is missing or damaged.
        ValueError: there is no such data set, or `image_size` is wrong.
    """
    folder = own_folder(dataset, root=root)
    checked_size(dataset, image_size=image_size)
    place, stamp = f"{dataset} in {root.resolve()}", _stamp(dataset, folder, root)
    entry = _remembered(cache).get(place)
    if entry is None or entry["stamp"] != stamp:
        from mixbench.data.read import look

        entry = {"stamp": stamp, "content": asdict(look(dataset, root=root))}
        with contextlib.suppress(OSError):  # without the cache the next look is slower, no more
            files.write(cache, files.encode({**_remembered(cache), place: entry}))
    content = Content(**entry["content"])
    return Identified(facts_of(dataset, root=root, image_size=image_size, content=content), content)


def _remembered(cache: Path) -> dict[str, Any]:
    """All that the cache holds. A damaged one is made anew: nothing in it is not found again by reading the data."""
    try:
        return files.read(cache) or {}
    except files.DamagedError:
        return {}


def _stamp(dataset: str, folder: Path | None, root: Path) -> str:
    """Changes when a file does, by its name, size or time, or what counts as official."""
    if folder is not None:
        from mixbench.data.folder import list_images

        lines = [_seen(image.path) for image in list_images(folder).images]
    elif dataset == "digits":
        from importlib.metadata import version

        lines = [version("scikit-learn"), *sorted(DATASETS[dataset].official)]
    else:
        lines = [*map(_seen, data_files(dataset, root=root)), *sorted(DATASETS[dataset].official)]
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()


def _seen(path: Path) -> str:
    about = path.stat()
    return f"{path} {about.st_size} {about.st_mtime_ns}"


def facts_of(dataset: str, *, root: Path, image_size: int | None, content: Content) -> Facts:
    """The facts of a data set, with the counts of what is at hand. Arguments as for `identify`."""
    folder = own_folder(dataset, root=root)
    if folder is None:
        return replace(DATASETS[dataset], train_images=content.train_images, test_images=content.test_images)
    return Facts(
        label=folder.name,
        classes=content.classes,
        channels=3,
        image_size=checked_size(dataset, image_size=image_size),
        # ImageNet's, as torchvision has them: what is in common use for photographs of any origin.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        put=f"put class folders of images into {folder}",
        train_images=content.train_images,
        test_images=content.test_images,
    )
