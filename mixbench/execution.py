"""How and where a run is computed: `Execution`, recorded with every attempt and part of no identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixbench.data import OWN_FOLDER
from mixbench.spec import Run

ALWAYS_EVALUATED = 10
"""The last epochs, evaluated whatever `evaluate_every` says: ``report --metric median10`` reads them."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How and where. Equal runs under equal executions end bit-identical on the CPU.

    Attributes:
        device: as torch names it, ``cpu`` or ``cuda:0``.
        threads: of one run, on the CPU. Two threads sum in another order than one.
        data: the folder that holds the data sets.
        places: where own image folders and checkpoints lie, by the fingerprint of their content.
        channels_last: memory layout of images and network. Which is faster differs between processors.
        workers: processes that decode the images of a run, where these are too many to be kept; 0: the run's own does.
            None: one a core, shared by the runs at a time. No number depends on it.
        cuda_graph: whether a GPU replays training steps, see `mixbench.replay`, which takes a step's memory once more.
        cam_cache: where mixers keep what they know of a view, see `methods.views.ViewCache`: ``device``, ``host``, or
            ``off``, nowhere.
        checkpoint_seconds: the least time between two checkpoints at epoch ends.
        evaluate_every: epochs between two evaluations on the test set.
        minutes: after which a measurement begins no round; None: four on the CPU, one in a trial, no end on a GPU.
    """

    device: str = "cpu"
    threads: int = 1
    data: str = "data"
    places: Mapping[str, str] = field(default_factory=dict)
    channels_last: bool = True
    workers: int | None = None
    cuda_graph: bool = True
    cam_cache: str = "device"
    checkpoint_seconds: float = 30.0
    evaluate_every: int = 1
    minutes: float | None = None

    def evaluates(self, epoch: int, epochs: int) -> bool:
        """Whether the network is evaluated after this epoch, counted from 0."""
        return epoch >= epochs - ALWAYS_EVALUATED or (epoch + 1) % self.evaluate_every == 0

    def bits(self) -> dict[str, Any]:
        """What of it can change the last bits of a number: kept with the result, and compared in tables."""
        graph = {"cuda_graph": self.cuda_graph} if self.device.startswith("cuda") else {}
        return {"device": self.device, "threads": self.threads, "channels_last": self.channels_last} | graph

    def source(self, run: Run) -> str:
        """The run's data set as `mixbench.data` finds it: its name, or ``image_folder:`` and the folder's place."""
        return f"{OWN_FOLDER}{self.places[run.content]}" if run.content else run.dataset

    def checkpoint(self, run: Run) -> Path:
        """The file that an import reads."""
        return Path(self.data) / self.places[run.checkpoint]
