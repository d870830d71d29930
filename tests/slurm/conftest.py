"""A real SLURM on this machine, and sweeps that are handed to it while it is being hurt."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mixbench import files
from mixbench.resolve import load_sweep

INSIDE = Path(__file__).parent / "inside"
PYTHON = sys.executable
SHARED = Path(os.environ.get("MIXBENCH_SHARED", Path(__file__).parents[3] / "shared"))
TESTBED = Path(os.environ.get("MIXBENCH_SLURM_TESTBED", SHARED / "slurm" / "slurm-testbed"))

QUICK = "mixbench.attempts:HEARTBEAT_SECONDS=1,mixbench.pulse:LEASE_SECONDS=6"
"""Heartbeats and leases in which a test can wait."""

SWEEP = """\
settings: [digits/tiny]
methods: {methods}
seeds: {seeds}
teacher: {{method: simple}}
recipes:
  digits/tiny:
    {{epochs: {epochs}, batch_size: 50, schedule: cosine, pad: 1, flip: false, train_images: 100, test_images: 100,
     evaluate_every: 100, checkpoint_seconds: {checkpoint_seconds}}}
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def seconds_until(condition, *, within, every=0.3):
    """Waits for something to become true, and returns it; fails where it takes too long."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every)
    pytest.fail(f"waited {within} s in vain")


@dataclass
class Cluster:
    """A cluster that is up, and its command."""

    folder: Path
    environment: dict = field(default_factory=dict)

    def testbed(self, *words, **settings):
        """Call the testbed; what it says."""
        done = subprocess.run(
            [str(TESTBED), *words],
            env=os.environ | {"SLURM_TESTBED_DIR": str(self.folder)} | {key: str(one) for key, one in settings.items()},
            capture_output=True,
            text=True,
            timeout=180,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, **settings):
        """Start it, or mend it."""
        self.testbed("up", **settings)
        said = self.testbed("env")
        self.environment = dict(re.findall(r"^export (\w+)=(\S+)$", said, re.MULTILINE))

    def call(self, *words):
        """Call a command of SLURM; its output."""
        done = subprocess.run(
            words, env=os.environ | self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout + done.stderr

    def preempt(self):
        """Have a job come that takes the nodes from those in `low`, for a moment."""
        self.call("sbatch", "-p", "high", "-N2", "-c4", "--output=/dev/null", "--wrap", "sleep 2")

    def queue(self):
        """Every task of ours in the queue: (job name, index, state, node)."""
        lines = self.call("squeue", "-h", "-r", "-o", "%j|%K|%T|%N").splitlines()
        return [tuple(line.split("|")) for line in lines if line.startswith("mb-")]

    def empty(self):
        """Take everything out of the queue and mend what is broken, until nothing is left: a fault may leave both."""

        def is_empty():
            self.call("scancel", "-u", "root")
            self.up()
            return not self.call("squeue", "-h").strip()

        seconds_until(is_empty, within=180, every=1)

    def wait_idle(self, within=120):
        """Wait until nothing is in the queue."""
        end = time.monotonic() + within
        while self.call("squeue", "-h").strip():
            assert time.monotonic() < end, self.call("squeue", "-o", "%i %j %T %r %N")
            time.sleep(0.3)


@pytest.fixture(scope="session")
def shared_cluster():
    """One cluster for all tests: to start one takes longer than to mend one."""
    if not TESTBED.exists():
        pytest.skip(f"there is no {TESTBED}; MIXBENCH_SLURM_TESTBED names one")
    if os.geteuid() != 0:
        pytest.skip("starting a SLURM takes root")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed, and munge wants to be reached
        cluster = Cluster(Path(folder) / "testbed")
        try:
            cluster.up()
            yield cluster
        except AssertionError as error:
            pytest.skip(f"no SLURM can be started here: {error}")
        finally:
            cluster.testbed("down")


@pytest.fixture
def cluster(shared_cluster):
    """The cluster, whole and idle before and after."""
    shared_cluster.empty()
    yield shared_cluster
    shared_cluster.empty()


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def all(self):
        """Both."""
        return self.out + self.err


@dataclass
class Bench:
    """A sweep, its results folder and the command line, beside a cluster.

    Attributes:
        cluster: the cluster.
        folder: where all is.
        variables: of the environment, for ``mixbench`` and so for its jobs.
        options: of every ``mixbench run``, on the cluster and here.
        code: the checkout that ``mixbench`` is started from.
        before: words that its command line begins with, ``srun``.
    """

    cluster: Cluster
    folder: Path
    variables: dict = field(default_factory=lambda: {"MIXBENCH_TEST_SET": QUICK})
    options: tuple = ()
    code: Path = Path(__file__).parents[2]
    before: tuple = ()

    @property
    def results(self):
        """Where results are."""
        return self.folder / "results"

    @property
    def sweep(self):
        """The sweep file."""
        return self.folder / "s.yaml"

    def write(self, *, methods="[simple]", seeds="[0]", epochs=20, checkpoint_seconds=0):
        """Write the sweep. An epoch is two steps."""
        self.sweep.write_text(
            SWEEP.format(methods=methods, seeds=seeds, epochs=epochs, checkpoint_seconds=checkpoint_seconds)
        )

    def start(self, *words, **variables):
        """Start ``mixbench``."""
        steps = self.folder / "steps"
        steps.mkdir(exist_ok=True)
        environment = os.environ | self.cluster.environment | {"PYTHONPATH": str(INSIDE), "OMP_NUM_THREADS": "1"}
        environment |= {"MIXBENCH_TEST_STEPS": str(steps)} | self.variables | variables
        return subprocess.Popen(
            [*self.before, PYTHON, "-m", "mixbench", *map(str, words)],
            env=environment,
            cwd=self.code,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def mixbench(self, *words, **variables):
        """Call ``mixbench``; what it says."""
        process = self.start(*words, **variables)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in out + err, out + err
        return Said(process.returncode, out, err)

    def words(self, *words):
        """Those of ``mixbench run --on slurm`` of the sweep."""
        return ("run", self.sweep, "--on", "slurm", "--device", "cpu", "--results", self.results, *words)

    def run(self, *words, **variables):
        """``mixbench run --on slurm`` of the sweep."""
        return self.mixbench(*self.words(*self.options, *words), **variables)

    def precede(self, command, line):
        """From now on a line of shell goes before each call of this command of SLURM, by `mixbench` and by jobs."""
        # In bash: dash would hear the signals that sbatch, a program, inherits as held back.
        script = self.folder / "bin" / command
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/bash\n{line}\nexec {shutil.which(command)} "$@"\n')
        script.chmod(0o755)
        self.variables["PATH"] = f"{script.parent}:{os.environ['PATH']}"

    def status(self, *words):
        """``mixbench status`` of the sweep."""
        return self.mixbench("status", self.sweep, "--results", self.results, *words)

    def submissions(self):
        """Records of submissions, oldest first."""
        found = sorted(self.results.glob("sweeps/*/subs/*/submission.json"), key=lambda path: path.stat().st_ctime)
        return [files.read(path) for path in found]

    def ids(self):
        """Ids of the sweep's runs, in its order."""
        stages = load_sweep(self.sweep, data=self.folder / "data", results=self.results, mini=False).stages()
        return [run.id for stage in stages for run in stage]

    def folders(self):
        """Folders of the runs, by the runs' names."""
        return {path.name: path for path in sorted((self.results / "runs").glob("*"))}

    def attempts(self, run):
        """What each attempt at a run said when it began, and how it ended (None: it did not say)."""
        places = sorted((self.folders()[run] / "attempts").glob("[0-9]*"), key=lambda path: int(path.name))
        return [(files.read(place / "attempt.json"), files.read(place / "end.json")) for place in places]

    def steps(self, run):
        """The steps that were computed of a run, by the process: ``{"node1-4711": [1, 2, 3]}``."""
        identity = run.rpartition("-")[2]
        found = sorted((self.folder / "steps").glob(f"{identity}-*"), key=lambda path: path.stat().st_mtime)
        return {
            path.name.removeprefix(f"{identity}-"): [int(line) for line in path.read_text().split()] for path in found
        }

    def repeated(self, run):
        """How many steps of a run were computed more than once."""
        computed = [step for steps in self.steps(run).values() for step in steps]
        return len(computed) - len(set(computed))

    def computed(self, run):
        """The newest step of a run that was computed; 0 before the first."""
        return max((step for steps in self.steps(run).values() for step in steps), default=0)

    def kill_worker(self, run, *, which=0):
        """Kill one of the processes that compute a run, in the order in which they began."""
        identity = run.rpartition("-")[2]
        found = sorted((self.folder / "steps").glob(f"{identity}-*"), key=lambda path: path.stat().st_ctime)
        os.kill(int(found[which].name.rpartition("-")[2]), signal.SIGKILL)

    def done(self):
        """Names of the runs that have a result."""
        return [name for name, folder in self.folders().items() if (folder / "result.json").exists()]

    def wait_computed(self, runs, steps, within=60):
        """Wait until so many runs have each computed so many steps."""
        seconds_until(
            lambda: sum(self.computed(run) >= steps for run in self.folders()) >= runs, within=within, every=0.1
        )

    def wait_done(self, count, within=120):
        """Wait until so many runs are done."""
        seconds_until(lambda: len(self.done()) >= count, within=within)

    def logs(self):
        """All that jobs wrote, by the name of the file."""
        return {path.name: path.read_text() for path in sorted(self.results.glob("sweeps/*/subs/*/*_log.out"))}

    def came_out(self):
        """Of each run its metrics and the bytes of its weights, by a mark."""
        return {name: outcome(folder) for name, folder in self.folders().items()}

    def check(self, reference, *, repeated=0):
        """All is done and as it would have been undisturbed; nothing is left lying about; nothing is submitted again.

        Args:
            reference: what the undisturbed runs came to.
            repeated: steps of each run that may have been computed more than once.
        """
        assert self.came_out() == reference
        for run in self.folders():
            assert self.repeated(run) <= repeated, (run, self.steps(run))
            assert set(range(1, self.computed(run) + 1)) == {one for steps in self.steps(run).values() for one in steps}
        assert not list(self.results.rglob("*.tmp"))
        self.cluster.wait_idle()
        before = len(self.submissions())
        again = self.run()
        assert again.code == 0, again.all
        assert len(self.submissions()) == before, again.all


def with_sbatch(bench, script):
    """Variables with which ``sbatch`` is this script of shell, for which ``$sbatch`` is the real one."""
    path = bench.folder / "bin" / "sbatch"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\nsbatch={shutil.which('sbatch')}\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}{os.pathsep}{os.environ['PATH']}"}


def outcome(folder):
    """The metrics of a run's result, and a mark of its weights."""
    result = files.read(folder / "result.json")
    weights = folder / f"weights-a{result['attempt']}.pt"
    return result["metrics"], hashlib.sha256(weights.read_bytes()).hexdigest()


@pytest.fixture
def bench(cluster, tmp_path):
    """A sweep beside the cluster."""
    return Bench(cluster, tmp_path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """What a bench's sweep comes to when it is run here, undisturbed; each sweep once."""
    known = {}

    def undisturbed(bench):
        text = bench.sweep.read_text()
        if text not in known:
            folder = tmp_path_factory.mktemp("reference")
            alone = Bench(Cluster(folder), folder)
            shutil.copy(bench.sweep, alone.sweep)
            said = alone.mixbench("run", alone.sweep, "--device", "cpu", "--results", alone.results, *bench.options)
            assert said.code == 0, said.all
            known[text] = alone.came_out()
        return known[text]

    return undisturbed
