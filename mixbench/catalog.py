"""What each mixer declares: its label, its options with their defaults, and what it must be given.

The mixers of this repository are not imported for that, since importing one imports torch, which takes seconds:
their declaration, the class attributes and the constructor's signature, is read from the source.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixbench.declaration import Declaration, class_in, inspected, read, registers
from mixbench.plain import cast_to
from mixbench.spec import FIELDS, Run

ENTRY_POINTS = "mixbench.mixers"


def names() -> list[str]:
    """Names of all mixers: this repository's, then those of installed packages."""
    return [path.stem for path in _files() if class_in(path)] + sorted(point.name for point in _points())


@functools.cache
def declaration(name: str) -> Declaration:
    """What the mixer ``name`` declares.

    Raises:
        ValueError: there is no such mixer, there are two, or its declaration is not literal.
    """
    ours = [path for path in _files() if path.stem == name and registers(path)]
    theirs = [point for point in _points() if point.name == name]
    places = [f"methods.{name}"] * len(ours) + [point.value for point in theirs]
    if len(places) > 1:
        raise ValueError(f"two mixers are called '{name}': {' and '.join(places)}; rename one or uninstall it")
    if ours:
        return read(ours[0])
    if theirs:
        return inspected(theirs[0])
    if any(path.stem == name and _defines_a_mixer(path) for path in _files()):
        raise ValueError(f"methods/{name}.py registers no mixer; write @register('{name}') above its class")
    raise ValueError(f"there is no method '{name}'; there are: {', '.join(names())}")


def is_ours(method: str) -> bool:
    """Whether a mixer is this repository's, and no other package's."""
    return any(path.stem == method for path in _files())


def settled(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """These options of a mixer in their declared types, without those that equal their default.

    Raises:
        ValueError: there is no such mixer, it has no such option, or a value is of the wrong type.
    """
    check_names(method, options)
    declared = declaration(method)
    typed = {name: _typed(name, value, declared.options[name]) for name, value in options.items()}
    for name, value in typed.items():
        if value not in declared.choices.get(name, (value,)):
            raise ValueError(
                f"{name} of method '{method}' is one of {', '.join(declared.choices[name])}, not {value!r}"
            )
    return {name: value for name, value in typed.items() if value != declared.options[name]}


def check_names(method: str, options: Iterable[str], *, beside: Sequence[str] = ()) -> None:
    """Refuse options that a mixer does not have; ``beside`` are other keys that may stand where these stand.

    Raises:
        ValueError: it has no such option, or there is no such mixer.
    """
    declared = declaration(method)
    for option in options:
        if option in declared.given:
            raise ValueError(
                f"{option} of method '{method}' stands before the * of its __init__; options stand behind it"
            )
        if option not in declared.options:
            has = ", ".join(f"{name}={default!r}" for name, default in declared.options.items()) or "none"
            keys = f"; other keys here: {', '.join(beside)}" if beside else ""
            ours = f"; it is a field of the run: set: {{{option}: ...}}" if option in FIELDS and beside else ""
            raise ValueError(f"method '{method}' has no option {option}{ours}; its options: {has}{keys}")


def filled(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a mixer: these, and the defaults of the others."""
    return dict(declaration(method).options) | dict(options)


def label(run: Run) -> str:
    """How tables print a run's method: its label, and the options that are not at their default."""
    told = ", ".join(f"{name}={value}" for name, value in run.options)
    return declaration(run.method).label + (f"[{told}]" if told else "")


def options_of(run: Run) -> dict[str, Any]:
    """All options of a run's mixer; of a measurement those of all its subjects, ``PuzzleMix.beta``."""
    if not run.subjects:
        return filled(run.method, dict(run.options))
    each = ((label(one), filled(one.method, dict(one.options))) for one in run.subjects)
    return {f"{name}.{option}": value for name, options in each for option, value in options.items()}


def code_of(run: Run) -> str:
    """A mark of the source files of a run's mixers, see `code`."""
    if not run.subjects:
        return code(run.method)
    each = dict.fromkeys(one.method for one in run.subjects)
    return hashlib.sha256("".join(map(code, each)).encode()).hexdigest()[:10]


@functools.cache
def code(method: str) -> str:
    """A mark of a mixer's source file, ten hex digits: it changes when the code does, not with comments or layout.

    What the file imports is not in it. "" where the mixer is not here any more, or its source cannot be found.
    """
    path = source_file(method)
    if path is None:
        return ""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:10]


def source_file(method: str) -> Path | None:
    """The source file of a mixer; None where the mixer is not here any more, or its source cannot be found."""
    ours = next((path for path in _files() if path.stem == method), None)
    if ours is not None:
        return ours
    point = next((point for point in _points() if point.name == method), None)
    found = find_spec(point.module) if point else None
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def _typed(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        kinds = {type(item) for item in default}
        return cast_to(tuple[int, ...] if kinds == {int} else tuple[float, ...], name, value)
    return cast_to(type(default), name, value)


def _points() -> tuple[EntryPoint, ...]:
    return _points_on(tuple(sys.path))


@functools.cache
def _points_on(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001  (to look again where it has changed)
    return tuple(entry_points(group=ENTRY_POINTS))


@functools.cache
def _files() -> tuple[Path, ...]:
    found = find_spec("methods")
    folders = found.submodule_search_locations if found else None
    return tuple(sorted(path for folder in folders or () for path in Path(folder).glob("*.py")))


def _defines_a_mixer(path: Path) -> bool:
    """Whether a class in the file calls itself a mixer; ``base.py`` only defines what that is."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base).rpartition(".")[2] for node in classes for base in node.bases}
    return path.stem != "base" and bool(bases & {"Mixer", "TeacherMixer"})
