"""``mixbench report`` and ``show``: results as tables and pictures. As in the command line, imports stand inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mixbench.options import command_for, data_option, mini_option, results_option
from mixbench.running import DONE


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path), required=False)
@click.option("--table", type=click.IntRange(1), help="Short for sweeps/table<N>.yaml.")
@click.option("--format", "form", type=click.Choice(["md", "csv"]), default="md", show_default=True)
@click.option(
    "--metric",
    metavar="[last|median10|best|NAME]",
    default="last",
    show_default=True,
    help="The last epoch; the median of the last ten; the best one, which is a choice made on the test set; or the "
    "last epoch's NAME, like ema_top1.",
)
@click.option("--machine", metavar="NAME", help="Whose times.  [default: this one's, or of the only one that has any]")
@mini_option
@data_option
@results_option
def report(sweep: Path | None, table: int | None, form: str, metric: str, **where: Any) -> int:
    """Print the table of a SWEEP, with what the paper claims beside it."""
    from analysis import report as reports
    from mixbench.store import Store

    if (sweep is None) == (table is None):
        raise click.UsageError("name a sweep file, or a table of the paper with --table N, and not both")
    path = sweep or _table_path(table)
    store = Store(where.pop("results"), tell=lambda sentence: click.echo(sentence, err=True))
    command = command_for(path, where["data"], store.root, mini=where["mini"])
    click.echo(reports.report(path, store, form=form, metric=metric, command=command, **where), nl=False)
    return DONE


@click.command()
@click.option("--methods", metavar="METHOD,...", required=True, help="Whose mixes are shown.")
@click.option("--setting", metavar="DATA/MODEL", required=True, help="Whose test images and runs are shown.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file: .png, .pdf or .svg."
)
@click.option(
    "--figure",
    type=click.Choice(["parts", "tau", "lam"]),
    default="parts",
    show_default=True,
    help="How mixes are put together; one at several temperatures; one as lam grows.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the runs, and of the draws.")
@click.option("--images", type=click.IntRange(1), help="Mixes shown.  [default: 8 with parts, else 1]")
@click.option("--run", "runs", metavar="RUN", multiple=True, help="Show this run of its method, among several.")
@data_option
@results_option
def show(methods: str, setting: str, out: Path, figure: str, images: int | None, data: Path, **which: Any) -> int:
    """Draw what METHODs make of test images: inputs, CAMs, moved images, masks and results."""
    from analysis import figures, sources
    from mixbench.execution import Execution
    from mixbench.store import Store

    figures.check_suffix(out)
    store = Store(which["results"], tell=lambda sentence: click.echo(sentence, err=True))
    setting, folder = sources.checked_setting(setting, data=data)
    wanted = sources.Wanted([name.strip() for name in methods.split(",")], setting, which["seed"], which["runs"])
    found = sources.sources(wanted, store)
    execution = Execution(data=str(data), places={source.run.content: folder for source in found})

    from analysis.mixes import set_up  # imports torch: what needs none has been found right by now
    from analysis.panels import FIGURES

    count = images or (8 if figure == "parts" else 1)
    figures.write(FIGURES[figure](set_up(found, execution, store, count=count, seed=wanted.seed)), out)
    for source in found:
        click.echo(source.sentence)
    click.echo(f"drawn: {out}")
    return DONE


def _table_path(table: int | None) -> Path:
    path = Path(f"sweeps/table{table}.yaml")
    if not path.exists():
        there = sorted(str(one) for one in Path("sweeps").glob("table*.yaml")) or ["none yet"]
        raise ValueError(f"--table {table}: there is no {path}; in ./sweeps there are: {', '.join(there)}")
    return path
