"""What runs in a task of a job array: ``python -m mixbench.slurm.job FOLDER``, the folder of its submission.

It works off its runs through the local queue, each in a process of its own, and imports no torch: its signal handlers
stand before anything can be lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from mixbench import devices, provenance, pulse
from mixbench.display import Lines
from mixbench.endings import OtherCodeError
from mixbench.execution import Execution
from mixbench.files import DamagedError
from mixbench.pool import Lent, Outcome, Pool
from mixbench.process import others
from mixbench.running import DISK, DONE, FAILED, UNKNOWN
from mixbench.signals import STOPS, Stop
from mixbench.slots import Others
from mixbench.slurm import commands, relay, snapshot, submissions
from mixbench.slurm.submissions import Submission
from mixbench.spec import Run
from mixbench.store import Store


def main() -> None:
    """Do what the task of this process is to do."""
    begun = time.monotonic()
    stop = Stop(STOPS)
    stop.listen()
    folder = Path(sys.argv[1])
    job = provenance.job()
    submission = submissions.read(folder)
    if submission.state == "abandoned" or submissions.is_cancelled(folder):
        say(f"{submission.name} was {'cancelled' if submission.state != 'abandoned' else 'given up'}: nothing is done")
        sys.exit(DONE)
    obstacle = _obstacle(submission)
    if int(os.environ.get("SLURM_PROCID", 0)) > 0:
        if not obstacle:
            relay.lend(folder)
        return
    say(f"task {job['index']} of {submission.name} on {job['node']}, restarted {job['restarts']} times")
    store = Store(folder.parents[3], tell=say)
    runs = [run for run in submission.runs_of(job["index"]) if not _is_settled(run, store, submission.name)]
    if obstacle:
        refuse(runs, store, submission, obstacle)
        sys.exit(FAILED)
    withdrawn = partial(submissions.is_cancelled, folder)
    lent = Lent(stop, _end(submission, begun), 2 * pulse.LEASE_SECONDS, withdrawn)
    with lenders(submission, folder, stop) as others:
        outcome = work(runs, store, submission, lent, others)
    if all(_is_settled(run, store, submission.name) for run in runs):
        outcome = replace(outcome, stopped=False)  # the stop came too late to take anything away
    if outcome.stopped and submissions.is_cancelled(folder):
        say("stopped and saved: this was cancelled")
        sys.exit(DONE)
    sys.exit(_leave(outcome, stop, job["id"], job["index"]))


@contextlib.contextmanager
def lenders(submission: Submission, folder: Path, stop: Stop) -> Iterator[Others]:
    """Where the processes of a run but the first come from: the other tasks of this job, if it has any."""
    if submission.processes == 1:
        yield others
        return
    with relay.Lenders(folder, stop) as there:
        yield there.others


def work(runs: Sequence[Run], store: Store, submission: Submission, lent: Lent, others: Others) -> Outcome:
    """Do the runs of a task, so many at a time as its submission says."""
    execution = Execution(**submission.execution)
    environments = devices.environments(execution.device, submission.slots, execution.threads, submission.processes)
    workers = devices.decoders(execution.workers, len(environments))  # a task has cores of its own

    def execution_of(run: Run) -> Execution:
        return replace(submission.execution_of(run), workers=workers)

    watcher = Lines(len(runs))
    return Pool(store, execution_of, watcher, environments, others=others, host=None, lent=lent).work(runs)


def refuse(runs: Sequence[Run], store: Store, submission: Submission, why: str) -> None:
    """Have runs fail, so that whoever looks at them knows why; they are tried again by the next launcher."""
    for run in runs:
        attempt = store.claim(run, submission.execution_of(run))
        if attempt is not None:
            with contextlib.suppress(OtherCodeError), attempt:
                raise OtherCodeError(why)
    say(why)


def _is_settled(run: Run, store: Store, name: str) -> bool:
    """Whether nothing is left to do: it is done, or failed before this task was restarted."""
    try:
        if store.complete(run):
            return True
    except DamagedError:
        return False
    failed = (store.ending(run) or {}).get("state") == "failed"
    return failed and (store.about(run).get("job") or {}).get("name") == name


def _obstacle(submission: Submission) -> str:
    """Why nothing can be done here as it was meant; "" where all is well."""
    changed = snapshot.changed(submission.mixers)
    if changed:
        return (
            f"the code of {', '.join(changed)}, which another package brings, has changed since this was submitted; "
            "run the sweep again to go on with the new one, or put the old one back"
        )
    if submission.execution["device"].startswith("cuda") and not devices.visible_gpus():
        return f"no GPU is visible on {provenance.job()['node']}; was one asked for? --slurm exclude=NODE avoids it"
    return ""


def _end(submission: Submission, begun: float) -> float | None:
    """When the time of this job is over, on the monotonic clock; None: nobody says."""
    told = os.environ.get("SLURM_JOB_END_TIME", "")
    if told.isdigit():
        return begun + int(told) - time.time()
    return None if submission.minutes is None else begun + 60 * submission.minutes


def _leave(outcome: Outcome, stop: Stop, job: str, index: int) -> int:
    """End as the cluster must see it; the exit code.

    A job that ends by itself while it is being preempted is not requeued, so one that was stopped stays until it is
    killed. And one that was told to end is never put back by us: a cancelled job would come to life again.
    """
    if not outcome.stopped:
        return DISK if outcome.disk_full else FAILED if outcome.failed else DONE
    if signal.SIGTERM in stop.heard:
        say("stopped and saved; staying until the job is ended")
        _stay()
    refused = commands.requeue(job, index)
    if refused:
        say(f"stopped and saved; the job cannot be put back into the queue: {refused}; `mixbench run` goes on")
        return UNKNOWN
    say("stopped and saved; put back into the queue")
    _stay()
    return DONE


def _stay() -> None:
    while True:
        signal.pause()


def say(sentence: str) -> None:
    """Tell the log."""
    print(f"mixbench: {sentence}", flush=True)  # noqa: T201  (nobody is here but the log)


if __name__ == "__main__":
    main()
