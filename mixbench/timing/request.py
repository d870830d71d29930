"""What ``mixbench time`` is asked for: `Request`, and the measurements that this comes to. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from mixbench import catalog
from mixbench.data import CACHE, MissingError, identify
from mixbench.fields import CHOICES
from mixbench.recipes import blaming
from mixbench.spec import Run, as_options
from mixbench.store import Store
from mixbench.timing.links import links
from mixbench.timing.runs import SIMPLE, is_made_up, side_by_side

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


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be measured.

    Attributes:
        settings: ``cifar10/resnet18``, or ``32/resnet18`` for made-up pictures of that side.
        rows: the methods.
        batch_size: images of a batch.
        precisions: as runs name them.
        trials: rounds; 0: as many as it takes.
        machine: by its name.
    """

    settings: Sequence[str]
    rows: Sequence[Row]
    batch_size: int
    precisions: Sequence[str]
    trials: int
    machine: str

    def subjects(self, store: Store) -> dict[str, list[tuple[Row, Run]]]:
        """Each row as what is timed, by setting; whom it asks are finished runs, where there are such."""
        there = {setting: links(setting, store) for setting in self.settings}
        return {
            setting: [(row, there[setting].given(self._plain(row, setting))) for row in self.rows]
            for setting in self.settings
        }

    def measurements(self, subjects: Mapping[str, Sequence[Run]], made_up: Collection[str], store: Store) -> list[Run]:
        """The measurements of these subjects by setting, some with made-up pictures; of seeds not measured before."""
        about: dict[str, Any] = {"machine": self.machine, "trials": self.trials}
        each = (
            side_by_side(subjects[setting], precision=precision, made_up=setting in made_up, **about)
            for setting in self.settings
            for precision in self.precisions
        )
        return [_new(run, store) for run in each]

    def made_up(self, data: Path, results: Path) -> set[str]:
        """The settings whose pictures are made up, since there are no others.

        Raises:
            ValueError: there are, but too few to fill a batch.
            mixbench.data.DataError: they are damaged.
        """
        return {setting for setting in self.settings if not self._has_pictures(setting, data, results)}

    def _has_pictures(self, setting: str, data: Path, results: Path) -> bool:
        dataset = setting.partition("/")[0]
        if is_made_up(dataset):
            return False
        try:
            facts = identify(dataset, root=data, image_size=None, cache=results / CACHE).facts
        except MissingError:
            return False
        if facts.train_images < self.batch_size:
            raise ValueError(
                f"--batch-size {self.batch_size}: {facts.label} has only {facts.train_images} images to train on; take "
                f"smaller batches"
            )
        return True

    def _plain(self, row: Row, setting: str) -> Run:
        dataset, _, model = setting.rpartition("/")
        options = as_options(row.options)
        return Run(
            method=row.method, options=options, dataset=dataset, model=model, epochs=1, batch_size=self.batch_size
        )


def _new(run: Run, store: Store) -> Run:
    """The run with the first seed under which it is not done: to measure again is another run."""
    return next(one for seed in count() if not store.complete(one := replace(run, seed=seed)))


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
