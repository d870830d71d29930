"""Where the time of TransformMix goes, part by part, and what half precision and kept maps save.

    python benchmarks/transformmix.py [--model resnet18] [--data DIR --checkpoint FILE] [--rounds N] [--out DIR]

The teacher has its first, random weights: what it answers does not change what it costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from claims import Claim, faster, measured, options, publish
from loop import load
from machine import as_a_worker, heading
from puzzlemix import as_images
from supermix import CHECKPOINT, restored

from methods import Batch, Network
from methods.policy import MixingModule
from methods.saliency import cam, full_size, look
from methods.transformmix import TransformMix
from methods.views import ViewCache
from methods.warps import warp
from mixbench import nets
from mixbench.data import DATASETS
from mixbench.data.read import Pictures

BATCH = 128
FORMS = {
    "float32, NCHW": (torch.float32, torch.contiguous_format),
    "float32, channels_last": (torch.float32, torch.channels_last),
    "bfloat16, channels_last": (torch.bfloat16, torch.channels_last),
}
PLAIN, HALF = "float32, NCHW", "bfloat16, channels_last"
WHOLE, KEPT, PASS = "whole", "whole, map kept", "teacher's pass"
NOTE = """Where the map is kept, f_m is nearly half of what is left, three convolutions in bfloat16; f_s a quarter."""


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("--model", default="resnet18", help="the teacher")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="a public ResNet-20, for its maps")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = torch.rand(BATCH, 3, 32, 32), torch.eye(10)[torch.randint(10, (BATCH,))]
    teachers = {name: teacher(asked.model, *form) for name, form in FORMS.items()}
    calls = {name: parts(net, Batch(x, y), *FORMS[name]) for name, net in teachers.items()}
    found = measured_parts(calls, asked.rounds)
    how = f"teacher {asked.model}, batch {BATCH} of 3 x 32 x 32, one thread, CPU time, median of {asked.rounds} rounds"
    claims = ratios(found)
    if asked.checkpoint.exists():
        claims.append(maps_apart(asked.checkpoint, load(asked.data)[0]))
    publish("transformmix", asked.out, "\n".join([heading("TransformMix", how), table(found), NOTE]), claims)


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


def measured_parts(
    calls: Mapping[str, Mapping[str, Callable[[], object]]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """CPU milliseconds of each call, by form and part; all are called once in every round."""
    times: dict[str, dict[str, list[float]]] = {form: {part: [] for part in of} for form, of in calls.items()}
    with torch.no_grad():
        for number in range(rounds + 1):
            for form, of in calls.items():
                for part, call in of.items():
                    begun = time.process_time()
                    call()
                    times[form][part] += [1000 * (time.process_time() - begun)] if number else []
    return times


def table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Median milliseconds, with a row for each part and a column for each form."""
    lines = [f"| part, ms | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    lines += [
        f"| {part} | {' | '.join(f'{statistics.median(of[part]):.1f}' for of in found.values())} |"
        for part in found[PLAIN]
    ]
    return "\n".join(lines) + "\n"


def ratios(found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Claim]:
    """What the figures come to."""
    claims = []
    for form, of in found.items():
        rest = [100 * (whole - look) / look for whole, look in zip(of[WHOLE], of[PASS], strict=True)]
        claims.append(measured(f"{form}: all but the teacher's pass, of that", rest, 10, "%", at_most=True))
    plain, half = found[PLAIN], found[HALF]
    claims.append(faster(f"{HALF}, beside {PLAIN}", half[WHOLE], plain[WHOLE], 2.5))
    claims.append(faster(f"{HALF}: with the map kept, beside without", half[KEPT], half[WHOLE], 15))
    claims.append(faster(f"{HALF} with the map kept, beside {PLAIN} without", half[KEPT], plain[WHOLE], 40))
    return claims


def maps_apart(checkpoint: Path, pictures: Pictures) -> Claim:
    """How far a trained teacher's maps in bfloat16 are from those in float32, in the mean over an image's pixels."""
    x, y = as_images(pictures.test_x[:1024]), torch.eye(10)[torch.from_numpy(pictures.test_y[:1024]).long()]
    plain, half = (cam(restored(checkpoint, precision), x, y) for precision in ("float32", "bfloat16"))
    apart = (plain - half).abs().flatten(1).mean(1)
    what = "maps of a trained ResNet-20 on 1,024 test images in bfloat16, from those in float32, mean over the pixels"
    return Claim(what, apart.mean().item(), apart.min().item(), apart.max().item(), 0.002, "", at_most=True)


if __name__ == "__main__":
    as_a_worker()
    main()
