"""From YAML to runs: `load_sweep` lays recipes over each other, expands the grid and follows the links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixbench import catalog, devices, feasible, sweepfile
from mixbench.data import CACHE, DATASETS, OWN_FOLDER, Facts
from mixbench.declaration import Declaration
from mixbench.fields import LINKS
from mixbench.grid import Cell, Resources, Sweep
from mixbench.layers import Layers
from mixbench.own import Places
from mixbench.recipes import blaming
from mixbench.requests import LIKE, Request, requested
from mixbench.spec import Run
from mixbench.sweepfile import Column, SweepFile
from mixbench.timing import runs


def load_sweep(
    path: Path, *, data: Path, results: Path, mini: bool = False, machine: Callable[[], str] | None = None
) -> Sweep:
    """The sweep that a file describes.

    Args:
        path: the YAML file.
        data: where the data sets are; only own image folders and checkpoints are looked at.
        results: keeps what is known of own image folders, so that a second look is quick.
        mini: as a trial on a small machine, see `mixbench.recipes.Mini`: other runs, that no table but its own shows.
        machine: names the one that a sweep of measurements is about; None: this one's GPU or processor.

    Raises:
        ValueError: one sentence that names the file, the key and what would be right.
    """
    said = sweepfile.read(path)
    is_timed = said.set.get("task") == "time"
    if is_timed:
        with blaming(str(path)):
            runs.check_set(said.set, {row.name: row.set for row in said.rows})
    resolver = _Resolver(replace(said, set={}) if is_timed else said, Places(data, results / CACHE), is_mini=mini)
    cells = [
        Cell(row.name, column.name, tuple(resolver.run(request, seed) for seed in resolver.seeds(column)))
        for row in said.rows
        for column in said.columns
        if (row.name, column.name) not in said.skipped
        for request in [requested(said, row, column)]
    ]
    said.recipes.check_settings_used()
    if is_timed:
        whose = (machine or devices.here)()
        with blaming(str(path)):
            cells = runs.measured(cells, said.set, whose)
        resolver.resources |= {run: Resources() for cell in cells for run in cell.runs}
    labels = {row.name: row.label for row in said.rows} | {one.name: resolver.label(one) for one in said.columns}
    table = replace(said.table, paper=None) if mini else said.table
    with blaming(str(path)):
        return Sweep(path.stem, tuple(cells), labels, table, resolver.resources, resolver.places, resolver.hours, mini)


GIVEN = (*LINKS, "image_size", "net")
"""What a mixer may be given, by the name of its parameter."""

_UNASKED: Mapping[str, tuple[str, ...]] = {"search": ("policy",), "import": LINKS}
"""Links that a task does not follow, whatever its mixer asks for."""


LEARNED_BY: Mapping[str, tuple[str, ...]] = {
    "teacher": ("classify", "import"),
    "policy": ("search",),
    "bank": ("bank",),
}
"""The tasks of the run that a link means: no other gives what the link is for."""


class _Resolver:
    """Turns requests into runs; remembers what it resolved, so that a teacher asked for twice is one object."""

    def __init__(self, said: SweepFile, places: Places, *, is_mini: bool) -> None:
        self._said = said
        self._path = said.path
        self._recipes = said.recipes
        self._places = places
        self._is_mini = is_mini
        self._runs: dict[tuple[str, int], Run] = {}
        self._alike: dict[str, Run] = {}
        self._links: dict[tuple[str, str], Request] = {}
        self._known: dict[Run, Facts] = {}
        self.resources: dict[Run, Resources] = {}
        self.hours: dict[Run, float] = {}

    @property
    def places(self) -> Mapping[str, str]:
        """Where own image folders and checkpoints lie, by their content."""
        return self._places.found

    def run(self, request: Request, seed: int, chain: tuple[tuple[str, int], ...] = ()) -> Run:
        """The run that a request means under a seed, with all that it needs."""
        asked = request.key, seed
        if asked in chain:
            raise ValueError(f"{self._path}: {' -> '.join(request.via)} leads back to itself; name another run")
        if asked not in self._runs:
            alike = self._alike.get(request.key)
            chain = (*chain, asked)
            self._runs[asked] = (
                self._resolve(request, seed, chain) if alike is None else self._reseed(alike, request, seed, chain)
            )
        return self._runs[asked]

    def seeds(self, column: Column) -> Sequence[int]:
        """Those of a column's cells."""
        return self._layers(column.setting, *column.overlay).seeds(self._said.seeds)

    def _layers(self, setting: str, *names: str) -> Layers:
        """The recipe of a setting, and those that are laid over it.

        Raises:
            ValueError: this is a trial, and the setting's says nothing of one.
        """
        recipes = [self._recipes.find(name) for name in (setting, *names)]
        if self._is_mini and recipes[0].mini is None:
            raise ValueError(f"{self._path}: --mini: the recipe for {setting} says nothing of it; add 'mini:'")
        return Layers(recipes, self._is_mini)

    def label(self, column: Column) -> str:
        """How tables print a column: its recipe's label, else data set and model."""
        laid = [self._recipes.find(name) for name in column.overlay]
        named = next((recipe.label for recipe in reversed(laid) if recipe.label), "")
        own = self._recipes.find(column.setting).label
        dataset, _, model = column.setting.rpartition("/")
        plain = DATASETS[dataset].label if dataset in DATASETS else Path(dataset.removeprefix(OWN_FOLDER)).name
        if self._is_mini:
            return f"mini: {plain}, for {model}"
        return named or " + ".join((own or f"{plain}, {model}", *column.overlay))

    def _reseed(self, alike: Run, request: Request, seed: int, chain: tuple[tuple[str, int], ...]) -> Run:
        """What a request means that was resolved under another seed: nothing else need be found out again."""
        links = {name: self._follow(name, request, seed, chain) for name in LINKS if getattr(alike, name)}
        run = alike.reseeded(seed, links)
        self._known[run], self.resources[run] = self._known[alike], self.resources[alike]
        if alike in self.hours:
            self.hours[run] = self.hours[alike]
        return run

    def _resolve(self, request: Request, seed: int, chain: tuple[tuple[str, int], ...]) -> Run:
        own = () if request.recipe is None else (request.recipe,)
        layers = self._layers(request.setting, *request.overlay, *own)
        with blaming(f"{self._path}: {' -> '.join(request.via)}"):
            values = layers.values({**self._sweep_set(request), **request.set})
            if values.get("task") == "import":
                values |= self._imported(values)
            if "epochs" not in values:
                raise ValueError(f"the recipe for {request.setting} does not say how many epochs; add 'epochs:' to it")
            declared = catalog.declaration(request.method)
            options = layers.options(request.method, request.options)
            dataset, content, facts = self._places.dataset(request.setting.rpartition("/")[0], values.get("image_size"))
        self._check_task(request, values.get("task", Run.task))
        links: dict[str, Any] = {
            name: self._follow(name, request, seed, chain) for name in self._asked(declared, request, values)
        }
        with blaming(f"{self._path}: {' -> '.join(request.via)}"):
            run = Run(
                method=request.method,
                options=options,
                dataset=dataset,
                content=content,
                model=layers.model(request.setting, values.get("task", Run.task)),
                seed=seed,
                mini=self._is_mini,
                **values,
                **links,
            )
            feasible.check(facts, run)
            run = feasible.canonical(facts, run)
            for name, need in links.items():
                if self._known[need].channels != facts.channels:
                    raise ValueError(
                        f"{name}: {need.setting} has {self._known[need].channels} channels, "
                        f"but the images of {facts.label} have {facts.channels}; name another"
                    )
        self._known[run] = facts
        self.resources[run] = layers.resources()
        hours = layers.hours(facts.train_images)
        if hours is not None and run.precision == "float32":
            self.hours[run] = hours * feasible.epochs_of(run, facts)
        self._alike[request.key] = run
        return run

    def _sweep_set(self, request: Request) -> Mapping[str, Any]:
        """What the sweep sets; but not the task of what is only asked for: the teacher of a search is no search."""
        is_link = len(request.via) > 1
        return {key: value for key, value in self._said.set.items() if not (is_link and key in ("task", "checkpoint"))}

    def _check_task(self, request: Request, task: str) -> None:
        """Refuse a link to what does not give what it is for, before its own links lead on and on."""
        *askers, last = request.via
        link = last.partition(" ")[0]
        if askers and task not in LEARNED_BY[link]:
            comes_of = " or ".join(LEARNED_BY[link])
            raise ValueError(
                f"{self._path}: {' -> '.join(askers)}: {link}: {request.method} is asked for with task: {task}, but a "
                f"{link} comes of task: {comes_of}; say so in its recipe, like {link}: {LIKE[link]}"
            )

    def _imported(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What an import's recipe leaves to be found: what its file holds; and epochs, which it has no use for."""
        written = values.get("checkpoint", "")
        found = self._places.checksum(written) if written else ""
        if found and not values.get("mean"):
            raise ValueError("task: import needs the mean and std that the network was trained with; write both")
        return {"epochs": 1, "checkpoint": found}

    def _asked(self, declared: Declaration, request: Request, values: Mapping[str, Any]) -> list[str]:
        """The links that a run follows: what its mixer is given, but for what its task makes or has no use for."""
        for name in declared.given:
            if name not in GIVEN:
                place = f"{self._path}: {' -> '.join(request.via)}"
                raise ValueError(f"{place}: the mixer asks for '{name}'; mixbench can give it: {', '.join(GIVEN)}")
        unasked = _UNASKED.get(values.get("task", ""), ())
        return [name for name in declared.given if name in LINKS and name not in unasked]

    def _follow(self, name: str, request: Request, seed: int, chain: tuple[tuple[str, int], ...]) -> Run:
        """The run that a link means: the same setting and seed, but for what the link says."""
        asked = request.key, name
        if asked not in self._links:
            self._links[asked] = request.linked(name, self._path)
        fixed = request.links[name].seed
        return self.run(self._links[asked], seed if fixed is None else fixed, chain)
