"""One try at a run: its claim, heartbeat, log, checkpoints, and how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from mixbench import files, provenance
from mixbench.endings import CrashLoopError, FencedError, OtherDataError, StoppedError, TimeOverError, is_retryable
from mixbench.execution import Execution
from mixbench.traces import SCHEMA, begun_at, checkpoints, numbered, numbers, tidy, was_in_vain

HEARTBEAT_SECONDS = 30.0

EVERY_SECONDS = 600.0
"""The longest time without a checkpoint, also in the middle of an epoch."""

FIRST_SECONDS = 60.0
"""The longest time without an attempt's first checkpoint: one that is killed now and then still gets on."""

KEPT_CHECKPOINTS = 2

NOWHERE: Mapping[str, Any] = MappingProxyType({"steps": 0})
"""Where an attempt stands that has just begun."""

FRUITLESS = 3
"""Attempts in a row that got no further, by which a run is known to kill its process whenever it is tried."""

FIRST_SAVE_SECONDS = 5.0
"""What a checkpoint is taken to need before one was written."""


class Attempt:
    """One try at a run, a context manager: a heartbeat while inside, ``end.json`` on the way out.

    Attributes:
        folder: the run's folder.
        rank: 0, as `mixbench.team` numbers the processes of a run: this is the one that has the attempt.
        number: 1, 2, 3 ...; it fences older attempts, which see it and stop.
        stop: set it, from a signal handler or another thread, to ask for a save and an end at the next step.
        tell: says one sentence to the user: what was recovered, and from what.
        until: when its machine is taken away, on the monotonic clock; None: that is not known.
    """

    rank = 0

    def __init__(self, folder: Path, number: int, execution: Execution, *, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.number = number
        self.stop = threading.Event()
        self.tell = tell
        self.until: float | None = None
        self._standing: Mapping[str, Any] = NOWHERE
        self._checkpoint_seconds = execution.checkpoint_seconds
        self._saved_at = time.monotonic()
        self._has_saved = False
        self._asked_at: float | None = None
        self._longest_step = 0.0
        self._longest_save = FIRST_SAVE_SECONDS
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    @property
    def place(self) -> Path:
        """Its own folder, ``attempts/<n>``."""
        return self.folder / "attempts" / str(self.number)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        if error is None or isinstance(error, FencedError):
            return
        if isinstance(error, StoppedError | KeyboardInterrupt):
            self._end({"state": "stopped", "text": str(error)})
        else:
            text = "".join(traceback.format_exception(kind, error, trace))
            self._end(
                {"state": "failed", "type": type(error).__name__, "text": str(error)}
                | {"retryable": is_retryable(error), "traceback": text}
            )

    def log(self, **row: float | int | None) -> None:
        """Append one line to the attempt's ``log.jsonl``."""
        with (self.place / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def stand(self, standing: Mapping[str, Any]) -> None:
        """Where it stands now, for whoever looks from outside: written down with the next heartbeat."""
        self._standing = standing

    def due(self, *, epoch_over: bool) -> bool:
        """Whether to save now: a stop was asked for, the time is nearly over, or the last checkpoint is old enough."""
        usual = EVERY_SECONDS if self._has_saved else FIRST_SECONDS
        interval = self._checkpoint_seconds if epoch_over else usual
        now = time.monotonic()
        self._longest_step = max(self._longest_step, now - self._asked_at if self._asked_at else 0.0)
        self._asked_at = now
        return self.stop.is_set() or self._time_is_over() or now - self._saved_at >= interval

    def _time_is_over(self) -> bool:
        """Whether another step and a save would not fit: no signal need come, and none can be relied on."""
        if self.until is None:
            return False
        return self.until - time.monotonic() < 2 * (self._longest_step + self._longest_save)

    def save(self, step: int, state: bytes) -> None:
        """Write a checkpoint; older ones than the last two go.

        Raises:
            FencedError: a newer attempt exists; nothing was written.
            StoppedError: the state is saved, and a stop was asked for.
            TimeOverError: the state is saved, and there is no time for more.
        """
        begun = time.monotonic()
        self._check_fence()
        path = self.folder / "ckpt" / f"{step:012d}-a{self.number}.pt"
        files.write(path, f"{_checksum(state)} {self.folder.name}\n".encode() + state)
        for old in checkpoints(self.folder)[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)
        self._saved_at = self._asked_at = time.monotonic()
        self._has_saved = True
        self._longest_save = max(self._longest_save, self._saved_at - begun)
        if self.stop.is_set():
            raise StoppedError(f"at step {step}, saved; the next run goes on there")
        if self._time_is_over():
            raise TimeOverError(f"at step {step}, saved, since the time of its job is over; the next run goes on there")

    def gathered(self, own: bytes) -> list[bytes]:  # noqa: ARG002
        """What is each other process's own: there is none."""
        return []

    def mean(self, losses: list[float]) -> list[float]:
        """The mean of all processes' losses: there are no others."""
        return losses

    def saved(self) -> Iterator[bytes]:
        """States of the valid checkpoints of all attempts, newest step first; damaged ones are set aside, and told."""
        for path in checkpoints(self.folder):
            heading, _, state = path.read_bytes().partition(b"\n")
            checksum, _, owner = heading.decode(errors="replace").partition(" ")
            if checksum == _checksum(state) and owner in (self.folder.name, ""):  # "": an earlier version did not say
                yield state
            else:
                self.tell(
                    f"{files.set_aside(path)} is a damaged checkpoint, or another run's; the one before it is used, or "
                    "the start"
                )

    def begin(self, content: str) -> None:
        """Say on which data the run is begun; the first attempt's word stands.

        Raises:
            OtherDataError: an earlier attempt began it on others.
        """
        path = self.folder / "data.json"
        if files.publish(path, files.encode({"schema": SCHEMA, "content": content})):
            return
        begun = (files.read(path) or {}).get("content")
        if begun != content:
            raise OtherDataError(
                f"{self.folder} was begun on data with fingerprint {begun}, but those at hand have {content}; put the "
                "first ones back, or delete that folder"
            )

    def finish(self, result: Mapping[str, Any], artifacts: Mapping[str, bytes]) -> None:
        """Make the run done: artifacts, then ``end.json`` with the result in it, then ``result.json``.

        In any other order a kill in between would leave a done run without its weights. A kill before the last
        step loses nothing: whoever claims the run next publishes the result that ``end.json`` holds. A run that was
        done already, and trained again for its weights, keeps its first result.

        Args:
            result: what ``result.json`` is to hold.
            artifacts: by what they are, ``weights.pt``; each gets the attempt's number into its name.

        Raises:
            FencedError: a newer attempt exists; ``result.json`` was not written.
        """
        self._check_fence()
        kept = {}
        for name, data in artifacts.items():
            path = self.folder / numbered(name, self.number)
            files.write(path, data)
            kept[path.name] = hashlib.sha256(data).hexdigest()
        self._end({"state": "done", "files": kept, "result": dict(result)})
        self._check_fence()
        if not files.publish(self.folder / "result.json", files.encode(result)):
            self._compare(result)
        tidy(self.folder, self.number)

    def _compare(self, result: Mapping[str, Any]) -> None:
        """Tell where a repeated run came out otherwise: its weights are then not those of the published numbers."""
        first = (files.read(self.folder / "result.json") or {}).get("metrics")
        if first != result["metrics"]:
            self.tell(
                f"{self.folder.name}, trained again for its weights, came out as {result['metrics']}, not as {first}"
            )

    def _end(self, ending: Mapping[str, Any]) -> None:
        # Published, not replaced: an attempt that ended done stays so, whatever goes wrong while it tidies up.
        files.publish(self.place / "end.json", files.encode({"schema": SCHEMA, "run": self.folder.name} | dict(ending)))

    def _is_fenced(self) -> bool:
        return max(numbers(self.folder), default=self.number + 1) > self.number

    def _check_fence(self) -> None:
        if self._is_fenced():
            raise FencedError(f"attempt {self.number} was taken over by a newer one, or its folder was deleted")

    def check_progress(self) -> None:
        """Refuse to try in vain once more, where the attempts before this one never got any further.

        Those count that died without a word in a job, or that a cluster stopped; not what a person did or what failed.

        Raises:
            CrashLoopError: so it is.
        """
        before, step = range(self.number - FRUITLESS, self.number), begun_at(self.folder)
        if before.start > 0 and all(was_in_vain(self.folder, number, step) for number in before):
            raise CrashLoopError(
                f"crash loop: attempts {before.start} to {before.stop - 1} all ended at step {step}, "
                f"where they began; look at {self.folder / 'attempts' / str(before.stop - 1) / 'out.txt'}"
            )

    def _beat(self) -> None:
        # The first beats come quickly: who just began a run wants to see it move.
        pauses = itertools.chain((1.0, 2.0, 4.0, 8.0, 16.0), itertools.repeat(HEARTBEAT_SECONDS))
        while not self._over.wait(min(next(pauses), HEARTBEAT_SECONDS)):
            with contextlib.suppress(OSError):  # a file server that stutters must not stop the heart for good
                files.write(self.place / "hb", files.encode(self._standing))
                if self._is_fenced():
                    self.stop.set()  # the next save finds the fence and ends without writing


def claim(folder: Path, number: int, execution: Execution, *, tell: Callable[[str], None]) -> Attempt | None:
    """Take this number, or None where somebody else just took it."""
    about = {"schema": SCHEMA, "run": folder.name, "commit": provenance.commit(), "execution": asdict(execution)}
    about |= provenance.process() | {"job": provenance.job(), "step": begun_at(folder)}
    born = {"attempt.json": files.encode(about), "hb": files.encode(NOWHERE)}
    if not files.claim(folder / "attempts" / str(number), born):
        return None
    return Attempt(folder, number, execution, tell=tell)


def _checksum(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()
