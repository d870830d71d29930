"""Which floor may import what, read from the source; and that what does without torch does not import it."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

from mixbench.resolve import load_sweep

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "sweeps" / "quickstart.yaml"
PACKAGES = ("methods", "mixbench", "analysis")

FLOORS = {"methods": {"methods"}, "mixbench": {"methods", "mixbench"}, "analysis": {"methods", "mixbench", "analysis"}}
METHODS_NEED = {"torch", "torchvision", "numpy", "scipy", "PIL", "numba"}

COMMANDS = ("mixbench.cli", "mixbench.timing.cli", "mixbench.printing.cli", "mixbench.__main__")
"""Stand on top, and may import all."""

MAY_IMPORT_TORCH = {
    "analysis.mixes",
    "analysis.panels",
    "mixbench.bank",
    "mixbench.checking",
    "mixbench.criteria",
    "mixbench.data.crops",
    "mixbench.data.decoded",
    "mixbench.data.images",
    "mixbench.data.resident",
    "mixbench.graph",
    "mixbench.importing",
    "mixbench.learning",
    "mixbench.makers",
    "mixbench.materials",
    "mixbench.replay",
    "mixbench.search",
    "mixbench.step",
    "mixbench.streams",
    "mixbench.tasks",
    "mixbench.team",
    "mixbench.timing.circumstances",
    "mixbench.timing.clocks",
    "mixbench.timing.floor",
    "mixbench.timing.given",
    "mixbench.timing.inputs",
    "mixbench.timing.kernels",
    "mixbench.timing.measuring",
    "mixbench.timing.subjects",
    "mixbench.together",
    "mixbench.train",
}
"""All outside `methods` and `mixbench.nets` that imports torch when it is imported: what trains, not what looks."""


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def imported(nodes):
    """Modules that these statements import; of ``from a import b`` both a and a.b, if that is a module of ours."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (name for alias in node.names if (name := f"{node.module}.{alias.name}") in FILES)


def anywhere(name):
    """What a module imports, be it inside a function or only for types."""
    return set(imported(ast.walk(ast.parse(FILES[name].read_text()))))


def at_once(nodes):
    """All nodes that run when a module is imported."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from at_once(ast.iter_child_nodes(node))


def when_imported(name):
    """What importing a module imports, the packages that it lies in included."""
    names = {*imported(at_once(ast.parse(FILES[name].read_text()).body)), name}
    return {name[:end] for name in names for end in (*(place for place, sign in enumerate(name) if sign == "."), None)}


def closure(name):
    """All that importing a module brings with it, as far as our own modules say."""
    found, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += when_imported(one) if one in FILES else []
    return found


@pytest.mark.parametrize("name", FILES)
def test_module_imports_only_its_own_floor_and_those_below(name):
    if name in COMMANDS:
        return
    ours = {one.partition(".")[0] for one in anywhere(name)} & set(PACKAGES)
    assert ours <= FLOORS[name.partition(".")[0]]


@pytest.mark.parametrize("name", [name for name in FILES if name.partition(".")[0] == "methods"])
def test_methods_import_only_themselves_and_what_computes(name):
    tops = {one.partition(".")[0] for one in anywhere(name)}
    assert tops - {"methods"} - METHODS_NEED <= sys.stdlib_module_names


def test_nobody_imports_the_command_line_but_main():
    assert {name for name in FILES if "mixbench.cli" in anywhere(name)} == {"mixbench.__main__"}


def test_only_what_trains_imports_torch_when_it_is_imported():
    exempt = ("methods", "mixbench.nets.")
    assert {name for name in FILES if "torch" in closure(name) and not name.startswith(exempt)} == MAY_IMPORT_TORCH


def test_networks_are_named_without_torch():
    assert "torch" not in closure("mixbench.nets")


def test_no_two_modules_import_each_other_when_they_are_imported():
    # A package does not count for the modules in it: it is there before them.
    needs = {
        name: {one for one in when_imported(name) & set(FILES) if not f"{name}.".startswith(f"{one}.")}
        for name in FILES
    }
    graphlib.TopologicalSorter(needs).prepare()


SPY = """
import sys
from mixbench.cli import main
sys.argv = ["mixbench", *sys.argv[1:]]
try:
    main()
except SystemExit as ending:
    code = ending.code or 0
print(code, *sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "torchvision", "pandas", "sklearn"}))
"""


@pytest.fixture
def results(tmp_path, finish):
    """A results folder in which the quickstart's first run is done."""
    sweep = load_sweep(QUICKSTART, data=tmp_path, results=tmp_path)
    finish(tmp_path / "results", sweep.cells[0].runs[0])
    return tmp_path / "results"


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "--version",
        "run --help",
        "run --dry-run SWEEP --results RESULTS",
        "report SWEEP --results RESULTS",
        "report SWEEP --results RESULTS --format csv --metric best",
        "list",
        "show --help",
        "time --help",
        "why simple-digits-tiny-s0 --results RESULTS",
        "data get --help",
        "data check --help",
    ],
)
def test_command_that_trains_nothing_imports_no_torch(command, results):
    words = command.replace("SWEEP", str(QUICKSTART)).replace("RESULTS", str(results)).split()
    spied = subprocess.run([sys.executable, "-c", SPY, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert spied.stderr == ""
    assert spied.stdout.splitlines()[-1] == "0"
