"""What a finished image of SuperMix costs, beside the published loop with the same teacher, sets and lam.

    python benchmarks/supermix.py [--data DIR] [--checkpoint FILE] [--steps N] [--rounds N] [--out DIR]

The published loop is written here as it is described: two passes forth and one back of the whole batch each iteration,
teacher's parameters in the graph. A ResNet-8 that is trained for it teaches, and a public ResNet-20, whose mean and std
are ImageNet's, where its file is there. Images are CIFAR-10's for training, flipped or not, or made up where it is not
in DIR.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from claims import Claim, faster, options, publish
from loop import load
from machine import as_a_worker, heading
from puzzlemix import as_images, trained
from torch import Tensor, nn

from methods import Batch, Network
from methods.ops import draw_lam
from methods.supermasks import blended, divergence, full_masks, indecision, required, shows, smoothed
from methods.supermix import SuperMix, in_turn, soft_target
from mixbench import importing, nets
from mixbench.data.read import Pictures

BATCH = 128
CASES: Mapping[str, Mapping[str, Any]] = {
    "2 images, 50 iterations": {"tol": 0.0},
    "3 images, 50 iterations": {"k": 3, "tol": 0.0},
    "2 images, until 70 % or fewer are unfinished": {"tol": 70.0},
    "3 images, until 70 % or fewer are unfinished": {"k": 3, "tol": 70.0},
}
"""Options, by what the row is called."""
NOTE = """How much is saved depends on how many sets finish, so on the teacher, whose passes are nearly all of either
loop's time. At 50 iterations the two finish not quite the same sets: rounding decides what becomes of a few."""
SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")
CHECKPOINT = SHARED / "data" / "checkpoints" / "cifar10_resnet20.pt"
CHECKPOINT_COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Spent(NamedTuple):
    """CPU seconds of a batch, how many of its mixes finished, and after how many iterations it was given up."""

    seconds: float
    finished: int
    iterations: int


def main() -> None:
    """Measure, and publish a table in Markdown for each teacher."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="a public ResNet-20, to teach too")
    parser.add_argument("--steps", type=int, default=2000, help="of the training of a ResNet-8")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures, origin = load(asked.data)
    teachers = {f"a ResNet-8 after {asked.steps} steps": trained(pictures, asked.steps)}
    if asked.checkpoint.exists():
        teachers["a fully trained ResNet-20"] = restored(asked.checkpoint)
    text, claims = [], []
    for who, teacher in teachers.items():
        cast("nn.Module", teacher).eval()
        seen = f"{100 * accuracy(teacher, pictures):.0f} % of 1,000 test images"
        how = f"{who}, right on {seen}, as teacher; batches of {BATCH} of {origin}; one thread, CPU time"
        text.append(heading(f"SuperMix, taught by {who}", f"{how}, sum of {asked.rounds} rounds, interleaved"))
        text.append(
            "| | ours, ms a finished image | published loop | ratio | finished of either | iterations of either |"
        )
        text.append("|---|---|---|---|---|---|")
        for name, options_ in CASES.items():
            spent = compared(teacher, pictures, options_, asked.rounds)
            text.append(row(name, spent))
            claims.append(claim(f"{who}: {name}", spent, 1.0 if options_["tol"] else 2.5))
        text.append("")
    publish("supermix", asked.out, "\n".join([*text, NOTE]), claims)


def claim(what: str, spent: Mapping[str, list[Spent]], target: float) -> Claim:
    """How many times as long the published loop takes for a finished image, round by round."""
    ours, theirs = ([one.seconds / max(1, one.finished) for one in spent[way]] for way in ("ours", "published"))
    return faster(what, ours, theirs, target)


def restored(path: Path, precision: str = "float32") -> Network:
    """A network that somebody else trained on CIFAR-10."""
    shape = {"classes": 10, "channels": 3, "image_size": 32}
    net = nets.build("resnet20", **shape, **CHECKPOINT_COLOURS, precision=precision)
    state = torch.load(path, map_location="cpu", weights_only=True)
    importing.fill(net, importing.in_our_words(state), path=path, model="resnet20")
    return cast("Network", net.eval().to(memory_format=torch.channels_last))


@torch.no_grad()
def accuracy(teacher: Network, pictures: Pictures) -> float:
    """Share of the first test images that it knows."""
    right = teacher(as_images(pictures.test_x[:1000])).argmax(1) == torch.from_numpy(pictures.test_y[:1000])
    return right.float().mean().item()


def compared(teacher: Network, pictures: Pictures, options: Mapping[str, Any], rounds: int) -> dict[str, list[Spent]]:
    """What each way spent on the same batches; which is first changes with every round."""
    ways: dict[str, Callable[[Batch, int], Spent]] = {
        "ours": Ours(teacher, options),
        "published": Published(teacher, SuperMix(teacher, **options)),
    }
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for number in range(rounds):
        batch = drawn(pictures, number)
        for name in sorted(ways, reverse=number % 2 == 1):
            spent[name].append(ways[name](batch, number))
    return spent


def drawn(pictures: Pictures, number: int) -> Batch:
    """A batch of training images, half of them flipped."""
    generator = torch.Generator().manual_seed(number)
    chosen = torch.randint(len(pictures.train_y), (BATCH,), generator=generator).numpy()
    x = as_images(pictures.train_x[chosen])
    x[::2] = x[::2].flip(3)
    y = torch.eye(10)[torch.from_numpy(pictures.train_y[chosen]).long()]
    return Batch(x.contiguous(memory_format=torch.channels_last), y)


class Ours:
    """The mixer."""

    def __init__(self, teacher: Network, options: Mapping[str, Any]) -> None:
        self._mixer = SuperMix(copy.deepcopy(teacher), **options)

    def __call__(self, batch: Batch, seed: int) -> Spent:
        """Mix a batch."""
        self._mixer.generator = torch.Generator().manual_seed(seed)
        begun = time.process_time()
        solved = self._mixer.make(batch).solved
        return Spent(time.process_time() - begun, int(solved.finished.sum()), int(solved.steps.max()))


class Published:
    """The loop as it is published, of the same functions."""

    def __init__(self, teacher: Network, mixer: SuperMix) -> None:
        self._teacher = copy.deepcopy(cast("nn.Module", teacher)).requires_grad_()
        self._mixer = mixer

    def __call__(self, batch: Batch, seed: int) -> Spent:
        """Mix a batch."""
        lam = draw_lam(len(batch.x), self._mixer.k, self._mixer.alpha, torch.Generator().manual_seed(seed))
        begun = time.process_time()
        finished, iterations = self._loop(batch, lam)
        return Spent(time.process_time() - begun, int(finished.sum()), iterations)

    def _loop(self, batch: Batch, lam: Tensor) -> tuple[Tensor, int]:
        partners, search, x = in_turn(*lam.shape), self._mixer.search, batch.x
        target = soft_target(self._teacher(x).argmax(1)[partners], lam, batch.y.shape[1])
        wanted, images = required(target, self._mixer.k), tuple(x[partner] for partner in partners.unbind(1))
        variables = torch.zeros(*lam.shape, search.mask_width, search.mask_width, requires_grad=True)
        going = torch.ones(len(x))
        iterations, left = 0, len(x)
        while iterations < search.max_iter and left > int(len(x) * self._mixer.tol / 100):
            iterations += 1
            masks = full_masks(variables, *x.shape[2:])
            logits = self._teacher(blended(images, masks))
            loss = (divergence(logits, target) + search.sparsity * indecision(masks)) * going
            (gradient,) = torch.autograd.grad(loss.sum(), variables)
            with torch.no_grad():
                direction = smoothed(gradient, search.kernel)
                dot = (gradient.flatten(1) @ direction.flatten(1).T).diagonal()
                length = (loss.abs() / (dot + 1e-10)).clamp(1e-4, 2000) * going
                variables -= length[:, None, None, None] * direction
            finished = shows(self._teacher(blended(images, full_masks(variables, *x.shape[2:]))), wanted)
            going = (~finished).float()
            left = int(going.sum())
        return finished, iterations


def row(name: str, spent: Mapping[str, list[Spent]]) -> str:
    """What a finished image costs either way."""
    cost = {
        way: 1000 * sum(one.seconds for one in each) / sum(one.finished for one in each) for way, each in spent.items()
    }
    finished, iterations = (
        " / ".join(", ".join(str(getattr(one, what)) for one in each) for each in spent.values())
        for what in ("finished", "iterations")
    )
    ratio = cost["published"] / cost["ours"]
    return f"| {name} | {cost['ours']:.1f} | {cost['published']:.1f} | {ratio:.2f} | {finished} | {iterations} |"


if __name__ == "__main__":
    as_a_worker()
    main()
