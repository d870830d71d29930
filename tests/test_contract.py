import inspect
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import methods
from methods import Mixed, Mixer, TeacherMixer
from methods.bank import empty
from methods.base import find
from methods.contract import SmallNetwork, check
from methods.cutmix import CutMix
from methods.mixup import Mixup

FILES = sorted(Path(methods.__file__).parent.glob("*.py"))
NAMES = [file.stem for file in FILES if f'@register("{file.stem}")' in file.read_text()]
GIVEN = {"teacher": SmallNetwork, "policy": lambda: None, "image_size": lambda: 32, "net": SmallNetwork}
GIVEN["bank"] = lambda: empty(3, 2, channels=3, side=32)._asdict()
"""What the harness gives a mixer, by the name of its constructor's positional parameter."""


def make(name):
    mixer = find(name)
    parameters = inspect.signature(mixer).parameters.values()
    return mixer(*[GIVEN[parameter.name]() for parameter in parameters if parameter.kind != parameter.KEYWORD_ONLY])


@pytest.mark.parametrize("name", NAMES)
def test_contract_is_kept_by(name):
    check(make(name))


class Broken(Mixup):
    """Mixup, but for one promise."""

    def forward(self, batch, net):
        self.spoil(batch, net)
        return self.change(super().forward(batch, net))

    def spoil(self, batch, net):
        """Do something forbidden on the way."""

    def change(self, mixed):
        """Return something forbidden."""
        return mixed


def changing(change):
    return type("Changing", (Broken,), {"change": lambda self, mixed: change(mixed)})


def spoiling(spoil):
    return type("Spoiling", (Broken,), {"spoil": lambda self, batch, net: spoil(batch, net)})


def nan_in_a_corner(mixed):
    mixed.x[0, 0, 0, 0] = torch.nan
    return mixed


def negative_label(mixed):
    mixed.y[0] = torch.zeros(10)
    mixed.y[0, :2] = torch.tensor([1.5, -0.5])
    return mixed


def answering(**methods):
    kind = type("Answering", (Mixed,), methods)
    return changing(lambda mixed: kind(mixed.x, mixed.y))


def forget_a_hook(self, net):
    net.layer1.register_forward_hook(lambda module, inputs, out: out)
    return net(self.x)


def ignore(value):
    """Do nothing with what a draw gave."""


def backward(batch, net):
    with torch.enable_grad():
        net(batch.x).sum().backward()


def eval_and_back(batch, net):
    training = net.training
    net.eval()
    net.train(training)  # of the root alone: a frozen batch norm would train again


def decay(batch, net):
    with torch.no_grad():
        net.fc.weight.mul_(0.9)


OWN = torch.Generator()
BROKEN = {
    "tuple": (changing(lambda mixed: (mixed.x, mixed.y)), "returned a tuple: return a Mixed"),
    "fewer images": (changing(lambda mixed: Mixed(mixed.x[1:], mixed.y)), "images of shape .* came back as"),
    "cropped": (changing(lambda mixed: Mixed(mixed.x[..., 1:], mixed.y)), "of the same channels and size"),
    "float64 images": (changing(lambda mixed: Mixed(mixed.x.double(), mixed.y)), "mixed images are torch.float64"),
    "NaN": (changing(nan_in_a_corner), "NaN or infinity"),
    "below 0": (changing(lambda mixed: Mixed(mixed.x - 0.1, mixed.y)), r"keep them in \[0, 1\]"),
    "above 1": (changing(lambda mixed: Mixed(mixed.x + 0.1, mixed.y)), "or declare in_range = False"),
    "contiguous": (changing(lambda mixed: Mixed(mixed.x.contiguous(), mixed.y)), "given as channels_last"),
    "channels last": (
        changing(lambda mixed: Mixed(mixed.x.contiguous(memory_format=torch.channels_last), mixed.y)),
        "given as contiguous",
    ),
    "hard labels": (changing(lambda mixed: Mixed(mixed.x, mixed.y.argmax(1))), "one row of soft labels an image"),
    "fewer labels": (changing(lambda mixed: Mixed(mixed.x, mixed.y[1:])), "one row of soft labels an image"),
    "float64 labels": (changing(lambda mixed: Mixed(mixed.x, mixed.y.double())), "labels are torch.float64"),
    "negative labels": (changing(negative_label), "a label is -0.5: .* not be negative"),
    "NaN labels": (changing(lambda mixed: Mixed(mixed.x, mixed.y * torch.nan)), "a label is nan"),
    "labels too heavy": (changing(lambda mixed: Mixed(mixed.x, mixed.y * 1.1)), "misses a sum of 1 by 0.1"),
    "global torch": (spoiling(lambda batch, net: ignore(torch.rand(1))), "torch's global generator was used"),
    "global numpy": (spoiling(lambda batch, net: ignore(np.random.rand())), "NumPy's global generator"),  # noqa: NPY002
    "global random": (spoiling(lambda batch, net: ignore(random.random())), "random's global generator"),
    "own images": (
        changing(lambda mixed: Mixed(mixed.x * torch.rand(1, generator=OWN), mixed.y)),
        "other images: draw everything with generator",
    ),
    "own labels": (
        changing(lambda mixed: Mixed(mixed.x, torch.rand(mixed.y.shape, generator=OWN).softmax(1))),
        "other labels: draw everything with generator",
    ),
    "writes x": (spoiling(lambda batch, net: batch.x.mul_(0.9)), "batch.x was written to"),
    "writes y": (spoiling(lambda batch, net: batch.y.fill_(0.1)), "batch.y was written to"),
    "weights": (spoiling(decay), r"the network's weights changed \(fc.weight\)"),
    "gradients": (spoiling(backward), "the network's gradients changed .*: take yours with torch.autograd.grad"),
    "zeroed gradients": (spoiling(lambda batch, net: net.zero_grad()), "the network's gradients changed"),
    "frozen": (spoiling(lambda batch, net: net.requires_grad_(False)), "requires_grad flags changed"),
    "statistics": (spoiling(lambda batch, net: net(batch.x)), "buffers changed .*declare moves_statistics = True"),
    "modes": (spoiling(eval_and_back), "modes changed .*: remember the mode of every submodule"),
    "hook": (
        spoiling(lambda batch, net: net.layer2.register_forward_hook(lambda module, inputs, out: out)),
        r"hooks changed \(layer2\): remove yours in a finally",
    ),
    "hook in logits": (answering(logits=forget_a_hook), r"hooks changed \(layer1\)"),
    "logits": (answering(logits=lambda self, net: net(self.x)[:, :1]), "logits have shape"),
    "loss per image": (answering(loss=lambda self, logits, criterion: criterion(logits, self.y)), "the loss has shape"),
    "infinite loss": (
        answering(loss=lambda self, logits, criterion: criterion(logits, self.y).mean() / 0),
        "the loss is inf",
    ),
    "detached loss": (
        answering(loss=lambda self, logits, criterion: criterion(logits.detach(), self.y).mean()),
        "the loss has no gradient",
    ),
}


@pytest.mark.parametrize("promise", BROKEN)
def test_contract_refuses(promise):
    mixer, sentence = BROKEN[promise]
    with pytest.raises(AssertionError, match=sentence):
        check(mixer())


class EvenOnly(Broken):
    def change(self, mixed):
        return Mixed(mixed.x.unflatten(0, (2, -1)).flatten(0, 1), mixed.y)


def test_contract_tries_odd_batches():
    with pytest.raises(RuntimeError) as raised:
        check(EvenOnly())
    assert "on a contiguous batch of 5" in raised.value.__notes__[0]


def test_contract_tries_a_batch_of_one():
    with pytest.raises(AssertionError, match="NaN") as raised:
        check(changing(lambda mixed: Mixed(mixed.x / (len(mixed.x) - 1), mixed.y))())
    assert "batch of 1" in raised.value.__notes__[0]


class AtLeastThree(Broken):
    least = 3

    def spoil(self, batch, net):
        if len(batch.x) < 3:
            raise ValueError("too few images")


def test_contract_tries_no_batch_that_is_smaller_than_declared():
    check(AtLeastThree())


def test_contract_tries_the_smallest_batch_that_is_declared():
    class OfThree(AtLeastThree):
        def change(self, mixed):
            return Mixed(mixed.x / (len(mixed.x) - 3), mixed.y)

    with pytest.raises(AssertionError, match="NaN") as raised:
        check(OfThree())
    assert "batch of 3" in raised.value.__notes__[0]


class BrokenInEval(Broken):
    def change(self, mixed):
        return mixed if self.training else Mixed(mixed.x + 1, mixed.y)


def test_contract_tries_eval_mode():
    with pytest.raises(AssertionError) as raised:
        check(BrokenInEval())
    assert "BrokenInEval in eval mode" in raised.value.__notes__[0]


class Loud(TeacherMixer):
    """Runs its teacher in train mode."""

    def forward(self, batch, net):
        self.teacher.train()
        self.teacher(batch.x)
        self.teacher.eval()
        return Mixed(batch.x, batch.y)


def test_contract_watches_the_teacher_too():
    with pytest.raises(AssertionError, match="the teacher's buffers changed"):
        check(Loud(SmallNetwork()))


def test_contract_lets_images_leave_the_range_where_that_is_declared():
    mixer = changing(lambda mixed: Mixed(mixed.x + 1, mixed.y))()
    mixer.in_range = False
    check(mixer)


def test_contract_lets_statistics_move_where_that_is_declared():
    mixer = spoiling(lambda batch, net: net(batch.x))()
    mixer.moves_statistics = True
    check(mixer)


def test_contract_accepts_several_views_of_each_image():
    class Views(Mixed):
        def loss(self, logits, criterion):
            return criterion(logits[: len(self.y)], self.y).mean()

    check(changing(lambda mixed: Views(torch.cat([mixed.x] * 3), mixed.y))())


def test_contract_gives_everything_back():
    mixer, net = CutMix(), SmallNetwork()
    mixer.generator = torch.Generator().manual_seed(5)
    state, weights = mixer.generator.get_state(), [value.clone() for value in net.state_dict().values()]
    torch.manual_seed(5)
    world = torch.get_rng_state()
    check(mixer, net=net)
    check(mixer)
    assert mixer.training
    assert torch.equal(mixer.generator.get_state(), state)
    assert all(map(torch.equal, net.state_dict().values(), weights))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), world)


def test_contract_draws_batches_as_the_network_wants_them():
    net, seen = SmallNetwork(), set()
    net.mean = torch.zeros(1, 1, 1, 1)  # grey images; dividing by the three deviations makes them colourful again
    net.fc = torch.nn.Linear(16, 4)

    class Spy(Mixer):
        def forward(self, batch, net):
            seen.add((batch.x.shape[1:], batch.y.shape[1]))
            return Mixed(batch.x, batch.y)

    check(Spy(), net=net)
    assert seen == {((1, 32, 32), 4)}
