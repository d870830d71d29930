"""What mixing costs: each mixer that needs no teacher, beside a ResNet-8 training step without mixing.

    python benchmarks/mixers.py [--rounds N] [--calls N]

Batches of 128 made-up images of 3 x 32 x 32, float32, one thread, interleaved, CPU time, draws included. What the mixed
batch then costs in the network is the same for all of these methods.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from loop import BATCH, load, our_loop
from machine import as_a_worker, heading

import methods
from methods import Batch, Mixer
from mixbench import catalog, nets
from mixbench.data import DATASETS


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=100)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    mixers = dict(built())
    net, batch = network(), made_up()
    step = our_loop("resnet8", load(Path("no data"))[0], "float32", channels_last=True)
    mixing: dict[str, list[float]] = {name: [] for name in mixers}
    training = []
    for number in range(asked.rounds + 1):
        for name, mixer in mixers.items():
            milliseconds = cpu_ms(lambda mixer=mixer: mixer(batch, net), asked.calls)
            mixing[name] += [milliseconds] if number else []
        milliseconds = cpu_ms(lambda: next(step), 5)
        training += [milliseconds] if number else []
    print(heading("Mixing", f"batch {BATCH} of 3 x 32 x 32, one thread, CPU time, median of {asked.rounds} rounds"))
    print(f"A ResNet-8 step of the method Simple: {statistics.median(training):.0f} ms.\n")
    print("| mixer | ms a batch | share of that step |\n|---|---|---|")
    for name, each in mixing.items():
        middle = statistics.median(each)
        print(
            f"| {name} | {middle:.2f} ({min(each):.2f} to {max(each):.2f}) | "
            f"{100 * middle / statistics.median(training):.2f} % |"
        )


def built() -> Iterator[tuple[str, Mixer]]:
    """Every mixer that needs nothing from another run, under each way of drawing that it has."""
    for name in catalog.names():
        declared = catalog.declaration(name)
        if declared.given:
            continue
        yield name, methods.build(name, {}, {})
        if "draw" in declared.options:
            yield f"{name}, per sample", methods.build(name, {"draw": "sample"}, {})


def network() -> methods.Network:
    """A network to hand to the mixers."""
    facts = DATASETS["cifar10"]
    net = nets.build("resnet8", classes=10, channels=3, image_size=32, mean=facts.mean, std=facts.std)
    return cast("methods.Network", net)


def made_up() -> Batch:
    """A batch of 8-bit pictures in channels_last, the loop's default."""
    x = (torch.randint(256, (BATCH, 3, 32, 32)) / 255).contiguous(memory_format=torch.channels_last)
    return Batch(x, torch.eye(10)[torch.randint(10, (BATCH,))])


def cpu_ms(call: Callable[[], object], calls: int) -> float:
    """CPU milliseconds of one call, over so many."""
    begun = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - begun) / calls * 1000


if __name__ == "__main__":
    as_a_worker()
    main()
