"""Fine-grained saliency is OpenCV's, where that is installed, and what its definition says."""

import numpy as np
import pytest
import torch

from methods import finegrained
from methods.finegrained import RADII, fine_grained, fine_grained_of_bytes
from methods.saliency import peaks

SHAPES = [(32, 32), (224, 224), (160, 200), (300, 45), (64, 64), (9, 14), (13, 1)]


def pictures(height, width, count=6, seed=0):
    """8-bit pictures, (count, H, W, 3): noise, blobs from small to large, one that is constant, and a single dot."""
    noise = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))
    for number in range(1, count - 2):
        coarse = noise[number : number + 1, :, :: 2**number, :: 2**number]
        noise[number] = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
    noise[-2] = 0.4
    noise[-1] = 0
    noise[-1, :, height // 3, width // 2] = 1
    return (noise * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def images(pictures):
    return pictures.permute(0, 3, 1, 2) / 255


@pytest.fixture
def opencv():
    """OpenCV's map of one picture, (H, W, 3) of bytes or of float32 numbers: (H, W) uint8."""
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "saliency"):
        pytest.skip("this OpenCV has no saliency: it is in opencv-contrib-python")
    routine = cv2.saliency.StaticSaliencyFineGrained_create()

    def computed(picture):
        found, values = routine.computeSaliency(picture)
        assert found
        return np.floor(255 * values).astype(np.uint8)

    return computed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_are_those_of_opencv_bit_for_bit(shape, opencv):
    some = pictures(*shape)
    for ours, picture in zip(fine_grained(images(some)), some.numpy(), strict=True):
        np.testing.assert_array_equal(ours, opencv(picture))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_of_grey_pictures_are_those_of_opencv_bit_for_bit(shape, opencv):
    some = pictures(*shape)[..., :1].contiguous()
    for ours, picture in zip(fine_grained(images(some)), some.numpy(), strict=True):
        np.testing.assert_array_equal(ours, opencv(picture[..., 0]))


@pytest.mark.parametrize("shape", [(32, 32), (224, 224), (160, 200)], ids=str)
def test_maps_of_numbers_are_those_of_opencv_bit_for_bit(shape, opencv):
    numbers = (images(pictures(*shape)) - 0.45) / 0.25
    for ours, picture in zip(fine_grained_of_bytes(numbers), numbers.permute(0, 2, 3, 1), strict=True):
        np.testing.assert_array_equal(ours, opencv(picture.numpy()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 5])
def test_the_map_of_an_image_depends_on_nothing_but_its_pixels(count, layout):
    x = images(pictures(32, 32))
    others = x[:count].contiguous(memory_format=layout)
    assert torch.equal(fine_grained(others), fine_grained(x)[:count])


def test_images_are_seen_as_8_bit_pictures():
    x = images(pictures(32, 32))
    assert torch.equal(fine_grained(x + 0.4 / 255), fine_grained(x))


def test_a_constant_picture_has_a_map_of_zeros_and_its_peak_in_the_first_pixel():
    maps = fine_grained(torch.full((1, 3, 32, 32), 0.4))
    assert not maps.any()
    assert peaks(maps).tolist() == [[0, 0]]


def test_red_weighs_what_blue_should():
    red, green, blue = torch.eye(3)[:, :, None, None].expand(-1, -1, 40, 40) * torch.linspace(0, 1, 40)
    grey = [int(finegrained._grey(image[None])[0, 0, -1]) for image in (red, green, blue)]
    assert grey == [29, 150, 76]


def test_the_largest_value_of_every_map_is_at_least_255_before_it_wraps():
    maps = fine_grained(images(pictures(64, 64)[:4]))
    assert maps.flatten(1).amax(1).tolist() == [255] * 4


@pytest.mark.parametrize(
    ("height", "width", "distinct"), [(12, 12, 1), (13, 13, 2), (32, 32, 4), (224, 224, 6), (20, 60, 6)]
)
def test_radii_that_cover_the_picture_are_computed_once_and_counted(height, width, distinct):
    radii = finegrained._distinct_radii(height, width)
    assert len(radii) == distinct
    assert sum(radii.values()) == len(RADII)


def test_peaks_are_the_first_of_the_largest_values():
    maps = torch.zeros(2, 4, 5, dtype=torch.uint8)
    maps[0, 1, 4] = maps[0, 2, 0] = 7
    maps[1, 3, 3] = 255
    assert peaks(maps).tolist() == [[1, 4], [3, 3]]


@pytest.mark.parametrize("computed", [fine_grained, fine_grained_of_bytes])
def test_images_of_other_channels_are_refused(computed):
    with pytest.raises(ValueError, match="images have 4 channels: fine-grained saliency is of"):
        computed(torch.rand(2, 4, 32, 32))
