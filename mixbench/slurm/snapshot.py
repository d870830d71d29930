"""The code that jobs run is a copy, made when they are submitted: what is edited meanwhile does not reach them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from mixbench import catalog, files, provenance
from mixbench.spec import Run

PACKAGES = ("mixbench", "methods")

OLD_SECONDS = 7 * 86400.0


def take(sweeps: Path) -> str:
    """Copy the code to below a results folder's ``sweeps``, unless it is there already; its mark."""
    sources = {
        str(path.relative_to(provenance.ROOT)): path.read_bytes()
        for package in PACKAGES
        for path in sorted((provenance.ROOT / package).rglob("*.py"))
    }
    commit = provenance.commit()
    said = "".join(f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in sources.items())
    mark = hashlib.sha256(f"{commit}\n{said}".encode()).hexdigest()[:10]
    if not place(sweeps, mark).exists():
        files.claim(place(sweeps, mark), sources | {provenance.COMMIT.name: f"{commit}\n".encode()})
    return mark


def place(sweeps: Path, mark: str) -> Path:
    """Where a copy is, or will be."""
    return sweeps / "code" / mark


def drop_unused(sweeps: Path, used: Iterable[str]) -> None:
    """Remove the copies that no job will need any more, once they are old: a cluster may forget jobs that go on."""
    kept = set(used)
    for copy in (sweeps / "code").glob("[!.]*"):
        if copy.name not in kept and files.now(sweeps) - copy.stat().st_mtime > OLD_SECONDS:
            shutil.rmtree(copy, ignore_errors=True)


def outside(runs: Iterable[Run]) -> dict[str, str]:
    """Marks of the code of these runs' mixers, as far as no copy holds it: other packages bring them."""
    methods = {one.method for run in runs for one in (run, *run.needs(), *run.subjects)}
    return {method: catalog.code(method) for method in sorted(methods) if not catalog.is_ours(method)}


def changed(mixers: Mapping[str, str]) -> list[str]:
    """Of these mixers those whose code is not what its mark says."""
    return [method for method, mark in mixers.items() if catalog.code(method) != mark]
