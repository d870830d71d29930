"""Random resized crops of a batch, held against torchvision's, one image at a time."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from mixbench.data import crops


def drawn(count, *, seed=0):
    return torch.rand(count, crops.DRAWS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def smooth(count, height, width):
    """(N, 3, H, W) images of 8 bits with slopes, edges and no noise, as photographs are."""
    down, right = torch.meshgrid(torch.linspace(0, 9, height), torch.linspace(0, 9, width), indexing="ij")
    turns = torch.arange(3 * count).view(count, 3, 1, 1)
    waves = torch.sin(down + turns) * torch.cos(0.7 * right + 0.3 * turns) + (right > 4 + 0.1 * turns) * 0.7
    return (waves.add(1).div(2.7) * 255).round() / 255


def torchvisions(x, box, mirrored, interpolation, *, as_picture):
    """One crop as torchvision makes it, as numbers of 0 to 255."""
    image = v2.functional.to_pil_image(x) if as_picture else x
    crop = v2.functional.resized_crop(image, *box.tolist(), list(x.shape[1:]), v2.InterpolationMode(interpolation))
    crop = torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() if as_picture else crop.mul(255).clamp(0, 255)
    return crop.flip(2) if mirrored else crop


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 56)])
def test_crop_is_torchvisions_of_a_picture_but_for_a_rounding(interpolation, height, width):
    x, draws = smooth(60, height, width), drawn(60)
    boxes, mirrored = crops.boxes(draws, height, width), crops.mirrored(draws)
    found = crops.resized(x, boxes, mirrored, interpolation=interpolation) * 255
    told = torch.stack(
        [
            torchvisions(image, box, mirror, interpolation, as_picture=True)
            for image, box, mirror in zip(x, boxes, mirrored, strict=True)
        ]
    )
    assert (found - told).abs().max() < 2.5
    assert ((found - told).abs() > 0.5).float().mean() < 0.05


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_crop_is_torchvisions_of_antialiased_tensors_but_for_two_roundings(interpolation):
    x, draws = smooth(60, 64, 64), drawn(60)
    boxes, mirrored = crops.boxes(draws, 64, 64), crops.mirrored(draws)
    found = crops.resized(x, boxes, mirrored, interpolation=interpolation) * 255
    for image, box, mirror, crop in zip(x, boxes, mirrored, found, strict=True):
        told = torchvisions(image, box, mirror, interpolation, as_picture=False)
        inside = (told > 8) & (told < 247)  # where nothing is cut off at black or white between the two passes
        assert ((told - crop).abs() * inside).max() < 2


def test_box_of_the_whole_image_leaves_it_as_it_is():
    x = smooth(3, 20, 30)
    whole = torch.tensor([[0, 0, 20, 30]]).expand(3, 4)
    for interpolation in ("bicubic", "bilinear"):
        assert torch.allclose(crops.resized(x, whole, torch.zeros(3).bool(), interpolation=interpolation), x)
        mirrored = crops.resized(x, whole, torch.ones(3).bool(), interpolation=interpolation)
        assert torch.allclose(mirrored, x.flip(3))


def test_what_is_outside_a_box_has_no_influence():
    x, box = smooth(1, 30, 30), torch.tensor([[5, 7, 11, 13]])
    painted = torch.ones_like(x)
    painted[:, :, 5:16, 7:20] = x[:, :, 5:16, 7:20]
    one, other = (crops.resized(y, box, torch.zeros(1).bool(), interpolation="bicubic") for y in (x, painted))
    assert torch.equal(one, other)


def test_crop_has_8_bits_and_no_more():
    draws = drawn(20)
    noise = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1)).round()  # the cubic overshoots
    found = crops.resized(noise, crops.boxes(draws, 32, 32), crops.mirrored(draws), interpolation="bicubic")
    assert torch.equal(found, (found * 255).round().clamp(0, 255) / 255)
    assert found.min() == 0
    assert found.max() == 1


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 75), (8, 8), (1, 1), (3, 90)])
def test_boxes_lie_in_the_image(height, width):
    top, left, high, wide = crops.boxes(drawn(3000), height, width).unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert min(high.min(), wide.min()) >= 1
    assert (top + high).max() <= height
    assert (left + wide).max() <= width


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 90)])
def test_boxes_have_torchvisions_distribution(height, width):
    count = 4000
    found = crops.boxes(drawn(count), height, width).double()
    transform, image = v2.RandomResizedCrop(8), torch.zeros(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn_there = [transform.make_params([image]) for _ in range(count)]
    told = torch.tensor([[box[name] for name in ("top", "left", "height", "width")] for box in drawn_there]).double()
    for one, other in ((found, told), (found**2, told**2), (found.prod(1, keepdim=True), told.prod(1, keepdim=True))):
        error = ((one.var(0) + other.var(0)) / count).sqrt()
        assert ((one.mean(0) - other.mean(0)).abs() < 4 * error).all()


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10)])
def test_box_of_an_image_too_oblong_for_any_is_torchvisions_middle(height, width):
    box = v2.RandomResizedCrop(8, ratio=crops.RATIO).make_params([torch.zeros(1, height, width)])
    told = [box[name] for name in ("top", "left", "height", "width")]
    assert crops.boxes(drawn(50), height, width).tolist() == [told] * 50


def test_every_second_crop_is_mirrored():
    assert abs(crops.mirrored(drawn(4000)).double().mean() - 0.5) < 4 * 0.5 / 4000**0.5
