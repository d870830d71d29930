"""More of what a cluster does to a sweep (F2, F3, F5 to F8, F10, F13, F14)."""

import re
from operator import itemgetter
from pathlib import Path

import pytest
from imagenet_files import write_imagenet

from mixbench.resolve import load_sweep

from .conftest import Bench, seconds_until, with_sbatch

IMAGENET = """\
settings: [imagenet/tiny]
methods: [simple]
seeds: [0]
teacher: {method: simple}
recipes:
  imagenet/tiny: {epochs: 12, batch_size: 3, schedule: cosine, augment: resized_crop, evaluate_every: 100}
"""
"""An epoch is four steps."""


def identities(bench):
    """Ids of a sweep's runs by their methods."""
    sweep = load_sweep(bench.sweep, data=Path("data"), results=bench.results)
    return {run.method: run.id for stage in sweep.stages() for run in stage}


def handed_over(bench, number):
    """The methods of a submission's runs, in the order of names."""
    return sorted(run["method"] for run in bench.submissions()[number]["runs"].values())


def endings(cluster, job):
    """How each start of a job ended, by SLURM's books: state, exit code and signal."""
    return cluster.call("sacct", "-nXPD", "-j", job, "-o", "State,ExitCode").split()


def test_f2_a_job_of_several_runs_does_them_all_and_one_that_dies_takes_no_other_with_it(bench, cluster, reference):
    bench.write(methods="[simple, mixup, cutmix, manifold_mixup]", epochs=4)
    dying = f"{identities(bench)['simple']}:3|{bench.folder / 'died'}"
    said = bench.run("--pack", "2", MIXBENCH_TEST_DIE=dying)
    assert said.code == 0, said.all
    (first,) = bench.submissions()
    assert [len(runs) for runs in first["tasks"]] == [2, 2]
    cluster.wait_idle()
    said = bench.status()
    assert "4 runs: 3 done, 1 lost" in said.out, said.all
    bench.run("--pack", "2")
    assert handed_over(bench, 1) == ["simple"]
    bench.wait_done(4)
    bench.check(reference(bench), repeated=1)


def test_f3_what_failed_is_tried_again_when_asked_what_died_always_and_what_keeps_dying_no_more(
    bench, cluster, reference
):
    bench.write(methods="[simple, mixup, cutmix, manifold_mixup]", epochs=4)
    ids = identities(bench)
    dying = f"{ids['mixup']}:5|{bench.folder / 'died'},{ids['cutmix']}:1"
    said = bench.run(MIXBENCH_TEST_DIE=dying, MIXBENCH_TEST_FAIL=f"{ids['simple']}:3")
    assert said.code == 0, said.all
    cluster.wait_idle()
    said = bench.status()
    assert (said.code, "4 runs: 1 done, 1 failed, 2 lost" in said.out) == (1, True), said.all
    assert f"failed: simple-digits-tiny-s0-{ids['simple']}: asked to fail" in said.out
    assert bench.done() == [f"manifold_mixup-digits-tiny-s0-{ids['manifold_mixup']}"]

    bench.run(MIXBENCH_TEST_DIE=dying)
    assert handed_over(bench, 1) == ["cutmix", "mixup"]
    cluster.wait_idle()
    (_, silence), (second, _) = bench.attempts(f"mixup-digits-tiny-s0-{ids['mixup']}")
    assert (silence, second["step"]) == (None, 4)

    bench.run("--retry-failed", MIXBENCH_TEST_DIE=dying)
    assert handed_over(bench, 2) == ["cutmix", "simple"]
    cluster.wait_idle()
    bench.run(MIXBENCH_TEST_DIE=dying)
    cluster.wait_idle()
    said = bench.status()
    assert (said.code, "4 runs: 3 done, 1 failed" in said.out) == (1, True), said.all
    assert "crash loop: attempts 1 to 3 all ended at step 0" in said.out
    said = bench.run()
    assert (said.code, "nothing submitted" in said.out) == (1, True), said.all
    assert "1 run failed: see `mixbench status`; --retry-failed tries again" in said.err
    bench.run("--retry-failed")
    bench.wait_done(4)
    bench.check(reference(bench), repeated=3)


@pytest.fixture
def unwarned(cluster):
    """A cluster that does not warn the jobs that it preempts."""
    cluster.testbed("set", "SlurmctldParameters=")
    yield cluster
    cluster.testbed("set", "SlurmctldParameters=preempt_send_user_signal")


def test_f5_a_job_that_is_preempted_without_a_warning_saves_on_term_and_slurm_puts_it_back(bench, unwarned, reference):
    bench.write(epochs=50)
    bench.run("--slurm", "partition=low", MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(1, steps=10)
    unwarned.preempt()
    bench.wait_done(1)
    (run,) = bench.folders()
    (_, first), (second, _) = bench.attempts(run)
    assert (first["state"], second["job"]["restarts"]) == ("stopped", 1)
    (log,) = bench.logs().values()
    assert "staying until the job is ended" in log
    assert "put back" not in log
    bench.check(reference(bench))


def test_f6_a_run_that_outlasts_the_time_of_its_job_goes_on_whether_it_was_warned_or_not(bench, cluster, reference):
    warned, deaf = bench, Bench(cluster, bench.folder / "deaf")
    deaf.folder.mkdir()
    deaf.variables["MIXBENCH_TEST_DEAF"] = "yes"
    for one in (warned, deaf):
        one.write(epochs=25)
        said = one.run("--slurm", "time=1", "--slurm", "signal_delay=10", MIXBENCH_TEST_STEP_SECONDS="1")
        assert said.code == 0, said.all
    undisturbed = reference(bench)
    for one in (warned, deaf):
        one.wait_done(1, within=400)
        (run,) = one.folders()
        *before, (last, _) = one.attempts(run)
        assert before
        assert {end["state"] for _, end in before} == {"stopped"}
        (log,) = one.logs().values()
        assert log.count("put back into the queue") == last["job"]["restarts"] >= len(before)
        one.check(undisturbed)
    assert {"since the time of its job is over" in end["text"] for _, end in deaf.attempts(run)[:-1]} == {True}


def test_f6_a_job_that_is_warned_when_its_last_run_has_come_out_does_not_come_back(bench, cluster, reference):
    bench.write()
    bench.run(MIXBENCH_TEST_WARN="yes")
    bench.wait_done(1)
    cluster.wait_idle()
    (log,) = bench.logs().values()
    assert "put back" not in log
    (submission,) = bench.submissions()
    seconds_until(lambda: endings(cluster, submission["job"]) == ["COMPLETED|0:0"], within=60)
    bench.check(reference(bench))


@pytest.mark.parametrize("where", ["the job", "its worker"])
def test_f7_a_job_that_is_preempted_before_it_is_ready_is_not_lost(bench, cluster, reference, where):
    bench.write()
    variable, seconds = {
        "the job": ("MIXBENCH_TEST_JOB_SECONDS", "3"),
        "its worker": ("MIXBENCH_TEST_IMPORT_SECONDS", "8"),
    }[where]
    bench.run("--slurm", "partition=low", **{variable: seconds})
    if where == "the job":
        seconds_until(lambda: "RUNNING" in {task[2] for task in cluster.queue()}, within=60, every=0.1)
    else:
        seconds_until(bench.folders, within=60, every=0.1)
    cluster.preempt()
    bench.wait_done(1)
    (run,) = bench.folders()
    assert bench.attempts(run)[-1][0]["job"]["restarts"] == 1
    (submission,) = bench.submissions()
    seconds_until(lambda: "COMPLETED|0:0" in endings(cluster, submission["job"]), within=60)
    assert not any("FAILED" in ending for ending in endings(cluster, submission["job"]))
    bench.check(reference(bench))


def test_f8_a_preempted_run_whose_images_others_decode_is_saved_once_and_put_back_once(bench, cluster, reference):
    bench.sweep.write_text(IMAGENET)
    write_imagenet(bench.folder / "data")
    bench.options = ("--data", bench.folder / "data", "--workers", "2")
    bench.run("--slurm", "partition=low", MIXBENCH_TEST_STEP_SECONDS="0.5")
    bench.wait_computed(1, steps=10)
    cluster.preempt()
    bench.wait_done(1)
    (run,) = bench.folders()
    (_, first), (second, _) = bench.attempts(run)
    assert (first["state"], second["step"]) == ("stopped", max(next(iter(bench.steps(run).values()))))
    (log,) = bench.logs().values()
    assert log.count("stopped and saved") == log.count("put back into the queue") == 1
    bench.check(reference(bench))


def test_f10_a_process_that_lost_its_node_daemon_gives_way_to_the_new_attempt(bench, cluster, reference):
    bench.write(epochs=80)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.5")
    bench.wait_computed(1, steps=2)
    ((_, _, _, node),) = cluster.queue()
    cluster.testbed("kill", node)
    undisturbed = reference(bench)
    (run,) = bench.folders()
    seconds_until(lambda: len(bench.attempts(run)) == 2, within=120, every=0.1)
    bench.wait_done(1)
    (_, silence), (second, _) = bench.attempts(run)
    assert silence is None
    assert (second["job"]["restarts"], second["job"]["node"] != node) == (1, True)
    (log,) = bench.logs().values()
    assert log.count("is being computed by another process; waiting for it") == 1
    attempts = bench.folders()[run] / "attempts"
    (noted,) = (bench.folder / "steps").glob(f"*-{node}-*")
    begun = (attempts / "2" / "attempt.json").stat().st_mtime
    assert max(path.stat().st_mtime for path in [noted, *(attempts / "1").iterdir()]) < begun + 5
    bench.check(undisturbed, repeated=6)


def test_f13_of_launchers_at_the_same_time_one_submits_and_the_others_say_who_does(bench, reference):
    bench.write()
    others_left = bench.folder / "others_left"
    slow = with_sbatch(bench, f'for _ in $(seq 600); do [ -e {others_left} ] || sleep 0.2; done; exec "$sbatch" "$@"')
    words = ("run", bench.sweep, "--on", "slurm", "--device", "cpu", "--results", bench.results)
    launchers = [bench.start(*words, **slow) for _ in range(4)]
    seconds_until(lambda: sum(one.poll() is not None for one in launchers) == 3, within=120)
    others_left.touch()
    said = sorted(((one.communicate(timeout=120)[1], one.returncode) for one in launchers), key=itemgetter(1))
    assert [code for _, code in said] == [0, 73, 73, 73], said
    for sentence, _ in said[1:]:
        assert re.search(r"process \d+ of \w+ on \S+ is submitting to SLURM from .*; try again in a moment", sentence)
    assert len(bench.submissions()) == 1
    bench.wait_done(1)
    bench.check(reference(bench))


def test_f14_tasks_that_were_scancelled_one_by_one_and_only_they_are_submitted_again(bench, cluster, reference):
    bench.write(seeds="[0, 1, 2, 3, 4, 5]", epochs=30)
    bench.run("--max-jobs", "2", MIXBENCH_TEST_STEP_SECONDS="0.5")
    bench.wait_computed(2, steps=3)
    (first,) = bench.submissions()
    gone = [first["tasks"][index][0] for index in (0, 4, 5)]
    cluster.call("scancel", *(f"{first['job']}_{index}" for index in (0, 4, 5)))
    seconds_until(lambda: not {task[1] for task in cluster.queue()} & {"0", "4", "5"}, within=60)
    said = bench.status()
    assert "1 stopped" in said.out, said.all
    assert "2 lost" in said.out
    assert "goes on with the 3 that nobody is at" in said.out
    bench.run()
    assert sorted(bench.submissions()[1]["runs"]) == sorted(gone)
    bench.wait_done(6, within=240)
    bench.check(reference(bench))
