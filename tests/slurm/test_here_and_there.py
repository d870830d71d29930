"""A sweep that is begun on a cluster and goes on here, and the other way round, is one sweep."""


def test_sweep_that_a_cluster_began_goes_on_here_at_the_very_steps(bench, cluster, reference):
    bench.write(methods="[simple, mixup]", epochs=30)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.3")
    bench.wait_computed(2, steps=5)
    assert bench.mixbench("cancel", bench.sweep, "--results", bench.results).code == 0
    assert "2 cancelled" in bench.status().out
    here = bench.mixbench("run", bench.sweep, "--device", "cpu", "--results", bench.results)
    assert here.code == 0, here.all
    for run in bench.folders():
        (first, _), (second, _) = bench.attempts(run)
        assert (bool(first["job"]), bool(second["job"])) == (True, False)
    bench.check(reference(bench))


def test_sweep_that_was_begun_here_goes_on_on_a_cluster(bench, reference):
    bench.write(methods="[simple, softmax_cam]", epochs=10)
    only = bench.mixbench("run", bench.sweep, "--only", "simple", "--device", "cpu", "--results", bench.results)
    assert only.code == 0, only.all
    assert bench.run().code == 0
    assert [len(one["runs"]) for one in bench.submissions()] == [1]
    bench.wait_done(2)
    bench.check(reference(bench))
