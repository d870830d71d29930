"""SaliencyMix against OpenCV's saliency and afm-shahab-uddin/SaliencyMix."""

import re

import numpy as np
import pytest
import torch

from methods import Batch
from methods.boxes import box_around, paste, share_outside
from methods.contract import SmallNetwork
from methods.finegrained import bytewise, fine_grained, fine_grained_of_bytes
from methods.saliency import peaks
from methods.saliencymix import SaliencyMix, official_peak


def images(pictures):
    """8-bit pictures, (N, H, W, 3), as images in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255


def named(case, pattern):
    """Each single picture of the file, (H, W, 3), with the number in its name."""
    for name, picture in case.items():
        if match := re.fullmatch(pattern, name):
            yield match[1], picture


def check_boxes(lam, peak, height, width, expected, corrected=None):
    """Boxes of one peak under each lam, (L, 4), and what they leave."""
    boxes = box_around(torch.from_numpy(lam), torch.from_numpy(peak).expand(len(lam), 2), height, width)
    np.testing.assert_array_equal(boxes, expected)
    if corrected is not None:
        np.testing.assert_array_equal(share_outside(boxes, height, width), corrected)


@pytest.mark.cases("saliencymix_uint8_cifar")
def test_maps_and_peaks_are_the_recorded_ones_bit_for_bit(case):
    maps = fine_grained(images(case["images_u8"]))
    np.testing.assert_array_equal(maps, case["saliency_u8"])
    np.testing.assert_array_equal(maps.numpy() * (np.float32(1) / np.float32(255)), case["saliency_f32"])
    np.testing.assert_array_equal(peaks(maps), case["peak_rowcol"])


@pytest.mark.cases("saliencymix_uint8_cifar")
def test_boxes_around_peaks_are_the_recorded_ones(case):
    sides = case["images_u8"].shape[1:3]
    found = peaks(fine_grained(images(case["images_u8"]))).numpy()
    for peak, boxes, corrected in zip(found, case["box"], case["lam_corrected"], strict=True):
        check_boxes(case["lam_drawn"], peak, *sides, boxes, corrected)


@pytest.mark.cases("saliencymix_uint8_cifar")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_mixer_takes_each_image_for_an_8_bit_picture(case, precision):
    x = images(case["images_u8"]).to(precision)
    found = SaliencyMix().peaks(Batch(x, torch.eye(len(x))))
    seen = (x.float() * 255).round() / 255  # bfloat16 has other pictures
    assert torch.equal(found, peaks(fine_grained(seen)))
    if precision == torch.float32:
        np.testing.assert_array_equal(found, case["peak_rowcol"])


@pytest.mark.cases("saliencymix_uint8_large")
def test_large_pictures_have_the_recorded_maps_peaks_and_boxes(case):
    for number, picture in named(case, r"image(\d+)_u8"):
        maps = fine_grained(images(picture[None]))
        np.testing.assert_array_equal(maps[0], case[f"saliency{number}_u8"])
        np.testing.assert_array_equal(peaks(maps)[0], case[f"peak{number}_rowcol"])
        if f"box{number}" in case:
            check_boxes(case["lam_drawn"], peaks(maps)[0].numpy(), *picture.shape[:2], case[f"box{number}"])


@pytest.mark.cases("saliencymix_uint8_edge")
def test_edge_cases_have_the_recorded_maps_and_peaks(case):
    maps = fine_grained(images(case["edge_u8"]))
    np.testing.assert_array_equal(maps, case["edge_saliency_u8"])
    np.testing.assert_array_equal(peaks(maps), case["edge_peak_rowcol"])


@pytest.mark.cases("saliencymix_uint8_edge")
def test_sums_beyond_8_bits_wrap_as_recorded(case):
    for number, picture in named(case, r"wrap(\d+)_u8"):
        maps = fine_grained(images(picture[None]))
        np.testing.assert_array_equal(maps[0], case[f"wrap{number}_saliency_u8"])
        np.testing.assert_array_equal(peaks(maps)[0], case[f"wrap{number}_peak_rowcol"])


@pytest.mark.cases("saliencymix_official_float")
def test_maps_of_the_bytes_of_numbers_are_the_recorded_ones(case):
    blurred = torch.from_numpy(case["gray_blurred_f32_first4"])
    np.testing.assert_array_equal(bytewise(blurred), case["saliency_u8"][: len(blurred)])
    maps = fine_grained_of_bytes(torch.from_numpy(case["x_norm"]))
    np.testing.assert_array_equal(maps, case["saliency_u8"])
    np.testing.assert_array_equal(peaks(maps), case["peak_rowcol"])


@pytest.mark.cases("saliencymix_official_float")
def test_boxes_around_peaks_of_bytes_are_the_recorded_ones(case):
    sides = case["x_norm"].shape[2:]
    for peak, boxes, corrected in zip(case["peak_rowcol"], case["box"], case["lam_corrected"], strict=True):
        check_boxes(case["lam_drawn"], peak, *sides, boxes, corrected)


@pytest.mark.cases("saliencymix_official_float")
def test_a_recorded_step_of_the_published_code_is_repeated_bit_for_bit(case):
    x, perm = torch.from_numpy(case["x_norm"]), torch.from_numpy(case["step_perm"])
    net = SmallNetwork()
    net.mean.zero_()
    net.std.fill_(1)  # the recorded images are normalised
    lam = torch.from_numpy(np.atleast_1d(case["step_lam_drawn"]))
    box = box_around(lam, official_peak(x[perm[:1]], net), *x.shape[2:])
    mixed = paste(x, torch.stack([torch.arange(len(x)), perm], dim=1), box)
    expected = torch.from_numpy(case["step_mixed_first8"])
    np.testing.assert_array_equal(box[0], case["step_box"])
    np.testing.assert_array_equal(share_outside(box, *x.shape[2:])[0], case["step_lam_corrected"])
    assert torch.equal(mixed[: len(expected)], expected)
