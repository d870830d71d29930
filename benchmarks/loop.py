"""How fast the training loop is: beside the usual torchvision loop, and beside a bare loop, which is the limit.

Three loops train the same network on CIFAR-10 with batches of 128, one thread, interleaved round by round, and are
compared by process CPU time (the wall clock of a shared machine says little):

    torchvision   DataLoader without workers, PIL crop and flip, float32, ``loss.item()`` each step
    bare          batches cut from a float32 tensor that is already there, no augmentation, at mixbench's precision
    mixbench      its own loop, with crop, flip, the method Simple, and what it keeps of each step

    python benchmarks/loop.py [--data DIR] [--models resnet8,resnet20] [--rounds N] [--steps N]

Without CIFAR-10 in DIR the pictures are made up: no loop looks at what is on them.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from machine import as_a_worker, heading
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mixbench import materials, nets, tasks
from mixbench.data import DATASETS, Content, DataError
from mixbench.data.read import Pictures, read
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import State, steps

BATCH = 128
FACTS = DATASETS["cifar10"]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--models", default="resnet8,resnet20")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pictures, origin = load(asked.data)
    print(heading("Training loop", f"{origin}; batch {BATCH}, one thread, CPU time, median of {asked.rounds} rounds"))
    print(data_stage(pictures, asked.rounds, asked.steps))
    for model in asked.models.split(","):
        print(loops(model, pictures, asked.rounds, asked.steps))


def load(root: Path) -> tuple[Pictures, str]:
    """CIFAR-10, or pictures of its size."""
    try:
        return read("cifar10", root=root, image_size=None), "CIFAR-10"
    except DataError:
        made = np.random.default_rng(0)
        x, y = made.integers(0, 256, (50_000, 32, 32, 3), np.uint8), made.integers(0, 10, 50_000)
        return Pictures(x, y, x[:10_000], y[:10_000], classes=10), "made-up pictures"


def loops(model: str, pictures: Pictures, rounds: int, count: int) -> str:
    """Every loop's CPU milliseconds a step, and how mixbench compares."""
    running: dict[str, Iterator[Any]] = {"torchvision, float32": torchvision_loop(model, pictures)}
    for precision in ("float32", "bfloat16"):
        for channels_last in (True, False):
            layout = "channels_last" if channels_last else "contiguous"
            running[f"bare, {precision}, {layout}"] = bare_loop(model, pictures, precision, channels_last)
            running[f"mixbench, {precision}, {layout}"] = our_loop(model, pictures, precision, channels_last)
    times = interleaved(running, rounds, count)
    usual = times["torchvision, float32"]
    lines = [f"### {model}\n", "| loop | ms a step | beside torchvision | beside bare |", "|---|---|---|---|"]
    for name, mine in times.items():
        limit = times.get(name.replace("mixbench", "bare")) if name.startswith("mixbench") else None
        lines.append(f"| {name} | {statistics.median(mine):.1f} | {ratio(usual, mine)} | {ratio(limit, mine)} |")
    return "\n".join([*lines, ""])


def data_stage(pictures: Pictures, rounds: int, count: int) -> str:
    """The batches alone, crop, flip and [0, 1] included."""
    run = ours("resnet8", "float32")
    running: dict[str, Iterator[Any]] = {"PIL": cycle_over(lambda: pil_batches(pictures))}
    for channels_last in (True, False):
        task = task_of(run, Execution(channels_last=channels_last), pictures)
        name = "mixbench, channels_last" if channels_last else "mixbench, contiguous"
        running[name] = cycle_over(lambda task=task: task.batches(0, skip=0))
    times = interleaved(running, rounds, count)
    lines = ["### Data stage\n", "| batches by | ms a batch | beside PIL |", "|---|---|---|"]
    lines += [f"| {name} | {statistics.median(t):.2f} | {ratio(times['PIL'], t)} |" for name, t in times.items()]
    return "\n".join([*lines, ""])


def interleaved(running: dict[str, Iterator[Any]], rounds: int, count: int) -> dict[str, list[float]]:
    """CPU milliseconds a step of each loop, once a round; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds + 1):
        for name, loop in running.items():
            begun = time.process_time()
            for _ in islice(loop, count):
                pass
            if number:
                times[name].append((time.process_time() - begun) / count * 1000)
    return times


def ratio(other: list[float] | None, mine: list[float]) -> str:
    """How many times faster than the other, round by round: median, with minimum and maximum."""
    if other is None:
        return ""
    each = sorted(theirs / ours for theirs, ours in zip(other, mine, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})"


def cycle_over(batches: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """One pass over the data after another."""
    while True:
        yield from batches()


class UsualDataset(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 does for one image: from an array to PIL, the transforms, a tensor."""

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(FACTS.mean, FACTS.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._pictures.train_y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self._pictures.train_x[index])
        return self._transform(image), int(self._pictures.train_y[index])


def pil_batches(pictures: Pictures) -> Iterator[list[Tensor]]:
    """The usual loader."""
    return iter(DataLoader(UsualDataset(pictures), BATCH, shuffle=True, num_workers=0, drop_last=True))


class Plain(nn.Module):
    """A network that is given normalised images, as usual loops do."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.net.mean.zero_()
        self.net.std.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of normalised images."""
        return self.net(x)


def torchvision_loop(model: str, pictures: Pictures) -> Iterator[float]:
    """The loop that everyone writes."""
    net = Plain(network(model, "float32"))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for x, y in cycle_over(lambda: pil_batches(pictures)):
        loss = F.cross_entropy(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.item()


def bare_loop(model: str, pictures: Pictures, precision: str, channels_last: bool) -> Iterator[None]:
    """Nothing but the network's step, at the precision and in the layout that mixbench uses."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = network(model, precision).to(memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    x = torch.from_numpy(pictures.train_x[: 8 * BATCH]).permute(0, 3, 1, 2).float().div(255)
    y = torch.from_numpy(pictures.train_y[: 8 * BATCH])
    batches = [(a.contiguous(memory_format=layout), b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
    for images, labels in cycle(batches):
        loss = F.cross_entropy(net(images), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        yield


def our_loop(model: str, pictures: Pictures, precision: str, channels_last: bool) -> Iterator[None]:
    """Our own steps, with what its loop asks after each."""
    run = ours(model, precision)
    task = task_of(run, Execution(channels_last=channels_last), pictures)
    step = Step(run, task)
    with tempfile.TemporaryDirectory() as place:
        attempt = Store(Path(place), tell=print).claim(run, Execution())
        while attempt:
            state = State(torch.zeros(task.steps))
            for _ in steps(run, 0, task, step, state):
                attempt.due(epoch_over=False)
                yield


def ours(model: str, precision: str) -> Run:
    """A Simple run."""
    return Run(method="simple", dataset="cifar10", model=model, epochs=1, batch_size=BATCH, precision=precision)


def task_of(run: Run, execution: Execution, pictures: Pictures) -> tasks.Classify:
    """The run's task, on these pictures."""
    content = Content("benchmark", False, 10, len(pictures.train_y), len(pictures.test_y))
    with mock.patch.object(materials, "load", return_value=(pictures, content)):
        return tasks.Classify(run, Streams(0), execution, weights=lambda _: b"")


def network(model: str, precision: str) -> nn.Module:
    """The network of all loops."""
    shape = {"classes": 10, "channels": 3, "image_size": 32}
    return nets.build(model, **shape, mean=FACTS.mean, std=FACTS.std, precision=precision)


if __name__ == "__main__":
    as_a_worker()
    main()
