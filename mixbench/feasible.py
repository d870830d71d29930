"""What a data set can give a run, and what need not be said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixbench.data import Facts
from mixbench.nets import SMALLEST
from mixbench.spec import Run


def epochs_of(run: Run, facts: Facts) -> float:
    """How often a run goes through as many images as the data set has, for an estimate.

    A bank stops once it is full: half of its mixes are taken to be good enough.
    """
    images = run.train_images or facts.train_images
    epochs = min(run.epochs, 2 * run.bank_images / images) if run.task == "bank" else run.epochs
    return epochs * images / facts.train_images


def canonical(facts: Facts, run: Run) -> Run:
    """The run without what only says again what the data set is: equal experiments must be equal runs."""
    everything = {"train_images": facts.train_images, "test_images": facts.test_images}
    said: dict[str, Any] = {name: None for name, count in everything.items() if getattr(run, name) == count}
    if (run.mean, run.std) == (facts.mean, facts.std):
        said |= {"mean": (), "std": ()}
    return replace(run, **said)


def check(facts: Facts, run: Run) -> None:
    """Refuse what this data set cannot give.

    Raises:
        ValueError: names the key, its value and what the data set has.
    """
    for key, have in (("train_images", facts.train_images), ("test_images", facts.test_images)):
        asked = getattr(run, key)
        if asked is not None and asked > have:
            raise ValueError(f"{key} is {asked}, but {facts.label} has {have}; ask for at most so many")
    if facts.image_size < SMALLEST[run.model]:
        sizes = f"{run.model} needs {SMALLEST[run.model]} pixels or more"
        raise ValueError(f"the pictures of {facts.label} have {facts.image_size} pixels a side, but {sizes}")
    if run.mean and len(run.mean) not in (1, facts.channels):
        raise ValueError(f"mean has {len(run.mean)} numbers, but {facts.label} has {facts.channels} channels")
    if run.task == "import":
        return
    images = run.train_images or facts.train_images
    if run.batch_size > images:
        raise ValueError(f"batch_size is {run.batch_size}, but there are {images} training images; make it smaller")
    if run.task == "bank" and run.bank_images > run.epochs * images:
        raise ValueError(
            f"bank_images is {run.bank_images}, but {run.epochs} epochs of {images} images make {run.epochs * images} "
            f"mixes at most; take fewer, or more epochs"
        )
    if run.dataset == "imagenet" and run.augment != "resized_crop":
        raise ValueError(
            f"augment is {run.augment}, but the pictures of {facts.label} differ in size; write augment: resized_crop"
        )
    if run.augment == "crop" and run.pad >= facts.image_size:
        raise ValueError(f"pad is {run.pad}; it must be less than the image's {facts.image_size} pixels")
