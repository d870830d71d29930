"""How things stand with a data set: ready, missing or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixbench.data import DATASETS, Content, DataError, MissingError, identify


@dataclass(frozen=True)
class Standing:
    """``state`` is ready, missing or wrong; ``sentence`` says what is there, or what to do."""

    state: str
    sentence: str


def standing(dataset: str, *, root: Path, cache: Path) -> Standing:
    """How things stand with one of `DATASETS`; ``cache`` as for `identify`."""
    try:
        found = identify(dataset, root=root, image_size=None, cache=cache)
    except MissingError as error:
        return Standing("missing", str(error))
    except DataError as error:
        return Standing("wrong", str(error))
    return Standing("ready", described(dataset, found.content, root=root))


def described(dataset: str, content: Content, *, root: Path) -> str:
    """``the official release: 50,000 + 10,000 images of 10 classes in data/cifar-10-batches-py``."""
    layout = DATASETS[dataset].layout if dataset in DATASETS else ()
    place = f" in {root / layout[0].partition('/')[0]}" if layout else ""
    images = _counted(content.classes, content.train_images, content.test_images)
    return f"{_release(dataset, content)}: {images}{place}"


def _release(dataset: str, content: Content) -> str:
    if content.official:
        return "the official release"
    if dataset not in DATASETS:
        return "your own"
    facts = DATASETS[dataset]
    whole = facts.classes, facts.train_images, facts.test_images
    if (content.classes, content.train_images, content.test_images) == whole:
        return "not the official release, though it has as many images"
    return f"not the official release ({_counted(*whole)})"


def _counted(classes: int, train_images: int, test_images: int) -> str:
    return f"{train_images:,} + {test_images:,} images of {classes:,} classes"
