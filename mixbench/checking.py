"""Holds a mixer against the contract, as ``mixbench check`` does; imports torch."""

from __future__ import annotations

from methods import build, contract
from mixbench import catalog


def complaints(name: str) -> list[str]:
    """What a mixer breaks of the contract, with its options at their defaults; nothing where it keeps it.

    A teacher that it asks for is a small untrained network.

    Raises:
        ValueError: there is no such mixer, or its declaration cannot be read.
    """
    given = {link: contract.SmallNetwork() for link in catalog.declaration(name).given}
    try:
        contract.check(build(name, {}, given))
    except Exception as error:
        where = getattr(error, "__notes__", [])
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        return [f"{kind}{error}", *where]
    return []
