"""Where the time of PuzzleMix goes, part by part and by the number of blocks, at 32 and at 224 pixels.

    python benchmarks/puzzlemix.py [--data DIR] [--rounds N] [--steps N] [--out DIR]

Saliency is given, as it is after some steps of training: on its peaks depends how long labels and moves take. Pictures
of 32 pixels are CIFAR-10's, or without it in DIR made up; those of 224 are cut out of scikit-learn's two photographs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any, cast
from unittest import mock

import torch
from claims import Claim, measured, options, publish
from loop import load
from machine import as_a_worker, heading
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

from methods import Batch, Network
from methods.puzzlemix import PuzzleMix
from methods.saliency import input_gradient
from mixbench import nets
from mixbench.data import DATASETS
from mixbench.data.read import Pictures

BLOCKS = (2, 4, 8, 16)
PARTS = {
    "costs": "methods.blocks.block_costs",
    "cut": "methods.graphcut.swap",
    "exact cut": "methods.graphcut.exact",
    "plan": "methods.puzzlemix.sources",
    "move": "methods.puzzlemix.assemble",
}
"""The function that does each part; all else is draws, means of saliency and labels."""
CIFAR, IMAGENET = (
    "128 of 3 x 32 x 32, the README's options for CIFAR",
    "16 of 3 x 224 x 224, their options for ImageNet",
)
SIZES: Mapping[str, tuple[int, int, Mapping[str, Any]]] = {
    CIFAR: (128, 32, {}),
    "the same, the cheapest labels": (128, 32, {"solver": "exact"}),
    IMAGENET: (16, 224, {"t_size": -1, "neigh_size": 2}),
}
"""Images of a batch, their side, and options, by what the table is called."""
NOTE = "At 16 blocks the cut is bounded by scipy's maximum flow, which takes nearly half of it."


def main() -> None:
    """Measure, and publish tables in Markdown."""
    parser = options(__doc__, rounds=20)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=300, help="of training, before saliency is taken")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures, origin = load(asked.data)
    net = trained(pictures, asked.steps)
    how = f"saliency of a ResNet-8 after {asked.steps} steps on {origin}, given; one thread, CPU time"
    text = [heading("PuzzleMix", f"{how}, mean of {asked.rounds} batches, each with a lam of its own")]
    found: dict[str, Mapping[int, Sequence[Mapping[str, float]]]] = {}
    for name, (count, side, options_) in SIZES.items():
        x = (small(pictures) if side == 32 else large(side))[:count].contiguous(memory_format=torch.channels_last)
        batch = Batch(x, torch.eye(10)[torch.arange(count) % 10])
        found[name] = {blocks: measured_parts(batch, net, blocks, options_, asked.rounds) for blocks in BLOCKS}
        text.append(table(name, found[name]))
    publish("puzzlemix", asked.out, "\n".join([*text, NOTE]), claims(found))


def claims(found: Mapping[str, Mapping[int, Sequence[Mapping[str, float]]]]) -> list[Claim]:
    """A tenth of what the authors' code takes for the same, on a machine like this one."""
    small_ones, large_ones = found[CIFAR], found[IMAGENET]
    images, _, _ = SIZES[IMAGENET]
    mean = [fmean(one["whole"] for one in batches) for batches in zip(*small_ones.values(), strict=True)]
    each = [one["whole"] / images for batches in large_ones.values() for one in batches]
    largest = [one["whole"] for one in small_ones[16]]
    return [
        measured(
            "128 images of 32 pixels, mean over blocks; the authors' code 1,570 ms", mean, 157, "ms", at_most=True
        ),
        measured("the same, 16 blocks; the authors' code 5,541 ms", largest, 400, "ms", at_most=True),
        measured("an image of 224 pixels; the authors' code 112 ms", each, 11, "ms", at_most=True),
    ]


def trained(pictures: Pictures, steps: int) -> Network:
    """A ResNet-8 that has seen so many batches."""
    facts = DATASETS["cifar10"]
    net = nets.build("resnet8", classes=10, channels=3, image_size=32, mean=facts.mean, std=facts.std)
    net.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        chosen = torch.randint(len(pictures.train_y), (128,)).numpy()
        loss = F.cross_entropy(
            net(as_images(pictures.train_x[chosen])), torch.from_numpy(pictures.train_y[chosen]).long()
        )
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    return cast("Network", net)


def as_images(pixels: Any) -> Tensor:
    """Pictures (N, H, W, 3) of bytes as images in [0, 1]."""
    return torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255


def small(pictures: Pictures) -> Tensor:
    """Test images of 32 pixels."""
    return as_images(pictures.test_x[:128])


def large(side: int) -> Tensor:
    """Sixteen pieces of photographs."""
    photographs = [as_images(photograph[None]) for photograph in load_sample_images().images]
    pieces = [photograph.unfold(2, side, 60).unfold(3, side, 120).flatten(2, 3)[0] for photograph in photographs]
    return torch.cat([piece.transpose(0, 1) for piece in pieces])


def measured_parts(
    batch: Batch, net: Network, blocks: int, options: Mapping[str, Any], rounds: int
) -> Sequence[Mapping[str, float]]:
    """CPU milliseconds of each part, and of the whole, for each of so many batches."""
    mixer = PuzzleMix(block_num=(blocks,), **options)
    gradient = input_gradient(net, batch.x, batch.y)
    times: list[dict[str, float]] = []
    with torch.no_grad(), mock.patch("methods.puzzlemix.clean_gradient", return_value=(gradient, None)):
        for seed in range(-1, rounds):
            mixer.generator = torch.Generator().manual_seed(seed % rounds)
            with watched(PARTS) as spent:
                begun = time.process_time()
                mixer(batch, net)
                spent["whole"] = 1000 * (time.process_time() - begun)
            times += [spent] if seed >= 0 else []
    return times


@contextmanager
def watched(parts: Mapping[str, str]) -> Iterator[dict[str, float]]:
    """CPU milliseconds that each part takes within the block, by name; ``parts`` says which function does it."""
    spent = dict.fromkeys(parts, 0.0)

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **named: Any) -> Any:
            begun = time.process_time()
            answer = call(*args, **named)
            spent[part] += 1000 * (time.process_time() - begun)
            return answer

        return called

    with ExitStack() as stack:
        for part, place in parts.items():
            module, _, name = place.rpartition(".")
            call = getattr(__import__(module, fromlist=[name]), name)
            stack.enter_context(mock.patch(place, timed(part, call)))
        yield spent


def table(name: str, found: Mapping[int, Sequence[Mapping[str, float]]]) -> str:
    """Milliseconds a batch, with a row for each number of blocks and one for their mean."""
    rows = {
        str(blocks): {part: fmean(one[part] for one in batches) for part in batches[0]}
        for blocks, batches in found.items()
    }
    rows["mean"] = {part: fmean(of[part] for of in rows.values()) for part in rows[str(BLOCKS[0])]}
    parts = [part for part in PARTS if rows["mean"][part]]
    lines = [f"### {name}\n", f"| blocks, ms | {' | '.join(parts)} | rest | whole |", "|---" * (len(parts) + 3) + "|"]
    for label, of in rows.items():
        rest = of["whole"] - sum(of[part] for part in parts)
        lines.append(
            f"| {label} | {' | '.join(f'{of[part]:.1f}' for part in parts)} | {rest:.1f} | {of['whole']:.1f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    as_a_worker()
    main()
