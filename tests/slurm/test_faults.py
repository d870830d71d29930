"""What a cluster does to a sweep, and that nothing is lost by it (F1, F4)."""


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
