"""timm's loader, to be measured beside ours. timm is no part of mixbench; where it is not installed it is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

WORKERS = (0, 2)
HOW = "" if find_spec("timm") else "; timm is not installed and so left out"


def loaders(
    dataset: Dataset[Any], batch_size: int, batches: int, **colours: tuple[float, ...]
) -> Mapping[str, Callable[[], Iterator[Any]]]:
    """Passes over so many batches of a data set, by the number of processes that read it.

    Args:
        dataset: images as 8-bit arrays (C, H, W) that are cropped and flipped already, and classes: timm itself offers
            no crop of padded images, and those that it offers take longer.
        batch_size: of each batch.
        batches: of a pass, with which processes begin and end, so that their time can be counted.
        colours: mean and std, which are taken off and divided by a batch at a time, as prefetching does.
    """
    if not find_spec("timm"):
        return {}
    from timm.data import create_loader

    def passes(workers: int) -> Callable[[], Iterator[Any]]:
        part = Subset(dataset, torch.randperm(len(dataset))[: batches * batch_size].tolist())  # type: ignore[arg-type]
        loader = create_loader(
            part,
            dataset[0][0].shape,
            batch_size,
            is_training=True,
            num_workers=workers,
            device=torch.device("cpu"),
            persistent_workers=False,
            **colours,
        )
        return lambda: iter(loader)

    return {f"timm, {workers} workers": passes(workers) for workers in WORKERS}
