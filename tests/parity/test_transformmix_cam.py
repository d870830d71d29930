"""Class activation maps against an independent implementation of their specification."""

import pytest
import torch

from methods.saliency import full_size, raw_cam


def inputs(case):
    """Feature maps and, for each image, the last layer's weights of its class."""
    return torch.from_numpy(case["features"]), torch.from_numpy(case["class_weight"][case["class_id"]])


@pytest.mark.cases("transformmix_cam_")
def test_cam_sums_features_as_recorded(case):
    raw = raw_cam(*inputs(case))[:, 0]
    torch.testing.assert_close(raw, torch.from_numpy(case["raw"]), rtol=0, atol=1e-6)


@pytest.mark.cases("transformmix_cam_")
def test_cam_is_the_recorded_map(case):
    size = int(case["size"])
    maps = full_size(raw_cam(*inputs(case)), size, size)[:, 0]
    torch.testing.assert_close(maps, torch.from_numpy(case["cam"]), rtol=0, atol=1e-6)
