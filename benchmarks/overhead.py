"""What the harness costs: a run as a worker trains it, beside the same loop written by hand.

    python benchmarks/overhead.py [--rounds N] [--steps N] [--out DIR]

Both train the same network with Mixup on the same pictures: crops and flips of batches of 128, the same optimiser and
learning rates, one evaluation an epoch. By hand there are no run, task, streams, attempt, heartbeat, log, curve,
progress, checks or checkpoints. The difference is taken of a small network on small pictures, beside which it can be
seen, and told as a share of a ResNet-8 step. Time is counted from the end of the first step to the end of the training.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import cast
from unittest import mock

import numpy as np
import torch
from claims import measured, options, publish
from machine import as_a_worker, heading
from torch.nn import functional as F

from methods.ops import blend, draw_lam, draw_partners, soft_labels
from mixbench import materials
from mixbench.data import DATASETS, Content
from mixbench.data.read import Pictures
from mixbench.data.resident import Resident
from mixbench.execution import Execution
from mixbench.progress import Progress
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import train

BATCH, TESTED, EPOCHS = 128, 100, 3
SMALL, LARGE = "digits/tiny", "cifar10/resnet8"
CONTENT = Content("made up", official=False, classes=10, train_images=0, test_images=TESTED)


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("--steps", type=int, default=100, help="of each of the three epochs, with the small network")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    small = compared(SMALL, asked.steps, asked.rounds)
    large = compared(LARGE, max(1, asked.steps // 10), max(1, asked.rounds // 3))
    how = f"Mixup, batch {BATCH}, made-up pictures, one thread, CPU time, median of {asked.rounds} rounds by turns"
    lines = [heading("What the harness costs", how), "| network | mixbench, ms a step | by hand | more, ms |"]
    lines += ["|---|---|---|---|", row(SMALL, small), row(LARGE, large), ""]
    step = median(large["by hand"])
    share = [100 * more / step for more in differences(small)]
    claims = [
        measured(
            f"what a step takes more than by hand, of a ResNet-8 step of {step:.0f} ms", share, 2, "%", at_most=True
        )
    ]
    publish("overhead", asked.out, "\n".join(lines), claims)


def compared(setting: str, steps: int, rounds: int) -> Mapping[str, Sequence[float]]:
    """CPU milliseconds a step of both loops, in every round after a first one; which comes first changes."""
    dataset, model = setting.split("/")
    facts = DATASETS[dataset]
    run = Run(
        method="mixup", dataset=dataset, model=model, epochs=EPOCHS, batch_size=BATCH, schedule="cosine", nesterov=True
    )
    made, shape = np.random.default_rng(0), (steps * BATCH, facts.image_size, facts.image_size, facts.channels)
    x, y = made.integers(0, 256, shape, np.uint8), made.integers(0, 10, steps * BATCH)
    pictures = Pictures(x, y, x[:TESTED], y[:TESTED], classes=10)
    ways: dict[str, Callable[[], float]] = {
        "mixbench": lambda: by_mixbench(run, pictures),
        "by hand": lambda: by_hand(run, pictures),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in sorted(ways, reverse=number % 2 == 1):
            milliseconds = 1000 * ways[name]() / (EPOCHS * steps - 1)
            spent[name] += [milliseconds] if number else []
    return spent


def differences(spent: Mapping[str, Sequence[float]]) -> list[float]:
    """Milliseconds that a step takes more, round by round."""
    return [ours - theirs for ours, theirs in zip(spent["mixbench"], spent["by hand"], strict=True)]


def row(setting: str, spent: Mapping[str, Sequence[float]]) -> str:
    """Of the table."""
    cells = [
        f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})" for each in (*spent.values(), differences(spent))
    ]
    return f"| {setting} | {' | '.join(cells)} |"


def by_mixbench(run: Run, pictures: Pictures) -> float:
    """CPU seconds behind the first step, of a run that a worker has claimed."""
    begun = 0.0

    def progress(steps: int, of: int, metrics: Mapping[str, float]) -> None:
        nonlocal begun
        told(steps, of, metrics)
        if steps == 1:
            begun = time.process_time()

    with tempfile.TemporaryDirectory() as place, mock.patch.object(materials, "load", return_value=(pictures, CONTENT)):
        store = Store(Path(place), tell=print)
        attempt = store.claim(run, Execution())
        if attempt is None:
            raise RuntimeError("somebody else is at work in a folder of our own")
        told = Progress(run, attempt, lambda _: None)
        with attempt:
            train(run, attempt, Execution(), store.read_weights, progress)
            return time.process_time() - begun


def by_hand(run: Run, pictures: Pictures) -> float:
    """CPU seconds behind the first step, of the same training without anything around it."""
    execution, streams, begun = Execution(), Streams(run.seed), 0.0
    with mock.patch.object(materials, "load", return_value=(pictures, CONTENT)):
        net = materials.network(run, execution)
        images, tested = materials.train_set(run, streams, execution), materials.test_set(run, execution)
    images = cast("Resident", images)
    sgd = torch.optim.SGD(
        net.parameters(), lr=run.lr, momentum=run.momentum, nesterov=True, weight_decay=1e-4, fused=True
    )
    steps = len(images) // BATCH
    for epoch in range(EPOCHS):
        order, views = torch.randperm(len(images)), torch.randint(images.views, (len(images),))
        losses = []
        net.train()
        for step in range(steps):
            chosen = slice(step * BATCH, (step + 1) * BATCH)
            x, y = images.gather(order[chosen], views[chosen])
            partners, lam = draw_partners(BATCH, 2, streams.mix), draw_lam(1, 2, 1.0, streams.mix)
            loss = F.cross_entropy(net(blend(x, partners, lam)), soft_labels(y, partners, lam))
            sgd.param_groups[0]["lr"] = run.lr * (1 + math.cos(math.pi * (epoch + step / steps) / EPOCHS)) / 2
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            losses.append(loss.detach())
            begun = begun or time.process_time()
        torch.stack(losses).mean().item()
        net.eval()
        with torch.no_grad():
            [(net(batch.x).argmax(1) == batch.y.argmax(1)).sum().item() for batch in tested.test_batches(TESTED)]
    return time.process_time() - begun


if __name__ == "__main__":
    as_a_worker()
    main()
