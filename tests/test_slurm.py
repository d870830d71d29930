"""What is handed to SLURM and what is said of it, without one: small scripts answer as its commands do."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mixbench import attempts, catalog, endings, files, provenance, pulse, signals
from mixbench.execution import Execution
from mixbench.resolve import load_sweep
from mixbench.slurm import LockedError, UnknownError, commands, snapshot, standing, submissions, telling
from mixbench.slurm.arrays import Wishes, arrange
from mixbench.slurm.cluster import Cluster
from mixbench.slurm.commands import Task
from mixbench.slurm.flights import in_flight, is_at_work, settle
from mixbench.slurm.handing import whole
from mixbench.slurm.site import Site, settings
from mixbench.slurm.submissions import Submission, Submissions
from mixbench.slurm.submit import FULL, UNSURE
from mixbench.spec import Run
from mixbench.store import Store

CPU = Execution()
GPU = Execution(device="cuda")
NOTHING = Site({}, (), 120)


@pytest.fixture
def sweep(tiny, tmp_path):
    return load_sweep(tiny, data=tmp_path, results=tmp_path)


def runs_of(sweep):
    return [run for stage in sweep.stages() for run in stage]


def arrays_of(sweep, execution=CPU, *, longest=1001, **wishes):
    return arrange(runs_of(sweep), sweep, execution, Wishes(**wishes), longest=longest)


# What is handed over


def test_arrays_are_one_for_each_stage(sweep):
    assert [(array.stage, len(array.tasks), len(array.runs)) for array in arrays_of(sweep)] == [(0, 4, 4), (1, 2, 2)]


def test_arrays_pack_several_runs_into_a_job(sweep):
    first, _ = arrays_of(sweep, pack=3)
    assert [len(task) for task in first.tasks] == [3, 1]


def test_arrays_are_cut_where_the_cluster_allows_no_longer_ones(sweep):
    assert [len(array.tasks) for array in arrays_of(sweep, longest=3)] == [3, 1, 2]


def test_arrays_keep_to_the_jobs_that_may_be_at_work(sweep):
    assert [array.parallel for array in arrays_of(sweep, max_jobs=3)] == [3, 2]


def test_arrays_of_unlike_recipes_are_apart(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "settings: [digits/tiny, {digits/tiny: large}]\nmethods: [simple]\nseeds: [0, 1]\n"
        "recipes: {digits/tiny: {epochs: 2}, large: {epochs: 3, mem_gb: 7.5, cpus: 3}}\n"
    )
    sweep = load_sweep(path, data=tmp_path, results=tmp_path)
    given = [array.parameters(CPU, NOTHING) for array in arrays_of(sweep, pack=2, slots=2)]
    assert [(one["mem"], one["cpus_per_task"]) for one in given] == [("4096M", 2), ("15360M", 6)]


def test_time_limit_of_a_job_is_twice_what_its_runs_are_expected_to_take(tmp_path):
    sweep = load_sweep(Path(__file__).parents[1] / "sweeps" / "table2.yaml", data=tmp_path, results=tmp_path)
    run = next(run for run in runs_of(sweep) if run.method == "simple" and run.dataset == "imagenet")
    (array,) = arrange([run], sweep, GPU, Wishes(), longest=100)
    assert sweep.hours[run] * 60 * 2 <= array.minutes == 2880
    assert array.parameters(GPU, NOTHING)["gpus_per_node"] == 1
    (packed,) = arrange([run, replace(run, seed=9)], sweep, GPU, Wishes(pack=2), longest=100)
    assert packed.minutes == 2880  # the second run is none of the sweep's


def test_nobody_guesses_the_time_of_runs_on_a_cpu(sweep):
    assert {array.minutes for array in arrays_of(sweep)} == {None}


def test_site_says_more_than_recipes(sweep):
    site = Site({"time": "30", "mem_per_cpu": "1G", "gres": "gpu:a100:1"}, (), 120)
    given = arrays_of(sweep, GPU)[0].parameters(GPU, site)
    assert (given["time"], given["mem_per_cpu"], given["gres"]) == ("30", "1G", "gpu:a100:1")
    assert not {"mem", "gpus_per_node"} & set(given)


def test_halves_of_an_array_are_all_of_it(sweep):
    array, _ = arrays_of(sweep)
    first, second = array.halves()
    assert [*first.runs, *second.runs] == array.runs


def test_measurement_is_not_handed_to_a_machine_that_nobody_knows(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(
        "settings: [digits/tiny]\nmethods: [simple, mixup]\nseeds: [0]\nset: {task: time}\n"
        "recipes: {digits/tiny: {epochs: 2, pad: 1, flip: false}}\n"
    )
    sweep = load_sweep(path, data=tmp_path, results=tmp_path, machine=lambda: "X")
    with pytest.raises(ValueError, match="measures a machine, and which one a job would get is not known"):
        arrays_of(sweep)


# What a site says


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("1:30", 1.5), ("1:30:00", 90), ("2-12", 3600), ("1-0:30:30", 1470.5), ("UNLIMITED", None)],
)
def test_time_limits_are_read_as_slurm_writes_them(time, minutes):
    assert commands.minutes(time) == minutes


def test_site_settings_are_those_of_a_file_and_the_command_line_over_them(tmp_path, monkeypatch):
    file = tmp_path / "site.yaml"
    file.write_text("partition: gpu\naccount: vision\nsetup: [module load cuda]\nsignal-delay: 60\nexclusive: true\n")
    monkeypatch.setenv("MIXBENCH_SLURM", str(file))
    site = settings(None, ["partition=long", "--mail-user=a@b"])
    assert site.options == {"partition": "long", "account": "vision", "exclusive": True, "mail_user": "a@b"}
    assert (site.setup, site.signal_delay) == (("module load cuda",), 60)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("array=0-3", "--slurm: array is not a site's to set: mixbench makes the arrays; --max-jobs N says how many"),
        ("job-name=x", "--slurm: job-name is not a site's to set: a job's name tells mixbench whose it is"),
        ("a b=c", "--slurm: 'a b' is no option of sbatch; write KEY=VALUE, like partition=gpu"),
        ("time=soon", "--slurm: 'soon' is no time limit; write minutes, hours:minutes:seconds or days-hours"),
        ("signal_delay=x", "--slurm: signal_delay must be a whole number of seconds, 1 or more, not 'x'"),
        ("partition=", "--slurm: partition must be text or a number, not ''"),
    ],
)
def test_site_setting_that_cannot_be_is_refused(pair, sentence, refused, tiny):
    assert refused("run", tiny, "--on", "slurm", "--slurm", pair).startswith(sentence)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("time: 1:30:00\n", "line 1: to YAML, 1:30:00 is a number of base 60; put it in quotes"),
        ("setup: [1]\n", "setup must be a list of lines of shell, not [1]"),
        ("partition: [a, b]\n", "partition must be text or a number, not ['a', 'b']"),
    ],
)
def test_site_file_is_refused_by_its_name(written, sentence, refused, tiny, tmp_path):
    (tmp_path / "site.yaml").write_text(written)
    said = refused("run", tiny, "--on", "slurm", "--slurm-file", "site.yaml")
    assert said.startswith(f"site.yaml: {sentence}")


@pytest.mark.parametrize("words", [("--pack", "2"), ("--max-jobs", "1"), ("--wait",), ("--slurm", "partition=x")])
def test_what_is_about_a_cluster_is_refused_here(words, refused, tiny):
    assert refused("run", tiny, *words) == f"{words[0]} is about a cluster; say --on slurm too, or leave it out"


def test_more_runs_at_a_time_than_a_job_has_are_refused(refused, tiny):
    said = refused("run", tiny, "--on", "slurm", "--slots", "3", "--pack", "2")
    assert said == "--slots 3: a job has 2 runs; say --pack 3 or more"


def test_time_that_a_partition_does_not_allow_is_refused(sweep):
    cluster = Cluster(partitions={"main": {"PartitionName": "main", "MaxTime": "1:00:00", "DefaultTime": "NONE"}})
    assert cluster.usual_minutes(NOTHING) == 60
    cluster.check_time(arrays_of(sweep), NOTHING)
    with pytest.raises(ValueError, match="partition main allows 1:00:00, and a job would ask for 120 minutes"):
        cluster.check_time(arrays_of(sweep), Site({"time": "2:00:00"}, (), 120))
    cluster.check_time(arrays_of(sweep), Site({"time": "2:00:00", "partition": "a,b"}, (), 120))


# What is in flight


def submission_of(sweep, **other):
    first, _ = arrays_of(sweep)
    told = {
        "id": "1",
        "sweep": sweep.name,
        "runs": {run.id: run.to_dict() for run in first.runs},
        "tasks": [[run.id for run in task] for task in first.tasks],
        "execution": {},
        "own": {},
        "slots": 1,
        "processes": 1,
        "minutes": None,
        "code": "x",
        "mixers": {},
    }
    return Submission(**told | other)


def task(index, state="PENDING", name="mb-1", reason="Priority"):
    return Task(name, "77", index, state, reason, "node1")


def test_in_flight_is_what_stands_in_the_queue_under_a_name_that_we_gave(sweep):
    known = submission_of(sweep)
    flights = in_flight([known], [task(0), task(2, "SUSPENDED"), task(1, name="mb-2"), task(9)])
    assert set(flights) == {known.tasks[0][0], known.tasks[2][0]}


@pytest.fixture
def records(tmp_path):
    return Submissions(tmp_path / "results")


def test_intent_whose_job_is_in_the_queue_is_adopted(sweep, records):
    records.write(submission_of(sweep))
    (adopted,) = settle(records.live(), records, [task(0)], patience=30)
    assert (adopted.state, adopted.job) == ("submitted", "77")
    assert records.live() == [adopted]


def test_intent_that_may_still_turn_up_stops_everything(sweep, records):
    records.write(submission_of(sweep))
    with pytest.raises(UnknownError, match=r"mb-1 was about to be submitted .* try again in (29|30) s"):
        settle(records.live(), records, [], patience=30)


@pytest.mark.parametrize(("state", "end"), [("intent", "abandoned"), ("submitted", "over")])
def test_what_is_not_in_the_queue_after_a_while_is_over(state, end, sweep, records):
    records.write(submission_of(sweep, state=state))
    assert settle(records.live(), records, [], patience=-1) == []
    assert [one.state for one in records.all()] == [end]


def test_second_launcher_is_told_who_the_first_one_is(records):
    said = f"process {os.getpid()} of .* is submitting to SLURM"
    with records.locked(), pytest.raises(LockedError, match=said), records.locked():
        pass


def test_ages_are_taken_on_the_clock_of_the_file_system(sweep, records):
    one = submission_of(sweep)
    records.write(one)
    path = records.folder(one) / "submission.json"
    os.utime(path, (path.stat().st_mtime - 100,) * 2)
    assert 100 <= records.age(one) < 110


# What sbatch says


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    ],
)
def test_sbatch_that_cannot_know_is_not_believed(said):
    assert UNSURE.search(said)


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "sbatch: error: no account for you; please contact support, who will connect you",
        "sbatch: unrecognized option '--foo=3'",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    ],
)
def test_sbatch_that_refuses_is_believed(said):
    assert not UNSURE.search(said)
    assert not FULL.search(said)


def test_sbatch_that_is_full_is_understood():
    assert FULL.search("sbatch: error: AssocMaxSubmitJobLimit")
    assert FULL.search("sbatch: error: QOSMaxSubmitJobPerUserLimit")


ANSWERS = {
    "squeue": "",
    "scontrol": """case "$2" in
config) echo 'MaxArraySize = 1001'; echo 'MessageTimeout = 10 sec'; echo 'KillWait = 5 sec';;
partition) echo 'PartitionName=main Default=YES MaxTime=UNLIMITED DefaultTime=01:00:00 State=UP';;
esac""",
    "srun": "",
    "sbatch": "echo Submitted batch job 4711",
    "scancel": "",
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts scripts in place of SLURM's commands; each notes how it was called. Gives what was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    called = tmp_path / "called"

    def answer(**scripts):
        for name, script in scripts.items():
            path = folder / name
            path.write_text(
                f'#!/bin/bash\necho "{name} $*" >> {called}\nenv | grep ^SLURM_ > {called}.env || true\n{script}\n'
            )
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    answer(**ANSWERS)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    answer.calls = lambda: called.read_text().splitlines() if called.exists() else []
    answer.environment = lambda: Path(f"{called}.env").read_text()
    return answer


HANDED = ("--on", "slurm", "--device", "cpu")


def script_of(folder):
    """What sbatch was given for a submission."""
    (script,) = (path for path in folder.glob("*submission.sh"))
    return script.read_text()


def states(folder):
    return sorted(files.read(path)["state"] for path in folder.glob("results/sweeps/*/subs/*/submission.json"))


def test_sweep_is_handed_over_in_a_number_of_calls_that_does_not_grow(slurm, mixbench, tiny, tmp_path):
    said = mixbench("run", tiny, *HANDED)
    assert said.code == 0, said.err
    assert re.search(r"submitted mb-\S+: 4 runs in 4 jobs, job 4711\nsubmitted mb-\S+: 2 runs in 2 jobs", said.out)
    assert [line.split()[0] for line in slurm.calls()] == ["squeue", "scontrol", "scontrol", "sbatch", "sbatch"]
    assert states(tmp_path) == ["submitted"] * 2


def test_second_stage_waits_for_the_first_one(slurm, mixbench, tiny, tmp_path):
    mixbench("run", tiny, *HANDED)
    scripts = [script_of(path.parent) for path in tmp_path.glob("results/sweeps/*/subs/*/submission.json")]
    assert sum("--dependency=afterany:4711" in script for script in scripts) == 1
    assert all("--requeue" in script and "--block-signal=USR2,TERM" in script for script in scripts)


def test_job_says_only_where_its_submission_is_and_runs_a_copy_of_the_code(slurm, mixbench, tiny, tmp_path):
    mixbench("run", tiny, *HANDED)
    copy = next(tmp_path.glob("results/sweeps/code/*"))
    assert (copy / "mixbench" / "slurm" / "job.py").read_bytes() == (
        provenance.ROOT / "mixbench" / "slurm" / "job.py"
    ).read_bytes()
    assert (copy / "COMMIT").read_text().strip() == provenance.commit()
    path = next(tmp_path.glob("results/sweeps/*/subs/*/submission.json"))
    assert f"PYTHONPATH={copy}" in script_of(path.parent)
    assert script_of(path.parent).rstrip().endswith(f"-m mixbench.slurm.job {path.parent}")


def test_launcher_in_a_job_is_not_taken_for_one(slurm, mixbench, tiny, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1000")
    monkeypatch.setenv("SLURM_CONF", "/somewhere")
    assert mixbench("run", tiny, *HANDED).code == 0
    assert slurm.environment() == "SLURM_CONF=/somewhere\n"
    assert os.environ["SLURM_MEM_PER_CPU"] == "1000"


def test_nothing_is_submitted_where_the_queue_cannot_be_read(slurm, mixbench, tiny, tmp_path):
    slurm(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    said = mixbench("run", tiny, *HANDED)
    assert said.code == 75
    assert said.err == (
        "mixbench: SLURM does not answer to squeue: slurm_load_jobs error: Unable to contact slurm controller\n"
    )
    assert "sbatch" not in " ".join(slurm.calls())
    assert states(tmp_path) == []


def test_submission_that_nobody_can_be_sure_of_is_settled_before_the_next_one(slurm, mixbench, tiny, tmp_path):
    slurm(sbatch="echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv' >&2; exit 1")
    said = mixbench("run", tiny, *HANDED)
    assert (said.code, states(tmp_path)) == (75, ["intent"])
    assert "whether mb-" in said.err
    assert "Socket timed out" in said.err
    assert mixbench("run", tiny, *HANDED).code == 75
    name = files.read(next(tmp_path.glob("results/sweeps/*/subs/*/submission.json")))["id"]
    slurm(squeue=f"for i in 0 1 2 3; do echo 'mb-{name}|99|'$i'|PENDING|Priority|'; done")
    slurm(sbatch="echo Submitted batch job 100")
    said = mixbench("run", tiny, *HANDED)
    assert (said.code, states(tmp_path)) == (0, ["submitted"] * 2)
    assert "2 runs in 2 jobs, job 100" in said.out
    second = max(tmp_path.glob("results/sweeps/*/subs/*/submission.json"), key=lambda path: path.stat().st_mtime_ns)
    assert "--dependency=afterany:99" in script_of(second.parent)


def test_refusal_of_slurm_is_told_in_its_words(slurm, mixbench, tiny, tmp_path):
    slurm(sbatch="echo 'sbatch: error: Batch job submission failed: Invalid qos specification' >&2; exit 1")
    said = mixbench("run", tiny, *HANDED)
    assert (said.code, states(tmp_path)) == (2, ["abandoned"])
    assert re.search(r"SLURM refuses mb-\S+: sbatch: error: Batch job submission failed: Invalid qos spec", said.err)


def test_what_slurm_does_not_take_for_now_waits(slurm, mixbench, tiny, tmp_path):
    slurm(
        sbatch="""n=$(grep -c ^sbatch %s); tasks=$(sed -n 's/.*--array=0-\\([0-9]*\\)%%.*/\\1/p' "$1")
if [ "$tasks" -gt 0 ] || [ $n -gt 4 ]; then echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1; fi
echo Submitted batch job $n"""
        % (tmp_path / "called")
    )
    said = mixbench("run", tiny, *HANDED)
    assert said.code == 0, said.err
    assert "4 runs in" not in said.out
    assert said.err == ""
    assert re.search(r"4 runs wait: SLURM takes no more for now \(sbatch: error: AssocMaxSubmitJobLimit", said.out)
    assert "submitted" in states(tmp_path)


def test_dry_run_prints_what_sbatch_would_be_given_and_gives_it_nothing(slurm, mixbench, tiny, tmp_path):
    said = mixbench("run", tiny, *HANDED, "--dry-run", "--slurm", "partition=gpu", "--max-jobs", "2")
    assert said.code == 0, said.err
    assert "array 1 of 2: 4 runs of stage 1 in 4 jobs" in said.out
    assert "  #SBATCH --array=0-3%2\n" in said.out
    assert "  #SBATCH --partition=gpu\n" in said.out
    assert "sbatch" not in " ".join(slurm.calls())
    assert not list(tmp_path.glob("results/sweeps/*/subs"))


def test_dry_run_without_a_cluster_says_what_it_can(mixbench, tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = mixbench("run", tiny, *HANDED, "--dry-run")
    assert said.code == 0, said.err
    assert "what is in flight is not known: there is no squeue here; is this a host of the cluster?" in said.err
    assert "array 2 of 2: 2 runs of stage 2 in 2 jobs" in said.out


def test_cluster_that_is_not_there_is_refused(mixbench, tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = mixbench("run", tiny, *HANDED)
    assert (said.code, said.err) == (75, "mixbench: there is no squeue here; is this a host of the cluster?\n")


# Where a sweep stands


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results", tell=print)


def stand(sweep, store, *, tasks=(), monkeypatch):
    monkeypatch.setattr(commands, "tasks", lambda: list(tasks))
    return standing.standings(sweep, store)


def test_status_counts_what_is_done_queued_and_new(sweep, store, records, finish, monkeypatch):
    first = runs_of(sweep)
    finish(store.root, first[0])
    records.write(submission_of(sweep, state="submitted", job="77"))
    tasks = [task(1), task(2, reason="PartitionTimeLimit"), task(3)]
    now = stand(sweep, store, tasks=tasks, monkeypatch=monkeypatch)
    told = list(telling.lines(now, command="mixbench run tiny.yaml"))
    assert told == [
        "tiny: 6 runs: 1 done, 3 queued, 2 new",
        "",
        "queued: 2 (Priority)",
        "queued: 1 (PartitionTimeLimit): will not start by itself: its partition allows less time than it asks for",
        "",
        "`mixbench run tiny.yaml` goes on with the 2 that nobody is at",
    ]


def test_status_of_a_job_that_ended_before_its_run_began_says_where_its_log_is(sweep, store, records, monkeypatch):
    known = submission_of(sweep, state="over", job="77", command="mixbench run tiny.yaml --on slurm --device cpu")
    records.write(known)
    run = runs_of(sweep)[1]
    (records.folder(known) / "77_1_0_log.out").write_text("no such file: python\n")
    told = list(telling.lines(stand(sweep, store, monkeypatch=monkeypatch), command="x"))
    assert f"lost: {run.folder}: mb-1 ended before the run began: no such file: python" in told
    assert f"  {records.folder(known).resolve()}/77_1_0_log.out" in told
    assert sum("without a log: cancelled, or is its folder not there?" in line for line in told) == 3
    assert told[-1] == "`mixbench run tiny.yaml --on slurm --device cpu` goes on with the 6 that nobody is at"


def test_logs_of_a_run_that_never_began_are_those_of_its_job(sweep, records, mixbench):
    known = submission_of(sweep, state="over", job="77")
    records.write(known)
    (records.folder(known) / "77_1_0_log.out").write_text("no such file: python\n")
    said = mixbench("logs", runs_of(sweep)[1].id)
    assert "  no such file: python\n" in said.out, said.err


def test_runs_that_another_user_has_handed_over_are_not_handed_over_again(slurm, mixbench, sweep, tiny, records):
    records.write(submission_of(sweep, state="submitted", job="77", user="eve", cluster="mars"))
    said = mixbench("run", tiny, *HANDED)
    assert said.code == 75
    assert "eve has handed mb-1 to cluster mars from" in said.err


def test_record_that_cannot_be_read_says_what_to_do(slurm, mixbench, sweep, tiny, records):
    one = submission_of(sweep)
    records.write(one)
    path = records.folder(one) / "submission.json"
    files.write(path, files.encode(files.read(path) | {"later": 1}))
    said = mixbench("status", tiny)
    assert (said.code, said.err.endswith("if squeue shows no job mb-1, delete that folder\n")) == (2, True), said.err


def test_jobs_at_work_count_for_the_next_call_too(slurm, mixbench, sweep, tiny, records, tmp_path):
    records.write(submission_of(sweep, state="submitted", job="77"))
    slurm(squeue="for i in 0 1 2 3; do echo 'mb-1|77|'$i'|PENDING|Priority|'; done")
    assert mixbench("run", tiny, *HANDED, "--max-jobs", "1").code == 0
    second = max(tmp_path.glob("results/sweeps/*/subs/*/submission.json"), key=lambda path: path.stat().st_mtime_ns)
    assert "--dependency=afterany:77" in script_of(second.parent)


def test_watching_ends_well_only_if_every_run_is_done(sweep, tiny, store, finish, mixbench):
    assert mixbench("status", tiny, "--watch").code == 1
    for run in runs_of(sweep):
        finish(store.root, run)
    assert mixbench("status", tiny, "--watch").code == 0


def test_cluster_without_arrays_is_refused():
    with pytest.raises(ValueError, match="takes no job arrays"):
        _ = Cluster(config={"MaxArraySize": "0"}).longest
    assert Cluster(config={"MaxArraySize": "1001", "SchedulerParameters": "max_array_tasks=5"}).longest == 5


def test_status_tells_how_far_a_run_is_and_how_long_it_will_take(sweep, store, records, monkeypatch):
    run = runs_of(sweep)[0]
    for name, value in {"JOB_ID": "77", "JOB_NAME": "mb-1", "ARRAY_TASK_ID": "0", "ARRAY_JOB_ID": "77"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    attempt = store.claim(run, Execution())
    said = {"steps": 1, "of": 4, "metrics": {}, "images_per_second": 50.0}
    files.write(attempt.place / "hb", files.encode(said))
    records.write(submission_of(sweep, state="submitted", job="77"))
    now = stand(sweep, store, tasks=[task(0, "RUNNING")], monkeypatch=monkeypatch)
    (line,) = [line for line in telling.lines(now, command="x") if run.folder in line]
    assert re.fullmatch(rf"running  {run.folder}  node1  epoch 1 of 2  50 images/s  3 s left  heard \d s ago", line)


@pytest.mark.parametrize(
    ("state", "word"), [("SUSPENDED", "suspended"), ("RUNNING", "starting"), ("CONFIGURING", "starting")]
)
def test_status_of_what_the_queue_holds_is_never_lost(state, word, sweep, store, records, monkeypatch):
    records.write(submission_of(sweep, state="submitted", job="77"))
    now = stand(sweep, store, tasks=[task(0, state)], monkeypatch=monkeypatch)
    assert now.runs[0].state == word
    assert now.is_moving


def test_status_names_the_error_and_where_the_log_is(sweep, store, monkeypatch):
    run = runs_of(sweep)[0]
    with pytest.raises(RuntimeError), store.claim(run, Execution()):
        raise RuntimeError("first\nit broke")
    told = list(telling.lines(stand(sweep, store, monkeypatch=monkeypatch), command="mixbench run s"))
    assert f"failed: {run.folder}: it broke" in told
    assert f"  {store.folder(run)}/attempts/1/out.txt" in told
    assert told[-1] == "`mixbench run s --retry-failed` tries the 1 again that failed"


def test_status_says_what_slurm_said_when_it_ended_a_job(sweep, store, records, monkeypatch):
    run = runs_of(sweep)[0]
    known = submission_of(sweep, state="over", job="77")
    records.write(known)
    place = store.folder(run) / "attempts" / "1"
    store.claim(run, Execution())
    said = files.read(place / "attempt.json")
    job = {"name": "mb-1", "id": "77", "index": 0, "restarts": 0, "node": "node1", "gpus": ""}
    files.write(place / "attempt.json", files.encode(said | {"job": job, "pid": 0, "started": "0"}))
    (records.folder(known) / "77_0_0_log.out").write_text(
        "slurmstepd: error: StepId=77.0 exceeded memory limit (2 > 1), being killed\nsrun: error: task 0: Killed\n"
    )
    told = list(telling.lines(stand(sweep, store, monkeypatch=monkeypatch), command="x"))
    assert f"lost: {run.folder}: slurmstepd: error: StepId=77.0 exceeded memory limit (2 > 1), being killed" in told


def test_status_without_the_queue_says_what_the_files_say(slurm, mixbench, sweep, tiny, records):
    records.write(submission_of(sweep, state="submitted", job="77"))
    slurm(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    said = mixbench("status", tiny)
    assert said.code == 75
    assert "what is in flight is not known: SLURM does not answer to squeue: Unable to contact" in said.out
    assert said.out.startswith("tiny: 6 runs: 6 new\n")


def test_status_of_what_was_never_on_a_cluster_asks_none(mixbench, tiny, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = mixbench("status", tiny)
    assert (said.code, said.out.splitlines()[0]) == (0, "tiny: 6 runs: 6 new")


def test_cancel_writes_down_that_nothing_may_begin_before_it_tells_slurm(slurm, mixbench, sweep, tiny, records):
    one = submission_of(sweep, state="submitted", job="77")
    records.write(one)
    gone = records.folder(one) / "gone"
    slurm(
        squeue=f"[ -e {gone} ] || echo 'mb-1|77|0|RUNNING|None|node1'",
        scancel=f"[ -e {records.folder(one)}/cancelled ] && touch {gone}",
    )
    said = mixbench("cancel", tiny)
    assert said.out == "1 job array of tiny cancelled; `mixbench run` goes on where they were\n", said.err
    assert any(call.startswith("scancel") and "--name=mb-1" in call for call in slurm.calls())
    assert submissions.is_cancelled(records.folder(one))
    assert mixbench("status", tiny).out.startswith("tiny: 6 runs: 4 cancelled, 2 new\n")


def test_cancel_of_what_has_gone_claims_nothing(slurm, mixbench, sweep, tiny, records):
    one = submission_of(sweep, state="submitted", job="77")
    records.write(one)
    assert mixbench("cancel", tiny).out == "no job of tiny is in flight\n"
    assert not submissions.is_cancelled(records.folder(one))
    assert "4 lost" in mixbench("status", tiny).out


def test_cancelled_is_only_what_was_not_handed_over_again(slurm, mixbench, sweep, tiny, records):
    first = submission_of(sweep, state="over", job="77", time=1.0)
    records.write(first)
    records.cancel(first)
    assert "4 cancelled" in mixbench("status", tiny).out
    records.write(submission_of(sweep, id="2", state="over", job="78", time=2.0))
    assert "4 lost" in mixbench("status", tiny).out


def test_command_for_the_whole_sweep_asks_for_all_rows():
    assert whole("mixbench run s.yaml --only a,b --on slurm") == "mixbench run s.yaml --on slurm"
    assert whole("mixbench run s.yaml --only='a, b'") == "mixbench run s.yaml"


def test_doctor_says_what_is_there_and_what_is_missing(slurm, mixbench):
    said = mixbench("doctor")
    assert "ok    MaxArraySize is 1001: longer arrays are cut\n" in said.out
    assert "note  JobRequeue is 0: jobs say --requeue for themselves, as ours all do\n" in said.out
    assert said.code == 0


def test_doctor_without_a_cluster_says_so(mixbench, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    said = mixbench("doctor")
    assert said.code == 1
    assert "bad   the controller cannot be asked: there is no scontrol here" in said.out


# Attempts in jobs


JOB = {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "4", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_NAME": "mb-x"}


@pytest.fixture
def in_a_job(monkeypatch):
    def be(**other):
        for name, value in (JOB | other).items():
            monkeypatch.setenv(name, value)

    return be


def test_attempt_says_in_which_job_it_is(in_a_job, store, sweep):
    in_a_job(SLURMD_NODENAME="node7", CUDA_VISIBLE_DEVICES="1", SLURM_RESTART_COUNT="2")
    run = runs_of(sweep)[0]
    store.claim(run, Execution())
    job = {"name": "mb-x", "id": "4", "index": 3, "restarts": 2, "node": "node7", "gpus": "1"}
    assert store.about(run)["job"] == job


def test_task_that_was_restarted_takes_over_from_itself_at_once(in_a_job, store, sweep):
    run = runs_of(sweep)[0]
    in_a_job()
    old = store.claim(run, Execution())
    assert store.claim(run, Execution()) is None
    in_a_job(SLURM_ARRAY_TASK_ID="2", SLURM_RESTART_COUNT="1")
    assert store.claim(run, Execution()) is None  # another task
    in_a_job(SLURM_RESTART_COUNT="1")
    new = store.claim(run, Execution())
    assert new.number == 2
    with pytest.raises(endings.FencedError):
        old.save(1, b"state")


def test_run_that_was_in_a_job_is_at_work_only_while_the_queue_says_so(in_a_job, store, sweep):
    here, there = runs_of(sweep)[:2]
    store.claim(here, Execution())
    in_a_job()
    store.claim(there, Execution())
    assert is_at_work(here, store)
    assert not is_at_work(there, store)


def test_run_on_another_machine_is_at_work_while_its_heart_beats(store, sweep):
    run = runs_of(sweep)[0]
    attempt = store.claim(run, Execution())
    place = attempt.place / "attempt.json"
    files.write(place, files.encode(files.read(place) | {"boot": "another"}))
    assert is_at_work(run, store)
    old = time.time() - pulse.LEASE_SECONDS - 1
    os.utime(attempt.place / "hb", (old, old))
    assert not is_at_work(run, Store(store.root, tell=print))


def die(store, run, *, times, state=None):
    """Attempts that are gone without a word, or say that they were stopped."""
    for _ in range(times):
        attempt = store.claim(run, Execution(), dead=store.newest(run))
        if state:
            attempt._end({"state": state, "text": "", "retryable": True})
    return store.claim(run, Execution(), dead=store.newest(run))


def test_run_that_kills_its_job_is_tried_three_times(store, sweep, in_a_job):
    in_a_job()
    run = runs_of(sweep)[0]
    die(store, run, times=2).check_progress()
    with pytest.raises(endings.CrashLoopError, match=r"crash loop: attempts 1 to 3 all ended at step 0, where they"):
        store.claim(run, Execution(), dead=store.newest(run)).check_progress()


def test_run_that_gets_on_is_no_crash_loop(store, sweep, in_a_job):
    in_a_job()
    run = runs_of(sweep)[0]
    attempt = die(store, run, times=2)
    attempt.save(7, b"state")
    store.claim(run, Execution(), dead=store.newest(run)).check_progress()


def test_run_that_a_person_stopped_is_no_crash_loop_but_one_that_a_cluster_did_is(store, sweep, in_a_job):
    first, second, third = runs_of(sweep)[:3]
    die(store, first, times=3, state="stopped").check_progress()
    die(store, third, times=3).check_progress()
    in_a_job()
    with pytest.raises(endings.CrashLoopError):
        die(store, second, times=3, state="stopped").check_progress()


def test_attempt_stops_by_itself_when_a_step_and_a_save_would_not_fit(store, sweep):
    run = runs_of(sweep)[0]
    attempt = store.claim(run, Execution())
    attempt.until = time.monotonic() + 1000
    assert not attempt.due(epoch_over=False)
    attempt.save(1, b"state")
    attempt.until = time.monotonic() + attempts.FIRST_SAVE_SECONDS
    assert attempt.due(epoch_over=False)
    with pytest.raises(endings.TimeOverError, match="at step 2, saved, since the time of its job is over"):
        attempt.save(2, b"state")


# Signals


LISTENING = """
import signal, time
from mixbench import signals
time.sleep(1)
stop = signals.Stop(signals.STOPS)
stop.listen()
print([signal.Signals(number).name for number in stop.heard])
"""


def test_signal_that_comes_before_its_handler_stands_is_heard_when_it_does():
    with signals.held():
        process = subprocess.Popen([sys.executable, "-c", LISTENING], stdout=subprocess.PIPE, text=True)
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert sorted(re.findall(r"SIG\w+", out)) == ["SIGTERM", "SIGUSR2"]


def test_stop_that_is_asked_twice_insists_only_where_a_person_asks():
    person, cluster = signals.Stop((), insistent=(signal.SIGINT,)), signals.Stop(())
    for stop in (person, cluster):
        stop.hear(signal.SIGINT)
        assert not stop.insists
        stop.hear(signal.SIGINT)
    assert person.insists
    assert not cluster.insists


# The copy of the code


def test_copy_of_the_code_is_made_once(tmp_path):
    mark = snapshot.take(tmp_path)
    before = (tmp_path / "code" / mark).stat().st_mtime_ns
    assert snapshot.take(tmp_path) == mark
    assert (tmp_path / "code" / mark).stat().st_mtime_ns == before


def test_copies_are_dropped_when_they_are_old_and_no_job_needs_them(tmp_path):
    for name in ("used", "unused", "new"):
        (tmp_path / "code" / name).mkdir(parents=True)
    old = time.time() - 2 * snapshot.OLD_SECONDS
    for name in ("used", "unused"):
        os.utime(tmp_path / "code" / name, (old, old))
    snapshot.drop_unused(tmp_path, ["used"])
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == ["new", "used"]


def test_mixer_of_another_package_is_known_by_its_mark(monkeypatch):
    monkeypatch.setattr(catalog, "is_ours", lambda method: method != "mixup")
    run = Run(method="mixup", dataset="digits", model="tiny", epochs=2)
    marks = snapshot.outside([run, replace(run, method="cutmix")])
    assert list(marks) == ["mixup"]
    assert snapshot.changed(marks) == []
    assert snapshot.changed({"mixup": "other"}) == ["mixup"]
