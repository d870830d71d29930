"""Hands arrays to SLURM, an intent before sbatch, and after it what became of that; submitit writes and calls."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import submitit

from mixbench import signals
from mixbench.execution import Execution
from mixbench.grid import Sweep
from mixbench.launch import execution_of
from mixbench.slurm import UnknownError, commands, snapshot
from mixbench.slurm.arrays import Array, needs_of
from mixbench.slurm.site import Site
from mixbench.slurm.submissions import Submission, Submissions, name_of, new_id
from mixbench.spec import Run

HOLDING = 'env --block-signal=USR2,TERM true 2>&- && exec env --block-signal=USR2,TERM "$@"; exec "$@"'
"""Runs a command that is born deaf to these signals, where env can do that: coreutils 8.31 and newer."""

QUARTER = 15
"""Seconds, of a minute."""

UNSURE = re.compile(
    r"socket timed out|unable to contact slurm|unable to establish|communication connection|connection refused|"
    r"zero bytes were|transport endpoint|message (?:send|receive)|unexpected message|make sense of sbatch",
    re.IGNORECASE,
)
"""What sbatch says when it cannot know whether the job was taken."""

FULL = re.compile(
    r"AssocMaxSubmitJob|AssocGrpSubmitJob|QOSMax\w*Submit|QOSGrpSubmit|MaxSubmitJobs?|job count limit", re.I
)
"""What it says when a limit on jobs in the queue is reached."""


class RefusedError(ValueError):
    """SLURM will not take a job as it is."""


class FullError(Exception):
    """SLURM takes no more jobs of ours for now."""


@dataclass(frozen=True)
class Handover:
    """How the arrays of a sweep are handed over.

    Attributes:
        sweep: the sweep.
        submissions: where that is recorded.
        execution: how its runs are computed.
        site: what the cluster wants to be told.
        code: the copy of the code that they run.
        usual_minutes: of a job that asks for no time; None where that has no end, or nobody knows.
        cluster: its name.
        command: that hands over.
    """

    sweep: Sweep
    submissions: Submissions
    execution: Execution
    site: Site
    code: str
    usual_minutes: float | None
    cluster: str = ""
    command: str = ""

    def submission(self, array: Array) -> Submission:
        """The record of an array."""
        chosen = execution_of(self.sweep, self.execution)
        base = asdict(self.execution)
        own = {run.id: _differing(asdict(chosen(run)), base) for run in array.runs}
        minutes = self.site.minutes or array.minutes or self.usual_minutes
        return Submission(
            id=new_id(),
            sweep=name_of(self.sweep),
            runs={run.id: run.to_dict() for run in array.runs},
            tasks=[[run.id for run in task] for task in array.tasks],
            execution=base,
            own={run: changed for run, changed in own.items() if changed},
            slots=array.slots,
            processes=array.shape.processes,
            minutes=minutes,
            code=self.code,
            mixers=snapshot.outside(array.runs),
            cluster=self.cluster,
            command=self.command,
        )

    def executor(self, array: Array, submission: Submission, after: Sequence[str]) -> submitit.SlurmExecutor:
        """What writes an array's script, and calls sbatch."""
        given = array.parameters(self.execution, self.site)
        executor = submitit.SlurmExecutor(folder=self.submissions.folder(submission))
        executor.update_parameters(
            job_name=submission.name,
            time=None,  # submitit's own would be five minutes
            wckey=None,
            comment=f"mixbench {name_of(self.sweep)}",
            signal_delay_s=self._warned(submission.minutes),
            stderr_to_stdout=True,
            array_parallelism=array.parallel or len(array.tasks),
            setup=["set -e", *self.site.setup, "set +e"] if self.site.setup else None,  # no job without its modules
            srun_args=[f"--cpus-per-task={given['cpus_per_task']}"] if "cpus_per_task" in given else [],
            dependency=f"afterany:{':'.join(after)}" if after else None,
            additional_parameters={"requeue": True, **given},
        )
        executor.parameters["map_count"] = len(array.tasks)  # also of one: so that each task has an index
        return executor

    def _warned(self, minutes: float | None) -> int:
        """How long before its end a job is warned, in seconds: a short one not as soon as it begins."""
        return self.site.signal_delay if minutes is None else min(self.site.signal_delay, int(QUARTER * minutes))

    def script(self, array: Array, submission: Submission, after: Sequence[str]) -> str:
        """What sbatch is given for an array."""
        text: str = self.executor(array, submission, after)._make_submission_file_text(self._command(submission), "")
        return text

    def hand_over(self, array: Array, after: Sequence[str]) -> Submission:
        """Submit an array; its record, settled.

        Raises:
            UnknownError: whether it was submitted is not known.
            RefusedError: it was refused, and will be as it is.
            FullError: it was refused for now.
        """
        submission = self.submission(array)
        self.submissions.write(submission)
        # Who presses Ctrl-C now is heard when it is known, and written down, what became of it.
        with signals.put_off({signal.SIGINT, *signals.STOPS}):
            try:
                with commands.clean_environment(), contextlib.redirect_stderr(io.StringIO()):  # its errors say it again
                    executor = self.executor(array, submission, after)
                    job = executor._submit_command(self._command(submission))
            except Exception as error:
                self._settle_failed(submission, " ".join(str(error).split()))
            return self.submissions.settle(submission, "submitted", str(job.job_id))

    def _settle_failed(self, submission: Submission, said: str) -> None:
        reason = re.sub(r"^.*?(sbatch: )", r"\1", said)
        if UNSURE.search(said) or "sbatch" not in said:
            raise UnknownError(f"whether {submission.name} was submitted is not known: {reason}; run again in a minute")
        self.submissions.settle(submission, "abandoned")
        if FULL.search(said):
            raise FullError(reason)
        raise RefusedError(
            f"SLURM refuses {submission.name}: {reason}; its script is in {self.submissions.folder(submission)}"
        )

    def _command(self, submission: Submission) -> str:
        """What a task does: signals are held back until its handlers stand, and the code is the copy."""
        copy = snapshot.place(self.submissions.root, self.code)
        path = os.pathsep.join([str(copy), *filter(None, [os.environ.get("PYTHONPATH")])])
        words = ["env", f"PYTHONPATH={path}", "PYTHONSAFEPATH=1", sys.executable, "-u", "-m", "mixbench.slurm.job"]
        return shlex.join(["sh", "-c", HOLDING, "sh", *words, str(self.submissions.folder(submission))])


@dataclass
class Given:
    """What was handed over.

    Attributes:
        submissions: in order.
        waiting: runs that SLURM does not take for now.
        reason: in its words.
    """

    submissions: list[Submission]
    waiting: int = 0
    reason: str = ""


def submit(
    arrays: Sequence[Array],
    handover: Handover,
    in_flight: Mapping[Run, str],
    *,
    behind: Sequence[str] | None,
    tell: Callable[[Submission], None],
) -> Given:
    """Hand arrays over, each behind those that train what it needs; stops where SLURM takes no more for now.

    Args:
        arrays: in the order of their stages.
        handover: how.
        in_flight: the job of each run in flight.
        behind: the jobs that all are to come behind, each array behind the one before; None: they may be side by side.
        tell: is told of each that was handed over.

    Raises:
        UnknownError, RefusedError: as `Handover.hand_over`; what was handed over before stays so.
    """
    given = Given([])
    made_by = dict(in_flight)
    waiting = list(arrays)
    while waiting:
        array = waiting.pop(0)
        after = needs_of(array, made_by)
        if behind is not None:
            after = sorted({*after, *([given.submissions[-1].job] if given.submissions else behind)})
        try:
            submission = handover.hand_over(array, after)
        except FullError as error:
            if len(array.tasks) > 1:
                waiting = [*array.halves(), *waiting]
                continue
            given.waiting, given.reason = sum(len(one.runs) for one in (array, *waiting)), str(error)
            break
        given.submissions.append(submission)
        tell(submission)
        made_by |= dict.fromkeys(array.runs, submission.job)
    return given


def _differing(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chosen.items() if value != base[name]}
