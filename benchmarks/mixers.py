"""What mixing costs: each mixer that asks no other run, beside a training step without mixing, and beside others' code.

    python benchmarks/mixers.py [--rounds N] [--calls N] [--out DIR]

Batches of 128 made-up images of 3 x 32 x 32, float32, one thread, interleaved, CPU time, draws included. What the mixed
batch then costs in the network is the same for all of these methods, but for Manifold Mixup, which mixes two of three
batches there, and AugMix, whose batch is three times as large.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import beside
import torch
from claims import Claim, faster, measured, options, publish
from loop import BATCH, load, our_loop
from machine import as_a_worker, heading

import methods
from methods import Batch, Mixer
from mixbench import catalog, nets
from mixbench.data import DATASETS

VARIANTS = (
    ("draw", "sample", "per sample"),
    ("saliency", "official", "official"),
    ("definition", "mmpretrain", "mmpretrain's"),
)


def main() -> None:
    """Measure, and publish tables in Markdown."""
    parser = options(__doc__, rounds=7)
    parser.add_argument("--calls", type=int, default=100)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    net, batch = network(), made_up()
    step = our_loop("resnet8", load(Path("no data"))[0], "float32", channels_last=True)
    pairs = list(beside.pairs(batch, net))
    calls: dict[str, Callable[[], object]] = {name: partial(mixer, batch, net) for name, mixer in built()}
    calls["(a copy of the images)"] = batch.x.clone
    ours = {f"{pair.what}, ours": pair.ours for pair in pairs}
    theirs = {pair.name: pair.theirs for pair in pairs}
    spent = rounds(calls | ours | theirs | {"step": lambda: next(step)}, asked.rounds, asked.calls)
    how = f"batch {BATCH} of 3 x 32 x 32, one thread, CPU time, median of {asked.rounds} rounds{beside.LEFT_OUT}"
    text = [heading("Mixing", how), shares(spent, list(calls)), compared(spent, pairs)]
    publish("mixers", asked.out, "\n".join(text), claims(spent, pairs))


def shares(spent: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    """What each mixer takes, and beside a step of training."""
    training = statistics.median(spent["step"])
    lines = [f"A ResNet-8 step of the method Simple: {training:.0f} ms.\n"]
    lines += ["| mixer | ms a batch | share of that step |", "|---|---|---|"]
    for name in names:
        lines.append(f"| {name} | {told(spent[name])} | {100 * statistics.median(spent[name]) / training:.2f} % |")
    return "\n".join([*lines, ""])


def compared(spent: Mapping[str, Sequence[float]], pairs: Sequence[beside.Pair]) -> str:
    """What ours and others' take."""
    lines = [f"{beside.HOW}\n", "| what | ours, ms | theirs, ms |", "|---|---|---|"]
    lines += [
        f"| {pair.what} | {told(spent[f'{pair.what}, ours'])} | {pair.whose}: {told(spent[pair.name])} |"
        for pair in pairs
    ]
    return "\n".join([*lines, ""])


def claims(spent: Mapping[str, Sequence[float]], pairs: Sequence[beside.Pair]) -> list[Claim]:
    """That mixing two images costs next to nothing, and less than others' code for it."""
    found = []
    for name in ("mixup", "cutmix"):
        share = [100 * mine / step for mine, step in zip(spent[name], spent["step"], strict=True)]
        found.append(measured(f"{name}, of a ResNet-8 step of the method Simple", share, 1, "%", at_most=True))
    for pair in pairs:
        name = f"{pair.what}, beside {pair.whose}"
        found.append(faster(name, spent[f"{pair.what}, ours"], spent[pair.name], pair.aim))
    return found


def rounds(calls: Mapping[str, Callable[[], object]], count: int, most: int) -> Mapping[str, list[float]]:
    """CPU milliseconds of each call in every round, of which one more comes first and is thrown away."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + 1):
        for name, call in calls.items():
            milliseconds = cpu_ms(call, most)
            spent[name] += [milliseconds] if number else []
    return spent


def told(each: Sequence[float]) -> str:
    """The median of several times, the least and the largest."""
    return f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def built() -> Iterator[tuple[str, Mixer]]:
    """Every mixer that needs nothing from another run, with its defaults, and each of `VARIANTS` that it has."""
    for name in catalog.names():
        declared = catalog.declaration(name)
        if declared.given:
            continue
        yield name, methods.build(name, {}, {})
        for option, value, told in VARIANTS:
            if value in declared.choices.get(option, ()):
                yield f"{name}, {told}", methods.build(name, {option: value}, {})


def network() -> methods.Network:
    """A network to hand to the mixers."""
    facts = DATASETS["cifar10"]
    net = nets.build("resnet8", classes=10, channels=3, image_size=32, mean=facts.mean, std=facts.std)
    return cast("methods.Network", net)


def made_up() -> Batch:
    """A batch of 8-bit pictures in channels_last, the loop's default."""
    x = (torch.randint(256, (BATCH, 3, 32, 32)) / 255).contiguous(memory_format=torch.channels_last)
    return Batch(x, torch.eye(10)[torch.randint(10, (BATCH,))])


def cpu_ms(call: Callable[[], object], most: int) -> float:
    """CPU milliseconds of one call, over so many, or over as many as fit in half a second."""
    begun = now = time.process_time()
    done = 0
    while done < most and now - begun < 0.5:
        call()
        done, now = done + 1, time.process_time()
    return (now - begun) / done * 1000


if __name__ == "__main__":
    as_a_worker()
    main()
