"""How fast the training loop is: beside the usual torchvision loop, and beside a bare loop, which is the limit.

These loops train the same network on CIFAR-10 with batches of 128, one thread, interleaved round by round, and are
compared by process CPU time (the wall clock of a shared machine says little):

    torchvision   DataLoader without workers, PIL crop and flip, float32, ``loss.item()`` each step
    timm          its loader with prefetching, PIL crop and flip, ``loss.item()`` each step, at either precision
    bare          batches cut from a float32 tensor that is already there, no augmentation, at mixbench's precision
    mixbench      its own loop, with crop, flip, the method Simple, and what it keeps of each step

    python benchmarks/loop.py [--data DIR] [--models resnet8,resnet20] [--rounds N] [--steps N] [--out DIR]

Without CIFAR-10 in DIR the pictures are made up: no loop looks at what is on them.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm_loop
import torch
from claims import Claim, faster, options, publish
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
    """Measure, and publish tables in Markdown."""
    parser = options(__doc__, rounds=7)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--models", default="resnet8,resnet20")
    parser.add_argument("--steps", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    pictures, origin = load(asked.data)
    how = f"{origin}; batch {BATCH}, one thread, CPU time, median of {asked.rounds} rounds{timm_loop.HOW}"
    stage = interleaved(data_stages(pictures), asked.rounds, asked.steps)
    parts, claims = [heading("Training loop", how), stage_table(stage)], stage_claims(stage)
    for model in asked.models.split(","):
        times = interleaved(loops(model, pictures, asked.steps), asked.rounds, asked.steps)
        parts.append(loop_table(model, times))
        claims += loop_claims(model, times)
    publish("loop", asked.out, "\n".join(parts), claims)


def load(root: Path) -> tuple[Pictures, str]:
    """CIFAR-10, or pictures of its size."""
    try:
        return read("cifar10", root=root, image_size=None), "CIFAR-10"
    except DataError:
        made = np.random.default_rng(0)
        x, y = made.integers(0, 256, (50_000, 32, 32, 3), np.uint8), made.integers(0, 10, 50_000)
        return Pictures(x, y, x[:10_000], y[:10_000], classes=10), "made-up pictures"


def loops(model: str, pictures: Pictures, count: int) -> dict[str, Iterator[Any]]:
    """Every loop, by name; ``count`` steps of each make a round."""
    arrays = UsualDataset(pictures, lambda image: np.array(image).transpose(2, 0, 1))
    theirs = timm_loop.loaders(arrays, BATCH, count, mean=FACTS.mean, std=FACTS.std)
    running: dict[str, Iterator[Any]] = {"torchvision, float32": torchvision_loop(model, pictures)}
    for precision in ("float32", "bfloat16"):
        for channels_last in (True, False):
            layout = "channels_last" if channels_last else "contiguous"
            running[f"bare, {precision}, {layout}"] = bare_loop(model, pictures, precision, channels_last)
            running[f"mixbench, {precision}, {layout}"] = our_loop(model, pictures, precision, channels_last)
        running |= {
            f"{name}, {precision}": usual_loop(Plain(network(model, precision)), cycle_over(batches))
            for name, batches in theirs.items()
        }
    return running


def loop_table(model: str, times: Mapping[str, list[float]]) -> str:
    """Every loop's CPU milliseconds a step, and how it compares."""
    usual = times["torchvision, float32"]
    lines = [f"### {model}\n", "| loop | ms a step | beside torchvision | beside bare |", "|---|---|---|---|"]
    for name, mine in times.items():
        limit = times.get(name.replace("mixbench", "bare")) if name.startswith("mixbench") else None
        lines.append(f"| {name} | {statistics.median(mine):.1f} | {ratio(usual, mine)} | {ratio(limit, mine)} |")
    return "\n".join([*lines, ""])


def loop_claims(model: str, times: Mapping[str, list[float]]) -> list[Claim]:
    """What is aimed at, in mixbench's usual layout."""
    usual, claims = times["torchvision, float32"], []
    for precision, target in (("float32", 1.3), ("bfloat16", 1.8)):
        ours = times[f"mixbench, {precision}, channels_last"]
        bare = times[f"bare, {precision}, channels_last"]
        claims.append(faster(f"{model}, {precision}: a step beside torchvision's in float32", ours, usual, target))
        claims.append(faster(f"{model}, {precision}: a step beside a bare loop's", ours, bare, 0.95))
        if model == "resnet8":  # of a larger network the loader is a smaller part
            theirs = {name: each for name, each in times.items() if "timm" in name and name.endswith(precision)}
            claims += [faster(f"{model}: a step beside {name}", ours, each, 1.2) for name, each in theirs.items()]
    return claims


def data_stages(pictures: Pictures) -> dict[str, Iterator[Any]]:
    """The batches alone, crop, flip and [0, 1] included, by who makes them."""
    run = ours("resnet8", "float32")
    running: dict[str, Iterator[Any]] = {"PIL": cycle_over(lambda: pil_batches(pictures))}
    for channels_last in (True, False):
        task = task_of(run, Execution(channels_last=channels_last), pictures)
        name = "mixbench, channels_last" if channels_last else "mixbench, contiguous"
        running[name] = cycle_over(lambda task=task: task.batches(0, skip=0))
    return running


def stage_table(times: Mapping[str, list[float]]) -> str:
    """CPU milliseconds a batch."""
    lines = ["### Data stage\n", "| batches by | ms a batch | beside PIL |", "|---|---|---|"]
    lines += [f"| {name} | {statistics.median(t):.2f} | {ratio(times['PIL'], t)} |" for name, t in times.items()]
    return "\n".join([*lines, ""])


def stage_claims(times: Mapping[str, list[float]]) -> list[Claim]:
    """What is aimed at, in mixbench's usual layout."""
    return [faster("a batch, cropped and flipped, beside PIL's", times["mixbench, channels_last"], times["PIL"], 15)]


def interleaved(running: dict[str, Iterator[Any]], rounds: int, count: int) -> dict[str, list[float]]:
    """CPU milliseconds a step of each loop, once a round; the first round warms up and does not count."""
    times: dict[str, list[float]] = {name: [] for name in running}
    for number in range(rounds + 1):
        for name, loop in running.items():
            begun = cpu_seconds()
            for _ in islice(loop, count):
                pass
            if number:
                times[name].append((cpu_seconds() - begun) / count * 1000)
    return times


def cpu_seconds() -> float:
    """Of this process and of those that it began and that have ended."""
    ours, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return ours.ru_utime + ours.ru_stime + ended.ru_utime + ended.ru_stime


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


class UsualDataset(Dataset[tuple[Any, int]]):
    """What torchvision's CIFAR10 does for one image: from an array to PIL, crop, flip, and what is done at the end."""

    def __init__(self, pictures: Pictures, *end: Callable[[Any], Any]) -> None:
        self._pictures = pictures
        self._transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *end]
        )

    def __len__(self) -> int:
        return len(self._pictures.train_y)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self._pictures.train_x[index])
        return self._transform(image), int(self._pictures.train_y[index])


def pil_batches(pictures: Pictures) -> Iterator[list[Tensor]]:
    """The usual loader."""
    dataset = UsualDataset(pictures, transforms.ToTensor(), transforms.Normalize(FACTS.mean, FACTS.std))
    return iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=0, drop_last=True))


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
    return usual_loop(Plain(network(model, "float32")), cycle_over(lambda: pil_batches(pictures)))


def usual_loop(net: nn.Module, batches: Iterator[Any]) -> Iterator[float]:
    """Updates of a network by batches of normalised images, each waited for."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for x, y in batches:
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
