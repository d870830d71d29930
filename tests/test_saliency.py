import copy

import pytest
import torch
from torch import nn

from methods.contract import SmallNetwork
from methods.saliency import cam, clean_gradient, eval_mode, full_size, input_gradient, magnitude, raw_cam


class Bright(nn.Module):
    """Two feature maps, the image and its negative, each the evidence for one class."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2, bias=False)
        self.fc.weight.data = torch.eye(2)
        self.passes = 0

    def features(self, x):
        self.passes += 1
        return torch.cat([x, 1 - x], dim=1)

    def classify(self, features):
        return self.fc(features.mean((2, 3)))


@pytest.fixture
def x():
    """A dark image with a bright spot, and a bright one with a dark spot, (2, 1, 4, 4)."""
    x = torch.full((2, 1, 4, 4), 0.25)
    x[1] = 0.75
    x[0, :, 1, 1], x[1, :, 2, 2] = 1.0, 0.0
    return x


def test_cam_shows_where_the_class_of_the_label_is(x):
    y = torch.tensor([[0.6, 0.4], [0.0, 1.0]])
    maps = cam(Bright(), x, y)
    expected = torch.zeros(2, 1, 4, 4)
    expected[0, :, 1, 1] = expected[1, :, 2, 2] = 1.0
    torch.testing.assert_close(maps, expected)


def test_cam_without_labels_shows_the_class_that_the_teacher_predicts(x):
    teacher = Bright()
    predicted = torch.eye(2)[teacher.classify(teacher.features(x)).argmax(1)]
    assert predicted.tolist() == [[0, 1], [1, 0]]
    assert torch.equal(cam(teacher, x, None), cam(teacher, x, predicted))
    assert not torch.equal(cam(teacher, x, None), cam(teacher, x, 1 - predicted))


@pytest.mark.parametrize("y", [None, torch.eye(2)], ids=["prediction", "label"])
def test_cam_asks_the_teacher_once(x, y):
    teacher = Bright()
    cam(teacher, x, y)
    assert teacher.passes == 1


def test_cam_has_the_size_of_the_image_and_fills_the_range():
    maps = cam(SmallNetwork().eval(), torch.rand(3, 3, 20, 28), None)
    assert maps.shape == (3, 1, 20, 28)
    assert maps.amin((1, 2, 3)).tolist() == [0, 0, 0]
    torch.testing.assert_close(maps.amax((1, 2, 3)), torch.ones(3))


def test_cam_records_no_gradient():
    assert not cam(SmallNetwork().eval(), torch.rand(2, 3, 8, 8, requires_grad=True), None).requires_grad


def test_cam_leaves_the_modes_of_the_teacher():
    teacher = SmallNetwork()
    teacher.layer1.eval()
    before = [module.training for module in teacher.modules()]
    cam(teacher, torch.rand(2, 3, 8, 8), None)
    assert [module.training for module in teacher.modules()] == before


def test_cam_is_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert cam(SmallNetwork().eval(), torch.rand(2, 3, 8, 8), None).dtype == torch.float32


@pytest.mark.parametrize("side", [1, 3])
def test_cam_of_a_constant_map_is_all_zeros(side):
    features = torch.full((1, 7, side, side), 0.1)
    maps = full_size(raw_cam(features, torch.tensor([[0.3, 0.7, 0.1, -0.9, 0.77, 0.123, 1.3]])), 32, 32)
    assert torch.equal(maps, torch.zeros(1, 1, 32, 32))


def test_cam_of_a_faint_map_still_fills_the_range():
    features = torch.full((1, 1, 2, 2), 1e-8)
    features[0, 0, 0, 0] = 2e-8
    maps = full_size(raw_cam(features, torch.ones(1, 1)), 2, 2)
    torch.testing.assert_close(maps[0, 0], torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_input_gradient_is_that_of_the_normalised_images():
    net, x, y = SmallNetwork(), torch.rand(4, 3, 8, 8), torch.eye(10)[:4]
    plain, normalised = copy.deepcopy(net).eval(), ((x - net.mean) / net.std).requires_grad_()
    plain.mean.zero_()
    plain.std.fill_(1)
    (expected,) = torch.autograd.grad(nn.functional.cross_entropy(plain(normalised), y), normalised)
    with torch.no_grad():
        torch.testing.assert_close(input_gradient(net, x, y), expected, rtol=1e-4, atol=1e-7)


def test_gradient_of_clean_images_is_that_of_the_normalised_ones_and_of_the_weighted_loss():
    net, x, y = SmallNetwork(), torch.rand(4, 3, 8, 8), torch.eye(10)[:4]
    net.std.copy_(torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
    plain, normalised = copy.deepcopy(net).train(), ((x - net.mean) / net.std).requires_grad_()
    plain.mean.zero_()
    plain.std.fill_(1)
    loss = 2 * 0.5 / 10 * nn.functional.cross_entropy(plain(normalised), y)
    (expected,) = torch.autograd.grad(loss, normalised)
    gradient, clean = clean_gradient(net.train(), x, y, 0.5)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(clean, loss)


def test_what_is_learned_from_clean_images_is_what_their_loss_teaches():
    net, x, y = SmallNetwork(), torch.rand(4, 3, 8, 8), torch.eye(10)[:4]
    plain = copy.deepcopy(net)
    expected = torch.autograd.grad(2 * 0.5 / 10 * nn.functional.cross_entropy(plain(x), y), list(plain.parameters()))
    _, clean = clean_gradient(net, x, y, 0.5)
    found = torch.autograd.grad(3 * clean + net.fc.bias.sum(), list(net.parameters()))
    for name, one, other in zip(dict(net.named_parameters()), found, expected, strict=True):
        torch.testing.assert_close(one, 3 * other + (name == "fc.bias"), msg=name)


def test_a_network_may_have_weights_that_it_does_not_use():
    net = SmallNetwork()
    net.other = nn.Linear(2, 2)
    _, clean = clean_gradient(net, torch.rand(2, 3, 8, 8), torch.eye(10)[:2], 1.0)
    clean.backward()
    assert net.other.weight.grad is None
    assert net.fc.weight.grad.abs().sum() > 0


def test_input_gradient_computes_none_of_weights():
    net, seen = SmallNetwork(), []
    for weight in net.parameters():
        weight.register_hook(seen.append)
    gradient = input_gradient(net, torch.rand(2, 3, 8, 8), torch.eye(10)[:2])
    assert gradient.abs().max() > 0
    assert not gradient.requires_grad
    assert not seen


def test_eval_mode_is_that_of_every_part():
    net = SmallNetwork()
    with eval_mode(net):
        assert not any(module.training for module in net.modules())


def test_eval_mode_gives_each_part_its_own_mode_back_also_after_an_error():
    net = SmallNetwork()
    net.layer1.eval()
    before = [module.training for module in net.modules()]
    with pytest.raises(RuntimeError), eval_mode(net):
        net(torch.empty(0))
    assert [module.training for module in net.modules()] == before


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_magnitude_is_the_root_of_the_mean_square_however_small_or_large(scale):
    gradient = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    expected = gradient.square().mean(1).sqrt().float()
    torch.testing.assert_close(magnitude(gradient.float()), expected, rtol=1e-5, atol=0)
    assert torch.equal(magnitude(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 4, 4))
