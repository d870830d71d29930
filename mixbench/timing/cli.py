"""``mixbench time``: what mixing costs on this machine. As in the command line, imports stand inside the command."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.options import data_option, results_option
from mixbench.running import DONE

if TYPE_CHECKING:
    from analysis.timetable import Record
    from analysis.timetext import Claims
    from mixbench.timing.request import Request

CPU_MINUTES = 4.0
"""How long the rounds last on the CPU unless more is asked for."""


@click.command(name="time")
@click.option("--methods", metavar="METHOD,...", help="[default: all; on the CPU not those that search for a mix]")
@click.option("--settings", metavar="DATA/MODEL,...", help="[default: cifar10/resnet8; with a GPU those of table 4]")
@click.option("--size", metavar="PIXELS,...", help="Made-up pictures of these sides, with --model.")
@click.option("--model", metavar="NAME", help="The network, with --size.")
@click.option("--batch-size", type=click.IntRange(2), default=128, show_default=True, help="Images of a batch.")
@click.option("--precision", metavar="NAME,...", default="float32", show_default=True, help="Or bfloat16, or both.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is a GPU]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="On the CPU.")
@click.option(
    "--trials", type=click.IntRange(1), help="Exactly so many.  [default: 30 to 200, until medians are known]"
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(0, min_open=True),
    help="Begin no round after so many.  [default: 4 on the CPU]",
)
@click.option("--format", "form", type=click.Choice(["md", "tex", "csv", "json"]), default="md", show_default=True)
@click.option("--train", is_flag=True, help="First train a teacher and search for policies, where that is not done.")
@click.option(
    "--again",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Print what this record, kept by an earlier call, came to; measure nothing.",
)
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw cost against accuracy: .png, .pdf or .svg."
)
@data_option
@results_option
def command(form: str, train: bool, again: Path | None, plot: Path | None, results: Path, **asked: Any) -> int:
    """Time what METHODs take to mix a batch, and to train on it.

    All by turns, on the same pictures, as they are trained here: teachers and policies are those of finished runs, or
    have random weights. The record of every reading is kept below results/times.
    """
    from analysis import paper
    from analysis.timetext import FORMS
    from mixbench.timing import training

    claims = paper.load(results / "paper.csv")
    if again is not None:
        record = _kept(again)
        drawing = plot and _drawing(plot, [part["setting"] for part in record["parts"]], results)
    else:
        request = _request(asked, results)
        drawing = plot and _drawing(plot, request.settings, results)
        if train:
            training.train(request)
        record = _measured(request, results)
    click.echo(FORMS[form](record, claims), nl=False)
    if drawing:
        drawing(record, claims)
    return DONE


def _drawing(plot: Path, settings: Sequence[str], results: Path) -> Callable[[Record, Claims], None]:
    """What draws the plot: that it can be drawn is known before anything is measured.

    Raises:
        ValueError: it cannot.
    """
    from analysis import figures, timeplot
    from analysis.timetable import parts
    from mixbench.store import Store

    figures.check_suffix(plot, option="--plot")
    found = timeplot.accuracies(settings, Store(results, tell=lambda sentence: click.echo(sentence, err=True)))

    def drawing(record: Record, claims: Claims) -> None:
        timeplot.write(parts(record, claims), found, plot)
        for sentence in (f"drawn: {plot}", *timeplot.undrawn(parts(record, claims), found)):
            click.echo(sentence, err=True)

    return drawing


def _measured(request: Request, results: Path) -> dict[str, Any]:
    """The record of a measurement, which is kept."""
    from mixbench import files
    from mixbench.timing.request import measured

    try:
        record = measured(request)
    except ChildProcessError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped; a measurement that has not ended is not kept", err=True)
        raise
    now = dt.datetime.now(tz=dt.UTC)
    record |= {"measured": now.isoformat(timespec="seconds")}
    kept = results / "times" / f"{now:%Y%m%d-%H%M%S}.json"
    files.write(kept, files.encode(record))
    click.echo(f"kept: {kept}", err=True)
    return record


def _kept(path: Path) -> dict[str, Any]:
    """A record that an earlier call kept.

    Raises:
        ValueError: there is none.
    """
    from mixbench import files

    record = files.read(path)
    if record is None or "parts" not in record:
        raise ValueError(f"--again {path}: there is no record of mixbench time; they are kept in results/times")
    return record


def _request(asked: dict[str, Any], results: Path) -> Request:
    """What the options ask for.

    Raises:
        ValueError: it cannot be measured; names the option.
    """
    from mixbench.devices import visible_gpus
    from mixbench.recipes import blaming
    from mixbench.timing.request import USUAL, Request, checked_precisions, facts_of, rows_of, sized

    gpus = visible_gpus() if asked["device"] != "cpu" else []
    if asked["device"] == "cuda" and not gpus:
        raise ValueError("--device cuda: no GPU is visible here; use --device cpu")
    device = "cuda" if gpus else "cpu"
    if asked["settings"] is not None and asked["size"] is not None:
        raise ValueError("--settings and --size both say what is mixed; give one of them")
    if asked["model"] is not None and asked["size"] is None:
        raise ValueError("--model is the network of --size; with --settings it is named there, like cifar10/resnet18")
    named = _words(asked["settings"]) or list(USUAL[device])
    settings = named if asked["size"] is None else sized(_words(asked["size"]) or [], asked["model"])
    with blaming("--settings" if asked["size"] is None else "--size"):
        for setting in settings:
            facts_of(setting)
    minutes = asked["max_minutes"] or (CPU_MINUTES if device == "cpu" else None)
    return Request(
        settings=settings,
        rows=rows_of(_words(asked["methods"]), device=device),
        batch_size=asked["batch_size"],
        precisions=checked_precisions(_words(asked["precision"]) or []),
        device=device,
        threads=asked["threads"],
        trials=asked["trials"],
        seconds=None if minutes is None else 60 * minutes,
        data=str(asked["data"]),
        results=str(results),
    )


def _words(listed: str | None) -> list[str] | None:
    """What stands between commas, each once; None where nothing was said."""
    return None if listed is None else list(dict.fromkeys(word.strip() for word in listed.split(",")))
