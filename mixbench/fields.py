"""Fields of a `mixbench.spec.Run` by what holds of them: links, choices, ranges, and which of them a task reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LINKS = ("teacher", "policy", "bank")
"""Fields of a `Run` that are runs themselves: what must have finished before it can start."""

ABOUT = ("mini", "method", "options", "dataset", "content", "model", "seed", "subjects", "made_up", "trials", "machine")
"""Fields that say what a `Run` is about, and no recipe does."""

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "task": ("classify", "search", "import", "bank", "time"),
        "augment": ("crop", "resized_crop"),
        "pad_mode": ("zeros", "reflect"),
        "schedule": ("step", "cosine", "constant"),
        "criterion": ("ce", "bce"),
        "precision": ("float32", "bfloat16"),
    }
)

AT_LEAST: Mapping[str, float] = MappingProxyType(
    {"epochs": 1, "batch_size": 1, "image_size": 1, "train_images": 1, "test_images": 1, "milestones": 1}
    | {"bank_images": 1, "gpus": 1}
    | {"seed": 0, "pad": 0, "momentum": 0, "weight_decay": 0, "lr_end": 0, "warmup": 0, "ema": 0, "trials": 0}
)

ABOVE: Mapping[str, float] = MappingProxyType({"lr": 0, "lr_drop": 0, "std": 0})

BELOW: Mapping[str, float] = MappingProxyType({"ema": 1})

READ_BY: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # A network that somebody else trained: none that says how to train.
        "import": frozenset({"task", "mini", "method", "dataset", "content", "image_size", "test_images", "model"})
        | {"mean", "std", "precision", "checkpoint"},
        # A stored set of mixed images, with which no network is trained.
        "bank": frozenset({"task", "mini", "method", "options", "dataset", "content", "image_size", "train_images"})
        | {"model", "seed", "augment", "pad", "pad_mode", "flip", "epochs", "batch_size", "bank_images", "teacher"},
        # What methods cost.
        "time": frozenset({"task", "mini", "method", "dataset", "content", "image_size", "model", "seed"})
        | {"batch_size", "precision", "subjects", "made_up", "trials", "machine"},
    }
)
"""Fields that a task reads, where it does not read them all: the others are put back to their defaults."""
