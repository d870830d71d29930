"""What each mixer declares: its label, its options with their defaults, and what it must be given.

The mixers of this repository are not imported for that, since importing one imports torch, which takes seconds:
their declaration, the class attributes and the constructor's signature, is read from the source.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mixbench.spec import FIELDS, cast_to

ENTRY_POINTS = "mixbench.mixers"

SAID: Mapping[str, Any] = {"source": "", "defaults": "", "draws": "", "asks": "", "passes": 1.0}
"""Class attributes by which a mixer says more of itself, with their defaults; see `methods.base.Mixer`."""


@dataclass(frozen=True)
class Declaration:
    """What a mixer says of itself.

    Attributes:
        name: file name, YAML key and ``method`` among the paper's figures.
        label: how tables print it.
        source: where it was published.
        defaults: where its options' defaults are from.
        draws: what it draws, and for how many images at once.
        asks: what it asks of the network in training.
        passes: what a step of training costs, in passes of the network.
        summary: the first line of its docstring.
        options: what YAML may set, with the defaults.
        choices: the words that an option may be, where it is annotated with them: ``Literal["batch", "sample"]``.
        given: what the harness must give it, by name.
    """

    name: str
    label: str
    source: str
    defaults: str
    draws: str
    asks: str
    passes: float
    summary: str
    options: Mapping[str, Any]
    choices: Mapping[str, tuple[Any, ...]]
    given: tuple[str, ...]


def names() -> list[str]:
    """Names of all mixers: this repository's, then those of installed packages."""
    return [path.stem for path in _files() if _class_in(path)] + sorted(point.name for point in _points())


@functools.cache
def declaration(name: str) -> Declaration:
    """What the mixer ``name`` declares.

    Raises:
        ValueError: there is no such mixer, there are two, or its declaration is not literal.
    """
    ours = [path for path in _files() if path.stem == name and _registers(path)]
    theirs = [point for point in _points() if point.name == name]
    places = [f"methods.{name}"] * len(ours) + [point.value for point in theirs]
    if len(places) > 1:
        raise ValueError(f"two mixers are called '{name}': {' and '.join(places)}; rename one or uninstall it")
    if ours:
        return _read(ours[0])
    if theirs:
        return _inspect(theirs[0])
    if any(path.stem == name and _defines_a_mixer(path) for path in _files()):
        raise ValueError(f"methods/{name}.py registers no mixer; write @register('{name}') above its class")
    raise ValueError(f"there is no method '{name}'; there are: {', '.join(names())}")


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
    return tuple(entry_points(group=ENTRY_POINTS))


@functools.cache
def _files() -> tuple[Path, ...]:
    found = find_spec("methods")
    folders = found.submodule_search_locations if found else None
    return tuple(sorted(path for folder in folders or () for path in Path(folder).glob("*.py")))


@functools.cache
def _class_in(path: Path) -> ast.ClassDef | None:
    """The class in this file that is registered under the file's name."""
    if not _registers(path):
        return None
    try:
        nodes = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno} is no valid Python: {error.msg}") from None
    return next((node for node in nodes if isinstance(node, ast.ClassDef) and path.stem in _registered_as(node)), None)


@functools.cache
def _registers(path: Path) -> bool:
    """Whether this file has a mixer for all to use; said by its text, so that a mistake in it is not read as none."""
    return "@register(" in path.read_text(encoding="utf-8")


def _defines_a_mixer(path: Path) -> bool:
    """Whether a class in the file calls itself a mixer; ``base.py`` only defines what that is."""
    classes = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base).rpartition(".")[2] for node in classes for base in node.bases}
    return path.stem != "base" and bool(bases & {"Mixer", "TeacherMixer"})


def _registered_as(node: ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register":
            yield from (ast.unparse(name).strip("'\"") for name in decorator.args)


def _read(path: Path) -> Declaration:
    node = _class_in(path)
    if node is None:
        raise ValueError(f"{path} has no class under @register('{path.stem}'); a mixer is called as its file is")
    init = next((part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None)
    if init is None:
        raise ValueError(f"{path}: {node.name} has no __init__; write one, its signature declares the options")
    arguments = init.args
    return Declaration(
        name=path.stem,
        label=_attribute(path, node, "label", "") or path.stem,
        **{name: _attribute(path, node, name, default) for name, default in SAID.items()},
        summary=(ast.get_docstring(node) or "").partition("\n")[0],
        options={
            argument.arg: _literal(path, argument.arg, default)
            for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        },
        choices={
            argument.arg: _words(argument.annotation)
            for argument in arguments.kwonlyargs
            if isinstance(argument.annotation, ast.Subscript) and ast.unparse(argument.annotation.value) == "Literal"
        },
        given=tuple(argument.arg for argument in arguments.posonlyargs + arguments.args if argument.arg != "self"),
    )


def _literal(path: Path, option: str, default: ast.expr | None) -> Any:
    value = None
    with contextlib.suppress(ValueError):
        value = ast.literal_eval(default) if default is not None else None
    return _checked(str(path), option, value)


def _words(literal: ast.Subscript) -> tuple[Any, ...]:
    """What stands in the brackets of ``Literal[...]``."""
    words = ast.literal_eval(literal.slice)
    return words if isinstance(words, tuple) else (words,)


def _checked(place: str, option: str, default: Any) -> Any:
    """A default, whose type is that of the option's values.

    Raises:
        ValueError: it is of no type that YAML could mean.
    """
    numbers = default if isinstance(default, tuple) else (0,)
    if isinstance(default, int | float | str | tuple) and all(type(number) in (int, float) for number in numbers):
        return default
    raise ValueError(
        f"{place}: option {option} needs a literal default: a number, text, True or False, or a tuple of numbers"
    )


def _attribute(path: Path, node: ast.ClassDef, name: str, default: Any) -> Any:
    """What a class attribute is given, of the type of its default, which it has where the class says nothing of it."""
    for part in node.body:
        if not isinstance(part, ast.Assign | ast.AnnAssign):
            continue
        target = part.target if isinstance(part, ast.AnnAssign) else part.targets[0]
        if ast.unparse(target) != name:
            continue
        if isinstance(part.value, ast.Constant) and isinstance(part.value.value, type(default)):
            return part.value.value
        kind = "plain text in quotes" if isinstance(default, str) else f"a number like {default}"
        raise ValueError(f"{path}: {node.name}.{name} must be {kind}: it is read, not executed")
    return default


def _inspect(point: EntryPoint) -> Declaration:
    """The declaration of another package's mixer, which has to be imported for it."""
    try:
        mixer = point.load()
    except (Exception, SystemExit) as error:
        raise ValueError(f"the mixer '{point.name}' of {point.value} cannot be imported: {error!r}") from error
    if not hasattr(mixer, "label"):
        raise ValueError(f"the mixer '{point.name}' of {point.value} is no methods.Mixer; derive its class from that")
    parameters = list(inspect.signature(mixer.__init__).parameters.values())[1:]
    hints = get_type_hints(mixer.__init__)
    return Declaration(
        name=point.name,
        label=mixer.label or point.name,
        **{name: getattr(mixer, name) for name in SAID},
        summary=(inspect.getdoc(mixer) or "").partition("\n")[0],
        options={
            one.name: _checked(point.value, one.name, one.default) for one in parameters if one.kind is one.KEYWORD_ONLY
        },
        choices={name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal},
        given=tuple(one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD),
    )
