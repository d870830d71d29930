"""Has done what timed methods would be given and what is not there: teachers and searches, as a sweep of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from mixbench import catalog, files
from mixbench.spec import FIELDS
from mixbench.timing.request import Request
from mixbench.timing.runs import SIMPLE, is_made_up


def train(request: Request, data: Path, results: Path) -> None:
    """Train the teacher of each setting and search for the policies of the rows, where that is not done.

    The sweep that says so is kept beside the records: ``mixbench why`` and another ``mixbench run`` know these runs.

    Raises:
        ValueError: the pictures of a setting are made up, or `mixbench run` refuses or fails.
    """
    for setting in request.settings:
        if is_made_up(setting.partition("/")[0]):
            raise ValueError(f"--train: on made-up pictures nothing can be learned; name a data set, not {setting}")
    path = results / "times.yaml"
    files.write(path, yaml.safe_dump(sweep(request), sort_keys=False).encode())
    places = ["--data", str(data), "--results", str(results)]
    command = [sys.executable, "-m", "mixbench", "run", str(path), *places]
    done = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise ValueError(f"--train: `mixbench run {path}` says: {said[-1].removeprefix('mixbench: ')}")
    click.echo(done.stderr, err=True, nl=False)


def sweep(request: Request) -> dict[str, Any]:
    """The sweep file: Simple, whose networks are the teachers, and a search for each method that has a policy."""
    given = {row.method: catalog.declaration(row.method).given for row in request.rows}
    searches: Mapping[str, Any] = {
        f"{method}_search": {"method": method, "recipe": "search"}
        for method, asked in given.items()
        if "policy" in asked
    }
    return {
        "settings": list(request.settings),
        "methods": {SIMPLE: None, **searches},
        "seeds": [0],
        "teacher": {"method": SIMPLE, "seed": 0},
        "table": {"caption": "What mixbench time was to train.", "unlike": list(FIELDS)},
    }
