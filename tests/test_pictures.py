"""Every operation on many pictures at once is Pillow's on one after the other, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from methods.augmix import NAMES, strengths
from methods.pictures import apply, luminance

SIDES = [(32, 32), (33, 17), (8, 8), (2, 5), (1, 1)]
MODES = {"L": 1, "RGB": 3}


def by_pillow(image, name, strength):
    affine = {
        "shear_x": (1, strength, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, strength, 1, 0),
        "translate_x": (1, 0, strength, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, strength),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], resample=Image.Resampling.BILINEAR)
    if name == "rotate":
        return image.rotate(int(strength), resample=Image.Resampling.BILINEAR)
    if name in ("autocontrast", "equalize"):
        return getattr(ImageOps, name)(image)
    if name in ("posterize", "solarize"):
        return getattr(ImageOps, name)(image, int(strength))
    return getattr(ImageEnhance, name.capitalize())(image).enhance(strength)


def made_up(mode, height, width, *, count, seed):
    """Noise, blurred noise of little contrast, pictures of one value, of two, and of the two ends of the range."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        low, *values = rng.integers(200, size=1 + MODES[mode]).tolist()
        noise = Image.fromarray(rng.integers(256, size=(height, width, *[3] * (mode == "RGB")), dtype=np.uint8))
        kinds = [
            noise,
            noise.filter(ImageFilter.BoxBlur(1)),
            Image.new(mode, (width, height), tuple(values)),
            noise.point([low + 7 * (value > 100) for value in range(256)] * MODES[mode]),
            noise.point([255 * (value > 20) for value in range(256)] * MODES[mode]),
        ]
        yield kinds[number % len(kinds)]


def as_tensor(images):
    arrays = np.stack([np.asarray(image).reshape(image.height, image.width, -1) for image in images])
    return torch.from_numpy(arrays).movedim(-1, 1).contiguous()


def drawn(name, size, *, count, seed):
    """Strengths of an operation at drawn levels, the whole range of them."""
    uniform = torch.rand(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return strengths(
        torch.full((count,), NAMES.index(name)), 10 * uniform[0], uniform[1], height=size[0], width=size[1]
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIDES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_operation_is_pillows_bit_for_bit(name, size, mode):
    images = list(made_up(mode, *size, count=60, seed=1))
    strength = drawn(name, size, count=60, seed=2)
    expected = as_tensor([by_pillow(image, name, by) for image, by in zip(images, strength.tolist(), strict=True)])
    assert torch.equal(apply(as_tensor(images), [name] * 60, strength), expected)


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y"])
def test_large_pictures_are_warped_as_pillow_does_too(name):
    images = list(made_up("RGB", 224, 224, count=5, seed=3))
    strength = drawn(name, (224, 224), count=5, seed=4)
    expected = as_tensor([by_pillow(image, name, by) for image, by in zip(images, strength.tolist(), strict=True)])
    assert torch.equal(apply(as_tensor(images), [name] * 5, strength), expected)


def test_each_picture_has_an_operation_and_a_strength_of_its_own():
    images = list(made_up("RGB", 16, 16, count=52, seed=5))
    names = [NAMES[number % len(NAMES)] for number in range(52)]
    strength = torch.cat([drawn(name, (16, 16), count=1, seed=seed) for seed, name in enumerate(names)])
    asked = zip(images, names, strength.tolist(), strict=True)
    assert torch.equal(apply(as_tensor(images), names, strength), as_tensor([by_pillow(*one) for one in asked]))


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_not_written_to(name):
    pictures = as_tensor(list(made_up("RGB", 9, 9, count=5, seed=6)))
    before = pictures.clone()
    apply(pictures, [name] * 5, drawn(name, (9, 9), count=5, seed=7))
    assert torch.equal(pictures, before)


def test_luminance_of_two_channels_is_refused():
    with pytest.raises(ValueError, match="images have 2 channels"):
        luminance(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
