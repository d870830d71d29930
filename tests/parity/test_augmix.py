"""AugMix against google-research/augmix."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.augmix import NAMES, Views, divergence, mixture, strengths
from methods.ops import pair
from methods.pictures import apply

CRITERION = partial(F.cross_entropy, reduction="none")
EXACT = ("autocontrast", "equalize", "posterize", "solarize")
MAY_MISS = {"translate": (1, 0.01), "shear": (1, 0.01), "rotate": (2, 0.02)}
"""By how many grey levels, and for which share of values, recorded pictures may be missed; all others: by one level."""


def channels_first(pictures):
    return torch.from_numpy(pictures).movedim(-1, -3).contiguous()


def operations(case):
    """Names, and strengths by the recorded draws; what an operation does not draw is recorded as NaN."""
    names = [str(name) for name in case["op_name"]]
    ops = torch.tensor([NAMES.index(name) for name in names])
    draws = (torch.from_numpy(np.nan_to_num(case[name])) for name in ("level_drawn", "coin"))
    height, width = case["images_u8"].shape[1:3]
    return names, strengths(ops, *draws, height=height, width=width)


@pytest.mark.cases("augmix_ops")
def test_augmix_knows_all_recorded_operations(case):
    assert set(case["op_name"]) == set(NAMES)


@pytest.mark.cases("augmix_ops")
def test_augmix_scales_levels_as_recorded(case):
    signed = ("rotate", "shear", "translate")
    for name, found, base, coin in zip(*operations(case), case["base_param"], case["coin"], strict=True):
        if name == "posterize":
            expected = 4 - base
        elif name == "solarize":
            expected = 256 - base
        elif name.startswith(signed):
            expected = -base if coin > 0.5 else base
        else:
            expected = 0 if np.isnan(base) else base + 0.1
        assert float(found) == expected


@pytest.mark.cases("augmix_ops")
def test_augmix_operates_on_pictures_as_recorded(case):
    names, strength = operations(case)
    found = apply(channels_first(case["images_u8"])[case["image_index"]], names, strength)
    missed = (found.int() - channels_first(case["output_u8"]).int()).abs()
    for name, by in zip(names, missed, strict=True):
        levels, share = MAY_MISS.get(name.partition("_")[0], (0 if name in EXACT else 1, 1.0))
        assert by.max() <= levels, name
        assert (by > 0).float().mean() <= share, name


@pytest.mark.cases("augmix_mix")
def test_augmix_mixes_chains_as_recorded(case):
    x = channels_first(case["images_u8"]).float() / 255
    weights, lam = torch.from_numpy(case["weights"]), pair(1 - torch.from_numpy(case["m"]))
    chains = channels_first(case["chain_outputs_u8"]).flatten(0, 1)
    mixed = mixture(x, chains, weights, lam)
    torch.testing.assert_close((mixed - 0.5) / 0.5, torch.from_numpy(case["mixed"]), rtol=0, atol=1e-6)


@pytest.mark.cases("augmix_jsd")
def test_augmix_has_the_recorded_losses_and_finite_gradients(case):
    for number, labels in enumerate(case["labels"]):
        logits = torch.from_numpy(case["logits"][number]).requires_grad_()
        y = F.one_hot(torch.from_numpy(labels), logits.shape[1]).float()
        loss = Views(torch.empty(0), y, 12.0).loss(logits, CRITERION)
        (gradient,) = torch.autograd.grad(loss, logits)
        apart = divergence(logits.view(3, *y.shape)).item()
        assert loss.item() == pytest.approx(case["total"][number], rel=1e-5)
        assert apart == pytest.approx(case["jsd"][number], rel=1e-5)
        assert gradient.isfinite().all()
        expected = torch.from_numpy(case["grad_logits"][number])
        known = expected.isfinite()
        torch.testing.assert_close(gradient[known], expected[known], rtol=0, atol=1e-6)
