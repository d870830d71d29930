"""What recipes say when they are laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixbench import catalog
from mixbench.grid import Resources
from mixbench.recipes import Mini, Recipe
from mixbench.spec import as_options


@dataclass(frozen=True)
class Layers:
    """Recipes that are laid over each other, the last one on top.

    Attributes:
        recipes: the setting's own, the column's, and the row's or the link's.
        is_mini: whether this is a trial, in which what they say of one is laid over all else.
    """

    recipes: Sequence[Recipe]
    is_mini: bool

    def values(self, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Of the fields of a run, where the sweep, the row or the link has changed some."""
        told: dict[str, Any] = {}
        for values in (*(one.values for one in self.recipes), changed, *(mini.values for mini in self.minis)):
            told |= values
        return told

    def options(self, method: str, own: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """Of a method, where the row or the link has some of its own; those that equal their default are left out.

        Raises:
            ValueError: a value is of the wrong type, or the method has no such option.
        """
        told: dict[str, Any] = {}
        for options in (*(one.options.get(method, {}) for one in self.recipes), own):
            told |= options
        for mini in self.minis:
            told |= mini.options.get(method, {})
        return as_options(catalog.settled(method, told))

    def model(self, setting: str, task: str) -> str:
        """The network: the setting's, or the small one of a trial; but a checkpoint fits its own network only."""
        small = [mini.model for mini in self.minis if mini.model and task != "import"]
        return small[-1] if small else setting.rpartition("/")[2]

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Of the sweep's, those that are used: all, or the first few in a trial."""
        counts = [mini.seeds for mini in self.minis if mini.seeds is not None]
        return seeds[: counts[-1]] if counts else seeds

    def resources(self) -> Resources:
        """How a run is computed."""
        return Resources(**{key: value for one in self.recipes for key, value in one.resources.items()})

    def hours(self, images: int) -> float | None:
        """What an epoch of Simple over so many images takes on one GPU in float32; None where no recipe says."""
        told = [
            one.hours / one.values["epochs"] * images / (one.values.get("train_images") or images)
            for one in self.recipes
            if one.hours and "epochs" in one.values
        ]
        return told[-1] if told and not self.is_mini else None

    @property
    def minis(self) -> list[Mini]:
        """What the recipes change for a trial; nothing where this is none."""
        return [one.mini for one in self.recipes if one.mini is not None and self.is_mini]
