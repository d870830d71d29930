"""CutMix against clovaai/CutMix-PyTorch."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods import Mixed
from methods.boxes import box_around, paste, share_outside
from methods.ops import pair, soft_labels

CRITERION = partial(F.cross_entropy, reduction="none")


def draws(case):
    """Each recorded draw of the file: its number, (N, 2) partners, and our (1, 4) box for its lam and centre."""
    height, width = case["x_norm"].shape[2:]
    for number, (perm, lam, centre) in enumerate(zip(case["perm"], case["lam_drawn"], case["centre"], strict=True)):
        partners = torch.stack([torch.arange(len(perm)), torch.from_numpy(perm)], dim=1)
        box = box_around(torch.tensor([lam]), torch.from_numpy(centre)[None], height, width)
        yield number, partners, box


def sizes(case):
    """Each size of image in the file, with the rows of the arrays that have it."""
    both = np.stack([case["height"], case["width"]], axis=1)
    for height, width in np.unique(both, axis=0):
        yield int(height), int(width), (both == [height, width]).all(1)


def boxes(case, height, width, rows):
    centres = np.stack([case["centre_dim2"], case["centre_dim3"]], axis=1)[rows]
    return box_around(torch.from_numpy(case["lam_drawn"][rows]), torch.from_numpy(centres), height, width)


@pytest.mark.cases("cutmix_boxes")
def test_cutmix_cuts_the_recorded_boxes(case):
    for height, width, rows in sizes(case):
        expected = case["box_d2lo_d3lo_d2hi_d3hi"][rows]
        np.testing.assert_array_equal(boxes(case, height, width, rows), expected)


@pytest.mark.cases("cutmix_boxes")
def test_cutmix_corrects_lam_as_recorded(case):
    for height, width, rows in sizes(case):
        share = share_outside(boxes(case, height, width, rows), height, width)
        np.testing.assert_allclose(share, case["lam_corrected"][rows], rtol=0, atol=1e-12)


@pytest.mark.cases("cutmix_batch")
def test_cutmix_pastes_the_recorded_images_bit_for_bit(case):
    x = torch.from_numpy(case["x_norm"])
    for number, partners, box in draws(case):
        expected = torch.from_numpy(case["mixed_first6"][number])
        assert box[0].tolist() == case["box"][number].tolist()
        assert torch.equal(paste(x, partners, box)[: len(expected)], expected)


@pytest.mark.cases("cutmix_batch")
def test_cutmix_pastes_a_box_per_image_bit_for_bit(case):
    x = torch.from_numpy(case["x_norm"])
    for number, partners, box in draws(case):
        expected = torch.from_numpy(case["mixed_first6"][number])
        assert torch.equal(paste(x, partners, box.expand(len(x), 4))[: len(expected)], expected)


@pytest.mark.cases("cutmix_batch")
def test_cutmix_has_the_recorded_loss_and_gradient(case):
    y = F.one_hot(torch.from_numpy(case["labels"]), case["logits"].shape[1]).float()
    for number, partners, box in draws(case):
        share = share_outside(box, *case["x_norm"].shape[2:])
        logits = torch.from_numpy(case["logits"]).requires_grad_()
        loss = Mixed(torch.empty(0), soft_labels(y, partners, pair(share))).loss(logits, CRITERION)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert float(share) == pytest.approx(case["lam_corrected"][number], rel=0, abs=1e-12)
        assert loss.item() == pytest.approx(case["loss"][number], rel=0, abs=1e-6)
        torch.testing.assert_close(gradient, torch.from_numpy(case["grad_logits"][number]), rtol=0, atol=1e-7)
