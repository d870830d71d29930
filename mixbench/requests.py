"""What a sweep asks for before recipes are laid over each other: `Request`, of a row, or of a link of another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mixbench import catalog
from mixbench.recipes import blaming
from mixbench.sweepfile import LINK_KEYS, Column, Link, Row, SweepFile

LIKE = {"teacher": "{method: simple}", "policy": "{recipe: search}", "bank": "{method: supermix, recipe: bank}"}
"""How each link mostly is written."""


@dataclass(frozen=True)
class Request:
    """What is asked for under some seed, before recipes are laid over each other.

    Attributes:
        setting, overlay: what is trained on what, and the column's recipes.
        recipe, set: the row's or link's own.
        links: whom to ask: the sweep's, overlaid by the row's.
        via: how the request came about, for error messages: the row, then the links that were followed.
    """

    setting: str
    overlay: tuple[str, ...]
    method: str
    options: Mapping[str, Any]
    recipe: str | None
    set: Mapping[str, Any]
    links: Mapping[str, Link]
    via: tuple[str, ...] = field(compare=False)

    @cached_property
    def key(self) -> str:
        """Equal for requests of the same, however they came about."""
        return repr(replace(self, via=()))

    def linked(self, name: str, sweep: Path) -> Request:
        """What a link of it asks for: the same, but for what the link says.

        Raises:
            ValueError: there is no such link, or its method has no such options; names ``sweep``, the file.
        """
        place = f"{sweep}: {' -> '.join(self.via)}"
        if name not in self.links:
            raise ValueError(f"{place} needs a {name}; say which with '{name}:', like {name}: {LIKE[name]}")
        link = self.links[name]
        method = link.method or self.method
        with blaming(f"{place}: {name}"):
            catalog.check_names(method, link.options, beside=LINK_KEYS)
        return Request(
            setting=link.setting or self.setting,
            overlay=self.overlay if link.setting in (None, self.setting) else (),
            method=method,
            options={**(self.options if method == self.method else {}), **link.options},
            recipe=link.recipe,
            set=link.set,
            links={**self.links, **link.links},
            via=(*self.via, f"{name} {method}"),
        )


def requested(said: SweepFile, row: Row, column: Column) -> Request:
    """What a row asks for in a column."""
    links = {**said.links, **row.links}
    return Request(column.setting, column.overlay, row.method, row.options, row.recipe, row.set, links, (row.name,))
