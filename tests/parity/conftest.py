"""Recorded cases: inputs, draws and outputs of the authors' code, which ours must reproduce.

A test says which files it checks, ``@pytest.mark.cases("mixup_")``, and runs once for each file whose name begins so,
or with another of the prefixes that it gives; its argument ``case`` holds the file's arrays by name. So a new method
adds one file, ``test_<method>.py``. The files are no part of the project: they are looked for in the folder
``MIXBENCH_PARITY``, seen from the project's root.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / os.environ.get("MIXBENCH_PARITY", "../shared/parity")
FILES = sorted(FOLDER.glob("*.npz"))


def pytest_configure(config):
    config.addinivalue_line("markers", "cases(prefix): run for each recorded case whose file name begins with prefix")


def pytest_generate_tests(metafunc):
    for marker in metafunc.definition.iter_markers("cases"):
        files = [file for file in FILES if file.stem.startswith(marker.args)]
        metafunc.parametrize("case", _parameters(files, f"{marker.args[0]}*.npz"), indirect=True)
    if "unclaimed" in metafunc.fixturenames:
        files = [file for file in FILES if not file.stem.startswith(_claimed())]
        metafunc.parametrize("unclaimed", _parameters(files, "file that no test checks"))


@pytest.fixture
def case(request):
    """The arrays of one recorded case, by name."""
    with np.load(request.param) as arrays:
        return dict(arrays)


@pytest.fixture
def another():
    """The arrays of a case that other cases refer to, by its name."""

    def load(name):
        with np.load(FOLDER / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


def _parameters(files, wanted):
    if files:
        return [pytest.param(file, id=file.stem) for file in files]
    reason = f"no {wanted} in {FOLDER}; MIXBENCH_PARITY names the folder of recorded cases"
    return [pytest.param(None, id="no-case", marks=pytest.mark.skip(reason=reason))]


def _claimed():
    """What the tests of this folder check. Read from their source: not all of them need be collected."""
    sources = [test.read_text() for test in Path(__file__).parent.glob("test_*.py")]
    marks = [mark for source in sources for mark in re.findall(r"mark\.cases\((.*)\)", source)]
    return tuple(prefix for mark in marks for prefix in re.findall(r'"(\w+)"', mark))
