"""Where the time of TransformMix goes, part by part, and what half precision and kept maps save.

    python benchmarks/transformmix.py [--model resnet18] [--rounds N]

The teacher has its first, random weights: what it answers does not change what it costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch
from machine import as_a_worker, heading

from methods import Batch, Network
from methods.policy import MixingModule
from methods.saliency import cam, full_size, look
from methods.transformmix import TransformMix
from methods.views import ViewCache
from methods.warps import warp
from mixbench import nets
from mixbench.data import DATASETS

BATCH = 128
FORMS = {
    "float32, NCHW": (torch.float32, torch.contiguous_format),
    "float32, channels_last": (torch.float32, torch.channels_last),
    "bfloat16, channels_last": (torch.bfloat16, torch.channels_last),
}
PLAIN, HALF = "float32, NCHW", "bfloat16, channels_last"
WHOLE, KEPT, PASS = "whole", "whole, map kept", "teacher's pass"


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet18", help="the teacher")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.rand(BATCH, 3, 32, 32), torch.eye(10)[torch.randint(10, (BATCH,))]
    teachers = {name: teacher(asked.model, *form) for name, form in FORMS.items()}
    calls = {name: parts(net, Batch(x, y), *FORMS[name]) for name, net in teachers.items()}
    found = measured(calls, asked.rounds)
    how = f"teacher {asked.model}, batch {BATCH} of 3 x 32 x 32, one thread, CPU time, median of {asked.rounds} rounds"
    print(heading("TransformMix", how))
    print(table(found))
    print(ratios(found))
    maps = {name: cam(net, x, y) for name, net in teachers.items()}
    apart = (maps[PLAIN] - maps[HALF]).abs()
    print(f"- CAM in bfloat16 beside float32: {apart.mean():.4f} apart in the mean, {apart.max():.3f} at most")


def teacher(model: str, precision: torch.dtype, layout: torch.memory_format) -> Network:
    """A frozen network for CIFAR-10, the same in every form."""
    torch.manual_seed(0)
    facts = DATASETS["cifar10"]
    name = str(precision).removeprefix("torch.")
    net = nets.build(model, classes=10, channels=3, image_size=32, mean=facts.mean, std=facts.std, precision=name)
    return cast("Network", net.eval().to(memory_format=layout))


def parts(
    net: Network, batch: Batch, precision: torch.dtype, layout: torch.memory_format
) -> Mapping[str, Callable[[], object]]:
    """The calls to time, by name."""
    batch = Batch(batch.x.contiguous(memory_format=layout), batch.y, torch.arange(BATCH))
    mixer, keeping = (TransformMix(net, None, 32).requires_grad_(requires_grad=False) for _ in range(2))
    mixer.precision = keeping.precision = precision
    keeping.views = ViewCache(BATCH)
    keeping(batch, net)
    module: MixingModule = mixer.policy
    draws, _ = mixer.draw(batch.x)
    maps = mixer.maps(batch)
    beside = maps[:, 0][draws.partners]
    images = [batch.x - net.mean, (batch.x - net.mean)[draws.partners[:, 1]]]
    theta = module.warp.locate(beside, draws.lam, draws.z, precision)
    mixed = module.parts(batch.x, maps, draws, fill=net.mean, precision=precision)
    return {
        PASS: partial(look, net, batch.x, batch.y),
        "map to full size": partial(full_size, torch.rand(BATCH, 1, 4, 4), 32, 32),
        "f_s": partial(module.warp.locate, beside, draws.lam, draws.z, precision),
        "warp": partial(warp, images, beside, theta),
        "f_m": partial(module.mask, mixed.maps, draws.lam, precision),
        "blend": partial(mixed.mixed, net.mean),
        WHOLE: partial(mixer, batch, net),
        KEPT: partial(keeping, batch, net),
    }


def measured(calls: Mapping[str, Mapping[str, Callable[[], object]]], rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU milliseconds of each call, by form and part; all are called once in every round."""
    times: dict[str, dict[str, list[float]]] = {form: {part: [] for part in of} for form, of in calls.items()}
    with torch.no_grad():
        for number in range(rounds + 1):
            for form, of in calls.items():
                for part, call in of.items():
                    begun = time.process_time()
                    call()
                    times[form][part] += [1000 * (time.process_time() - begun)] if number else []
    return {form: {part: statistics.median(each) for part, each in of.items()} for form, of in times.items()}


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Milliseconds, with a row for each part and a column for each form."""
    lines = [f"| part, ms | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {part} | {' | '.join(f'{of[part]:.1f}' for of in found.values())} |" for part in found[PLAIN]]
    return "\n".join(lines) + "\n"


def ratios(found: Mapping[str, Mapping[str, float]]) -> str:
    """What the figures come to."""
    rest = ", ".join(f"{100 * (of[WHOLE] - of[PASS]) / of[PASS]:.0f} % in {form}" for form, of in found.items())
    return "\n".join(
        [
            f"- All but the teacher's pass, as a share of it: {rest}",
            f"- {HALF} is {found[PLAIN][WHOLE] / found[HALF][WHOLE]:.1f} times faster than {PLAIN}",
            f"- {HALF}, with the map kept, is {found[HALF][WHOLE] / found[HALF][KEPT]:.1f} times faster than without",
        ]
    )


if __name__ == "__main__":
    as_a_worker()
    main()
