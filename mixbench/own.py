"""Where own image folders and checkpoints lie, found by what they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mixbench.data import DATASETS, OWN_FOLDER, Facts, identify


class Places:
    """Looks at own image folders and checkpoints, at each once, and keeps where it found what.

    Attributes:
        found: places, below the data folder or absolute, by the fingerprint of their content.
    """

    def __init__(self, data: Path, cache: Path) -> None:
        self._data = data
        self._cache = cache
        self._facts: dict[tuple[str, int | None], tuple[str, str, Facts]] = {}
        self._checksums: dict[str, str] = {}
        self.found: dict[str, str] = {}

    def dataset(self, dataset: str, image_size: int | None) -> tuple[str, str, Facts]:
        """Name of the data set in a run, its content where it is an own folder, and its facts.

        Raises:
            ValueError: a size is asked for that the data set does not have, or the folder is not what it should be.
        """
        if dataset in DATASETS:
            if image_size is not None:
                raise ValueError(f"image_size is for own image folders; the pictures of {dataset} have their own size")
            return dataset, "", DATASETS[dataset]
        if (dataset, image_size) not in self._facts:
            at_hand = identify(dataset, root=self._data, image_size=image_size, cache=self._cache)
            path = dataset.removeprefix(OWN_FOLDER)
            self.found[at_hand.content.fingerprint] = path
            named = OWN_FOLDER + Path(path).name
            self._facts[dataset, image_size] = named, at_hand.content.fingerprint, at_hand.facts
        return self._facts[dataset, image_size]

    def checksum(self, checkpoint: str) -> str:
        """SHA-256 of a checkpoint's bytes.

        Raises:
            ValueError: there is no such file.
        """
        if checkpoint not in self._checksums:
            path = self._data / checkpoint
            if not path.is_file():
                raise ValueError(
                    f"checkpoint: there is no file {path}; put it there, or write another path, absolute or below the "
                    "data folder"
                )
            with path.open("rb") as file:
                self._checksums[checkpoint] = hashlib.file_digest(file, "sha256").hexdigest()
            self.found[self._checksums[checkpoint]] = checkpoint
        return self._checksums[checkpoint]
