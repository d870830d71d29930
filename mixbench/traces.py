"""What attempts at a run left on disk: who they were, how far they came, how they ended."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from mixbench import files

SCHEMA = 1
"""How the files of a run are written; no part of any id."""


def numbers(folder: Path) -> list[int]:
    """Numbers of a run's attempts, ascending."""
    attempts = folder / "attempts"
    if not attempts.is_dir():
        return []
    return sorted(int(entry.name) for entry in attempts.iterdir() if entry.name.isdigit())


def about(folder: Path, number: int) -> dict[str, Any]:
    """What an attempt said of itself when it began, who, where and how; nothing where that is gone."""
    return _read(folder, number, "attempt.json") or {}


def standing(folder: Path, number: int) -> dict[str, Any]:
    """Where an attempt said last that it stands, see `Attempt.stand`."""
    return _read(folder, number, "hb") or {}


def ending(folder: Path, number: int) -> dict[str, Any] | None:
    """How an attempt ended: the content of its ``end.json``; None while it lives or where it just died."""
    return _read(folder, number, "end.json")


def _read(folder: Path, number: int, name: str) -> dict[str, Any] | None:
    """What a file of an attempt holds; None where it is not there, or damaged."""
    try:
        return files.read(folder / "attempts" / str(number) / name)
    except files.DamagedError:
        return None


def begun_at(folder: Path) -> int:
    """The step at which an attempt that begins now goes on: that of the newest checkpoint."""
    return max((int(path.name.partition("-")[0]) for path in checkpoints(folder)), default=0)


def numbered(name: str, number: int) -> str:
    """The name of an attempt's artifact: ``weights.pt`` of attempt 2 is ``weights-a2.pt``."""
    stem, dot, kind = name.partition(".")
    return f"{stem}-a{number}{dot}{kind}"


def tidy(folder: Path, newest: int) -> None:
    """Remove what a done run needs no more, of attempts up to ``newest``: no later one is touched.

    Checkpoints, half-written files, and artifacts of attempts that died before they could end. What cannot be judged
    stays, and so does all where the system refuses: a stray file is better than a lost one.
    """
    with contextlib.suppress(OSError):
        for path in checkpoints(folder):
            if _attempt_of(path) <= newest:
                path.unlink(missing_ok=True)
        for path in filter(_is_numbered, folder.iterdir()):
            number = _attempt_of(path)
            place = folder / "attempts" / str(number)
            if number < newest and place.is_dir() and not (place / "end.json").exists():
                path.unlink(missing_ok=True)
        for place in (folder, folder / "ckpt", folder / "attempts", *(folder / "attempts").glob("*")):
            if place.is_dir():
                files.sweep(place)
        (folder / "ckpt").rmdir()


def _is_numbered(path: Path) -> bool:
    """Whether this is an attempt's artifact: the name of a half-written file may look alike, but begins with a dot."""
    return re.fullmatch(r"\w+-a\d+\.\w+", path.name) is not None


def _attempt_of(path: Path) -> int:
    """The number at the end of an artifact's or checkpoint's name."""
    return int(re.findall(r"-a(\d+)\.", path.name)[-1])


def checkpoints(folder: Path) -> list[Path]:
    """Files of a run's checkpoints, of all its attempts, the newest step first."""
    return sorted((folder / "ckpt").glob("*-a*.pt"), reverse=True)


def was_in_vain(folder: Path, number: int, step: int) -> bool:
    """Whether an attempt began at this step, and was gone or taken away before it was any further."""
    said, end = about(folder, number), ending(folder, number)
    taken = end is None or end["state"] == "stopped"
    return taken and bool(said.get("job")) and said.get("step") == step
