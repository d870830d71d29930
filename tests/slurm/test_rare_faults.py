"""What a cluster, a disk or a user seldom does to a sweep, and that nothing is lost by it either (F16 to F32).

Two faults have their tests elsewhere: that Ctrl-C, once and twice, ends a local launcher well (F26) is promised by
``test_resume_after_ctrl_c_goes_on_at_the_very_step`` and ``test_pool_that_is_interrupted_twice_kills_its_workers``, and
that a killed local launcher leaves no second copy of a run behind (F27) by
``test_resume_after_kills_at_random_moments`` and ``test_resume_twice_at_once_trains_every_run_exactly_once``.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from mixbench import files
from mixbench.slurm.flights import NOT_STARTED
from mixbench.slurm.submissions import Submissions
from slurm.conftest import Bench, Cluster, seconds_until


def states(cluster):
    return [state for *_, state, _ in cluster.queue()]


@pytest.fixture
def other_cluster():
    """Starts a cluster of its own, with other settings."""
    with contextlib.ExitStack() as stack:

        def started(**settings):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))
            Path(folder).chmod(0o755)
            cluster = Cluster(Path(folder) / "testbed")
            cluster.up(**settings)
            stack.callback(cluster.testbed, "down")
            return cluster

        yield started


@pytest.fixture
def told(cluster):
    """Tells the cluster other settings, until the test is over."""
    lines = {}

    def tell(**settings):
        was = dict(
            line.split("=", 1) for line in cluster.call("scontrol", "show", "config").splitlines() if "=" in line
        )
        config = {name.strip(): value.strip() for name, value in was.items()}
        lines.update({name: config.get(name, "") for name in settings})
        cluster.testbed("set", *(f"{name}={value}" for name, value in settings.items()))

    yield tell
    if lines:
        cluster.testbed("set", *(f"{name}={'' if value == 'none' else value}" for name, value in lines.items()))


def test_f16_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(bench, cluster, reference):
    bench.write(seeds="[0, 1, 2, 3]", epochs=30)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.2")
    bench.wait_computed(4, steps=9)
    cluster.call("scancel", "-u", "root")
    cluster.wait_idle()
    newest = {run: max(folder.glob("ckpt/*.pt")) for run, folder in bench.folders().items()}
    whole = {run: path.read_bytes() for run, path in newest.items()}
    short, garbage, empty, swapped = newest
    newest[short].write_bytes(whole[short][:1000])
    newest[garbage].write_bytes(os.urandom(1000))
    newest[empty].write_bytes(b"")
    newest[swapped].write_bytes(whole[short])
    bench.run()
    bench.wait_done(4)
    told = "".join(bench.logs().values())
    for run, path in newest.items():
        (aside,) = bench.folders()[run].rglob("*.bad-*")
        assert aside.name.startswith(path.name)
        assert f"{aside} is a damaged checkpoint, or another run's; the one before it is used" in told
    bench.check(reference(bench), repeated=2)


def test_f20_a_damaged_result_is_not_done_and_is_made_again_from_what_is_whole(bench, reference):
    bench.write(seeds="[0, 1, 2]", epochs=4)
    bench.run()
    bench.wait_done(3)
    bench.cluster.wait_idle()
    emptied, garbage, all_gone = (folder for folder in bench.folders().values())
    (emptied / "result.json").write_bytes(b"")
    (garbage / "result.json").write_bytes(os.urandom(100))
    (all_gone / "result.json").write_bytes(b"{}")
    (all_gone / "weights-a1.pt").unlink()
    assert "done" not in bench.status().out
    said = bench.run()
    assert "3 to do" in said.out, said.all
    bench.wait_done(3)
    bench.cluster.wait_idle()
    for folder in (emptied, garbage, all_gone):
        assert len(list(folder.glob("result.json.bad-*"))) == 1
    assert [len(bench.steps(folder.name)) for folder in (emptied, garbage, all_gone)] == [1, 1, 2]
    assert "3 done" in bench.status().out
    bench.check(reference(bench), repeated=8)  # what lost its weights too is trained again


def test_f21_a_suspended_job_is_in_flight_and_goes_on(bench, cluster, reference):
    bench.write(epochs=20)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.2")
    bench.wait_computed(1, steps=4)
    job = bench.submissions()[0]["job"]
    cluster.call("scontrol", "suspend", f"{job}_0")
    seconds_until(lambda: states(cluster) == ["SUSPENDED"], within=30)
    (run,) = bench.folders()
    beat = bench.folders()[run] / "attempts/1/hb"
    seconds_until(lambda: files.now(bench.folder) - beat.stat().st_mtime > 8, within=60)  # longer than a lease
    at = bench.computed(run)
    status = bench.status()
    assert (status.code, "1 suspended" in status.out) == (0, True), status.all
    again = bench.run()
    assert "nothing submitted: 1 run in flight" in again.out, again.all
    assert bench.computed(run) == at
    cluster.call("scontrol", "resume", f"{job}_0")
    bench.wait_done(1)
    bench.check(reference(bench))


def test_f24_more_tasks_than_an_array_may_have_are_several_arrays(bench, reference, told):
    told(MaxArraySize=3)
    bench.write(seeds="[0, 1, 2, 3, 4]", epochs=2)
    said = bench.run()
    assert said.code == 0, said.all
    assert [len(one["tasks"]) for one in bench.submissions()] == [3, 2]
    bench.wait_done(5)
    bench.check(reference(bench))


def test_f24_what_a_limit_on_jobs_refuses_is_submitted_when_some_have_ended(bench, cluster, reference, told):
    told(AccountingStorageEnforce="limits")
    cluster.call("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=2")
    try:
        bench.write(seeds="[0, 1, 2, 3]", epochs=2)
        said = bench.run()
        assert said.code == 0, said.all
        assert "2 runs wait: SLURM takes no more for now (sbatch: error: AssocMaxSubmitJobLimit" in said.out
        assert "again, when some have ended, submits them" in said.out
        bench.wait_done(2)
        cluster.wait_idle()
        assert "wait" not in bench.run().out
        bench.wait_done(4)
        bench.check(reference(bench))
    finally:
        cluster.call("sacctmgr", "-i", "modify", "user", "root", "set", "MaxSubmitJobs=-1")


def test_f25_a_job_that_could_never_start_is_refused_and_one_that_cannot_any_more_is_named(bench, cluster):
    bench.write(epochs=2)
    refused = bench.run("--slurm", "partition=short", "--slurm", "time=5")
    assert (refused.code, bench.submissions(), cluster.queue()) == (2, [], [])
    assert "partition short allows 00:02:00, and a job would ask for 5 minutes: it would never start" in refused.err
    bench.run("--slurm", "time=5", "--slurm", "hold=true")
    job = bench.submissions()[0]["job"]
    assert "will not start by itself: somebody holds it" in bench.status().out
    cluster.call("scontrol", "update", f"JobId={job}", "Partition=short")
    cluster.call("scontrol", "release", job)
    seconds_until(lambda: "PartitionTimeLimit" in cluster.call("squeue", "-h", "-o", "%r"), within=60)
    status = bench.status()
    assert (
        "queued: 1 (PartitionTimeLimit): will not start by itself: its partition allows less time than it asks for"
        in status.out
    ), status.all
    assert "1 job array of s cancelled" in bench.mixbench("cancel", bench.sweep, "--results", bench.results).out


def test_f26_ctrl_c_while_submitting_is_heard_when_it_is_written_down_what_was(bench, cluster, reference):
    begun = bench.folder / "begun"
    bench.precede("sbatch", f"touch {begun}; sleep 3")
    bench.write(methods="[simple, softmax_cam]", epochs=2)
    launcher = bench.start(*bench.words())
    seconds_until(begun.exists, within=60, every=0.1)
    os.killpg(launcher.pid, signal.SIGINT)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, out + err
    assert "Traceback" not in out + err
    (submission,) = bench.submissions()
    assert (submission["state"], len(submission["tasks"])) == ("submitted", 1)
    assert cluster.call("squeue", "-h", "-o", "%F").split() == [submission["job"]]
    bench.run()
    bench.wait_done(2)
    bench.check(reference(bench))


def test_f26_ctrl_c_while_waiting_ends_only_the_looking(bench, cluster, reference):
    bench.write(seeds="[0, 1]", epochs=10)
    launcher = bench.start(*bench.words("--wait"), MIXBENCH_TEST_STEP_SECONDS="0.3")
    bench.wait_computed(2, steps=2)
    os.killpg(launcher.pid, signal.SIGINT)
    out, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, out + err
    assert "no longer looking; 2 runs stay in flight: see `mixbench status`, end them with `mixbench cancel`" in err
    assert states(cluster) == ["RUNNING"] * 2
    bench.wait_done(2)
    bench.check(reference(bench))


def test_f28_what_is_edited_while_tasks_wait_does_not_reach_them(bench, cluster, reference, tmp_path):
    here, bench.code = bench.code, tmp_path / "checkout"
    for name in ("methods", "mixbench", "analysis"):
        shutil.copytree(here / name, bench.code / name, ignore=shutil.ignore_patterns("__pycache__"))
    bench.write(epochs=2)
    bench.run("--slurm", "hold=true")
    for name in ("mixbench/train.py", "mixbench/slurm/job.py", "methods/simple.py"):
        (bench.code / name).write_text('raise RuntimeError("edited meanwhile")\n')
    cluster.call("scontrol", "release", bench.submissions()[0]["job"])
    bench.wait_done(1)
    bench.code = here
    bench.check(reference(bench))


def test_f29_mixbench_runs_inside_a_job_whose_limits_are_not_those_of_its_own(bench, cluster, reference):
    bench.write(seeds="[0, 1]", epochs=2)
    bench.before = ("srun", "--mem=3G", "-c2", "--job-name=shell")
    said = bench.run()
    assert said.code == 0, said.all
    bench.before = ()
    bench.wait_done(2)
    bench.check(reference(bench))


def test_f18_a_dead_accounting_changes_nothing(bench, cluster, reference):
    cluster.testbed("kill", "dbd")
    without_a_word_of_accounts(bench, reference)


def test_f18_a_cluster_without_accounting_is_as_good(other_cluster, tmp_path, reference):
    without_a_word_of_accounts(Bench(other_cluster(SLURM_TESTBED_ACCT="none"), tmp_path), reference)


def without_a_word_of_accounts(bench, reference):
    """A sweep of which one run dies comes out as ever, and nobody is told of accounts."""
    bench.write(seeds="[0, 1]", epochs=4)
    dying, _ = bench.ids()
    heard = [bench.run(MIXBENCH_TEST_DIE=f"{dying}:5|{bench.folder / 'died'}")]
    bench.wait_done(1)
    bench.cluster.wait_idle()
    heard.append(bench.status())
    assert "1 done, 1 lost" in heard[-1].out
    heard.append(bench.run())
    bench.wait_done(2)
    heard.append(bench.status())
    assert [one.code for one in heard] == [0, 0, 0, 0], heard
    assert not re.search("slurmdbd|sacct|storage", "".join(one.all for one in heard))
    bench.check(reference(bench), repeated=1)


def test_f17_what_a_controller_forgot_that_it_had_started_is_released_by_the_next_run(bench, cluster, reference):
    bench.write(seeds="[0, 1, 2, 3]", epochs=10)
    bench.run("--max-jobs", 2, MIXBENCH_TEST_STEP_SECONDS="0.2")
    bench.wait_computed(2, steps=1)  # before, they would ask the controller for their place, and end without it
    cluster.testbed("kill", "ctld")
    bench.wait_done(2)
    cluster.testbed("start", "ctld")  # it tries to start them again where they are, mostly, and holds them then

    def at_rest():
        queue = cluster.call("squeue", "-h", "-r", "-o", "%T %r").splitlines()
        return all(line == f"PENDING {NOT_STARTED}" for line in queue)

    for _ in range(2):
        seconds_until(at_rest, within=180)
        held = len(cluster.queue())
        if held and len(bench.done()) < 4:
            assert f"({NOT_STARTED}): will not start by itself" in bench.status().out
        said = bench.run()
        assert said.code == 0, said.all
        assert (f"released {held} job" in said.out) == bool(held), said.all
    bench.wait_done(4)
    bench.check(reference(bench), repeated=4)


@pytest.fixture
def small_disk(bench):
    """The results are on a disk of a few megabytes."""
    bench.results.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(bench.results)]
    if subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield bench.results
    subprocess.run(["umount", "--lazy", str(bench.results)], check=True)


def test_f19_a_full_disk_costs_an_epoch_and_nothing_is_submitted_to_it(bench, cluster, reference, small_disk):
    bench.write(seeds="[0, 1]", epochs=20)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.3")
    bench.wait_computed(2, steps=5)
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    cluster.wait_idle()
    assert bench.done() == []
    before = len(bench.submissions())
    full = bench.run()
    assert (full.code, len(bench.submissions()), cluster.queue()) == (74, before, []), full.all
    assert re.search(f"{bench.results}/.*: {os.strerror(errno.ENOSPC)}", full.err)
    ballast.unlink()
    status = bench.status()
    assert "goes on with the 2 that nobody is at" in status.out, status.all
    bench.run()
    bench.wait_done(2)
    bench.check(reference(bench), repeated=4)


def test_f23_a_run_that_takes_too_much_memory_is_named_and_others_of_its_job_go_on(bench, cluster, reference):
    bench.write(seeds="[0, 1, 2]", epochs=4)
    _, hungry, _ = bench.ids()
    bench.run("--pack", "3", "--slurm", "mem=1G", MIXBENCH_TEST_MEMORY=f"{hungry}:4|1500")
    seconds_until(lambda: bench.done() and not cluster.queue(), within=120)
    status = bench.status()
    assert "1 done, 2 lost" in status.out, status.all
    assert f"lost: {next(run for run in bench.folders() if hungry in run)}: " in status.out
    assert "exceeded memory limit" in status.out
    bench.run("--pack", "3", "--slurm", "mem=1G")
    bench.wait_done(3)
    bench.check(reference(bench), repeated=2)


def test_f22_a_power_cut_of_the_whole_cluster_costs_what_was_not_saved(bench, cluster, reference):
    bench.write(seeds="[0, 1]", epochs=20)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.3")
    bench.wait_computed(2, steps=5)
    cluster.testbed("down", "--keep")
    status = bench.status()
    assert (status.code, "what is in flight is not known" in status.out, "nobody" in status.out) == (75, True, False)
    cluster.up()
    again = bench.run()
    assert (again.code, len(bench.submissions())) == (0, 1), again.all
    bench.wait_done(2, within=240)
    bench.check(reference(bench), repeated=2)


def test_f32_a_run_that_was_frozen_and_taken_over_writes_nothing_when_it_wakes(bench, cluster, reference):
    bench.write(epochs=20)
    bench.run("--slurm", "nodelist=node1", MIXBENCH_TEST_STEP_SECONDS="0.3")
    bench.wait_computed(1, steps=5)
    (run,) = bench.folders()
    frozen = bench.attempts(run)[0][0]["pid"]
    os.kill(frozen, signal.SIGSTOP)
    forgotten = Submissions(bench.results)  # as by a controller that crashed: else nobody would submit it again
    forgotten.settle(forgotten.all()[0], "over")
    bench.run("--slurm", "nodelist=node2", MIXBENCH_TEST_STEP_SECONDS="0.3")
    seconds_until(lambda: len(bench.steps(run)) == 2, within=60)
    os.kill(frozen, signal.SIGCONT)
    seconds_until(lambda: not Path(f"/proc/{frozen}").exists(), within=60)
    bench.wait_done(1)
    (first, ended), (second, _) = bench.attempts(run)
    assert (first["job"]["node"], second["job"]["node"], ended) == ("node1", "node2", None)
    assert not list(bench.folders()[run].glob("*-a1.*"))
    bench.check(reference(bench), repeated=6)


def test_f31_clocks_that_are_hours_apart_disturb_neither_claims_nor_ages(bench, cluster, reference):
    """Python's clocks, since libfaketime makes its sleeps fail; files have their times from the system as ever."""
    bench.write(epochs=20)
    (dying,) = bench.ids()
    shifts = {"MIXBENCH_TEST_CLOCK": "node1=3600,node2=-3600", "MIXBENCH_TEST_STEP_SECONDS": "0.3"}
    bench.run("--slurm", "nodelist=node1", MIXBENCH_TEST_DIE=f"{dying}:5|{bench.folder / 'died'}", **shifts)
    seconds_until((bench.folder / "died").exists, within=60)
    cluster.wait_idle()
    assert "1 lost" in bench.status().out
    bench.run("--slurm", "nodelist=node2", **shifts)
    seconds_until(lambda: len(bench.steps(next(iter(bench.folders())))) == 2, within=60)
    (run,) = bench.folders()
    (first, _), (second, _) = bench.attempts(run)
    assert (first["job"]["node"], second["job"]["node"]) == ("node1", "node2")
    assert any(f"heard {age} s ago" in bench.status().out for age in range(10))
    bench.wait_done(1)
    bench.check(reference(bench), repeated=2)
