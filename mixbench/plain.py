"""Values as YAML gives them, in the plain type that is meant."""

from __future__ import annotations

import math
import sys
from typing import Any


def cast_to(kind: Any, name: str, value: Any) -> Any:
    """``value`` as the plain type ``kind`` (int, float, bool, str, a tuple of these, or None where allowed).

    1 and 1.0 must be the same experiment, so a whole number given for a float becomes one; and so must 0.0 and -0.0,
    which are equal but written differently.

    Raises:
        ValueError: one sentence with the name, the value shown, and what is allowed.
    """
    if kind == int | None:
        return None if value is None else cast_to(int, name, value)
    if kind in (tuple[int, ...], tuple[float, ...]):
        inner = int if kind == tuple[int, ...] else float
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list of numbers, not {value!r}")
        return tuple(cast_to(inner, name, item) for item in value)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if kind in (int, float, bool, str) and type(value) is not kind:
        raise ValueError(f"{name} must be {_KINDS[kind]}, not {value!r}{_yaml_hint(kind, value)}")
    if kind is not float:
        return value
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")
    return value + 0.0


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _yaml_hint(kind: Any, value: Any) -> str:
    """What to write instead, where YAML took a number for text."""
    try:
        number = float(value) if kind is float and isinstance(value, str) else None
    except ValueError:
        number = None
    if number is None or not math.isfinite(number):
        return ""
    mantissa, _, exponent = f"{number:e}".partition("e")
    mantissa = mantissa.rstrip("0")
    return f" (to YAML that is text: write {mantissa + '0' if mantissa.endswith('.') else mantissa}e{exponent})"
