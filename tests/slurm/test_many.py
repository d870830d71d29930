"""A thousand runs: SLURM is asked no more often than for eight."""

from collections import Counter

from slurm.conftest import Bench

CALLS = {"sbatch": 2, "squeue": 1, "scontrol": 2}
"""To submit two stages: an array each, the queue, settings and partitions."""


def test_a_thousand_runs_take_no_more_calls_of_slurm_than_eight(cluster, tmp_path):
    for seeds in (2, 250):
        bench = Bench(cluster, tmp_path / str(seeds))
        bench.folder.mkdir()
        calls = bench.folder / "calls"
        for command in ("sbatch", "squeue", "scontrol", "sacct", "sinfo"):
            bench.precede(command, f"echo {command} >> {calls}")
        bench.write(methods="[simple, mixup, cutmix, softmax_cam]", seeds=str(list(range(seeds))))
        said = bench.run("--slurm", "hold=true")
        assert said.code == 0, said.all
        assert Counter(calls.read_text().split()) == CALLS
        assert [len(one["tasks"]) for one in bench.submissions()] == [3 * seeds, seeds]
        calls.write_text("")
        status = bench.status()
        assert f"{4 * seeds:,} runs: {4 * seeds:,} queued" in status.out, status.all
        assert calls.read_text().split() == ["squeue"]
        cluster.call("scancel", "-u", "root")
