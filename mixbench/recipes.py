"""Recipes: training protocols by name, as the sweep's own ``recipes:`` and ``recipes.yaml`` write them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mixbench import catalog, yamlfile
from mixbench.nets import MODELS
from mixbench.plain import cast_to
from mixbench.spec import FIELDS, convert

RESOURCES: Mapping[str, Any] = MappingProxyType(
    {"evaluate_every": int, "checkpoint_seconds": float, "cpus": int, "mem_gb": float}
)
"""What a recipe may say of how a setting is computed; no part of any identity."""


@dataclass(frozen=True)
class Mini:
    """What a recipe changes for a trial on a small machine: ``mini:``. It is laid over all else that a run is told.

    Attributes:
        values: of the fields of a `Run`, checked.
        options: of single methods, by the method's name.
        model: a small network; "" keeps the setting's.
        seeds: how many of the sweep's are used; None: all.
    """

    values: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    model: str
    seeds: int | None


@dataclass(frozen=True)
class Recipe:
    """A training protocol.

    Attributes:
        name: ``cifar10/resnet20`` is that setting's own; a name without a slash is laid over others.
        values: of the fields of a `Run`, checked.
        options: of single methods under this protocol, by the method's name.
        label: how a column under this recipe is called; "" leaves it to the data set and the model.
        resources: what it says of how the setting is computed, see `mixbench.grid.Resources`.
        hours: what a run of Simple takes under it on one GPU; None where it does not say.
        mini: what it changes for a trial; None where it says nothing of one.
    """

    name: str
    values: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    label: str
    resources: Mapping[str, Any]
    hours: float | None
    mini: Mini | None


class Recipes:
    """All recipes that a sweep can name: its own, then those of ``recipes.yaml`` beside it, then in ``./sweeps``."""

    def __init__(self, sweep: Path, own: Mapping[str, Any]) -> None:
        self._sweep = sweep
        self._found: dict[str, tuple[Path, Any]] = {name: (sweep, recipe) for name, recipe in own.items()}
        self._read: dict[str, Recipe] = {}
        for path in shared(sweep):
            for name, recipe in (yamlfile.load(path) if path.exists() else {}).items():
                self._found.setdefault(name, (path, recipe))

    def check_settings_used(self) -> None:
        """Refuse a setting's recipe of the sweep's own that nothing asked for: its name is misspelt.

        Raises:
            ValueError: names it.
        """
        own = [name for name, (path, _) in self._found.items() if path == self._sweep and "/" in name]
        idle = [name for name in own if name not in self._read]
        if idle:
            raise ValueError(f"{self._sweep}: recipes: nothing in this sweep uses '{idle[0]}'; is its name right?")

    def names(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._found)

    def find(self, name: str) -> Recipe:
        """The recipe of that name.

        Raises:
            ValueError: there is none, or it says something impossible; the sentence names file, recipe and key.
        """
        if name not in self._found:
            wanted = f"no recipe for the setting '{name}'" if "/" in name else f"no recipe '{name}'"
            known = ", ".join(self.names()) or "none"
            raise ValueError(f"{self._sweep}: there is {wanted}; write it under 'recipes:'. Known recipes: {known}")
        if name not in self._read:
            path, written = self._found[name]
            with blaming(f"{path}: recipe '{name}'"):
                self._read[name] = _parse(name, written)
        return self._read[name]


def shared(sweep: Path) -> list[Path]:
    """Where recipes for several sweeps are looked for, beside a sweep's own."""
    return list(dict.fromkeys(folder / "recipes.yaml" for folder in (sweep.parent, Path("sweeps"))))


def _parse(name: str, written: Any) -> Recipe:
    values = mapping(written)
    options = _options(values)
    mini = None
    if "mini" in values:
        with blaming("mini"):
            mini = _mini(mapping(values.pop("mini")))
    label = cast_to(str, "label", values.pop("label", ""))
    resources = {key: _resource(key, values.pop(key)) for key in RESOURCES if key in values}
    hours = _positive("hours", values.pop("hours")) if "hours" in values else None
    told = changes(values, extra=("label", "options", "hours", "mini", *RESOURCES))
    return Recipe(name, told, options, label, resources, hours, mini)


def _options(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is taken from the values: options of single methods, which exist."""
    options = {method: mapping(value) for method, value in mapping(values.pop("options", {})).items()}
    for method, chosen in options.items():
        catalog.settled(method, chosen)
    return options


def _mini(values: dict[str, Any]) -> Mini:
    options, model, seeds = _options(values), cast_to(str, "model", values.pop("model", "")), values.pop("seeds", None)
    if model and model not in MODELS:
        raise ValueError(f"there is no model '{model}'; there are: {', '.join(MODELS)}")
    if seeds is not None and cast_to(int, "seeds", seeds) < 1:
        raise ValueError(f"seeds must be 1 or more, not {seeds}")
    changed = {"gpus": 1} | changes(values, extra=("model", "seeds", "options"))  # a small machine has no several
    return Mini(changed, options, model, seeds)


def _resource(key: str, value: Any) -> Any:
    if key == "mem_gb":
        return _positive(key, value)
    value = cast_to(RESOURCES[key], key, value)
    least = 0 if key == "checkpoint_seconds" else 1
    if value < least:
        raise ValueError(f"{key} must be {least} or more, not {value}")
    return value


def _positive(key: str, value: Any) -> float:
    number: float = cast_to(float, key, value)
    if number <= 0:
        raise ValueError(f"{key} must be above 0, not {number}")
    return number


def changes(written: Any, *, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Values of a run's fields as a recipe or ``set:`` writes them, in their types; ``extra`` keys may stand beside.

    Raises:
        ValueError: a key is unknown or a value impossible.
    """
    values = mapping(written)
    for key in values:
        if key not in FIELDS:
            raise ValueError(f"unknown key '{key}'; known keys: {', '.join(FIELDS + extra)}")
    return {key: convert(key, value) for key, value in values.items()}


def mapping(written: Any) -> dict[str, Any]:
    """``written`` as a mapping with text for keys; nothing written is an empty one."""
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise ValueError(f"{written!r} stands where keys and values are expected, like {{key: value}}")
    return dict(written)


@contextlib.contextmanager
def blaming(where: str) -> Iterator[None]:
    """Put file and place before the sentence of a `ValueError` raised inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
