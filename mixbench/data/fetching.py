"""Fetches the data sets that torchvision can fetch; imports torch where it does."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
from pathlib import Path

from mixbench.data import DATASETS, own_folder

CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""In `torchvision.datasets`, which check the official sums of what they fetch."""


class FetchError(Exception):
    """It could not be fetched; the data folder is as it was."""


def folder_of(dataset: str, *, root: Path) -> Path | None:
    """The folder that holds the files of one of `DATASETS`; None where it comes with a package.

    Raises:
        ValueError: there is no such data set.
    """
    if own_folder(dataset, root=root) is not None:
        raise ValueError(f"{dataset} is your own: there is nowhere to get it from")
    layout = DATASETS[dataset].layout
    return root / layout[0].partition("/")[0] if layout else None


def fetch(dataset: str, *, root: Path) -> None:
    """Fetch a data set whose folder is not there. What is half fetched is never seen there, and goes away.

    Raises:
        ValueError: it has to be fetched by hand.
        FetchError: there is no way to it, or what came is not it.
    """
    folder = folder_of(dataset, root=root)
    if dataset not in CLASSES or folder is None:
        raise ValueError(f"{dataset} has to be fetched by hand: {DATASETS[dataset].put} ({root})")
    import torchvision

    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{dataset}-", dir=root) as temporary:
        try:
            getattr(torchvision.datasets, CLASSES[dataset])(temporary, download=True)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            said = getattr(error, "reason", None) or error
            raise FetchError(f"{dataset} cannot be fetched ({said}); try again, or {DATASETS[dataset].put}") from error
        except RuntimeError as error:  # torchvision's word for bytes whose sum is wrong
            raise FetchError(f"what came of {dataset} is damaged ({error}); try again") from error
        (Path(temporary) / folder.name).rename(folder)
