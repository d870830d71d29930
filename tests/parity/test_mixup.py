"""Mixup against facebookresearch/mixup-cifar10."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from methods import Mixed
from methods.ops import blend, draw_lam, pair, soft_labels

CRITERION = partial(F.cross_entropy, reduction="none")


def draws(case):
    """Each recorded draw of the file: its number, (N, 2) partners and (1, 2) lam."""
    for number, (perm, lam) in enumerate(zip(case["perm"], case["lam"], strict=True)):
        partners = torch.stack([torch.arange(len(perm)), torch.from_numpy(perm)], dim=1)
        yield number, partners, pair(torch.tensor([lam]))


def labels(case):
    return F.one_hot(torch.from_numpy(case["labels"]), case["logits"].shape[1]).float()


@pytest.mark.cases("mixup_")
def test_mixup_blends_images_as_recorded(case):
    x = torch.from_numpy(case["x_norm"])
    for number, partners, lam in draws(case):
        expected = torch.from_numpy(case["mixed_first8"][number])
        mixed = blend(x, partners, lam)[: len(expected)]
        torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-6)


@pytest.mark.cases("mixup_")
def test_mixup_has_the_recorded_loss_and_gradient(case):
    for number, partners, lam in draws(case):
        logits = torch.from_numpy(case["logits"]).requires_grad_()
        loss = Mixed(torch.empty(0), soft_labels(labels(case), partners, lam)).loss(logits, CRITERION)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(case["loss"][number], rel=0, abs=1e-6)
        torch.testing.assert_close(gradient, torch.from_numpy(case["grad_logits"][number]), rtol=0, atol=1e-7)


@pytest.mark.cases("mixup_")
def test_mixup_counts_correct_answers_as_recorded(case):
    answers = torch.from_numpy(case["logits"]).argmax(1, keepdim=True)
    for number, partners, lam in draws(case):
        correct = soft_labels(labels(case), partners, lam).gather(1, answers).sum()
        assert float(correct) == pytest.approx(case["soft_correct"][number], rel=0, abs=1e-5)


@pytest.mark.cases("mixup_")
def test_mixup_draws_lam_1_where_the_recorded_alpha_says_no_mixing(case):
    for alpha, lam in zip(case["alpha"], case["lam"], strict=True):
        if alpha <= 0:
            assert draw_lam(1, 2, alpha, None)[0, 0] == lam == 1
