"""The results folder: which runs are done and what came out, `Store`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mixbench import attempts, files, traces
from mixbench.attempts import Attempt
from mixbench.endings import MissingNeedError
from mixbench.execution import Execution
from mixbench.pulse import Pulse
from mixbench.result import MIXER, RESULT, TIMES, Result, check_defaults
from mixbench.spec import Run
from mixbench.traces import SCHEMA, numbered


class Store:
    """The runs of a results folder. It and `Attempt` are the only ones that know a path below its ``runs``."""

    def __init__(self, root: Path, *, tell: Callable[[str], None]) -> None:
        self.root = root
        self._runs = root / "runs"
        self._tell = tell
        self._pulse = Pulse()

    def folder(self, run: Run) -> Path:
        """Where a run's files are, or will be."""
        return self._runs / run.folder

    def result_files(self, runs: Iterable[Run]) -> list[str]:
        """Where the results of runs are, or will be; each file once."""
        return [self._result_file(run) for run in dict.fromkeys(runs)]

    def result(self, run: Run) -> Result | None:
        """What came out of a run; None while it is not done.

        Raises:
            StaleResultError: it was made with other defaults of its mixer than the code has now.
            mixbench.files.DamagedError: ``result.json`` is cut off, changed or another run's; the message names it.
        """
        result = self.recorded(run)
        if result is not None:
            check_defaults(run, result)
        return result

    def recorded(self, run: Run) -> Result | None:
        """As `result`, whatever the code's defaults are by now, and whether it still has the run's mixer."""
        path = self._result_file(run)
        payload = files.read(path)
        if payload is None:
            return None
        _check_owner(path, payload, run)
        return Result(**{name: value for name, value in payload.items() if name not in ("schema", "run")})

    def curve(self, run: Run) -> list[dict[str, float]]:
        """The metrics after each epoch of a done run, in order: ``{"epoch": 1, "train_loss": ..., "top1": ...}``."""
        payload = self._beside_result(run, "curve.json")
        return list(payload["curve"]) if payload else []

    def times(self, run: Run) -> dict[str, Any] | None:
        """What a done measurement read of the clock, see `mixbench.timing.measuring`; None where that is not here."""
        payload = self._beside_result(run, TIMES)
        return dict(payload["record"]) if payload else None

    def _beside_result(self, run: Run, name: str) -> dict[str, Any] | None:
        """What the attempt that made a done run's result wrote beside it, as JSON."""
        result = self.recorded(run)
        if result is None:
            return None
        path = self.folder(run) / numbered(name, result.attempt)
        payload = files.read(path)
        if payload is not None:
            _check_owner(path, payload, run)
        return payload

    def complete(self, run: Run) -> bool:
        """Whether a run is done, and what it was made for is here: its weights, or a measurement's readings."""
        if self.recorded(run) is None:
            return False
        return (self.times(run) if run.task == "time" else self.weights(run)) is not None

    def weights(self, run: Run) -> Path | None:
        """The network of a done run; None where only its numbers are here (a fresh clone)."""
        return next((path for path, _ in self._kept(run, "weights.pt")), None)

    def read_weights(self, run: Run) -> bytes:
        """The bytes of `weights`, whole.

        Raises:
            mixbench.endings.MissingNeedError: there are none, or they were damaged and have been set aside.
        """
        for path, checksum in self._kept(run, "weights.pt"):
            if (data := _undamaged(path, checksum)) is not None:
                return data
            raise MissingNeedError(f"{files.set_aside(path)} is damaged; run again, and {run.folder} is trained again")
        raise MissingNeedError(f"needs {run.folder}, which has not finished; look at {self.folder(run)}")

    def read_mixer(self, run: Run) -> bytes:
        """The bytes of what a mixer learned in a done run, whole.

        Raises:
            mixbench.endings.MissingNeedError: they are not here, or damaged.
        """
        for path, checksum in self._kept(run, MIXER):
            if (data := _undamaged(path, checksum)) is not None:
                return data
        raise MissingNeedError(f"what the mixer of {run.folder} learned is not here; delete that folder and run again")

    def content(self, run: Run) -> str | None:
        """Fingerprint of the data that a run was begun on; None where it was not begun."""
        try:
            return (files.read(self.folder(run) / "data.json") or {}).get("content")
        except files.DamagedError:
            return None

    def claim(self, run: Run, execution: Execution, *, dead: int = 0) -> Attempt | None:
        """A new attempt at a run; None where somebody is at work on it, or it is done and its weights are here.

        Args:
            run: which.
            execution: how it will be computed.
            dead: an attempt that the caller has watched die. To find that out about another machine's takes a lease.
        """
        newest = self.newest(run)
        if newest > dead and self._pulse.alive(self.folder(run), newest):
            return None
        self._write_request(run)
        self._recover(run)
        if self.complete(run):
            return None
        # The number after the one that was found dead, not after whatever stands there by now: else two who look
        # at the same dead attempt would both win.
        number = max(newest, self._published_by(run)) + 1
        return attempts.claim(self.folder(run), number, execution, tell=self._tell)

    def newest(self, run: Run) -> int:
        """The number of the newest attempt at a run; 0 where nobody tried it here."""
        return max(traces.numbers(self.folder(run)), default=0)

    def tidy(self, run: Run) -> None:
        """Remove what a done run's dead attempts left behind."""
        newest = self.newest(run)
        if (self.folder(run) / RESULT).exists() and not self._pulse.alive(self.folder(run), newest):
            traces.tidy(self.folder(run), newest)

    def alive(self, run: Run) -> bool:
        """Whether an attempt at this run may be at work now, here or on another machine."""
        newest = self.newest(run)
        return newest > 0 and self._pulse.alive(self.folder(run), newest)

    def ending(self, run: Run) -> dict[str, Any] | None:
        """How the newest attempt ended; None while it lives, died without a word, or there is none."""
        return traces.ending(self.folder(run), self.newest(run))

    def about(self, run: Run) -> dict[str, Any]:
        """What the newest attempt said of itself, see `mixbench.traces.about`."""
        return traces.about(self.folder(run), self.newest(run))

    def standing(self, run: Run, *, now: float) -> tuple[dict[str, Any], float]:
        """Where the newest attempt stands, and its heartbeat's age in seconds; ``now`` is as `files.now` has it."""
        beat = self.folder(run) / "attempts" / str(self.newest(run)) / "hb"
        age = now - beat.stat().st_mtime if beat.exists() else math.inf
        return traces.standing(self.folder(run), self.newest(run)), max(0.0, age)

    def known(self) -> Iterator[Run]:
        """Every run that was ever begun here, in the order of their folders' names."""
        for path in sorted(self._runs.glob("*/run.json")):
            try:
                payload = files.read(path)
            except files.DamagedError as error:
                self._tell(str(error))
                continue
            if payload is not None:
                yield Run.from_dict(payload["request"])

    def _result_file(self, run: Run) -> str:
        return f"{self._runs}/{run.folder}/{RESULT}"

    def _write_request(self, run: Run) -> None:
        """Say in ``run.json`` what is asked for; what stands there already must be the same."""
        path = self.folder(run) / "run.json"
        try:
            there = files.read(path)
        except files.DamagedError as error:
            self._tell(f"{error}; set aside as {files.set_aside(path).name} and written again")
            there = None
        if there is None:
            files.publish(path, files.encode({"schema": SCHEMA, "run": run.id, "request": run.to_dict()}))
        elif there["request"] != run.to_dict():
            raise ValueError(f"{path} asks for another run than the one with its id; move that folder away")

    def _published_by(self, run: Run) -> int:
        """The attempt that made the result: in a fresh clone it is here, and the attempt itself is not."""
        result = self.recorded(run)
        return result.attempt if result else 0

    def _recover(self, run: Run) -> None:
        """Publish the result of an attempt that ended done but could not say so; set a damaged one aside first."""
        path = self.folder(run) / RESULT
        try:
            if self.recorded(run) is not None:
                return
        except files.DamagedError as error:
            self._tell(f"{error}; set aside as {files.set_aside(path).name}")
        for number in reversed(traces.numbers(self.folder(run))):
            end = traces.ending(self.folder(run), number)
            if end and end["state"] == "done" and _whole(self.folder(run), end["files"]):
                files.publish(path, files.encode(end["result"]))
                self._tell(f"{run.folder} was already computed; its result is published from attempt {number}")
                return

    def _kept(self, run: Run, name: str) -> Iterator[tuple[Path, str]]:
        """Artifacts of that name of attempts that ended done, the newest first, with their checksums."""
        for number in reversed(traces.numbers(self.folder(run))):
            end = traces.ending(self.folder(run), number)
            path = self.folder(run) / numbered(name, number)
            if end and end["state"] == "done" and path.name in end["files"] and path.exists():
                yield path, end["files"][path.name]


def _check_owner(path: Path | str, payload: Mapping[str, Any], run: Run) -> None:
    """Refuse a file that was moved here from another run, or that another version of mixbench wrote."""
    if payload.get("run") != run.id or payload.get("schema") != SCHEMA:
        raise files.DamagedError(
            f"{path} is damaged: it is of run {payload.get('run')} in form {payload.get('schema')}, "
            f"not of {run.id} in form {SCHEMA}"
        )


def _whole(folder: Path, kept: Mapping[str, str]) -> bool:
    paths = {folder / name: checksum for name, checksum in kept.items()}
    return all(path.exists() and _undamaged(path, checksum) is not None for path, checksum in paths.items())


def _undamaged(path: Path, checksum: str) -> bytes | None:
    """What a file holds; None where that is not what it was."""
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == checksum else None
