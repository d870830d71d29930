"""Small files in CIFAR's official layouts, written as Python 2 wrote them."""

import struct

import numpy as np


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return b"T" + struct.pack("<i", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def array(pixels, *, dtype="u1", by_columns=False):
    """An array as NumPy 1 pickles it under Python 2, protocol 2."""
    new = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text("b") + b"\x87R"
    described = b"cnumpy\ndtype\n" + text(dtype) + number(0) + number(1) + b"\x87R"
    described += b"(" + number(3) + text("|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = b"(" + b"".join(map(number, pixels.shape)) + b"t"
    raw = text(pixels.tobytes(order="F" if by_columns else "C"))
    return new + b"(" + number(1) + shape + described + (b"\x88" if by_columns else b"\x89") + raw + b"tb"


def batch(pixels, labels, *, key="labels"):
    """The bytes of a file: ``pixels`` are an array or its pickled form."""
    pickled = array(pixels) if isinstance(pixels, np.ndarray) else pixels
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text("batch_label") + text("a batch") + text(key) + listed + text("data") + pickled + b"u."


def rows(count, *, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(root, *, per_batch=4):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        (folder / name).write_bytes(batch(rows(per_batch, seed=seed), range(per_batch)))
    return folder


def write_cifar100(root, *, count=4):
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        labels = [99 - label for label in range(count)]
        (folder / name).write_bytes(batch(rows(count, seed=seed), labels, key="fine_labels"))
    return folder
