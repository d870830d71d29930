"""``mixbench time``: what mixing costs on this machine. As in the command line, imports stand inside the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixbench.options import DATA, data_option, results_option
from mixbench.running import DONE, FAILED

if TYPE_CHECKING:
    from analysis.measured import Measured
    from analysis.timetable import Claims
    from mixbench.execution import Execution
    from mixbench.spec import Run
    from mixbench.store import Store
    from mixbench.timing.request import Request


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
@click.option("--again", metavar="RUN,...", help="Print what these came to, ids or their beginnings; measure nothing.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw cost against accuracy: .png, .pdf or .svg."
)
@data_option
@results_option
def command(form: str, train: bool, again: str | None, plot: Path | None, results: Path, **asked: Any) -> int:
    """Time what METHODs take to mix a batch, and to train on it.

    All by turns, on the same pictures, as they are trained here: teachers and policies are those of finished runs, or
    have random weights. Each call is a run of its own, with every reading; stopped, the same call goes on there.
    """
    from analysis import paper
    from analysis.timetext import FORMS
    from mixbench.store import Store
    from mixbench.timing import training

    store = Store(results, tell=lambda sentence: click.echo(sentence, err=True))
    claims = paper.known(results)
    if again is not None:
        found = [_kept(beginning.strip(), store) for beginning in again.split(",")]
        drawing = plot and _drawing(plot, [one.run.setting for one in found], store)
    else:
        execution = _execution(asked)
        request = _request(asked, execution)
        made_up = request.made_up(asked["data"], results)
        drawing = plot and _drawing(plot, request.settings, store)
        if train:
            training.train(request, asked["data"], results)
        runs = request.measurements(_subjects(request, store), made_up, store)
        code = _measure(runs, store, execution)
        if code != DONE:
            return code
        found = [_kept(run.id, store) for run in runs]
    click.echo(FORMS[form](found, claims), nl=False)
    if drawing:
        drawing(found, claims)
    return DONE


def _drawing(plot: Path, settings: Sequence[str], store: Store) -> Callable[[Sequence[Measured], Claims], None]:
    """What draws the plot: that it can be drawn is known before anything is measured.

    Raises:
        ValueError: it cannot.
    """
    from analysis import figures, timeplot
    from analysis.timetable import part

    figures.check_suffix(plot, option="--plot")
    accuracies = timeplot.accuracies(settings, store)

    def drawing(found: Sequence[Measured], claims: Claims) -> None:
        parts = [part(one, claims) for one in found]
        timeplot.write(parts, accuracies, plot)
        for sentence in (f"drawn: {plot}", *timeplot.undrawn(parts, accuracies)):
            click.echo(sentence, err=True)

    return drawing


def _subjects(request: Request, store: Store) -> dict[str, list[Run]]:
    """What is timed, by setting; what nobody named and cannot be timed is left out.

    Raises:
        ValueError: what was named cannot be timed.
    """
    from mixbench.checking import refusal  # imports torch: what needs none has been found right by now
    from mixbench.timing.runs import facts_of

    subjects: dict[str, list[Run]] = {}
    for setting, rows in request.subjects(store).items():
        refused = {subject: refusal(subject, facts_of(setting)) for _, subject in rows}
        for row, subject in rows:
            if refused[subject] and row.named:
                raise ValueError(refused[subject])
            if refused[subject]:
                click.echo(f"left out: {refused[subject]}", err=True)
        subjects[setting] = [subject for _, subject in rows if not refused[subject]]
    return subjects


def _execution(asked: dict[str, Any]) -> Execution:
    """How it is measured; its minutes are for all measurements together.

    Raises:
        ValueError: a GPU is asked for and none is there.
    """
    from mixbench import devices
    from mixbench.execution import Execution
    from mixbench.timing.runs import CPU_MINUTES

    device = devices.choose(asked["device"])
    minutes = asked["max_minutes"] or (CPU_MINUTES if device == "cpu" else None)
    return Execution(device=device, threads=asked["threads"], data=str(asked["data"]), minutes=minutes)


def _measure(runs: Sequence[Run], store: Store, execution: Execution) -> int:
    """Have the measurements made, one after the other, with nothing beside them; how the command ends."""
    from mixbench import running
    from mixbench.launch import check_writable, plan
    from mixbench.timing.runs import sweep_of

    each = replace(execution, minutes=execution.minutes and execution.minutes / len(runs))
    planned = plan(sweep_of(runs), store, retry_failed=True)
    check_writable(store.root)
    code = running.work(planned, store, each, 1, running.watcher(quiet=False, total=len(runs), aside=True))
    return FAILED if code == DONE and not all(map(store.complete, runs)) else code


def _kept(beginning: str, store: Store) -> Measured:
    """A measurement that was made.

    Raises:
        ValueError: there is none of this name.
    """
    from analysis.measured import measured
    from mixbench import status

    run = status.find(beginning, store)
    found = measured(run, store)
    if found is None:
        what = "is not done" if run.task == "time" else "has read no clock"
        raise ValueError(f"--again {beginning}: {run.folder} {what}; name a finished run of task: time")
    return found


def _request(asked: dict[str, Any], execution: Execution) -> Request:
    """What the options ask for.

    Raises:
        ValueError: it cannot be measured; names the option.
    """
    from mixbench import devices
    from mixbench.recipes import blaming
    from mixbench.timing.request import USUAL, Request, checked_precisions, rows_of, sized
    from mixbench.timing.runs import facts_of

    if asked["data"] != DATA and not asked["data"].is_dir():
        raise ValueError(f"--data {asked['data']}: there is no such folder")
    if asked["settings"] is not None and asked["size"] is not None:
        raise ValueError("--settings and --size both say what is mixed; give one of them")
    if asked["model"] is not None and asked["size"] is None:
        raise ValueError("--model is the network of --size; with --settings it is named there, like cifar10/resnet18")
    named = _words(asked["settings"]) or list(USUAL[execution.device])
    settings = named if asked["size"] is None else sized(_words(asked["size"]) or [], asked["model"])
    with blaming("--settings" if asked["size"] is None else "--size"):
        for setting in settings:
            facts_of(setting)
    return Request(
        settings=settings,
        rows=rows_of(_words(asked["methods"]), device=execution.device),
        batch_size=asked["batch_size"],
        precisions=checked_precisions(_words(asked["precision"]) or []),
        trials=asked["trials"] or 0,
        machine=devices.machine(execution),
    )


def _words(listed: str | None) -> list[str] | None:
    """What stands between commas, each once; None where nothing was said."""
    return None if listed is None else list(dict.fromkeys(word.strip() for word in listed.split(",")))
