"""Mixers that could not be built, or could not mix, are refused before anything is trained."""

import random
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mixbench import catalog, checking, cli
from mixbench.data import DATASETS
from mixbench.execution import Execution
from mixbench.launch import plan, prepare
from mixbench.resolve import load_sweep
from mixbench.store import Store

ROOT = Path(__file__).parent.parent

RECIPES = """\
digits/tiny: {epochs: 1, batch_size: 50, pad: 1, flip: false, train_images: 100}
image_folder:flowers/tiny: {epochs: 1, batch_size: 4, image_size: 8}
image_folder:cars/tiny: {epochs: 1, batch_size: 4, image_size: 8}
search: {task: search, lr: 5.0e-4}
few: {train_images: 10, batch_size: 10}
"""
SWEEP = """\
settings: [{setting}]
methods: {{{rows}}}
seeds: [0, 1]
teacher: {{method: simple}}
policy: {{recipe: search}}
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Writes a sweep file with these rows, in the folder in which the commands are then run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text(RECIPES)

    def written(rows, *, setting="digits/tiny"):
        Path("x.yaml").write_text(SWEEP.format(rows=rows, setting=setting))
        return Path("x.yaml")

    return written


def pictures(name, classes):
    """An own folder with eight images of each class for training."""
    for part, count in (("train", 8), ("val", 2)):
        for number in range(classes):
            folder = Path("data", name, part, str(number))
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (8, 8), (40 * number, index, 0)).save(folder / f"{index}.png")


@pytest.fixture
def refusal(sweep, mixbench):
    """The one sentence by which `mixbench run` refuses these rows; nothing has been started."""

    def refused(rows, **where):
        said = mixbench("run", sweep(rows, **where))
        assert said.code == 2, said
        assert re.fullmatch(r"mixbench: x\.yaml: [^\n]+\n", said.err), said.err
        assert list(Path("results/runs").iterdir()) == []
        return said.err.removeprefix("mixbench: x.yaml: ").rstrip("\n")

    return refused


@pytest.fixture
def rehearsal(tmp_path):
    """Rehearses a sweep as `mixbench run` does."""

    def rehearsed(path):
        store = Store(tmp_path / "results", tell=print)
        grid = load_sweep(path, data=Path("data"), results=store.root)
        planned = plan(grid, store)
        execution = Execution(places=grid.places)
        checking.rehearse(planned, prepare(planned, store, execution), path, execution)

    return rehearsed


BAD = {
    "alpha": ("simple: , mixup: {alpha: -1}", "mixup: alpha is -1.0: it must be a finite number, at least 0"),
    "row of a name of its own": ("mine: {method: cutmix, prob: 2}", "mine: prob is 2.0: it must lie between 0 and 1"),
    "blocks": ("puzzlemix: ", "puzzlemix: block_num holds 16, but images have 8 pixels a side: take of 2, 4, 8"),
    "stage": (
        "automix: {layer: 4}",
        "automix: layer is 4, but the network has the stages 1 to 3; take one of them, or 0",
    ),
    "momentum": ("automix: {momentum: 1}", "automix: momentum is 1.0: it must be at least 0 and less than 1; with 1"),
    "rates": ("automix: {mask_lr: [0.1]}", "automix: mask_lr has 1 numbers: it must have two, where it begins and"),
    "block's momentum": ("automix: {mask_momentum: 2}", "automix: mask_momentum is 2.0: it must be at least 0 and"),
    "search beside a network": (
        "automix: {set: {task: search}}",
        "automix: the mixer asks for 'net'; mixbench can give it: teacher, policy, image_size",
    ),
    "k": ("transformmix: {k: 1}", "transformmix: k is 1: it must be at least 2"),
    "even kernel": ("transformmix: {mask_kernel: 4}", "transformmix: mask_kernel is 4: it must be odd"),
    "k above the batch size": (
        "transformmix: {k: 51}",
        "transformmix: the mixer needs 51 images, but with a batch_size of 50 the 100 training images leave a batch of "
        "50; choose another batch_size",
    ),
    "k above the last batch": (
        "transformmix: {k: 5, set: {batch_size: 32}}",
        "transformmix: the mixer needs 5 images, but with a batch_size of 32 the 100 training images leave a batch",
    ),
    "k above the batch of a search": (
        "transformmix: {k: 11, policy: {recipe: search, set: {train_images: 10, batch_size: 10}}}",
        "transformmix -> policy transformmix: the mixer needs 11 images, but with a batch_size of 10",
    ),
    "teacher's option": (
        "softmax_cam: {teacher: {method: mixup, alpha: -1}}",
        "softmax_cam -> teacher mixup: alpha is -1.0: it must be",
    ),
    "policy of another k": (
        "transformmix: {k: 3, policy: {recipe: search, k: 2}}",
        "transformmix: the policy was searched with k = 2, but 3 is asked for; take one that was searched for the same",
    ),
    "policy of another method": (
        "transformmix: {policy: {recipe: search, method: wo_stn}}",
        "transformmix: the policy was searched with warp = none, but learned is asked for",
    ),
    "search of what has no policy": (
        "mixup: {set: {task: search}}",
        "mixup: the method 'mixup' has no policy that a teacher could teach; search another",
    ),
    "search with nothing to learn": (
        "wo_stn: {mask: softmax_cam}",
        "wo_stn: with these options, 'wo_stn' has nothing to learn; it needs no search",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_mixer_that_could_not_work_is_refused_before_anything_is_trained(case, refusal):
    rows, sentence = BAD[case]
    assert refusal(rows).startswith(sentence)


def test_refusal_names_the_column_where_there_are_several(refusal):
    said = refusal("transformmix: {k: 11}", setting="digits/tiny, {digits/tiny: few}")
    assert said.startswith("transformmix, digits/tiny + few: the mixer needs 11 images, but with a batch_size of 10")


TEACHER = "teacher: {method: simple, setting: 'image_folder:flowers/tiny'}"
POLICY = "policy: {recipe: search, setting: 'image_folder:flowers/tiny'}"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            f"softmax_cam: {{{TEACHER}}}",
            "softmax_cam: the teacher knows 2 classes, the labels have 3: set cam_class to prediction",
        ),
        (
            f"transformmix: {{cam_class: prediction, {TEACHER}}}",
            "transformmix: the teacher knows 2 classes, the data have 3: a search learns from its answers; take a",
        ),
    ],
)
def test_teacher_of_other_classes_is_refused_before_it_is_trained(row, sentence, refusal):
    pictures("flowers", 2)
    pictures("cars", 3)
    assert refusal(row, setting="'image_folder:cars/tiny'").startswith(sentence)


def test_teacher_and_policy_from_other_data_are_rehearsed_as_what_they_are(sweep, rehearsal):
    asking = f"cam_class: prediction, {TEACHER}"
    path = sweep(f"softmax_cam: {{{asking}}}, transformmix: {{{asking}, {POLICY}}}", setting="'image_folder:cars/tiny'")
    pictures("flowers", 2)
    pictures("cars", 3)
    rehearsal(path)


THEIRS = """
import torch
from methods import Mixed, Mixer

class Theirs(Mixer):
    label = "Theirs"

    def __init__(self, *, power: float = 2.0) -> None:
        super().__init__()
        self.power = power
        self.rolled = torch.nn.Linear(1, 1) if power == 3 else None
        self.learns_by = {"unrolled": {"lr": 1.0}} if power == 3 else {}
        self.headline = "best" if power == 6 else ""

    def forward(self, batch, net):
        if self.power == 4:
            return batch.x
        if self.power == 5:
            return Mixed(batch.x, batch.y[:, :2])
        return Mixed(batch.x + self.power * batch.views, batch.y)
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Installs a package that offers the mixer ``theirs``, which cannot work."""
    site = tmp_path / "site"
    about = site / "strange_mixer-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "strange_mixer.py").write_text(THEIRS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: strange_mixer\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mixbench.mixers]\ntheirs = strange_mixer:Theirs\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "strange_mixer", raising=False)
    yield site / "strange_mixer.py"
    catalog.declaration.cache_clear()


def test_mistake_in_a_mixer_is_refused_with_its_file_and_line(theirs, refusal):
    line = 1 + THEIRS.splitlines().index("        return Mixed(batch.x + self.power * batch.views, batch.y)")
    assert refusal("simple: , mine: {method: theirs}") == (
        f"mine: {theirs}, line {line}, fails with AttributeError: 'Batch' object has no attribute 'views'; "
        "mend it, and try it with `mixbench check theirs`"
    )


@pytest.mark.parametrize(
    ("power", "sentence"),
    [
        (3, "mine: the mixer 'theirs' says how its 'unrolled' learns, but has no part of that name"),
        (4, "mine: the mixer 'theirs' fails with AttributeError: 'Tensor' object has no attribute 'loss'; mend it"),
        (
            6,
            "mine: the mixer 'theirs' has no network 'best' whose accuracies it says are the run's; its headline must "
            "be one of those it scores: none",
        ),
    ],
)
def test_mixer_that_no_network_could_be_trained_with_is_refused(power, sentence, theirs, refusal):
    assert refusal(f"mine: {{method: theirs, power: {power}}}").startswith(sentence)


def test_mixer_whose_labels_have_other_classes_is_refused(theirs, refusal):
    assert refusal("mine: {method: theirs, power: 5}").endswith("mend it, and try it with `mixbench check theirs`")


def test_mistake_in_a_mixer_comes_with_its_traceback_where_that_is_asked_for(theirs, sweep, monkeypatch):
    monkeypatch.setenv("MIXBENCH_DEBUG", "1")
    monkeypatch.setattr("sys.argv", ["mixbench", "run", str(sweep("theirs: "))])
    with pytest.raises(ValueError, match="AttributeError") as refused:
        cli.main()
    assert isinstance(refused.value.__cause__, AttributeError)


@pytest.mark.parametrize("name", ["quickstart", "ablations_digits"])
def test_rehearsal_of_a_good_sweep_passes_and_leaves_the_global_generators_alone(name, rehearsal):
    before = torch.get_rng_state().tolist(), random.getstate()
    rehearsal(ROOT / "sweeps" / f"{name}.yaml")
    assert (torch.get_rng_state().tolist(), random.getstate()) == before


def test_each_mixer_is_rehearsed_once_however_many_runs_use_it(sweep, rehearsal, monkeypatch):
    seen, mix = [], checking._mix_once
    monkeypatch.setattr(checking, "_mix_once", lambda run, facts: (seen.append(run), mix(run, facts)))
    rehearsal(sweep("simple: , mixup: , gentle: {method: mixup, alpha: 0.5}, again: {method: mixup, alpha: 1.0}"))
    assert [(run.method, dict(run.options)) for run in seen] == [
        ("simple", {}),
        ("mixup", {}),
        ("mixup", {"alpha": 0.5}),
    ]


def test_only_what_there_is_to_do_is_rehearsed(sweep, mixbench, finish):
    path = sweep("mixup: {alpha: -1}")
    (content,) = DATASETS["digits"].official
    for run in load_sweep(path, data=Path("data"), results=Path("results")).cells[0].runs:
        finish(Path("results"), run, content=content)
    said = mixbench("run", path)
    assert (said.code, "nothing to do" in said.out) == (0, True)


def test_dry_run_rehearses_nothing(sweep, mixbench, monkeypatch):
    monkeypatch.setattr(checking, "rehearse", None)
    assert mixbench("run", sweep("mixup: {alpha: -1}"), "--dry-run").code == 0


def test_large_images_are_rehearsed_a_few_at_a_time(sweep, rehearsal, monkeypatch):
    shapes, batch = [], checking._batch
    monkeypatch.setattr(checking, "_batch", lambda *about: shapes.append((made := batch(*about)).x.shape) or made)
    path = sweep("mixup: {set: {image_size: 300, batch_size: 16}}", setting="'image_folder:flowers/tiny'")
    pictures("flowers", 2)
    rehearsal(path)
    assert shapes == [(2, 3, 300, 300)]
