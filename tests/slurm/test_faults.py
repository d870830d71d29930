"""What a cluster does to a sweep, and that nothing is lost by it (F1, F4, F9, F11, F12, F15, F17, F30)."""

import os

from mixbench import files

from .conftest import TESTBED, seconds_until, with_sbatch


def states(bench):
    """Of all submissions, oldest first."""
    return [one["state"] for one in bench.submissions()]


def test_f1_a_sweep_is_done_once_and_asked_again_submits_nothing(bench, reference):
    bench.write(methods="[simple, mixup, softmax_cam]", seeds="[0, 1]")
    said = bench.run()
    assert said.code == 0, said.all
    assert [len(one["tasks"]) for one in bench.submissions()] == [4, 2]
    bench.wait_done(6)
    bench.check(reference(bench))
    assert "6 done" in bench.status().out


def test_f4_a_preempted_job_saves_and_goes_on_at_the_same_step(bench, cluster, reference):
    bench.write(seeds="[0, 1]", epochs=50)
    bench.run("--slurm", "partition=low", MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(2, steps=10)
    cluster.preempt()
    bench.wait_done(2)
    for run in bench.folders():
        (_, first), (second, _) = bench.attempts(run)
        assert (first["state"], second["job"]["restarts"]) == ("stopped", 1)
        assert len(bench.steps(run)) == 2
    bench.check(reference(bench))


def test_f9_a_run_whose_node_lost_its_power_is_not_submitted_again_and_goes_on_elsewhere(bench, cluster, reference):
    bench.write(epochs=50)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(1, steps=10)
    ((_, _, _, node),) = cluster.queue()
    cluster.testbed("crash", node)
    said = bench.run()
    assert (said.code, len(bench.submissions())) == (0, 1), said.all
    assert "nothing submitted: 1 run in flight" in said.out
    undisturbed = reference(bench)
    bench.wait_done(1)
    (run,) = bench.folders()
    (first, silence), (second, _) = bench.attempts(run)
    assert silence is None
    assert second["job"]["restarts"] == first["job"]["restarts"] + 1
    assert second["job"]["node"] != node
    assert second["step"] >= 8
    bench.check(undisturbed, repeated=2)


def test_f11_a_job_of_which_sbatch_cannot_say_whether_it_was_taken_is_not_handed_over_again(bench, cluster, reference):
    bench.write()
    pause = f"SLURM_TESTBED_DIR={cluster.folder} {TESTBED} pause ctld >/dev/null"
    said = bench.run(**with_sbatch(bench, f'{pause}; exec "$sbatch" "$@"'))
    cluster.testbed("resume", "ctld")
    assert (said.code, states(bench)) == (75, ["intent"]), said.all
    assert "was submitted is not known" in said.err
    seconds_until(lambda: bench.run().code == 0, within=120)  # it was adopted, or given up and then handed over
    assert states(bench) in (["submitted"], ["abandoned", "submitted"])
    bench.wait_done(1)
    bench.check(reference(bench))


def test_f12_a_launcher_that_is_killed_leaves_nothing_undone_and_nothing_done_twice(bench, reference):
    bench.write()
    assert bench.run(**with_sbatch(bench, "kill -9 $PPID")).code == -9
    (killed,) = bench.submissions()
    said = bench.run()
    assert (said.code, states(bench)) == (75, ["intent"]), said.all
    assert f"mb-{killed['id']} was about to be submitted" in said.err
    (record,) = bench.results.glob("sweeps/*/subs/*/submission.json")
    os.utime(record, (0, 0))  # time passes, and the job did not come
    assert bench.run(**with_sbatch(bench, '"$sbatch" "$@"; kill -9 $PPID')).code == -9
    assert states(bench) == ["abandoned", "intent"]
    said = bench.run()
    assert said.code == 0, said.all
    assert states(bench) == ["abandoned", "submitted"]
    bench.wait_done(1)
    bench.check(reference(bench))


def test_f15_a_job_that_is_scancelled_saves_and_stays_cancelled_until_it_is_asked_for(bench, cluster, reference):
    bench.write(epochs=50)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(1, steps=10)
    (cancelled,) = bench.submissions()
    cluster.call("scancel", cancelled["job"])
    cluster.wait_idle()
    undisturbed = reference(bench)
    assert not cluster.queue()
    said = bench.status()
    assert (said.code, "1 run: 1 stopped" in said.out) == (0, True), said.all
    bench.run()
    bench.wait_done(1)
    (run,) = bench.folders()
    (_, first), (second, _) = bench.attempts(run)
    assert (first["state"], second["step"]) == ("stopped", bench.steps(run)[next(iter(bench.steps(run)))][-1])
    assert cluster.call("sacct", "-nXPD", "-j", cancelled["job"], "-o", "State").split("\n")[:-1] == ["CANCELLED by 0"]
    bench.check(undisturbed)


def test_f17_a_dead_controller_costs_no_run_and_nothing_is_submitted_meanwhile(bench, cluster, reference):
    bench.write(epochs=30)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.3")
    seconds_until(lambda: [state for *_, state, _ in cluster.queue()] == ["RUNNING"], within=60, every=0.1)
    begun, saved = files.now(bench.folder), cluster.folder / "state" / "job_state"
    seconds_until(lambda: saved.stat().st_mtime > begun, within=30)  # what is not saved is forgotten: a rarer fault
    bench.wait_computed(1, steps=1)
    cluster.testbed("kill", "ctld")
    while_down = bench.run()
    assert (while_down.code, len(bench.submissions())) == (75, 1), while_down.all
    assert "SLURM does not answer to squeue" in while_down.err
    cluster.testbed("start", "ctld")
    assert "nothing submitted" in bench.run().out
    bench.wait_done(1)
    bench.check(reference(bench))


def test_f30_every_run_has_a_gpu_of_its_own(bench, cluster, reference):
    bench.write(seeds="[0, 1, 2, 3]", epochs=10)
    bench.run("--slurm", "gpus-per-node=1", MIXBENCH_TEST_STEP_SECONDS="0.3")
    seconds_until(lambda: [state for *_, state, _ in cluster.queue()].count("RUNNING") == 4, within=60, every=0.1)
    bench.wait_done(4)
    given = {(job["node"], job["gpus"]) for job in (bench.attempts(run)[0][0]["job"] for run in bench.folders())}
    assert given == {(node, gpu) for node in ("node1", "node2") for gpu in "01"}
    bench.check(reference(bench))
