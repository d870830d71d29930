"""The results folder: which runs are done and what came out, `Store` and `Result`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mixbench import attempts, catalog, files
from mixbench.attempts import SCHEMA, Attempt, Pulse
from mixbench.execution import Execution
from mixbench.spec import Run


class StaleResultError(ValueError):
    """A result was made with other defaults than the code has now: it is not what its run asks for."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a run.

    Attributes:
        metrics: of the last epoch, in percent: ``{"top1": 84.11, "top5": 96.93}``.
        options: the mixer's, defaults filled in.
        notes: what the task adds: losses, images per second.
        content: fingerprint of the data it saw.
        official: whether that is the official release.
        attempt: the number of the attempt that made it.
        seconds: of that attempt, start-up included.
        device: the processor or GPU, by its name.
        versions: of Python and the packages that decide the numbers.
        commit: of the code, with a ``+`` for uncommitted changes.
        execution: how it was computed.
    """

    metrics: Mapping[str, float]
    options: Mapping[str, Any]
    notes: Mapping[str, Any]
    content: str
    official: bool
    attempt: int
    seconds: float
    device: str
    versions: Mapping[str, str]
    commit: str
    execution: Mapping[str, Any]


class Store:
    """The runs below a results folder. It and `Attempt` are the only ones that know a path in there."""

    def __init__(self, root: Path, *, tell: Callable[[str], None]) -> None:
        self.root = root
        self._tell = tell
        self._pulse = Pulse()

    def folder(self, run: Run) -> Path:
        """Where a run's files are, or will be."""
        return self.root / "runs" / run.folder

    def result(self, run: Run) -> Result | None:
        """What came out of a run; None while it is not done.

        Raises:
            StaleResultError: it was made with other defaults of its mixer than the code has now.
            mixbench.files.DamagedError: ``result.json`` is cut off or was changed; the message names it.
        """
        payload = files.read(self.folder(run) / "result.json")
        if payload is None:
            return None
        payload = {name: value for name, value in payload.items() if name not in ("schema", "run")}
        result = Result(**payload)
        _check_defaults(run, result)
        return result

    def curve(self, run: Run) -> list[dict[str, float]]:
        """The metrics after each evaluated epoch, in order: ``{"epoch": 1, "top1": ...}``."""
        payload = files.read(self.folder(run) / "curve.json")
        return list(payload["curve"]) if payload else []

    def weights(self, run: Run) -> Path | None:
        """The network of a done run; None where only its numbers are here (a fresh clone)."""
        for number in reversed(attempts.numbers(self.folder(run))):
            path = self.folder(run) / f"weights-a{number}.pt"
            end = attempts.ending(self.folder(run), number)
            if end and end["state"] == "done" and path.exists():
                return path
        return None

    def claim(self, run: Run, execution: Execution) -> Attempt | None:
        """A new attempt at a run; None where somebody is at work on it, or it is done and its weights are here.

        Half-finished business of dead attempts is settled first: a result that was made but not published is
        published, a damaged ``result.json`` is set aside and told.
        """
        folder = self.folder(run)
        newest = max(attempts.numbers(folder), default=0)
        if newest and self._pulse.alive(folder, newest):
            return None
        self._write_request(run)
        if self._settled(run) and self.weights(run):
            return None
        # The number after the one that was found dead, not after whatever stands there by now: else two who look
        # at the same dead attempt would both win.
        return attempts.claim(folder, newest + 1, execution, tell=self._tell)

    def tidy(self, run: Run) -> None:
        """Remove what a done run's dead attempts left behind."""
        if (self.folder(run) / "result.json").exists() and not self.alive(run):
            attempts.tidy(self.folder(run))

    def alive(self, run: Run) -> bool:
        """Whether an attempt at this run may be at work now, here or on another machine."""
        newest = attempts.numbers(self.folder(run))[-1:]
        return bool(newest) and self._pulse.alive(self.folder(run), newest[0])

    def attempted(self, run: Run) -> bool:
        """Whether anybody ever tried this run here."""
        return bool(attempts.numbers(self.folder(run)))

    def ending(self, run: Run) -> dict[str, Any] | None:
        """How the newest attempt ended; None while it lives, died without a word, or there is none."""
        newest = attempts.numbers(self.folder(run))[-1:]
        return attempts.ending(self.folder(run), newest[0]) if newest else None

    def known(self) -> Iterator[Run]:
        """Every run that was ever begun here, in the order of their folders' names."""
        for path in sorted((self.root / "runs").glob("*/run.json")):
            try:
                payload = files.read(path)
            except files.DamagedError as error:
                self._tell(str(error))
                continue
            if payload is not None:
                yield Run.from_dict(payload["request"])

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

    def _settled(self, run: Run) -> bool:
        """Whether the run is done, once what a dead attempt left unsaid has been said."""
        folder = self.folder(run)
        try:
            done = files.read(folder / "result.json") is not None
        except files.DamagedError as error:
            self._tell(f"{error}; set aside as {files.set_aside(folder / 'result.json').name}")
            done = False
        if not done:
            done = self._publish_ended(folder)
        if done:
            attempts.tidy(folder)
        return done

    def _publish_ended(self, folder: Path) -> bool:
        """Publish the result of an attempt that ended done but could not say so in ``result.json``."""
        for number in reversed(attempts.numbers(folder)):
            end = attempts.ending(folder, number)
            if end and end["state"] == "done" and _whole(folder, end["files"]):
                files.publish(folder / "result.json", files.encode(end["result"]))
                self._tell(f"{folder.name} was already computed; its result is published again from attempt {number}")
                return True
        return False


def payload_of(run: Run, result: Result) -> dict[str, Any]:
    """What ``result.json`` holds: the result, and whose it is."""
    return {"schema": SCHEMA, "run": run.id} | asdict(result)


def _whole(folder: Path, kept: Mapping[str, str]) -> bool:
    def fits(name: str, checksum: str) -> bool:
        path = folder / name
        return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == checksum

    return all(fits(name, checksum) for name, checksum in kept.items())


def _check_defaults(run: Run, result: Result) -> None:
    """Refuse a result whose options, defaults filled in, are not those that the code would use today."""
    asked = catalog.filled(run.method, dict(run.options))
    for name, was in result.options.items():
        now = asked.get(name)
        if now != (tuple(was) if isinstance(was, list) else was):
            raise StaleResultError(
                f"{run.folder} was trained with {name}={was}, the code's default is now {now}: "
                f"put the default back and write {now} into the recipe"
            )
