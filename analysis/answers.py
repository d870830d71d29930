"""Answers that were given before: a report is printed again at once while nothing that it was made of has changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mixbench import files

FOLDER = "answers"
"""Where, in a results folder, answers are kept. It may be deleted at any time."""

SETTLED_SECONDS = 2.0
"""What changed so shortly before it was looked at could change again without its times showing it."""


class Answer:
    """The text that answers a question, kept with the marks of all files that it was made of.

    A mark is taken before its file is read: what changes while a text is made is found changed the next time.
    """

    def __init__(self, results: Path, question: Sequence[str]) -> None:
        words = [*question, str(Path.cwd()), sys.version, *sys.path]
        name = hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:16]
        self._path = results / FOLDER / f"{name}.json"
        self._marks: dict[str, str] = {}
        self._is_settled = True

    def kept(self) -> str | None:
        """The text of before; None where there is none, or where a file that it was made of is not what it was."""
        try:
            kept = files.read(self._path)
        except (files.DamagedError, OSError):
            return None
        if kept is None or any(_mark(path)[0] != mark for path, mark in kept["marks"].items()):
            return None
        return str(kept["text"])

    def look_at(self, paths: Iterable[str | Path]) -> None:
        """Mark what is about to be read: files, also where they are missing, and folders for the names in them."""
        latest = time.time() - SETTLED_SECONDS
        for path in map(str, paths):
            self._marks[path], changed = _mark(path)
            self._is_settled = self._is_settled and changed < latest

    def keep(self, text: str) -> None:
        """Keep the text, unless it was made of what has only just changed, or the results cannot be written to."""
        if self._is_settled:
            with contextlib.suppress(OSError):  # the next answer takes longer, no more
                files.write(self._path, files.encode({"marks": self._marks, "text": text}))


def code() -> Iterator[Path]:
    """What decides how a text is made: our own source, and the folders in which other packages are."""
    for package in ("methods", "mixbench", "analysis"):
        place = Path(__file__).resolve().parent.parent / package
        yield from (place, *place.rglob("*.py"))
    yield from map(Path, sys.path)


def _mark(path: str) -> tuple[str, float]:
    """What changes with a file, even where its size and time are put back; and when that was, in seconds."""
    try:
        about = os.stat(path)  # noqa: PTH116  (of thousands: making a Path takes longer than asking)
    except (FileNotFoundError, NotADirectoryError):
        return "none", 0.0
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}", about.st_ctime
