"""Manifold Mixup against vikasverma1077/manifold_mixup; mixed inside its network, see test_preactresnet.py."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.manifold_mixup import HiddenMixed
from methods.ops import pair, soft_labels
from mixbench.criteria import binary_cross_entropy


class Recorded(nn.Sequential):
    """A network whose first stage puts out what is recorded of one."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Identity()


def mixes(case):
    """Each recorded mix of features: its number and what ours makes of the same draws."""
    features = torch.from_numpy(case["features"])
    y = F.one_hot(torch.from_numpy(case["labels"]), case["logits"].shape[1]).float()
    for number, (perm, lam) in enumerate(zip(case["perm"], case["lam"], strict=True)):
        partners = torch.stack([torch.arange(len(perm)), torch.from_numpy(perm)], dim=1)
        weights = pair(torch.tensor([lam]))
        yield number, HiddenMixed(features, soft_labels(y, partners, weights), "layer1", partners, weights)


@pytest.mark.cases("manifoldmix_features")
def test_manifold_mixup_blends_features_and_labels_as_recorded(case):
    for number, mixed in mixes(case):
        for found, name in ((mixed.logits(Recorded()), "mixed_features"), (mixed.y, "mixed_targets")):
            torch.testing.assert_close(found, torch.from_numpy(case[name][number]), rtol=0, atol=1e-6)


@pytest.mark.cases("manifoldmix_features")
def test_manifold_mixup_has_the_recorded_loss_and_gradient(case):
    for number, mixed in mixes(case):
        logits = torch.from_numpy(case["logits"]).requires_grad_()
        loss = mixed.loss(logits, binary_cross_entropy)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(case["bce_loss"][number], rel=0, abs=1e-6)
        torch.testing.assert_close(gradient, torch.from_numpy(case["grad_logits"][number]), rtol=0, atol=1e-7)
