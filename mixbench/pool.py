"""The local queue: one worker process per slot takes one run after another."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mixbench.execution import Execution
from mixbench.files import DamagedError
from mixbench.process import SAVE_SECONDS, Worker, others
from mixbench.signals import Stop
from mixbench.slots import NotComeError, Others, Slot
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.watching import Standing, Watcher

POLL_SECONDS = 0.5

OURS = (signal.SIGINT, signal.SIGTERM)
"""What asks a launcher to stop; twice, and it is to stop at once."""


@dataclass(frozen=True)
class Outcome:
    """How the work ended; what became of each run is in its files.

    Attributes:
        stopped: somebody asked to stop, or the time was over.
        forced: somebody asked twice, or saving took too long: workers were killed.
        disk_full: a run failed because the disk is full or failing.
        failed: runs that failed, died or were blocked.
    """

    stopped: bool
    forced: bool
    disk_full: bool
    failed: int


@dataclass(frozen=True)
class Lent:
    """The terms on which a machine is lent, by a cluster that may take it back.

    Each run then has a process of its own.

    Attributes:
        stop: hears when it is taken back.
        until: when it will be, on the monotonic clock; None: that is not known.
        patience: seconds that a run which is at work elsewhere is waited for, before it is left to whoever has it.
        withdrawn: says, before each run, whether none may begin any more.
    """

    stop: Stop
    until: float | None
    patience: float
    withdrawn: Callable[[], bool]


class Pool:
    """Works off runs on this machine. Several launchers may work on the same runs: each is trained once."""

    def __init__(
        self,
        store: Store,
        execution_of: Callable[[Run], Execution],
        watcher: Watcher,
        environments: Sequence[Mapping[str, str]],
        *,
        others: Others = others,
        host: str | None = "127.0.0.1",
        lent: Lent | None = None,
    ) -> None:
        """One slot per environment, which says what is the slot's own: its GPUs, its number of threads.

        Args:
            store: where results are.
            execution_of: how a run is computed.
            watcher: is shown what happens.
            environments: of the slots.
            others: how the other processes of a run of several come about: on this machine, by default.
            host: by what name these reach the first one's machine; None: by that which it has itself.
            lent: on what terms the machine may be used, where it is lent; None: it is ours.
        """
        self._store = store
        self._lent = lent
        self._stop = lent.stop if lent else Stop(OURS, insistent=OURS)
        self._execution_of = execution_of
        self._watcher = watcher
        self._others = others
        self._host = host
        self._selector = selectors.DefaultSelector()
        self._slots = [Slot(environment, self._selector) for environment in environments]
        self._waiting: list[Run] = []
        self._elsewhere: dict[Run, float] = {}
        self._unsettled: set[str] = set()
        self._failed: set[str] = set()
        self._disk_full = False
        self._time_over = False
        self._asked_at = 0.0
        self._forced = False

    def work(self, runs: Sequence[Run]) -> Outcome:
        """Execute these runs, each as soon as what it needs is done; returns when none is left or a stop was asked."""
        self._waiting = list(runs)
        self._unsettled = {run.id for run in runs}
        with self._stop.listening():
            try:
                while self._busy() or (not self._stopping and (self._waiting or self._elsewhere)):
                    self._look_elsewhere()
                    self._hand_out()
                    self._press_on_stopping()
                    for key, _ in self._selector.select(timeout=POLL_SECONDS):
                        key.data()
            finally:
                for slot in self._slots:
                    slot.close()
        return Outcome(self._stopping, self._forced, self._disk_full, len(self._failed))

    @property
    def _stopping(self) -> bool:
        return self._stop.asked or self._time_over

    def _busy(self) -> bool:
        return any(slot.run for slot in self._slots)

    def _is_ready(self, run: Run) -> bool:
        """Whether nothing that a run needs is still to come, and no measurement would be disturbed."""
        at_work = [slot.run for slot in self._slots if slot.run]
        measured = [one for one in (run, *at_work) if one.task == "time"]
        return all(need.id not in self._unsettled for need in run.needs()) and not (measured and at_work)

    def _hand_out(self) -> None:
        """Give idle slots the first waiting runs whose needs are done; drop those whose needs have failed."""
        for slot in self._slots:
            if self._stopping or slot.run:
                continue
            self._drop_blocked()
            ready = next((run for run in self._waiting if self._is_ready(run)), None)
            if ready is None:
                return
            if self._lent and self._lent.withdrawn():
                self._stop.hear(signal.SIGTERM)
                return
            self._waiting.remove(ready)
            self._start(slot, ready)

    def _drop_blocked(self) -> None:
        for run in list(self._waiting) if self._failed else ():
            failed = [need.folder for need in run.needs() if need.id in self._failed]
            if failed:
                self._waiting.remove(run)
                self._settle(run, "blocked", f"needs {failed[0]}, which failed")

    def _start(self, slot: Slot, run: Run) -> None:
        job: dict[str, Any] = {
            "run": run.to_dict(),
            "execution": asdict(self._execution_of(run)),
            "results": str(self._store.root),
            "host": self._host,
            # A worker that looks for the first time could not yet tell a dead attempt of another machine from a living.
            "dead": 0 if self._store.alive(run) else self._store.newest(run),
        }
        if self._lent and self._lent.until is not None:
            job["seconds"] = self._lent.until - time.monotonic()
        slot.start(run, job, partial(self._listen, slot))

    def _send_others(self, slot: Slot, count: int, meeting: Sequence[Any]) -> None:
        try:
            slot.send(self._others, count, meeting, partial(self._overhear, slot))
        except NotComeError as error:
            self._watcher.told(str(error))
            slot.signal(signal.SIGKILL)
            self._bury(slot)

    def _overhear(self, slot: Slot, other: Worker) -> None:
        """One of the others says that it is through, or has died: then the run cannot go on, and is lost at once."""
        if other not in slot.others:
            return
        events = other.events()
        if events is None and slot.worker is not None:
            slot.signal(signal.SIGKILL)
            self._bury(slot)
        elif any(event["event"] == "ended" for event in events or ()):
            slot.dismiss(other)

    def _listen(self, slot: Slot) -> None:
        events = slot.worker.events() if slot.worker else None
        if events is None:
            self._bury(slot)
        for event in events or ():
            self._take(slot, event)

    def _take(self, slot: Slot, event: Mapping[str, Any]) -> None:
        if event["event"] == "told":
            self._watcher.told(event["sentence"])
        elif slot.run is None:
            return
        elif event["event"] == "started":
            self._watcher.started(slot.run)
            if "meeting" in event:
                self._send_others(slot, slot.run.gpus, event["meeting"])
        elif event["event"] == "progress":
            rate = event.get("images_per_second")
            self._watcher.moved(slot.run, Standing(event["steps"], event["of"], event["metrics"], rate))
        else:
            run, slot.run = slot.run, None
            if run.gpus > 1:  # what is left of so many is not to be in the next run's way
                slot.signal(signal.SIGKILL)
                slot.close()
            self._disk_full |= event.get("disk", False)
            self._time_over |= event.get("time_over", False)
            self._settle(run, event["state"], event.get("text", ""))
            if self._lent:  # what a run leaves behind, memory above all, is no business of the next one
                slot.close()

    def _settle(self, run: Run, state: str, text: str) -> None:
        """Note how a run ended. One that is at work elsewhere is waited for, unless it proves done."""
        if state == "stopped" and not self._stopping:  # nobody here asked: another launcher took it over
            state = "elsewhere"
        if state in ("elsewhere", "lost") and self._is_done(run):
            self._store.tidy(run)  # whoever did it may have died between its result and that
            state, text = "done", "by another process" if state == "elsewhere" else ""
        if state == "elsewhere":
            self._elsewhere[run] = time.monotonic()
            self._watcher.ended(run, state, "is being computed by another process; waiting for it")
            return
        self._unsettled.discard(run.id)
        if state not in ("done", "stopped", "left"):
            self._failed.add(run.id)
        self._watcher.ended(run, state, text)

    def _look_elsewhere(self) -> None:
        """Take back runs whose process elsewhere has ended, one way or the other."""
        for run, since in list(self._elsewhere.items()):
            alive = self._store.alive(run)
            if alive and not (self._lent and time.monotonic() - since > self._lent.patience):
                continue
            del self._elsewhere[run]
            if alive:
                self._settle(run, "left", "is being computed by another process, and left to it")
                continue
            end = self._store.ending(run) or {}
            if self._is_done(run):
                self._settle(run, "elsewhere", "")
            elif end.get("state") == "failed":
                self._settle(run, "failed", f"{end['text']} (in another process)")
            else:
                self._waiting.insert(0, run)

    def _is_done(self, run: Run) -> bool:
        try:
            return self._store.complete(run)
        except DamagedError:
            return False

    def _bury(self, slot: Slot) -> None:
        """A worker died by itself: that costs the run it was at, and the slot gets a new one."""
        run, slot.run = slot.run, None
        code = slot.close()
        if run is not None:
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            state = "stopped" if self._stopping else "lost"
            self._settle(run, state, f"its process died ({cause}); the next run goes on from its last checkpoint")

    def _press_on_stopping(self) -> None:
        """Asked once: have the workers save and stop. Asked twice, or if that takes too long: kill them."""
        if not self._stopping:
            return
        self._asked_at = self._asked_at or time.monotonic()
        patient = not self._stop.insists and time.monotonic() - self._asked_at < SAVE_SECONDS
        for slot in self._slots:
            if slot.run is not None:
                self._forced |= not patient
                slot.signal(signal.SIGTERM if patient else signal.SIGKILL)
