"""What several commands have in common: options, and what they tell the user to do."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

Folder = click.Path(path_type=Path, file_okay=False)
DATA = Path("data")
data_option = click.option("--data", type=Folder, default=DATA, show_default=True, help="Folder of the data sets.")
results_option = click.option(
    "--results", type=Folder, default=Path("results"), show_default=True, help="Folder of results."
)
mini_option = click.option(
    "--mini", is_flag=True, help="A trial on a small machine: other runs, in a table of their own."
)


def command_for(path: Path, data: Path, results: Path, *, mini: bool) -> str:
    """The command that fills a table's gaps."""
    places = (("--data", data, "data"), ("--results", results, "results"))
    named = ((name, str(value)) for name, value, usual in places if str(value) != usual)
    return shlex.join(["mixbench", "run", str(path), *["--mini"] * mini, *(word for pair in named for word in pair)])
