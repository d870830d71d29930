"""CIFAR's official files: pickles, read as a description, so that nothing one names is ever imported or called."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mixbench.data import DataError

PIXELS = 3 * 32 * 32
"""Numbers of an image in a row of the file: 32 x 32 of red, of green, of blue."""

_NAMED = frozenset(
    # NumPy 2 renamed its package; what Python 3 wrote for Python 2 holds bytes as text and a call that encodes it.
    [(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
    + [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
)


def read_batch(path: Path, *, labels: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, 32, 32, 3) and labels (N,) of one file.

    Args:
        path: a file in the layout of https://www.cs.toronto.edu/~kriz/cifar.html, of any number of images.
        labels: the key of the labels: ``labels`` or ``fine_labels``.
        classes: labels are below it.

    Raises:
        DataError: the file is damaged, or asks for more than arrays and plain values.
    """
    content = _load(path)
    if not isinstance(content, dict) or "data" not in content or labels not in content:
        raise _damaged(path, f"has no 'data' and '{labels}'")
    y = _labels(content[labels], path, classes)
    rows = _pixels(content["data"], path, images=len(y))
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), y


def read_names(path: Path, *, key: str, classes: int) -> tuple[str, ...]:
    """The names of the classes, by number.

    Args:
        path: the file that lies beside the images.
        key: of the names: ``label_names`` or ``fine_label_names``.
        classes: how many there must be.

    Raises:
        DataError: the file is damaged, or has other things under that key.
    """
    content = _load(path)
    names = content.get(key) if isinstance(content, dict) else None
    if not isinstance(names, list) or len(names) != classes or any(type(name) is not str for name in names):
        raise _damaged(path, f"has no {classes} names in '{key}'")
    return tuple(names)


class _Noted:
    """What a pickle names, calls or sets: only noted, so that no function of a library meets a stranger's arguments.

    NumPy's own functions are not safe to call: a forged dtype makes an array of bytes into one of pointers.
    """

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> _Noted:
        return _Noted(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """An unpickler that builds plain values and notes the rest."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        # As text, byte strings of Python 2 are the same as strings of Python 3, and no byte is lost.
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> _Noted:
        """What stands in for a global."""
        if (module, name) not in _NAMED:
            raise _damaged(self._path, f"asks for {module}.{name}, but may hold arrays and plain values only")
        return _Noted(name)


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Reader(file, path).load()
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        said = " ".join(str(error).split())
        raise _damaged(path, f"is cut off or damaged ({said})") from error


def _labels(said: Any, path: Path, classes: int) -> NDArray[np.int64]:
    if not isinstance(said, list) or any(type(label) is not int for label in said):
        raise _damaged(path, "has labels that are no list of whole numbers")
    for number, label in enumerate(said):
        if not 0 <= label < classes:
            raise _damaged(path, f"says that image {number} has label {label}, which is not one of 0 to {classes - 1}")
    return np.array(said, np.int64)


def _pixels(said: Any, path: Path, *, images: int) -> NDArray[np.uint8]:
    """The array that a pickle describes, if it is of bytes and has a row of pixels for each label."""
    match said:
        case _Noted(
            name="_reconstruct",
            state=(_, (int(), int()) as shape, _Noted(name="dtype", arguments=("u1", *_)), by_columns, raw),
        ):
            pass
        case _:
            raise _damaged(path, "has pixels that are no array of bytes (uint8)")
    data = _bytes(raw)
    if shape != (images, PIXELS) or data is None or len(data) != images * PIXELS:
        raise _damaged(path, f"has pixels of shape {shape}, but {images} labels need ({images}, {PIXELS})")
    return np.frombuffer(data, np.uint8).reshape(images, PIXELS, order="F" if by_columns else "C")


def _bytes(raw: Any) -> bytes | None:
    """The bytes behind what Python 2, Python 3 and Python 3 for Python 2 write; None if it is something else."""
    match raw:
        case bytes():
            return raw
        case str(text) | _Noted(name="encode", arguments=(str(text), "latin1")):
            try:
                return text.encode("latin1")
            except UnicodeEncodeError:
                return None
        case _:
            return None


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path} {what}; replace it by the official file")
