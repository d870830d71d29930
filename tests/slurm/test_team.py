"""Runs of several processes, each a task of a job."""

from .conftest import seconds_until


def with_two_processes(bench, **other):
    bench.write(methods="[mixup]", **other)
    bench.sweep.write_text(bench.sweep.read_text().replace("batch_size: 50", "batch_size: 50, gpus: 2"))


def test_tasks_of_a_job_train_to_the_numbers_of_processes_that_are_spawned_here(bench, reference):
    with_two_processes(bench, seeds="[0, 1]")
    said = bench.run("--pack", "2")
    assert said.code == 0, said.all
    (submission,) = bench.submissions()
    (script,) = bench.results.glob(f"sweeps/*/subs/{submission['id']}/*submission.sh")
    assert "--ntasks-per-node=2" in script.read_text()
    bench.wait_done(2)
    assert bench.came_out() == reference(bench)


def test_run_of_two_tasks_that_is_preempted_goes_on_at_the_same_step(bench, cluster, reference):
    with_two_processes(bench, epochs=40)
    bench.run("--slurm", "partition=low", MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(1, steps=5)
    cluster.preempt()
    bench.wait_done(1)
    (run,) = bench.folders()
    (_, first), (second, _) = bench.attempts(run)
    assert (first["state"], second["job"]["restarts"]) == ("stopped", 1)
    assert bench.came_out() == reference(bench)


def test_run_of_two_tasks_whose_one_task_is_killed_is_lost_and_taken_up_again(bench, cluster, reference):
    with_two_processes(bench, epochs=40)
    bench.run(MIXBENCH_TEST_STEP_SECONDS="0.1")
    bench.wait_computed(1, steps=5)
    (run,) = bench.folders()
    bench.kill_worker(run, which=1)
    seconds_until(lambda: "1 lost" in bench.status().out, within=60)
    cluster.wait_idle()
    bench.run()
    bench.wait_done(1)
    assert bench.came_out() == reference(bench)
