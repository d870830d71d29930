"""The process that executes runs: ``python -m mixbench.worker``, one job a line on its standard input.

What happens is told as one JSON object a line on its standard output. torch is imported only once the signal
handlers stand: a stop that arrives during those seconds must not kill the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from mixbench import catalog, files, provenance
from mixbench.alone import sharing
from mixbench.attempts import Attempt
from mixbench.endings import FencedError, StoppedError, TimeOverError, sentence
from mixbench.execution import Execution
from mixbench.keeper import Leading
from mixbench.progress import Progress
from mixbench.result import Result, payload_of
from mixbench.signals import STOPS, Stop
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.traces import SCHEMA

Tell = Callable[[Mapping[str, Any]], None]


def main() -> None:
    """Work off the jobs on standard input until it closes or a signal asks to stop."""
    stop = _Stop()
    tell = _events()
    for line in sys.stdin:
        if stop.asked:
            break
        job = json.loads(line)
        run = Run.from_dict(job["run"])
        answer = _member(run, job) if "member" in job else _attempt(run, job, stop, tell)
        tell({"event": "ended", "run": run.id, **answer})


def _attempt(run: Run, job: Mapping[str, Any], stop: _Stop, tell: Tell) -> dict[str, Any]:
    """One try at a run. How it went: state done, elsewhere, stopped or failed, and for these two why."""
    execution = Execution(**job["execution"])
    store = Store(Path(job["results"]), tell=lambda sentence: tell({"event": "told", "sentence": sentence}))
    try:
        attempt = store.claim(run, execution, dead=job["dead"])
        if attempt is None:
            return {"state": "elsewhere"}
        attempt.until = time.monotonic() + job["seconds"] if "seconds" in job else None
        shared = sharing(store.root, alone=run.task == "time", stop=attempt.stop, tell=attempt.tell)
        with stop.watching(attempt), attempt, _output_to(attempt.place / "out.txt"), shared:
            attempt.check_progress()
            with _started(run, attempt, execution, job.get("host"), tell) as keeper:
                execute(run, keeper, store, execution, tell)
    except TimeOverError as error:
        return {"state": "stopped", "text": str(error), "time_over": True}
    except (StoppedError, FencedError) as error:
        return {"state": "stopped", "text": str(error)}
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in files.DISK_ERRORS
        return {"state": "failed", "text": sentence(error), "disk": full}
    return {"state": "done"}


@contextlib.contextmanager
def _started(
    run: Run, attempt: Attempt, execution: Execution, host: str | None, tell: Tell
) -> Iterator[Attempt | Leading]:
    """Say that a claimed run begins, and where its other processes may join, if it has any. Inside, all are there."""
    if run.gpus == 1:
        tell({"event": "started", "run": run.id})
        yield attempt
        return
    from mixbench import team

    meeting, where = team.opened(host)
    tell({"event": "started", "run": run.id, "meeting": where})
    with team.led(meeting, attempt, run.gpus, execution) as leading:
        yield leading


def _member(run: Run, job: Mapping[str, Any]) -> dict[str, Any]:
    """Train along with the process that has the attempt. How that went, as for an attempt."""
    import torch

    from mixbench import team
    from mixbench.train import train

    execution = Execution(**job["execution"])
    store = Store(Path(job["results"]), tell=_unheard)
    rank, of, where = (job["member"][key] for key in ("rank", "of", "meeting"))
    torch.set_num_threads(execution.threads)
    try:
        meeting = team.found(*where)
        output = _output_to(team.place(meeting) / f"out-{rank}.txt")
        with output, team.followed(meeting, rank, of, execution) as following:
            train(run, following, execution, store.read_weights, _unheard)
    except StoppedError as error:
        return {"state": "stopped", "text": str(error)}
    except Exception as error:
        return {"state": "failed", "text": sentence(error)}
    return {"state": "done"}


def execute(run: Run, attempt: Attempt | Leading, store: Store, execution: Execution, tell: Tell) -> None:
    """Train a claimed run and make it done."""
    import torch

    from mixbench.materials import arrays
    from mixbench.train import train

    begun = time.monotonic()
    torch.set_num_threads(execution.threads)
    progress = Progress(run, attempt, tell)
    trained = train(run, attempt, execution, store.read_weights, progress)
    progress.over(trained.evaluation.metrics)
    result = Result(
        metrics=trained.evaluation.metrics,
        options=catalog.options_of(run),
        notes={name: value for name, value in trained.curve[-1].items() if name == "train_loss"}
        | progress.rate()
        | dict(trained.notes),
        content=trained.content,
        official=trained.official,
        attempt=attempt.number,
        seconds=time.monotonic() - begun,
        versions=provenance.versions(),
        code=catalog.code_of(run),
        **trained.made_by,
    )
    artifacts = {
        **({"weights.pt": trained.weights} if trained.weights else {}),
        "curve.json": files.encode({"schema": SCHEMA, "run": run.id, "curve": trained.curve}),
    }
    artifacts |= trained.files
    if trained.evaluation.predictions:
        artifacts["predictions.npz"] = arrays(trained.evaluation.predictions)
    attempt.finish(payload_of(run, result), artifacts)


def _unheard(*said: object) -> None:
    """What a process has to tell that another one tells already."""


class _Stop(Stop):
    """Hears the signals that ask to stop and passes them on to the attempt at work."""

    def __init__(self) -> None:
        super().__init__(STOPS)
        self._attempt: Attempt | None = None
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's: it asks with SIGTERM
        self.listen()
        _die_with_parent()

    @contextlib.contextmanager
    def watching(self, attempt: Attempt) -> Iterator[None]:
        """Pass a stop on to this attempt while inside, also one that came before."""
        self._attempt = attempt
        if self.asked:
            attempt.stop.set()
        try:
            yield
        finally:
            self._attempt = None

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Remember, and tell the attempt."""
        super().hear(number, frame)
        if self.asked and self._attempt is not None:
            self._attempt.stop.set()


def _events() -> Tell:
    """A channel to the launcher on what was standard output; from now on prints go to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(event: Mapping[str, Any]) -> None:
        try:
            channel.write(json.dumps(event) + "\n")
        except OSError as error:
            if error.errno != errno.EPIPE:  # the launcher is gone: SIGTERM is on its way
                raise

    return tell


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Everything that the process or a library prints meanwhile goes to this file."""
    kept = os.dup(1), os.dup(2)
    sys.stdout.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for old, new in zip(kept, (1, 2), strict=True):
            os.dup2(old, new)
            os.close(old)


def _die_with_parent() -> None:
    """Have the system send SIGTERM when the launcher dies, however it dies: its runs then save and stop."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


if __name__ == "__main__":
    main()
