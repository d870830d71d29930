"""The file primitives that everything on disk is made of: half a file is never seen, and a claim has one winner."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixbench import provenance

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EFBIG})
"""What an `OSError` of a full or failing disk says. The work is not wrong: it can be done again when there is room."""


class DamagedError(Exception):
    """A file is cut off or was changed: its bytes are not those that were written."""


def write(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, whole and on disk, or leave it as it was."""
    with _temporary(path, data) as temporary:
        temporary.replace(path)
    _sync(path.parent)


def publish(path: Path, data: bytes) -> bool:
    """Create ``path`` with ``data``, whole and on disk. False, with nothing changed, where it exists already."""
    with _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    _sync(path.parent)
    return True


def claim(folder: Path, contents: Mapping[str, bytes]) -> bool:
    """Create ``folder`` with these files in it, all at once. False, with nothing changed, where it exists already.

    A bare mkdir is not enough: killed right after it, the winner would not have said who it is. Renaming a folder
    onto one with content is refused by the system, so two claimants never both win.
    """
    temporary = folder.parent / _temporary_name(folder.name)
    temporary.mkdir(parents=True)
    try:
        for name, data in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            _write_through(temporary / name, data)
        _sync(temporary)
        temporary.rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(folder.parent)
    return True


def encode(payload: Mapping[str, Any]) -> bytes:
    """A JSON document whose first line is the checksum of the bytes after that line."""
    body = json.dumps(dict(payload), indent=1, ensure_ascii=False).removeprefix("{\n").encode() + b"\n"
    return b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'",\n' + body


def decode(data: bytes) -> dict[str, Any]:
    """The payload of `encode`.

    Raises:
        DamagedError: the checksum does not fit.
    """
    first, _, body = data.partition(b"\n")
    if first != b'{"sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'",':
        raise DamagedError("its checksum does not fit its content")
    payload: dict[str, Any] = json.loads(data.decode())
    del payload["sha256"]
    return payload


def read(path: Path | str) -> dict[str, Any] | None:
    """The payload of a JSON document written with `encode`; None where there is no such file.

    Raises:
        DamagedError: it is there but cut off or changed; the message names it.
    """
    try:
        return decode(_bytes(path))
    except FileNotFoundError:
        return None
    except DamagedError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def now(folder: Path) -> float:
    """The time on the clock of the file system that holds ``folder``: ages of files are to be taken by no other."""
    temporary = folder / _temporary_name("now")
    try:
        temporary.touch()
        return temporary.stat().st_mtime
    finally:
        temporary.unlink(missing_ok=True)


def _bytes(path: Path | str) -> bytes:
    """What a file holds. On a file server it may be replaced between finding and reading it: once is no error."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (of thousands: a Path takes as long as the reading)
            return file.read()
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def set_aside(path: Path) -> Path:
    """Rename a damaged file out of the way, for a person to look at; returns its new place."""
    aside = path.with_name(f"{path.name}.bad-{time.time_ns()}")
    path.rename(aside)
    return aside


def sweep(folder: Path) -> None:
    """Remove what our own dead processes, of this boot of this machine, left half-written in ``folder``."""
    for left in folder.glob(".*.tmp"):
        machine, pid = left.name.split(".")[-2].split("-")[:2]
        dead = not Path(f"/proc/{pid}").exists()
        if machine == _machine() and left.stat().st_uid == os.getuid() and dead:
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A file beside ``path`` that holds ``data`` on disk; gone afterwards, unless it was moved into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path.name))
    try:
        _write_through(temporary, data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_name(name: str) -> str:
    """Says whose it is, so that `sweep` can tell the dead from the living."""
    return f".{name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


@functools.cache
def _machine() -> str:
    """A mark of this boot of this machine and its process namespace: within them a pid says who is alive."""
    return hashlib.sha256(f"{socket.gethostname()} {provenance.boot()}".encode()).hexdigest()[:8]


def _write_through(path: Path, data: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)  # the system names the file only where it cannot be opened
        raise


def _sync(folder: Path) -> None:
    """Put a folder's entries on disk: without it, a renamed file may be gone after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
