"""What a mixer says of itself, read from its source or, in another package, from its class."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

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


@functools.cache
def class_in(path: Path) -> ast.ClassDef | None:
    """The class in this file that is registered under the file's name."""
    if not registers(path):
        return None
    try:
        nodes = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except SyntaxError as error:
        raise ValueError(f"{path}: line {error.lineno} is no valid Python: {error.msg}") from None
    return next((node for node in nodes if isinstance(node, ast.ClassDef) and path.stem in _registered_as(node)), None)


@functools.cache
def registers(path: Path) -> bool:
    """Whether this file has a mixer for all to use; said by its text, so that a mistake in it is not read as none."""
    return "@register(" in path.read_text(encoding="utf-8")


def read(path: Path) -> Declaration:
    """What a file of this repository says of its mixer; nothing in it is executed.

    Raises:
        ValueError: it has no such mixer, or its declaration is not literal.
    """
    node = class_in(path)
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


def inspected(point: EntryPoint) -> Declaration:
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


def _registered_as(node: ast.ClassDef) -> Iterator[str]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "register":
            yield from (ast.unparse(name).strip("'\"") for name in decorator.args)
