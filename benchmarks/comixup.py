"""Where the time of Co-Mixup goes, part by part and by the number of blocks, at 32 pixels.

    python benchmarks/comixup.py [--data DIR] [--rounds N] [--steps N] [--out DIR]

Saliency is given, as it is after some steps of training.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from unittest import mock

import torch
from claims import measured, options, publish
from loop import load
from machine import as_a_worker, heading
from puzzlemix import small, trained, watched
from torch import Tensor

from methods import Batch, Network
from methods.comixup import CoMixup
from methods.saliency import input_gradient

BLOCKS = (2, 4, 8)
PUBLISHED = 4
NOTE = """The authors' code takes 260, 385 and 450 ms for these on a machine like this one. Labels are found by a loop
that numba compiles when it is first called (some seconds, kept for later processes)."""
IMAGES = 100
PARTS = {
    "peaks": "methods.comixup.peak_positions",
    "labels": "methods.potts.swap",
    "assembly": "methods.comixup.assemble",
}
"""The function that does each part; the rest is mostly what stands around labels in the sweeps."""


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=20)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, default=300, help="of training, before saliency is taken")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures, origin = load(asked.data)
    net = trained(pictures, asked.steps)
    x = small(pictures)[:IMAGES].contiguous(memory_format=torch.channels_last)
    batch = Batch(x, torch.eye(10)[torch.arange(IMAGES) % 10])
    gradient = input_gradient(net, batch.x, batch.y)
    how = f"{IMAGES} of 3 x 32 x 32, saliency of a ResNet-8 after {asked.steps} steps on {origin}, given; one thread"
    spent = {blocks: measured_parts(batch, net, gradient, blocks, asked.rounds) for blocks in BLOCKS}
    lines = [heading("Co-Mixup", f"{how}, CPU time, mean of {asked.rounds} batches")]
    lines += ["| blocks, ms | peaks | labels | assembly | rest | whole |", "|---" * 6 + "|"]
    for blocks, times in spent.items():
        mean = {part: fmean(one[part] for one in times) for part in times[0]}
        rest = mean["whole"] - sum(mean[part] for part in PARTS)
        cells = [*(mean[part] for part in PARTS), rest, mean["whole"]]
        lines.append(f"| {blocks} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    lines += ["", NOTE]
    whole = [one["whole"] for one in spent[PUBLISHED]]
    claim = measured(f"Co-Mixup of {IMAGES} images, {PUBLISHED} blocks", whole, 128, "ms", at_most=True)
    publish("comixup", asked.out, "\n".join(lines), [claim])


def measured_parts(
    batch: Batch, net: Network, gradient: Tensor, blocks: int, rounds: int
) -> Sequence[Mapping[str, float]]:
    """CPU milliseconds of each part, and of the whole, for each of so many batches."""
    mixer = CoMixup(m_block_num=(blocks,))
    times: list[dict[str, float]] = []
    with torch.no_grad(), mock.patch("methods.comixup.clean_gradient", return_value=(gradient, None)):
        for seed in range(-1, rounds):
            mixer.generator = torch.Generator().manual_seed(seed % rounds)
            with watched(PARTS) as spent:
                begun = time.process_time()
                mixer(batch, net)
                spent["whole"] = 1000 * (time.process_time() - begun)
            times += [spent] if seed >= 0 else []
    return times


if __name__ == "__main__":
    as_a_worker()
    main()
