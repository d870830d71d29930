"""What ``mixbench time`` is asked for: `Request`; and the process in which it is measured. Without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mixbench import catalog
from mixbench.data import DATASETS, Facts
from mixbench.nets import MODELS, SMALLEST
from mixbench.process import KEEPING_MEMORY
from mixbench.recipes import blaming
from mixbench.spec import CHOICES

SIMPLE = "simple"
"""The method whose training step the others' are measured by."""

VARIANTS: Mapping[str, Any] = {"saliency": "official"}
"""Options by which a method has a second row: what its authors' code does, where that is not what they wrote."""

DEAR = 5.0
"""Passes of a training step above which a method is timed on the CPU only if it is named."""

USUAL = {"cpu": ("cifar10/resnet8",), "cuda": ("cifar10/resnet18", "imagenet/resnet50")}
"""Settings that are measured where none are named, by device."""


@dataclass(frozen=True)
class Row:
    """A method with options.

    Attributes:
        method: by name.
        options: what is not at its default.
        named: whether the user asked for it; one that nobody named may be left out.
    """

    method: str
    options: Mapping[str, Any]
    named: bool

    @property
    def label(self) -> str:
        """How tables print it."""
        told = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return catalog.declaration(self.method).label + (f"[{told}]" if told else "")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured.

    Attributes:
        settings: ``cifar10/resnet18``, or ``32/resnet18`` for made-up pictures of that side.
        rows: the methods.
        batch_size: images of a batch.
        precisions: as runs name them.
        device: ``cpu`` or ``cuda``.
        threads: on the CPU.
        trials: counted ones; None: as many as it takes.
        seconds: for the rounds of everything together; None: as many as it takes.
        data, results: folders.
        seed: of pictures, draws and orders.
    """

    settings: Sequence[str]
    rows: Sequence[Row]
    batch_size: int
    precisions: Sequence[str]
    device: str
    threads: int
    trials: int | None
    seconds: float | None
    data: str
    results: str
    seed: int = 0

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Request:
        """The request that ``dataclasses.asdict`` wrote down."""
        return cls(**{**plain, "rows": [Row(**row) for row in plain["rows"]]})


def rows_of(named: Sequence[str] | None, *, device: str) -> list[Row]:
    """The rows of these methods, of None: of all, with Simple, the measure of the others, in front.

    Raises:
        ValueError: there is no such method.
    """
    with blaming("--methods"):
        chosen = [name for name in catalog.names() if _usual(name, device)] if named is None else list(named)
        rows = [Row(name, options, named is not None) for name in chosen for options in _variants(name)]
    there = [row for row in rows if row.method == SIMPLE] or [Row(SIMPLE, {}, named=False)]
    return there[:1] + [row for row in rows if row.method != SIMPLE]


def _usual(name: str, device: str) -> bool:
    return device != "cpu" or catalog.declaration(name).passes <= DEAR


def _variants(name: str) -> Iterable[Mapping[str, Any]]:
    choices = catalog.declaration(name).choices
    return ({}, *({option: value} for option, value in VARIANTS.items() if value in choices.get(option, ())))


def checked_precisions(precisions: Sequence[str]) -> Sequence[str]:
    """The precisions themselves.

    Raises:
        ValueError: one is unknown.
    """
    for one in precisions:
        if one not in CHOICES["precision"]:
            raise ValueError(f"--precision is of {', '.join(CHOICES['precision'])}, not {one!r}")
    return precisions


def sized(sizes: Sequence[str], model: str | None) -> list[str]:
    """The settings of made-up pictures of these sides.

    Raises:
        ValueError: a side is no number, or no model is named.
    """
    if model is None:
        raise ValueError("--size needs the network that is asked: --model NAME")
    for size in sizes:
        if not size.isdecimal():
            raise ValueError(f"--size is a side in pixels, like 32, not {size!r}")
    return [f"{int(size)}/{model}" for size in sizes]


def facts_of(setting: str) -> Facts:
    """What holds of the pictures of a setting; of made-up ones, as of the data set with the next smaller pictures.

    Raises:
        ValueError: there is no such data set or model, or its pictures are too small for it.
    """
    dataset, _, model = setting.rpartition("/")
    if model not in MODELS:
        raise ValueError(f"there is no model '{model}'; there are: {', '.join(MODELS)}")
    if dataset in DATASETS:
        facts = DATASETS[dataset]
    elif dataset.isdecimal():
        like = "imagenet" if int(dataset) >= 128 else "tiny_imagenet" if int(dataset) >= 64 else "cifar10"
        facts = replace(DATASETS[like], label=f"{dataset} pixels", image_size=int(dataset))
    else:
        raise ValueError(f"there is no data set '{dataset}'; there are: {', '.join(DATASETS)}; or take --size")
    if facts.image_size < SMALLEST[model]:
        raise ValueError(
            f"{setting}: pictures of {facts.image_size} pixels are too small for {model}, which needs {SMALLEST[model]}"
        )
    return facts


def measured(request: Request) -> dict[str, Any]:
    """The record of a measurement, plain values; see `mixbench.timing.session.record`.

    It is made in a process with the environment that workers have. What that says meanwhile goes to standard error.

    Raises:
        ValueError: what is asked for cannot be measured.
        ChildProcessError: the process failed, or was killed; it has said why, if it could.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mixbench.timing"],
        input=json.dumps(asdict(request)).encode(),
        stdout=subprocess.PIPE,
        env={**KEEPING_MEMORY, **os.environ, "OMP_NUM_THREADS": str(request.threads)},
        check=False,
    )
    if done.returncode < 0:
        raise ChildProcessError(f"what measures was ended by signal {-done.returncode}; was there too little memory?")
    if done.returncode > 0:
        raise ChildProcessError(f"what measures has failed, with exit code {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "refused" in answer:
        raise ValueError(answer["refused"])
    return answer
