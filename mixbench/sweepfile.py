"""What a sweep file says, checked key by key, before recipes and links turn it into runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mixbench import catalog, tablefile, yamlfile
from mixbench.data import DATASETS, OWN_FOLDER
from mixbench.fields import LINKS
from mixbench.grid import Table
from mixbench.nets import MODELS
from mixbench.plain import cast_to
from mixbench.recipes import Recipes, blaming, changes, mapping
from mixbench.spec import convert

SWEEP_KEYS = ("settings", "methods", "seeds", "skip", "set", *LINKS, "table", "recipes")
ROW_KEYS = ("label", "method", "recipe", "set", *LINKS)
LINK_KEYS = ("setting", "seed", "method", "recipe", "set", *LINKS)


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
class Link:
    """Whom a run asks, as written: in what it differs from the run itself; None where it says nothing."""

    setting: str | None
    seed: int | None
    method: str | None
    options: Mapping[str, Any]
    recipe: str | None
    set: Mapping[str, Any]
    links: Mapping[str, Link]


@dataclass(frozen=True)
class Row:
    """A row as written: a method under a name of its own, and what the row changes for it."""

    name: str
    label: str
    method: str
    options: Mapping[str, Any]
    recipe: str | None
    set: Mapping[str, Any]
    links: Mapping[str, Link]


@dataclass(frozen=True)
class SweepFile:
    """All that a sweep file says.

    Attributes:
        path: the file.
        columns, rows, seeds: the axes of the grid.
        skipped: cells that are left out, each the name of a row and of a column.
        set: changes to every run.
        links: whom the runs ask.
        table: how the report looks.
        recipes: all that it can name.
    """

    path: Path
    columns: Sequence[Column]
    rows: Sequence[Row]
    seeds: Sequence[int]
    skipped: Collection[tuple[str, str]]
    set: Mapping[str, Any]
    links: Mapping[str, Link]
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
        columns = [_column(item) for item in _listed(written, "settings")]
        rows = _told_apart([row for item in _items(written) for row in _rows(*item)])
        seeds = _seeds(written)
        _check_once("settings", [column.name for column in columns])
        _check_once("methods", [row.name for row in rows])
        skipped = tablefile.skipped(
            written.get("skip", []), [row.name for row in rows], [column.name for column in columns]
        )
        with blaming("set"):
            changed = changes(written.get("set"))
        links, table = _links(written), tablefile.table(written.get("table"), [row.name for row in rows])
        with blaming("recipes"):
            own = mapping(written.get("recipes"))
    return SweepFile(path, columns, rows, seeds, skipped, changed, links, table, Recipes(path, own))


def _column(item: Any) -> Column:
    if isinstance(item, str):
        return Column(_setting("settings", item), ())
    if isinstance(item, dict) and len(item) == 1:
        (setting, overlay), *_ = item.items()
        names = overlay if isinstance(overlay, list) else [overlay]
        recipes = tuple(cast_to(str, f"settings: the recipe of {setting}", name) for name in names)
        return Column(_setting("settings", setting), recipes)
    raise ValueError(f"settings: {item!r} is no setting; write dataset/model, or {{dataset/model: recipe}}")


def _setting(key: str, written: Any) -> str:
    """``dataset/model``, split at the last slash, both of which exist; of an own folder only that it is named."""
    value: str = cast_to(str, key, written)
    dataset, slash, model = value.rpartition("/")
    if not slash:
        raise ValueError(f"{key}: '{value}' is no setting; write dataset/model, like digits/tiny")
    is_own = dataset.startswith(OWN_FOLDER) and dataset != OWN_FOLDER
    if dataset not in DATASETS and not is_own:
        known = ", ".join([*DATASETS, OWN_FOLDER + "PATH"])
        raise ValueError(f"{key}: '{value}': there is no data set '{dataset}'; there are: {known}")
    if model not in MODELS:
        raise ValueError(f"{key}: '{value}': there is no model '{model}'; there are: {', '.join(MODELS)}")
    return value


def _links(said: Mapping[str, Any]) -> dict[str, Link]:
    return {name: _link(name, said[name]) for name in LINKS if name in said}


def _link(name: str, written: Any) -> Link:
    """A link; its options are checked once it is known whose they are, if it names no method."""
    with blaming(name):
        said = mapping(written)
        method = _text(said, "method")
        options = {key: value for key, value in said.items() if key not in LINK_KEYS}
        if method is not None:
            catalog.check_names(method, options, beside=LINK_KEYS)
        return Link(
            setting=_setting("setting", said["setting"]) if "setting" in said else None,
            seed=convert("seed", said["seed"]) if "seed" in said else None,
            method=method,
            options=options,
            recipe=_text(said, "recipe"),
            set=changes(said.get("set")),
            links=_links(said),
        )


def _text(said: Mapping[str, Any], key: str) -> str | None:
    return cast_to(str, key, said[key]) if key in said else None


def _items(written: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names of the rows, with what each says."""
    methods = written.get("methods")
    if isinstance(methods, dict) and methods:
        return list(methods.items())
    return [(cast_to(str, "methods: a name", name), None) for name in _listed(written, "methods")]


def _rows(name: str, written: Any) -> Iterator[Row]:
    """The row, or one for each value of an option that is given a list of values."""
    with blaming(f"methods: {name}"):
        said = mapping(written)
        method = cast_to(str, "method", said.get("method", name))
        declared = catalog.declaration(method)
        label = cast_to(str, "label", said.get("label", declared.label))
        options = {key: value for key, value in said.items() if key not in ROW_KEYS}
        catalog.check_names(method, options, beside=ROW_KEYS)
        row = Row(name, label, method, options, _text(said, "recipe"), changes(said.get("set")), _links(said))
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


def _check_once(key: str, names: Sequence[Any]) -> None:
    twice = [str(name) for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{key}: {', '.join(twice)} stands there twice; leave one out, or give it a name of its own")


def _seeds(written: Mapping[str, Any]) -> list[int]:
    with blaming("seeds"):
        seeds = [convert("seed", seed) for seed in _listed(written, "seeds")]
    _check_once("seeds", seeds)
    return seeds


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """The rows; where several would be printed alike, those with a name of their own have it behind the label."""
    times = Counter(row.label for row in rows)

    def is_alike(row: Row) -> bool:
        return times[row.label] > 1 and row.name != row.method

    return [replace(row, label=f"{row.label} ({row.name})") if is_alike(row) else row for row in rows]
