"""PreActResNet, in small, against vikasverma1077/manifold_mixup, whose network is PuzzleMix's too."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods import Mixed
from methods.manifold_mixup import HiddenMixed
from methods.ops import blend, pair, soft_labels
from mixbench.criteria import binary_cross_entropy
from mixbench.nets.base import Problem
from mixbench.nets.preactresnet import PreActResNet


def filled(name, shape, number):
    """Weights in closed form, exact integers but for the last step, as the recorded case says."""
    count = int(np.prod(shape))
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + number * 2246822519 + 374761393) % 2**32
    for _ in range(2):
        h = (h ^ (h >> np.uint64(16))) * np.uint64(73244475) % 2**32
    u = ((h ^ (h >> np.uint64(16))) / 2**32).reshape(shape)
    if len(shape) >= 2:
        u = 2.4 * (u - 0.5) * np.sqrt(3 / (count / shape[0]))
    elif name.endswith(("running_mean", "bias")):
        u = 0.2 * (u - 0.5)
    else:
        u = 0.5 + u
    return torch.from_numpy(u).float()


def recorded(case):
    """Our network, in training, with the recorded weights."""
    problem = Problem(classes=10, channels=3, image_size=32, mean=(0.0,), std=(1.0,), precision="float32")
    net = PreActResNet(problem, widths=(4, 8, 16, 32), blocks=1)
    renamed = [name.replace("linear", "fc").replace("shortcut.0", "shortcut") for name in case["param_names"]]
    ours = net.state_dict()
    state = {name: filled(name, ours[name].shape, number) for number, name in enumerate(renamed)}
    counters = {name: value for name, value in ours.items() if name.endswith("num_batches_tracked")}
    net.load_state_dict(state | counters)
    return net


def mixes(case):
    """Each recorded mix of the input, which is layer 0, or of what a stage puts out; with its number."""
    x, labels = torch.from_numpy(case["x_norm"]), F.one_hot(torch.from_numpy(case["labels"]), 10).float()
    for number, (layer, perm) in enumerate(zip(case["layer"], case["perm"], strict=True)):
        partners = torch.stack([torch.arange(len(perm)), torch.from_numpy(perm)], dim=1)
        lam = pair(torch.from_numpy(case["lam"][number : number + 1]))
        y = soft_labels(labels, partners, lam)
        mixed = HiddenMixed(x, y, f"layer{layer}", partners, lam) if layer else Mixed(blend(x, partners, lam), y)
        yield number, mixed


@pytest.mark.cases("manifoldmix_network")
def test_preactresnet_answers_learns_and_is_mixed_inside_as_recorded(case):
    for number, mixed in mixes(case):
        net = recorded(case)
        logits = mixed.logits(net)
        loss = mixed.loss(logits, binary_cross_entropy)
        (gradient,) = torch.autograd.grad(loss, net.conv1.weight)
        for found, name in ((logits, "logits_trainmode"), (gradient, "grad_first_conv")):
            expected = torch.from_numpy(case[name][number])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        torch.testing.assert_close(mixed.y, torch.from_numpy(case["targets"][number]), rtol=0, atol=1e-6)
        assert loss.item() == pytest.approx(case["bce_loss"][number], rel=0, abs=1e-5)
