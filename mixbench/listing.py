"""What there is to choose from, in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from mixbench import catalog
from mixbench.data import DATASETS, OWN_FOLDER
from mixbench.declaration import Declaration
from mixbench.nets import MODELS
from mixbench.recipes import Recipes


def methods() -> Iterator[str]:
    """Each method in a few lines: where it was published, what it needs, draws and costs, its options and whose."""
    for name in catalog.names():
        try:
            declared = catalog.declaration(name)
        except ValueError as error:
            yield f"{name}: cannot be used: {error}"
            continue
        source = f" ({declared.source})" if declared.source else ""
        yield f"{name}: {declared.label}{source}"
        needs = [*(_GIVEN.get(what, what) for what in declared.given), *filter(None, [declared.asks])]
        yield f"  needs     {', '.join(needs) or 'the images and labels of a batch, no more'}"
        yield f"  draws     {declared.draws or 'nothing'}"
        cost = f"{declared.passes:g} passes of the network" if declared.passes != 1 else "one pass of the network"
        yield f"  a step    {cost}, forth and back"
        options = [_option(declared, option) for option in declared.options] or ["none"]
        yield from textwrap.wrap(", ".join(options), 108, initial_indent="  options   ", subsequent_indent=" " * 12)
        yield from [f"  defaults  {declared.defaults}"] * bool(declared.defaults)


_GIVEN = {
    "teacher": "a teacher",
    "policy": "a mixing module, searched",
    "image_size": "the side of the images",
    "net": "the network in training",
    "bank": "a stored set of mixes",
}
"""What a mixer may be given, in words."""


def listing() -> Iterator[str]:
    """Methods with their options and defaults, data sets, models and recipes, line by line."""
    yield "methods"
    for name in catalog.names():
        try:
            declared = catalog.declaration(name)
        except ValueError as error:
            yield f"  {name:<18} cannot be used: {error}"
            continue
        source = f" ({declared.source})" if declared.source else ""
        options = ", ".join(_option(declared, option) for option in declared.options) or "no options"
        needs = f"; needs {', '.join(declared.given)}" if declared.given else ""
        yield f"  {name:<18} {declared.label}{source}: {declared.summary}"
        yield f"  {'':<18} {options}{needs}"
    yield "data sets"
    for name, facts in DATASETS.items():
        counts = f"{facts.train_images:,} + {facts.test_images:,} images, {facts.classes} classes"
        yield f"  {name:<18} {facts.label}: {counts}, {facts.image_size} pixels"
    yield f"  {OWN_FOLDER + 'PATH':<18} your own: train/CLASS/*.png and val/CLASS/*.png"
    yield "models"
    yield f"  {', '.join(MODELS)}"
    yield "recipes"
    recipes = Recipes(Path("sweeps/recipes.yaml"), {})
    for name in recipes.names():
        values = recipes.find(name).values
        yield f"  {name:<18} {', '.join(f'{key}={value}' for key, value in values.items())}"
        for method, chosen in recipes.find(name).options.items():
            yield f"  {'':<18} for {method}: {', '.join(f'{key}={value}' for key, value in chosen.items())}"


def _option(declared: Declaration, option: str) -> str:
    """``draw='batch' (or 'sample')``."""
    default = declared.options[option]
    others = [repr(word) for word in declared.choices.get(option, ()) if word != default]
    return f"{option}={default!r}" + (f" (or {' or '.join(others)})" if others else "")
