"""Says where a figure was measured."""

from __future__ import annotations

import datetime as dt

from mixbench import provenance


def heading(title: str, how: str) -> str:
    """The head of a benchmark's page: what, how, where, with which versions, when."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions().items())
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    return f"## {title}\n\n{how}.\n{provenance.processor()}; {versions}; commit {provenance.commit()}; {today}.\n"
