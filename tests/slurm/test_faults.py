"""What a cluster does to a sweep, and that nothing is lost by it (F1, F4, F17, F30)."""

from mixbench import files
from slurm.conftest import seconds_until


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
    cluster.call("sbatch", "-p", "high", "-N2", "-c4", "--output=/dev/null", "--wrap", "sleep 2")
    bench.wait_done(2)
    for run in bench.folders():
        (_, first), (second, _) = bench.attempts(run)
        assert (first["state"], second["job"]["restarts"]) == ("stopped", 1)
        assert len(bench.steps(run)) == 2
    bench.check(reference(bench))


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
