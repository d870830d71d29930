"""What benchmarks claim, and that each of them can be started; nothing is timed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"
NO_SCRIPTS = {"beside", "claims", "machine", "timm_loop"}
SCRIPTS = sorted({path.stem for path in FOLDER.glob("*.py")} - NO_SCRIPTS)


@pytest.fixture
def claims(monkeypatch):
    """The module, which scripts import from beside themselves."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import claims

    return claims


def test_benchmarks_are_all_run_by_make_bench():
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if "benchmarks/" in line)
    assert sorted(line.partition(" in ")[2].partition(";")[0].split()) == SCRIPTS


def test_every_benchmark_can_be_imported_and_has_a_main():
    code = f"import {', '.join(SCRIPTS)}; assert all(callable(one.main) for one in ({', '.join(SCRIPTS)}))"
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER, env={"PYTHONPATH": str(ROOT)}, check=True, timeout=120)


@pytest.mark.parametrize(
    ("value", "at_most", "met"), [(2.0, True, True), (2.1, True, False), (2.0, False, True), (1.9, False, False)]
)
def test_claim_knows_whether_it_is_met(claims, value, at_most, met):
    claim = claims.Claim("w", value, 1.0, 3.0, 2.0, at_most=at_most)
    assert claim.is_met == met
    assert claim.row().endswith("| met" if met else "| **missed**")


def test_claim_tells_value_spread_and_target(claims):
    claim = claims.measured("a step", [0.4, 0.1, 0.25], 2, "%", at_most=True)
    assert claim.row() == "a step | 0.25 % | 0.1 to 0.4 | at most 2 | met"


def test_faster_is_how_many_times_as_long_the_other_takes_round_by_round(claims):
    claim = claims.faster("ours", [1.0, 2.0, 4.0], [2.0, 3.0, 16.0], 2.5)
    assert (claim.value, claim.low, claim.high, claim.is_met) == (2.0, 1.5, 4.0, False)


def test_table_of_all_claims_grows_with_each_page_and_keeps_the_others(claims, tmp_path, capsys):
    first, other = claims.Claim("old", 1.0, 1.0, 1.0, 2.0), claims.Claim("new", 3.0, 2.5, 3.5, 2.0)
    claims.publish("one", tmp_path, "## One\n", [first])
    claims.publish("two", tmp_path, "## Two\n", [first, first])
    claims.publish("one", tmp_path, "## One again\n", [other])
    assert capsys.readouterr().out.count("## ") == 3
    assert (tmp_path / "one.md").read_text().startswith("## One again\n\n| claim |")
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert rows == [f"| [one](one.md) | {other.row()} |"] + [f"| [two](two.md) | {first.row()} |"] * 2


def test_table_names_each_machine_with_what_was_measured_on_it(claims):
    def on(machine):
        return {"machine": machine, "claims": []}

    text = claims.table({"a": on("Some CPU."), "b": on("Another."), "c": on("Some CPU.")})
    assert "- a, c: Some CPU.\n- b: Another.\n" in text


def test_committed_table_is_the_one_that_its_claims_make(claims):
    path = claims.PLACE / "claims.json"
    found = json.loads(path.read_text())
    assert (claims.PLACE / "README.md").read_text() == claims.table(found)
    assert {*found, "graph"} == set(SCRIPTS)  # which has nothing to say without a GPU
