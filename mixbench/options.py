"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

Folder = click.Path(path_type=Path, file_okay=False)
data_option = click.option(
    "--data", type=Folder, default=Path("data"), show_default=True, help="Folder of the data sets."
)
results_option = click.option(
    "--results", type=Folder, default=Path("results"), show_default=True, help="Folder of results."
)
mini_option = click.option(
    "--mini", is_flag=True, help="A trial on a small machine: other runs, in a table of their own."
)
