"""A measurement has its machine alone: what works on the same results waits for it, and it for what is at work."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mixbench.endings import StoppedError

POLL_SECONDS = 0.5


@contextmanager
def sharing(results: Path, *, alone: bool, stop: threading.Event, tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, this process shares the machine with others that work on these results, or is alone among them.

    Processes that end, however they do, leave it. What other results folders are worked on is not known.

    Args:
        results: the folder.
        alone: whether it is a measurement.
        stop: asked while it waits, it waits no longer.
        tell: is told, once, that it has to wait.

    Raises:
        StoppedError: a stop was asked for.
    """
    mark = hashlib.sha256(str(results.resolve()).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"mixbench-{os.getuid()}-{mark}.lock").open("w") as file:
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        if not _taken(file.fileno(), kind):
            tell("waiting until nothing else is at work" if alone else "waiting: a measurement has the machine alone")
        while not _taken(file.fileno(), kind):
            if stop.wait(POLL_SECONDS):
                raise StoppedError("while it waited for the machine; nothing was begun")
        yield


def _taken(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
