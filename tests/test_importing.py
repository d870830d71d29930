"""A network that somebody else trained, as a run: one, whoever asks for it, and refused where it does not fit."""

import hashlib
import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch
from cifar_files import batch, write_cifar10

from analysis.render import markdown
from analysis.table import build
from mixbench import importing, materials
from mixbench.execution import Execution
from mixbench.importing import Import
from mixbench.launch import plan, prepare
from mixbench.resolve import load_sweep
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import train

SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")

TRAINED = Run(method="simple", dataset="digits", model="tiny", epochs=3, batch_size=50, pad=1, flip=False)

SWEEP = """
settings: [digits/tiny]
methods: {methods}
seeds: [0, 1]
teacher: {teacher}
recipes:
  digits/tiny: {{epochs: 2, batch_size: 50, pad: 1, flip: false, train_images: 100, schedule: cosine}}
  theirs: {{{theirs}}}
  search: {{task: search, epochs: 1, lr: 5.0e-4}}
"""
LIKE_OURS = "mean: [0.3], std: [0.4]"
THEIRS = f"task: import, checkpoint: weights/theirs.pt, {LIKE_OURS}"


def a_network():
    """A network for digits, freshly initialised, as runs have it."""
    with Streams(5).initialising():
        return materials.network(TRAINED, Execution())


def written(path, saved):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(saved, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def imported(checksum, **changes):
    return Run.from_dict(TRAINED.to_dict() | {"task": "import", "checkpoint": checksum} | changes)


def made(path, saved, **changes):
    """The task that imports what is saved there."""
    checksum = written(path, saved)
    return Import(imported(checksum, **changes), Streams(0), Execution(places={checksum: str(path)}), None)


@pytest.fixture
def load(tmp_path):
    def loaded(methods="[softmax_cam]", teacher="{method: simple, recipe: theirs}", theirs=THEIRS, more=""):
        text = SWEEP.format(methods=methods, teacher=teacher, theirs=theirs) + more
        (tmp_path / "s.yaml").write_text(text)
        return load_sweep(tmp_path / "s.yaml", data=tmp_path / "data", results=tmp_path / "results")

    return loaded


@pytest.fixture
def theirs(tmp_path):
    """A checkpoint in the data folder, and the SHA-256 of its bytes."""
    path = tmp_path / "data" / "weights" / "theirs.pt"
    return path, written(path, a_network().state_dict())


# ---- what a run of it is


def test_import_is_known_by_its_bytes_and_not_by_its_place(load, theirs, tmp_path):
    path, checksum = theirs
    below = load()
    (tmp_path / "moved.pt").write_bytes(path.read_bytes())
    absolute = load(theirs=f"task: import, checkpoint: {tmp_path / 'moved.pt'}, {LIKE_OURS}")
    assert below.cells == absolute.cells
    assert below.cells[0].runs[0].teacher.checkpoint == checksum
    assert (below.places[checksum], absolute.places[checksum]) == ("weights/theirs.pt", str(tmp_path / "moved.pt"))


def test_import_is_another_run_once_the_file_changes(load, theirs):
    before = load().cells[0].runs[0].teacher
    written(theirs[0], {name: value + 1 for name, value in a_network().state_dict().items()})
    assert load().cells[0].runs[0].teacher.id != before.id


def test_import_is_one_run_whoever_asks_for_it(load, theirs):
    methods = "{softmax_cam: , transformmix: {policy: {recipe: search}}, other: {method: softmax_cam, set: {lr: 0.2}}}"
    teacher = "{method: simple, recipe: theirs, set: {momentum: 0.5, train_images: 50, epochs: 7}}"
    sweep = load(methods, teacher, more="table: {unlike: [lr]}")
    first, *_ = sweep.stages()
    assert [run.task for run in first] == ["import"]
    assert load().stages()[0] == first


@pytest.mark.parametrize(
    "unread",
    [
        {"seed": 3},
        {"epochs": 90, "warmup": 5, "lr": 0.3, "momentum": 0.0, "weight_decay": 0.1},
        {"schedule": "cosine", "lr_end": 0.01},
        {"milestones": (1, 2), "lr_drop": 0.5},
        {"pad": 0, "flip": True, "batch_size": 10, "train_images": 100, "criterion": "bce"},
    ],
)
def test_import_is_the_same_run_whatever_is_said_of_training(unread):
    assert imported("c0ffee", **unread) == imported("c0ffee")


@pytest.mark.parametrize(
    "read", [{"model": "resnet8"}, {"mean": (0.5,), "std": (0.5,)}, {"test_images": 9}, {"precision": "bfloat16"}]
)
def test_import_is_another_run_where_its_numbers_may_be_others(read):
    assert imported("c0ffee", **read) != imported("c0ffee")


def test_import_needs_no_epochs_and_no_batch_that_the_data_could_fill(load, theirs):
    sweep = load("{a: {method: simple, recipe: theirs}}", more="set: {batch_size: 5000, pad: 8}")
    assert len(sweep.cells[0].runs) == 1
    text = SWEEP.format(methods="{a: {method: simple, recipe: theirs}}", teacher="{}", theirs=THEIRS)
    path = theirs[0].parents[2] / "no_epochs.yaml"
    path.write_text(re.sub(r"digits/tiny: {.*}", "digits/tiny: {warmup: 5}", text))
    (run,) = load_sweep(path, data=path.parent / "data", results=path.parent).cells[0].runs
    assert run.epochs == 1


def test_import_is_planned_on_data_too_few_for_a_batch(tmp_path, theirs):
    write_cifar10(tmp_path / "data")
    path = tmp_path / "few.yaml"
    path.write_text(
        "{settings: [cifar10/resnet8], methods: [simple], seeds: [0], recipes: {cifar10/resnet8: }, "
        f"set: {{{THEIRS}}}}}"
    )
    sweep = load_sweep(path, data=tmp_path / "data", results=tmp_path)
    store = Store(tmp_path / "results", tell=print)
    prepare(plan(sweep, store), store, Execution(data=str(tmp_path / "data"), places=sweep.places))


def test_import_as_a_row_stands_in_a_column_where_the_table_allows_it(load, theirs):
    methods = "{simple: , theirs: {method: simple, recipe: theirs, label: Theirs}}"
    with pytest.raises(ValueError, match="they differ in task"):
        load(methods)
    unlike = "table: {unlike: [task, checkpoint, mean, std, epochs, batch_size, pad, flip, train_images, schedule]}"
    sweep = load(methods, more=unlike)
    assert sweep.labels["theirs"] == "Theirs"
    assert [len(cell.runs) for cell in sweep.cells] == [2, 1]


def test_import_set_for_a_whole_sweep_is_not_set_for_what_its_runs_ask(load, theirs):
    sweep = load("[simple]", teacher="{}", more=f"set: {{{THEIRS}}}")
    assert sweep.cells[0].runs[0].task == "import"
    asked = load(
        "{softmax_cam: {set: {task: classify, checkpoint: ''}}}", "{method: simple}", more=f"set: {{{THEIRS}}}"
    )
    assert asked.cells[0].runs[0].teacher.task == "classify"


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("task: import", "task: import needs a checkpoint; write 'checkpoint:' and the path of its file"),
        ("checkpoint: weights/theirs.pt", "checkpoint belongs to task: import, but task is classify; change one"),
        ("task: import, checkpoint: gone.pt", r"checkpoint: there is no file .*data/gone\.pt; put it there, or write"),
        ("task: import, checkpoint: weights", r"checkpoint: there is no file .*data/weights; put it there"),
        ("task: import, checkpoint: weights/theirs.pt", "task: import needs the mean and std that the network was tr"),
        ("task: import, checkpoint: 7", "checkpoint must be text, not 7"),
    ],
)
def test_import_that_is_said_wrong_is_refused_while_loading(said, sentence, load, theirs):
    with pytest.raises(ValueError, match=rf"s\.yaml: .*{sentence}"):
        load(theirs=said)


def test_import_under_the_name_of_a_method_is_refused(load, theirs):
    with pytest.raises(ValueError, match="task: import mixes nothing, but its method is 'softmax_cam'; write method"):
        load(teacher="{recipe: theirs}")


# ---- what is read of a file


def test_import_tests_the_network_as_it_is_and_keeps_it(theirs, tmp_path):
    path, checksum = theirs
    run, execution = imported(checksum), Execution(places={checksum: str(path)})
    result = train(run, Store(tmp_path, tell=print).claim(run, execution), execution, None, lambda steps, of: None)
    kept = materials.from_bytes(result.weights, "cpu")
    assert all(torch.equal(value, kept[name]) for name, value in a_network().state_dict().items())
    (entry,) = result.curve
    assert entry == {"epoch": 1, **result.evaluation.metrics}


@pytest.mark.parametrize(
    "spelt",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {name.replace("fc.", "linear."): value for name, value in state.items()},
        lambda state: {name.replace("fc.", "classifier."): value for name, value in state.items()},
        lambda state: {"state_dict": state, "epoch": 7, "model": "tiny"},
        lambda state: {"model": {f"module.{name.replace('fc.', 'linear.')}": state[name] for name in state}},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
    ],
    ids=["module", "linear", "classifier", "state_dict", "model", "before torch 0.4.1"],
)
def test_import_understands_well_known_spellings(spelt, tmp_path):
    state = a_network().state_dict()
    found = made(tmp_path / "theirs.pt", spelt(dict(state))).net.state_dict()
    assert list(found) == list(state)
    assert all(torch.equal(value, found[name]) for name, value in state.items() if "num_batches" not in name)


def without(state, *names):
    return {name: value for name, value in state.items() if name not in names}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda state: without(state, "stem.conv.weight"), r"does not fit tiny: it lacks stem\.conv\.weight$"),
        (lambda state: state | {"head.bias": torch.ones(3)}, r"does not fit tiny: it must not have head\.bias$"),
        (
            lambda state: state | {"fc.bias": torch.ones(100)},
            r"does not fit tiny: fc\.bias has the shape \(100,\) and must have \(10,\)$",
        ),
        (
            lambda state: state | {"linear.bias": state["fc.bias"]},
            r"does not fit tiny: it must not have linear\.bias$",
        ),
        (
            lambda state: {f"module.{name}" if "stem" in name else name: value for name, value in state.items()},
            r"it lacks stem\.conv\.weight, stem\.bn\.weight and 4 more; it must not have module\.stem\.conv\.weight, ",
        ),
        (lambda state: {"state_dict": state, "model": state}, "holds no state dict of tensors; write one with torch"),
        (lambda state: {"epoch": 3, "lr": 0.1}, "holds no state dict of tensors"),
        (lambda state: dict(enumerate(state.values())), "holds no state dict of tensors"),
        (lambda state: {}, "holds no state dict of tensors"),
        (lambda state: [1, 2], "holds no state dict of tensors"),
        (lambda state: a_network(), "holds no state dict of tensors"),
    ],
)
def test_import_of_what_does_not_fit_is_refused_in_one_sentence_that_names_the_file(spoil, sentence, tmp_path):
    path = tmp_path / "theirs.pt"
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*{sentence}"):
        made(path, spoil(dict(a_network().state_dict())))


@pytest.mark.parametrize("data", [b"", b"no checkpoint at all", b"PK\x03\x04 no zip either"])
def test_import_of_a_file_of_something_else_is_refused(data, tmp_path):
    path = tmp_path / "theirs.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"theirs\.pt holds no state dict of tensors"):
        importing.read(path, hashlib.sha256(data).hexdigest())


def test_import_of_a_file_that_changed_meanwhile_is_refused(theirs):
    with pytest.raises(ValueError, match=r"theirs\.pt has changed since the sweep was planned; start the sweep again"):
        importing.read(theirs[0], "c0ffee")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda state: state | {"fc.bias": torch.ones(100)}, r"fc\.bias has the shape \(100,\) and must have \(10,\)"),
        (lambda state: [1], "holds no state dict of tensors"),
    ],
    ids=["other classes", "no state"],
)
def test_import_that_does_not_fit_ends_a_sweep_before_anything_is_launched(spoil, sentence, mixbench, load):
    written(Path("data/weights/theirs.pt"), spoil(dict(a_network().state_dict())))
    load()
    said = mixbench("run", "s.yaml")
    assert said.code == 2
    assert re.fullmatch(rf"mixbench: s\.yaml: [^\n]*theirs\.pt [^\n]*{sentence}[^\n]*\n", said.err)
    assert not list(Path("results/runs").iterdir())


# ---- from the sweep to the table


def test_import_teaches_a_row_and_the_table_says_so(mixbench, load, theirs):
    sweep = load()
    assert mixbench("run", "s.yaml").code == 0
    store = Store(Path("results"), tell=print)
    (teacher,), pupils = sweep.stages()
    assert all(store.result(run) for run in pupils)
    assert store.result(teacher).notes == {}
    assert "train_loss" not in store.curve(teacher)[0]
    assert theirs[1] in mixbench("why", "simple-import").out
    said = " ".join(markdown(build(sweep, store, "last"), command="").split())
    assert (
        f"Softmax+CAM: with a network that somebody else trained; the SHA-256 of its file begins with {theirs[1][:10]}"
        in said
    )


def test_import_classifies_the_pictures_that_its_network_was_trained_on_as_its_author_did(tmp_path):
    path, pack = SHARED / "data" / "checkpoints" / "cifar10_resnet20.pt", SHARED / "data" / "cifar10_exact4000.npz"
    if not (path.exists() and pack.exists()):
        pytest.skip(f"no {path} and {pack}; MIXBENCH_SHARED names the folder of real images")
    spec = importlib.util.spec_from_file_location("unpack_cifar", SHARED / "data" / "unpack_cifar.py")
    unpack_cifar = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack_cifar)
    exact = unpack_cifar.load(pack, splits=("train",))
    rows = exact["train_x"][:500].transpose(0, 3, 1, 2).reshape(500, 3072)
    (write_cifar10(tmp_path) / "test_batch").write_bytes(batch(rows, exact["train_y"][:500]))
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    run = Run(
        task="import",
        method="simple",
        dataset="cifar10",
        model="resnet20",
        epochs=1,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        checkpoint=checksum,
    )
    execution = Execution(data=str(tmp_path), places={checksum: str(path.resolve())})
    assert Import(run, Streams(0), execution, None).evaluate().metrics["top1"] >= 99.5  # 99.8 on all 4,000
