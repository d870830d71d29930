"""What AugMix costs: batches at once beside Pillow's operations on one picture after the other, at 32 and 224 pixels.

    python benchmarks/augmix.py [--data DIR] [--rounds N] [--out DIR]

One by one is what the authors' data set does for an image in a process, with the same draws in number and range, then
torchvision's v2.AugMix, twice as it makes one mixture. Pictures of 32 pixels are CIFAR-10's, or without it in DIR made
up; those of 224 are cut out of scikit-learn's two photographs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from claims import Claim, by_turns, faster, options, publish
from loop import load
from machine import as_a_worker, heading
from PIL import Image, ImageOps
from puzzlemix import large, small
from torch import Tensor
from torchvision.transforms import v2

from methods import Batch
from methods.augmix import COMMON, NAMES, AugMix, strengths

CIFAR = "128 of 3 x 32 x 32"
SIZES = {CIFAR: (128, 32), "16 of 3 x 224 x 224": (16, 224)}
WIDTH, MIXTURES = 3, 2


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=10)
    parser.add_argument("--data", type=Path, default=Path("data"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures, origin = load(asked.data)
    lines = [heading("AugMix", f"{origin}; one thread, CPU time, median of {asked.rounds} batches, interleaved")]
    lines += ["| ms a batch | ours | one by one | torchvision v2 |", "|---" * 4 + "|"]
    found: dict[str, Mapping[str, Sequence[float]]] = {}
    for name, (count, side) in SIZES.items():
        x = (small(pictures) if side == 32 else large(side))[:count].contiguous(memory_format=torch.channels_last)
        images = [Image.fromarray(image) for image in (255 * x).round().byte().permute(0, 2, 3, 1).numpy()]
        found[name] = by_turns(ways(x, images), asked.rounds)
        lines.append(f"| {name} | {' | '.join(f'{statistics.median(each):.0f}' for each in found[name].values())} |")
    publish("augmix", asked.out, "\n".join([*lines, ""]), [claim(found[CIFAR])])


def claim(of: Mapping[str, Sequence[float]]) -> Claim:
    """A quarter of the time."""
    return faster(f"{CIFAR}, beside one by one", of["ours"], of["one by one"], 4)


def ways(x: Tensor, images: list[Image.Image]) -> Mapping[str, Callable[[], object]]:
    """Each way to make the views of a batch, by name."""
    mixer, batch = AugMix(), Batch(x, torch.eye(10)[torch.arange(len(x)) % 10])
    theirs = v2.AugMix(severity=3, all_ops=False)
    tensors = [(255 * image).round().byte() for image in x]
    return {
        "ours": lambda: mixer(batch, None),
        "one by one": lambda: torch.stack([view for image in images for view in views(image)]),
        "torchvision": lambda: torch.stack([theirs(image) for image in tensors for _ in range(MIXTURES)]),
    }


def views(image: Image.Image) -> list[Tensor]:
    """A picture and its mixtures, one operation after the other."""
    clean = as_tensor(image)
    mixtures = []
    for _ in range(MIXTURES):
        weights, share = np.random.dirichlet([1.0] * WIDTH), np.random.beta(1.0, 1.0)  # noqa: NPY002
        chains = sum(float(weight) * as_tensor(chain(image)) for weight in weights)
        mixtures.append((1 - share) * clean + share * chains)
    return [clean, *mixtures]


def chain(image: Image.Image) -> Image.Image:
    """A picture after one to three operations."""
    ops, uniform = torch.randint(COMMON, (int(torch.randint(1, 4, ())),)), torch.rand(2, 3, dtype=torch.float64)
    levels, coins = 0.1 + 2.9 * uniform[0, : len(ops)], uniform[1, : len(ops)]
    by = strengths(ops, levels, coins, height=image.height, width=image.width)
    for op, strength in zip(ops.tolist(), by.tolist(), strict=True):
        image = operated(image, NAMES[op], strength)
    return image


def operated(image: Image.Image, name: str, strength: float) -> Image.Image:
    """A picture after one of the authors' nine operations."""
    affine = {
        "shear_x": (1, strength, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, strength, 1, 0),
        "translate_x": (1, 0, strength, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, strength),
    }
    if name in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[name], resample=Image.Resampling.BILINEAR)
    if name == "rotate":
        return image.rotate(strength, resample=Image.Resampling.BILINEAR)
    if name in ("posterize", "solarize"):
        return getattr(ImageOps, name)(image, int(strength))
    return getattr(ImageOps, name)(image)


def as_tensor(image: Image.Image) -> Tensor:
    """(C, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


if __name__ == "__main__":
    as_a_worker()
    main()
