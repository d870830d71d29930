"""Data files are pickles from strangers: they may hold arrays and plain values, and nothing in them may run."""

import builtins
import functools
import importlib
import operator
import os
import pickle

import numpy as np
import pytest
import torch
from cifar_files import array, batch, number, rows, text

from mixbench.data import DataError
from mixbench.data.cifar import read_batch


def read(path, data):
    path.write_bytes(data)
    return read_batch(path, labels="labels", classes=10)


class Calls:
    """Pickled as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Sets(Calls):
    """Pickled as a call whose result is then given a state."""

    def __reduce__(self):
        return (*self.call, {"state": 1})


HOSTILE = {
    "posix.system": Calls(os.system, "touch ran"),
    "builtins.eval": Calls(builtins.eval, "open('ran', 'w')"),
    "builtins.exec": Calls(builtins.exec, "open('ran', 'w')"),
    "builtins.getattr": Calls(builtins.getattr, np.ndarray, "tofile"),
    "io.open": Calls(builtins.open, "ran", "w"),
    "importlib.import_module": Calls(importlib.import_module, "colorsys"),
    "functools.partial": Sets(functools.partial, os.getcwd),
    "operator.attrgetter": Calls(operator.attrgetter, "__globals__"),
    "numpy.load": Calls(np.load, "ran"),
    "numpy.fromfile": Calls(np.fromfile, "ran"),
    "torch._utils._rebuild_tensor_v2": Calls(torch._utils._rebuild_tensor_v2, 1, 2, 3, 4, 5, 6),
    "torch.serialization.load": Calls(torch.load, "ran"),
    "pickle.loads": Calls(pickle.loads, b"."),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("asked", HOSTILE)
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(tmp_path, monkeypatch, asked, protocol):
    monkeypatch.chdir(tmp_path)
    content = {"labels": [0], "data": HOSTILE[asked]}
    with pytest.raises(DataError, match=rf"data_batch_1 asks for \S+\.{asked.split('.')[-1]}, but may hold"):
        read(tmp_path / "data_batch_1", pickle.dumps(content, protocol))
    assert [path.name for path in tmp_path.iterdir()] == ["data_batch_1"]


@pytest.mark.parametrize("name", ["ndarray.tofile", "ndarray.__subclasses__", "core.multiarray._reconstruct"])
def test_an_attribute_of_an_allowed_name_is_refused(tmp_path, name):
    reached = b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(DataError, match=f"asks for numpy.{name}, but may hold arrays and plain values only"):
        read(tmp_path / "data_batch_1", reached)


@pytest.mark.parametrize("name", ["decode", "lookup", "register"])
def test_of_the_codecs_only_encoding_is_allowed(tmp_path, name):
    with pytest.raises(DataError, match=rf"asks for _codecs\.{name}"):
        read(tmp_path / "data_batch_1", b"\x80\x02c_codecs\n" + name.encode() + b"\n.")


def test_encoding_reaches_no_codec_but_latin1(tmp_path):
    forged = array(rows(1)).replace(
        text(rows(1).tobytes()), b"c_codecs\nencode\n" + text("x") + text("idna") + b"\x86R"
    )
    with pytest.raises(DataError, match=r"has pixels (of shape|that are no array of bytes)"):
        read(tmp_path / "data_batch_1", batch(forged, [0]))


def test_an_array_of_objects_is_refused(tmp_path):
    content = {"labels": [0], "data": np.array([[1] * 3072], dtype=object)}
    with pytest.raises(DataError, match="has pixels that are no array of bytes"):
        read(tmp_path / "data_batch_1", pickle.dumps(content, 2))


@pytest.mark.parametrize("dtype", ["O8", "V8", "u8", "S1", "i1"])
def test_bytes_never_become_pointers_or_anything_but_bytes(tmp_path, dtype):
    with pytest.raises(DataError, match="has pixels that are no array of bytes"):
        read(tmp_path / "data_batch_1", batch(array(rows(1), dtype=dtype), [0]))


@pytest.mark.parametrize("shape", [(2, 3072), (1, 3073), (1, -3072), (3072,), (1, 2**31 - 1), (1, 32, 32, 3)])
def test_a_shape_that_the_bytes_do_not_fill_is_refused(tmp_path, shape):
    claimed = b"(" + b"".join(map(number, shape)) + b"t"
    forged = array(rows(1)).replace(b"(" + number(1) + number(3072) + b"t", claimed)
    with pytest.raises(DataError, match=r"has pixels (of shape|that are no array of bytes)"):
        read(tmp_path / "data_batch_1", batch(forged, [0]))


def test_a_state_given_to_numpy_itself_changes_nothing(tmp_path):
    changed = b"\x80\x02cnumpy\nndarray\nN}(" + text("tofile") + number(1) + b"u\x86b."
    with pytest.raises(DataError, match="has no 'data' and 'labels'"):
        read(tmp_path / "data_batch_1", changed)
    assert callable(np.ndarray.tofile)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a pickle",
        b"\x80\x02.",
        b"\x80\x02K\x01K\x02R.",
        b"\x80\x02U\x01xQ.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cnumpy\nndarray\nK\x01a.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",
        b"\x80\x02}K\x01s.",
    ],
    ids=["empty", "no pickle", "no value", "number called", "persistent id", "extension", "append", "new", "odd"],
)
def test_damaged_bytes_are_an_error_that_names_the_file(tmp_path, data):
    with pytest.raises(DataError, match=r"data_batch_1 is cut off or damaged .*replace it by the official file"):
        read(tmp_path / "data_batch_1", data)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_an_error_that_names_it(tmp_path, share):
    whole = batch(rows(3), [1, 2, 3])
    with pytest.raises(DataError, match="data_batch_1 is cut off or damaged"):
        read(tmp_path / "data_batch_1", whole[: int(share * len(whole))])


@pytest.mark.parametrize("content", [[1, 2], {"data": 1}, {"labels": [1]}, "text", None])
def test_a_pickle_of_something_else_is_an_error_that_names_what_is_missing(tmp_path, content):
    with pytest.raises(DataError, match="data_batch_1 has no 'data' and 'labels'"):
        read(tmp_path / "data_batch_1", pickle.dumps(content, 2))


@pytest.mark.parametrize("label", [10, -1, 2**31 - 1])
def test_a_label_out_of_range_is_named(tmp_path, label):
    with pytest.raises(DataError, match=f"data_batch_1 says that image 1 has label {label}, .* one of 0 to 9"):
        read(tmp_path / "data_batch_1", batch(rows(2), [3, label]))


@pytest.mark.parametrize("labels", [[True], [0.0], ["0"], (0,), None, [None]])
def test_labels_are_whole_numbers(tmp_path, labels):
    with pytest.raises(DataError, match="has labels that are no list of whole numbers"):
        read(tmp_path / "data_batch_1", pickle.dumps({"data": rows(1), "labels": labels}, 2))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_as_many_labels_as_pictures_are_needed(tmp_path, count):
    with pytest.raises(DataError, match=rf"has pixels of shape \(2, 3072\), but {count} labels need"):
        read(tmp_path / "data_batch_1", batch(rows(2), [0] * count))


def test_an_official_file_reads_as_pickle_would_read_it(tmp_path):
    data = batch(rows(3), [1, 2, 3])
    x, y = read(tmp_path / "data_batch_1", data)
    plain = pickle.loads(data, encoding="latin1")
    np.testing.assert_array_equal(x.transpose(0, 3, 1, 2).reshape(3, 3072), plain["data"])
    assert y.tolist() == plain["labels"]


def test_an_array_stored_by_columns_reads_the_same(tmp_path):
    by_columns = batch(array(rows(3), by_columns=True), [1, 2, 3])
    np.testing.assert_array_equal(
        read(tmp_path / "by_columns", by_columns)[0], read(tmp_path / "by_rows", batch(rows(3), [1, 2, 3]))[0]
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_a_file_that_python_3_wrote_reads_the_same(tmp_path, protocol):
    content = {"data": rows(3), "labels": [1, 2, 3], "other": np.float64(1.5)}
    x, _ = read(tmp_path / "data_batch_1", pickle.dumps(content, protocol))
    np.testing.assert_array_equal(x, read(tmp_path / "python2", batch(rows(3), [1, 2, 3]))[0])
