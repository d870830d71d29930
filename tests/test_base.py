import sys

import pytest
import torch

from methods import Mixed, Mixer, TeacherMixer, base, build, register
from methods.base import find
from methods.contract import SmallNetwork
from methods.mixup import Mixup


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(base, "_registered", dict(base._registered))


def package(folder, name, source, monkeypatch):
    """Install a package whose module `stranger` offers a mixer called ``name``."""
    (folder / "stranger.py").write_text(source)
    info = folder / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mixbench.mixers]\n{name} = stranger:Theirs\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)


THEIRS = """
from methods import Mixed, Mixer

class Theirs(Mixer):
    label = "Theirs"

    def __init__(self, *, cells: int = 4) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, batch, net):
        return Mixed(batch.x, batch.y)
"""


def test_find_knows_a_mixer_by_the_name_of_its_file():
    assert find("mixup") is Mixup


def test_find_names_the_mixer_that_it_does_not_know():
    with pytest.raises(ValueError, match="no mixer is called 'mixupp'"):
        find("mixupp")


@pytest.mark.parametrize("name", ["ops", "base", "methods.mixup", ""])
def test_find_takes_nothing_else_for_a_mixer(name):
    with pytest.raises(ValueError, match=f"no mixer is called '{name}'"):
        find(name)


def test_register_makes_a_class_known():
    @register("toy")
    class Toy(Mixer):
        pass

    assert find("toy") is Toy


def test_register_refuses_two_mixers_of_one_name_and_names_both_modules():
    class Toy(Mixer):
        pass

    with pytest.raises(ValueError, match=f"two mixers are called 'mixup': methods.mixup and {__name__}; rename one"):
        register("mixup")(Toy)


def test_register_accepts_a_module_that_is_run_again():
    first, again = type("Toy", (Mixer,), {}), type("Toy", (Mixer,), {})
    register("toy")(first)
    register("toy")(again)
    assert find("toy") is again


def test_build_finds_the_mixer_of_another_package(tmp_path, monkeypatch):
    package(tmp_path, "gridmix", THEIRS, monkeypatch)
    mixer = build("gridmix", {"cells": 8}, {})
    assert (mixer.label, mixer.cells) == ("Theirs", 8)


def test_find_refuses_another_package_that_takes_our_name(tmp_path, monkeypatch):
    package(tmp_path, "mixup", THEIRS, monkeypatch)
    with pytest.raises(ValueError, match=r"two mixers are called 'mixup': methods\.mixup and stranger:Theirs"):
        find("mixup")


def test_build_hands_over_options_and_what_is_given():
    teacher = SmallNetwork()
    mixer = build("softmax_cam", {"label_from": "lam"}, {"teacher": teacher})
    assert mixer.teacher is teacher
    assert mixer.label_from == "lam"


def test_mixed_loss_is_the_mean_over_the_batch():
    mixed = Mixed(torch.empty(2, 1, 1, 1), torch.eye(2))
    loss = mixed.loss(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), lambda logits, y: (logits * y).sum(1))
    assert loss.item() == 2.5


def test_mixed_logits_are_the_networks_answers():
    net = SmallNetwork().eval()
    mixed = Mixed(torch.rand(2, 3, 8, 8), torch.eye(10)[:2])
    assert torch.equal(mixed.logits(net), net(mixed.x))


class Asking(TeacherMixer):
    def forward(self, batch, net):
        return Mixed(batch.x, batch.y)


def test_teacher_is_frozen():
    assert not any(parameter.requires_grad for parameter in Asking(SmallNetwork()).parameters())


@pytest.mark.parametrize("training", [True, False])
def test_teacher_stays_in_eval_mode_whatever_the_mixers_mode(training):
    mixer = Asking(SmallNetwork()).train(training)
    assert mixer.training is training
    assert not any(module.training for module in mixer.teacher.modules())


def test_teacher_without_a_last_layer_of_its_own_is_refused_with_what_it_lacks():
    with pytest.raises(
        ValueError, match="the teacher, a Linear, lacks mean, std, fc, features, classify: give it what"
    ):
        Asking(torch.nn.Linear(2, 2))
