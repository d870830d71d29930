"""Processes that train one run together: how they find each other, agree, and end; imports torch.

Process 0 has the attempt and leads: it evaluates, saves and tells. The others follow, each with its part of a batch.
Whatever they agree on goes through the CPU, also where gradients are averaged from GPU to GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from mixbench import provenance
from mixbench.attempts import Attempt
from mixbench.endings import FencedError, StoppedError, TeamError, is_retryable, sentence
from mixbench.execution import Execution
from mixbench.keeper import Following, Leading

PATIENCE = timedelta(minutes=60)
"""How long processes wait for each other: the others do while process 0 evaluates, or makes a checkpoint."""

JOINING = timedelta(minutes=2)
"""How long a process looks for the meeting that it was sent to."""

LOOKED_EVERY_SECONDS = 0.05

OVER, PLACE, HERE, WORD = "over", "place", "here", "word"
"""What is kept at a meeting: that all is done, the attempt's folder, how many have come, what went wrong with one."""


class Team:
    """The processes of a run, as one of them speaks with the others.

    Attributes:
        rank: its number, from 0 on.
        of: how many there are.
    """

    def __init__(self, meeting: Store, rank: int, of: int, execution: Execution) -> None:
        self.rank = rank
        self.of = of
        backend = "nccl" if execution.device.startswith("cuda") else "gloo"
        store = PrefixStore("gradients", meeting)
        dist.init_process_group(backend, store=store, rank=rank, world_size=of, timeout=PATIENCE)
        self._group = cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=PATIENCE))
        self._yes = torch.zeros((), dtype=torch.int64)

    def decided(self, *, yes: bool) -> bool:
        """What process 0 decides; once a step, so it is a single number."""
        dist.broadcast(self._yes.fill_(yes), 0, group=self._group)
        return bool(self._yes)

    def told(self, said: Any) -> Any:
        """What process 0 says; the others' word is for nothing."""
        words = [said]
        dist.broadcast_object_list(words, 0, group=self._group, device=torch.device("cpu"))
        return words[0]

    def gathered(self, said: bytes) -> list[bytes]:
        """What all others say, in order, for process 0; nothing for these."""
        words: list[Any] | None = [None] * self.of if self.rank == 0 else None
        dist.gather_object(said, words, 0, group=self._group)
        return (words or [])[1:]

    def mean(self, values: Sequence[float]) -> list[float]:
        """The means over all processes, for each."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self._group)
        means: list[float] = (sums / self.of).tolist()
        return means

    def part(self) -> None:
        """Wait for all to be here, but not for who is gone, and part."""
        with contextlib.suppress(RuntimeError):
            dist.barrier(group=self._group)
        dist.destroy_process_group()


def opened(host: str | None) -> tuple[TCPStore, list[Any]]:
    """A meeting on a free port of this machine, and where that is: by ``host``, or what others know this machine by."""
    host = host or provenance.address()
    meeting = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    return meeting, [host, meeting.port]


@contextlib.contextmanager
def led(meeting: TCPStore, attempt: Attempt, of: int, execution: Execution) -> Iterator[Leading]:
    """Inside, so many processes train together, and this one leads. Where another one fails, so does this one.

    Raises:
        StoppedError: a stop was asked for before all had come.
        TeamError: another process failed, and said with what.
    """
    meeting.set(PLACE, str(attempt.place))
    while meeting.add(HERE, 0) < of - 1:
        if attempt.stop.wait(LOOKED_EVERY_SECONDS):
            raise StoppedError("before its processes had found each other")
    try:
        team = Team(meeting, 0, of, execution)
        try:
            yield Leading(attempt, team)
        except (StoppedError, FencedError):
            team.part()
            raise
        team.part()
    except Exception as error:
        if _lost(error):
            _give_up(meeting)
        raise
    finally:
        meeting.set(OVER, "")


@contextlib.contextmanager
def followed(meeting: TCPStore, rank: int, of: int, execution: Execution) -> Iterator[Following]:
    """Inside, this process trains with those that process 0 leads, and leaves word with that if it fails."""
    over = threading.Event()
    threading.Thread(target=_end_with, args=(meeting.host, meeting.port, over), daemon=True, name="watch").start()
    meeting.add(HERE, 1)
    try:
        team = Team(meeting, rank, of, execution)
        try:
            yield Following(team)
        except StoppedError:
            team.part()
            raise
        team.part()
    except Exception as error:
        if not _lost(error) and not isinstance(error, StoppedError):
            word = {"text": f"process {rank} of {of}: {sentence(error)}", "retryable": is_retryable(error)}
            with contextlib.suppress(RuntimeError):  # process 0 has failed as well, and is gone
                meeting.compare_set(WORD, "", json.dumps(word | {"traceback": traceback.format_exc()}))
        raise
    finally:
        over.set()


def found(host: str, port: int) -> TCPStore:
    """The meeting that process 0 has opened there."""
    meeting = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=JOINING)
    meeting.set_timeout(PATIENCE)  # who comes later, another process, may take longer
    return meeting


def place(meeting: TCPStore) -> Path:
    """The folder of the attempt that the meeting is about."""
    return Path(meeting.get(PLACE).decode())


def _lost(error: BaseException) -> bool:
    """Whether this is what another process's end looks like from here: gloo's errors are of no kind of their own."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _give_up(meeting: TCPStore) -> None:
    """Another process is gone. Fail as it did if it has left word; else die, as it did: the run is lost, not failed.

    Raises:
        TeamError: with its word.
    """
    if meeting.check([WORD]):
        word: Mapping[str, Any] = json.loads(meeting.get(WORD))
        error = TeamError(word["text"], retryable=word["retryable"])
        error.add_note(word["traceback"])
        raise error
    traceback.print_exc()
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def _end_with(host: str, port: int, over: threading.Event) -> None:
    """End this process when process 0 is gone: on a GPU it might wait for that one's gradients for an hour."""
    try:
        found(host, port).wait([OVER], timedelta(days=365))
    except RuntimeError:
        if not over.is_set():
            os._exit(1)
