"""What a sweep file says, checked key by key, before recipes and links turn it into runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixbench import catalog, yamlfile
from mixbench.grid import Table
from mixbench.recipes import Recipes, blaming, changes, mapping
from mixbench.spec import LINKS, cast_to

SWEEP_KEYS = ("settings", "methods", "seeds", "set", *LINKS, "table", "recipes")
ROW_KEYS = ("label", "method", "recipe", "set", *LINKS)


@dataclass(frozen=True)
class Column:
    """A column as written: a setting, ``dataset/model``, and the recipes laid over its own."""

    setting: str
    overlay: tuple[str, ...]

    @property
    def name(self) -> str:
        """The setting, with the recipes laid over it."""
        return " + ".join((self.setting, *self.overlay))


@dataclass(frozen=True)
class Row:
    """A row as written: a method under a name of its own, and what the row changes for it."""

    name: str
    label: str
    method: str
    options: Mapping[str, Any]
    recipe: str | None
    set: Mapping[str, Any]
    links: Mapping[str, Any]


@dataclass(frozen=True)
class SweepFile:
    """All that a sweep file says.

    Attributes:
        path: the file.
        columns, rows, seeds: the axes of the grid.
        set: changes to every run.
        links: whom the runs ask: a mapping per link, as written.
        table: how the report looks.
        recipes: all that it can name.
    """

    path: Path
    columns: Sequence[Column]
    rows: Sequence[Row]
    seeds: Sequence[int]
    set: Mapping[str, Any]
    links: Mapping[str, Any]
    table: Table
    recipes: Recipes


def read(path: Path) -> SweepFile:
    """What the sweep file ``path`` says.

    Raises:
        ValueError: one sentence that names the file, the key and what would be right.
    """
    written = yamlfile.load(path)
    with blaming(str(path)):
        for key in written:
            if key not in SWEEP_KEYS:
                raise ValueError(f"unknown key '{key}'; a sweep has: {', '.join(SWEEP_KEYS)}")
        rows = [row for item in _items(written) for row in _rows(*item)]
        with blaming("set"):
            sweep_set = changes(written.get("set"))
        return SweepFile(
            path=path,
            columns=[_column(item) for item in _listed(written, "settings")],
            rows=rows,
            seeds=_seeds(written),
            set=sweep_set,
            links={link: written[link] for link in LINKS if link in written},
            table=_table(written.get("table"), rows),
            recipes=Recipes(path, mapping(written.get("recipes"))),
        )


def _column(item: Any) -> Column:
    if isinstance(item, str):
        return Column(item, ())
    if isinstance(item, dict) and len(item) == 1:
        (setting, overlay), *_ = item.items()
        names = overlay if isinstance(overlay, list) else [overlay]
        return Column(setting, tuple(cast_to(str, f"recipe of {setting}", name) for name in names))
    raise ValueError(f"settings: {item!r} is no setting; write dataset/model, or {{dataset/model: recipe}}")


def _items(written: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names of the rows, with what each says."""
    methods = written.get("methods")
    if isinstance(methods, dict) and methods:
        return list(methods.items())
    names = [cast_to(str, "a method's name", name) for name in _listed(written, "methods")]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"methods: {', '.join(sorted(twice))} stands there twice; a row needs a name of its own")
    return [(name, None) for name in names]


def _rows(name: str, written: Any) -> Iterator[Row]:
    """The row, or one for each value of an option that is given a list of values."""
    with blaming(f"methods: {name}"):
        said = mapping(written)
        method = cast_to(str, "method", said.get("method", name))
        declared = catalog.declaration(method)
        label = cast_to(str, "label", said.get("label", declared.label))
        changed = changes(said.get("set"))
        links = {link: said[link] for link in LINKS if link in said}
        options = {key: value for key, value in said.items() if key not in ROW_KEYS}
        row = Row(name, label, method, options, said.get("recipe"), changed, links)
        many = [key for key, value in options.items() if _is_axis(value, declared.options.get(key))]
        if not many:
            yield row
            return
        if len(many) > 1:
            raise ValueError(f"{' and '.join(many)} both have a list of values; a row can vary one option")
        for value in options[many[0]]:
            tail = f"[{many[0]}={value}]"
            yield replace(row, name=name + tail, label=label + tail, options=options | {many[0]: value})


def _is_axis(value: Any, default: Any) -> bool:
    """Whether an option's value is a list of values to try: of lists, where the option itself is one."""
    one = value[0] if isinstance(value, list) and value else None
    return one is not None and (not isinstance(default, tuple) or isinstance(one, list))


def _listed(written: Mapping[str, Any], key: str) -> list[Any]:
    value = written.get(key)
    if not isinstance(value, list) or not value:
        raise ValueError(f"'{key}:' must be a list with at least one entry, not {value!r}")
    return value


def _seeds(written: Mapping[str, Any]) -> list[int]:
    seeds = [cast_to(int, "seeds", seed) for seed in _listed(written, "seeds")]
    twice = {seed for seed in seeds if seeds.count(seed) > 1}
    if twice:
        raise ValueError(f"seeds: {', '.join(map(str, sorted(twice)))} stands there twice; each seed counts once")
    return seeds


def _table(written: Any, rows: Sequence[Row]) -> Table:
    names = [row.name for row in rows]
    with blaming("table"):
        said = mapping(written)
        kinds = {"caption": str, "cell": str, "compare": str, "note": str, "paper": int | None}
        for key in said:
            if key not in kinds:
                raise ValueError(f"unknown key '{key}'; known keys: {', '.join(kinds)}")
        table = Table(**{key: cast_to(kinds[key], key, value) for key, value in said.items()})
        if table.compare and table.compare not in names:
            raise ValueError(f"compare names no row: '{table.compare}'; rows: {', '.join(names)}")
        return table
