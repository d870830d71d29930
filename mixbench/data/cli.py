"""``mixbench data``: which data sets are at hand, how to get them, whether all is right with one of them.

As in the command line, imports stand inside the commands.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from mixbench.options import data_option, results_option
from mixbench.running import DONE, FAILED


@click.group(name="data", invoke_without_command=True)
@data_option
@results_option
@click.pass_context
def commands(context: click.Context, data: Path, results: Path) -> int:
    """Show which data sets are at hand; get or check one.

    A first look reads what it shows.
    """
    context.default_map = {command: {"data": str(data)} for command in ("get", "check")}
    if context.invoked_subcommand is None:
        from mixbench.data import CACHE, DATASETS
        from mixbench.data.standing import standing

        for name in DATASETS:
            found = standing(name, root=data, cache=results / CACHE)
            click.echo(f"{name:<14} {found.state:<8} {found.sentence}")
    return DONE


@commands.command()
@click.argument("name")
@data_option
def get(name: str, data: Path) -> int:
    """Fetch the data set NAME, where that can be done, and check what came."""
    from mixbench.data import fetching
    from mixbench.data.read import look
    from mixbench.data.standing import described

    folder = fetching.folder_of(name, root=data)
    if folder is not None and folder.exists():
        click.echo(f"{folder} is there already; nothing is fetched")
    elif folder is not None:
        try:
            with _showing_the_layout(name, data):
                fetching.fetch(name, root=data)
        except fetching.FetchError as error:
            click.echo(f"mixbench: {error}", err=True)
            return FAILED
    click.echo(f"{name}: {described(name, look(name, root=data), root=data)}")
    return DONE


@commands.command()
@click.argument("name")
@data_option
def check(name: str, data: Path) -> int:
    """Look at every image of the data set NAME: counts, classes, labels, and whether it can be read."""
    from rich.console import Console
    from rich.progress import track

    from mixbench.data import inspection

    with _showing_the_layout(name, data):
        held = inspection.hold(name, root=data)
    for line in held.lines():
        click.echo(line)
    console = Console(stderr=True)
    looks = track(
        inspection.problems(held.paths),
        f"reading {name}",
        total=held.images,
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    found = []
    for problem in filter(None, looks):
        found.append(problem)
        click.echo(problem)
    if not found:
        click.echo("every image can be read")
    inspection.judge(name, found, held)
    return DONE


@contextmanager
def _showing_the_layout(name: str, root: Path) -> Iterator[None]:
    """What is missing or wrong inside is followed by how the data set's folder must look."""
    from mixbench.data import DATASETS

    try:
        yield
    except ValueError:
        layout = DATASETS[name].layout if name in DATASETS else ()
        if layout:
            click.echo(f"{name} has its files here:")
            for line in layout:
                click.echo(f"  {root / line}")
        raise
