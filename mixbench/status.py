"""The state of a run, derived from its files and never stored; and `why`, what a run is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from mixbench import catalog
from mixbench.fields import LINKS
from mixbench.files import DamagedError
from mixbench.result import Result, StaleResultError
from mixbench.spec import Run
from mixbench.store import Store


def state_of(run: Run, store: Store) -> str:
    """One of: done, running, failed, stopped, lost (its process died without a word), new.

    Raises:
        StaleResultError: it was made with other defaults than the code has now.
    """
    try:
        if store.result(run) is not None and (run.task != "time" or store.complete(run)):
            return "done"
    except DamagedError:
        pass  # the next attempt sets the file aside, and publishes or computes it again
    if store.alive(run):
        return "running"
    end = store.ending(run)
    if end is not None and end["state"] in ("stopped", "failed"):
        return str(end["state"])
    return "lost" if store.newest(run) else "new"


def find(beginning: str, store: Store) -> Run:
    """The one run whose id, or folder's name, begins so.

    Raises:
        ValueError: none or several do.
    """
    beginning = beginning.rstrip("/").rpartition("/")[2]  # a path, as the shell completes it, will do
    found = [run for run in store.known() if run.id.startswith(beginning) or run.folder.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"no run in {store.root} begins with '{beginning}'; one that has not begun has no folder")
    few = ", ".join(run.folder for run in found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    raise ValueError(f"{len(found)} runs in {store.root} begin with '{beginning}': {few}; say more of it")


def why(run: Run, store: Store) -> Iterator[str]:
    """What a run is, line by line: its state, what was asked for, what came out, and the nearest finished run."""
    yield f"{run.folder}: {_state(run, store)}"
    yield ""
    yield "asked for (what differs from the defaults):"
    for name, value in run.to_dict().items():
        yield f"  {name}: {_named(run, name, value)}"
    end = store.ending(run)
    if end is not None and end["state"] == "stopped":
        yield f"\nstopped {end['text']}"
    if end is not None and end["state"] == "failed":
        yield f"\nfailed; once that is mended, `mixbench run SWEEP --retry-failed` tries again:\n{end['traceback']}"
    for need in run.needs():
        learned = _result(need, store)
        if learned is not None and "warning" in learned.notes:
            yield f"\nuses {need.folder}: {learned.notes['warning']}"
    result = _result(run, store)
    if result is not None:
        yield "\ncame out:"
        yield from _came_out(run, result)
    yield ""
    yield from _nearest(run, store)


def _named(run: Run, field: str, value: object) -> object:
    """A field's value as text: a run by its folder, subjects by their labels."""
    if field in LINKS:
        return getattr(run, field).folder
    return ", ".join(map(catalog.label, run.subjects)) if field == "subjects" else value


def _state(run: Run, store: Store) -> str:
    try:
        return state_of(run, store)
    except StaleResultError as error:
        return f"stale: {error}"
    except ValueError as error:  # its mixer is not here any more; what it left behind still is
        return f"done, but {error}"


def _result(run: Run, store: Store) -> Result | None:
    try:
        return store.recorded(run)
    except DamagedError:
        return None


def _came_out(run: Run, result: Result) -> Iterator[str]:
    yield "  " + ", ".join(f"{name} {value:.2f}" for name, value in result.metrics.items())
    warning = result.notes.get("warning")
    if warning:
        yield f"  {warning}"
    noted = [f"{name} {_rounded(value)}" for name, value in result.notes.items() if name != "warning"]
    yield from [f"  {', '.join(noted)}"] if noted else []
    release = (
        "the official release" if result.official else "own pictures" if run.content else "not the official release"
    )
    pictures = f"data {result.content} ({release})" if result.content else "made-up pictures"
    yield f"  on {pictures}, in {result.seconds:.1f} s, attempt {result.attempt}"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    yield f"  commit {result.commit}, {versions}, on {result.device}"
    yield "  " + ", ".join(f"{name} {value}" for name, value in result.execution.items())


def _rounded(value: object) -> object:
    return f"{value:.2f}" if isinstance(value, float) else value


def _nearest(run: Run, store: Store) -> Iterator[str]:
    """The finished run that differs in the fewest fields, and the fields."""
    others = [other for other in store.known() if other != run and _result(other, store) is not None]
    if not others:
        yield "no other run has finished here"
        return
    nearest = min(others, key=lambda other: (len(differences(run, other)), other.folder))
    yield f"nearest finished run: {nearest.folder}; it differs in"
    for name, (here, there) in differences(run, nearest).items():
        yield f"  {name}: {here} here, {there} there"


def differences(one: Run, other: Run) -> dict[str, tuple[object, object]]:
    """Fields in which two runs differ, with both values; options one by one, links by their fields."""
    found: dict[str, tuple[object, object]] = {}
    for field in fields(Run):
        here, there = getattr(one, field.name), getattr(other, field.name)
        if here == there:
            continue
        if field.name == "options":
            mine, theirs = dict(here), dict(there)
            for option in sorted({*mine, *theirs}):
                if mine.get(option) != theirs.get(option):
                    found[option] = mine.get(option, "its default"), theirs.get(option, "its default")
        elif field.name in LINKS and here is not None and there is not None:
            found |= {f"{field.name}'s {name}": pair for name, pair in differences(here, there).items()}
        elif field.name in LINKS:
            found[field.name] = here.folder if here else "none", there.folder if there else "none"
        elif field.name == "subjects":
            found[field.name] = _named(one, "subjects", here), _named(other, "subjects", there)
        else:
            found[field.name] = here, there
    return found
