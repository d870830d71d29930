"""What a user sees of runs at work."""

import pytest

from mixbench import display
from mixbench.display import Lines, Live, Quiet, figures
from mixbench.spec import Run
from mixbench.watching import Standing

RUN = Run(method="wo_stn", task="search", dataset="digits", model="tiny", epochs=2)
SEARCHED = {"excess": 2.3051, "tau": 0.7249, "in_frame": 0.9, "mask_slope": 0.98}


def standing(metrics=SEARCHED, *, steps=50, rate=5412.0):
    return Standing(steps, 200, metrics, rate)


@pytest.mark.parametrize(
    ("metrics", "rate", "shown"),
    [
        (SEARCHED, 5412.0, ["excess 2.31", "tau 0.72", "5,412 images/s"]),
        ({"top1": 71.234, "top5": 99.0, "test_loss": 1.0}, None, ["top1 71.2"]),
        ({}, 5412.0, ["5,412 images/s"]),
        ({}, None, []),
    ],
)
def test_figures_are_those_that_tell_how_a_run_goes(metrics, rate, shown):
    assert figures(standing(metrics, rate=rate)) == shown


def test_line_that_ends_a_run_has_its_last_figures(capsys):
    with Lines(30) as lines:
        lines.started(RUN)
        lines.moved(RUN, standing({"excess": 4.0, "tau": 1.0}))
        lines.moved(RUN, standing())
        lines.ended(RUN, "done", "")
    said = capsys.readouterr().out
    assert said.startswith(f"[1/30] {RUN.folder} done, excess 2.31, tau 0.72, 5,412 images/s, about ")
    assert said.count("\n") == 1


def test_line_of_a_run_of_which_nothing_is_known_has_no_figures(capsys):
    with Lines(1) as lines:
        lines.ended(RUN, "failed", "no luck")
    assert capsys.readouterr().out == f"[1/1] {RUN.folder} failed: no luck\n"


def test_lines_of_a_long_run_have_its_figures_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    with Lines(1) as lines:
        lines.moved(RUN, standing())
    assert capsys.readouterr().out == f"{RUN.folder} at 25 %, excess 2.31, tau 0.72, 5,412 images/s\n"


@pytest.mark.parametrize(
    ("columns", "name", "known"),
    [(150, RUN.folder, "excess 2.31, tau 0.72, 5,412 images/s"), (80, RUN.folder[:-11], "excess 2.31")],
)
def test_bar_of_a_run_at_work_has_as_many_of_its_figures_as_fit(columns, name, known, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    with Live(2) as live:
        live.started(RUN)
        live.moved(RUN, standing())
        _, bar = live._progress.tasks
    assert (bar.description, bar.completed, bar.total) == (name, 50, 200)
    assert bar.fields["figures"] == known


def test_quiet_display_says_what_goes_wrong_and_nothing_else(capsys):
    with Quiet() as quiet:
        quiet.started(RUN)
        quiet.moved(RUN, standing())
        quiet.ended(RUN, "done", "")
        assert capsys.readouterr() == ("", "")
        quiet.told("a warning")
        quiet.ended(RUN, "failed", "no luck")
    assert capsys.readouterr().err == f"a warning\nfailed: {RUN.folder}: no luck\n"
