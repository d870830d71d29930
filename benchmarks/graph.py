"""What CUDA graphs are worth: a training step replayed and not, and how near it is to what the device can do.

    python benchmarks/graph.py [--rounds N] [--steps N] [--cases NAME,...] [--out FOLDER]

bfloat16, channels_last, batches that lie on the device already, both steps by turns, by the device's own clock. Needs
a GPU. The roofline is that of a step whose normalisations, additions and rectifiers are fused, counted layer by layer
for 790 Tflop/s and 4.3 TB/s, an H200's; it is scaled by what the operations of the step would take at those rates and
at the ones that are measured here. The targets are images a second on an H200, a replay twice as fast where the host is
the limit, and half of the roofline.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from claims import Claim, measured, options, publish
from machine import as_a_worker, heading
from torch import Tensor, nn

from methods import Mixed
from mixbench import nets
from mixbench.criteria import cross_entropy
from mixbench.data import DATASETS
from mixbench.graph import CudaRecorder, Recorder
from mixbench.replay import WARM_UP, ReplayedStep
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.timing.clocks import DeviceClock
from mixbench.timing.floor import Rates, counting, measured_rates
from mixbench.timing.rounds import Clock

BOOK = Rates(flops=790e12, bytes=4.3e12)
"""The rates that `Case.roofline` is counted for."""

SHARE, TIMES = 0.5, 2.0
"""The targets for the share of the roofline, and for how many times faster a replay is where the host is the limit."""

BATCHES = 4
"""Different ones, by turns."""


@dataclass(frozen=True)
class Case:
    """A network in training.

    Attributes:
        model: as `mixbench.nets` calls it.
        batch: images of one.
        side: of the images, in pixels.
        classes: of their labels.
        roofline: images a second that fused kernels could train at `BOOK`.
        target: images a second on an H200.
        host_bound: whether the host is the limit of the step that is not replayed.
    """

    model: str
    batch: int
    side: int
    classes: int
    roofline: float
    target: float
    host_bound: bool

    @property
    def name(self) -> str:
        """What `--cases` and the table call it."""
        return f"{self.model}-{self.batch}"


CASES = (
    *(Case("resnet18", batch, 32, 10, 135e3, 65e3, host_bound=True) for batch in (100, 128)),
    *(Case("preactresnet18", batch, 32, 100, 138e3, 65e3, host_bound=True) for batch in (100, 128)),
    Case("wrn28_10", 100, 32, 100, 19.3e3, 11.5e3, host_bound=False),
    Case("resnet50", 256, 224, 1000, 11.3e3, 6.3e3, host_bound=False),
)


class Alone:
    """Nothing but a network that learns from mixed batches: what steps are made of."""

    def __init__(self, net: nn.Module, run: Run) -> None:
        self.trainable = net
        self.groups = [(run, list(net.parameters()))]

    def loss(self, prepared: Mixed) -> Tensor:
        """As in training."""
        return prepared.loss(prepared.logits(self.trainable), cross_entropy)


def main() -> None:
    """Measure, print and keep a page and its claims; without a GPU, say that there is nothing to measure."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/graph.py measures CUDA graphs and needs a GPU, and none is visible here", file=sys.stderr)
        return
    device = torch.device("cuda", torch.cuda.current_device())
    rates = measured_rates(device, torch.bfloat16)
    claims: list[Claim] = []
    for case in (case for case in CASES if case.name in asked.cases.split(",")):
        found = speeds(case, device, CudaRecorder(device), DeviceClock(device), asked.rounds, asked.steps)
        claims += claimed(case, found, scaled_roofline(case, device, rates))
        torch.cuda.empty_cache()
    text = heading("CUDA graphs", how(asked.rounds, asked.steps, rates, torch.cuda.get_device_name(device)))
    publish("graph", asked.out, text, claims)


def how(rounds: int, steps: int, rates: Rates, device: str) -> str:
    """Under which conditions."""
    return (
        f"{device}; bfloat16, channels_last, a whole step of training but mixing; {rounds} rounds of {steps} steps by "
        f"turns, medians with the least and the largest; matrix products at {rates.flops / 1e12:.0f} Tflop/s, copies "
        f"at {rates.bytes / 1e12:.2f} TB/s"
    )


def speeds(
    case: Case, device: torch.device, recorder: Recorder, clock: Clock, rounds: int, steps: int
) -> Mapping[str, list[float]]:
    """Images a second of each step in every round, of which one more comes first and is thrown away."""
    torch.backends.cudnn.allow_tf32 = False
    run = protocol(case)
    kinds: Mapping[str, Callable[[Alone], Step]] = {
        "eager": partial(Step, run),
        "replayed": lambda task: ReplayedStep(run, task, recorder, refuse),
    }
    works = {name: repeated(made(Alone(network(case, device), run)), case, device) for name, made in kinds.items()}
    for work in works.values():
        work(WARM_UP + 2)
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            seconds = clock(partial(work, steps))[clock.names[-1]]
            found[name] += [steps * case.batch / seconds] if number else []
    return found


def repeated(step: Step, case: Case, device: torch.device) -> Callable[[int], None]:
    """Does so many steps, with batches by turns."""
    batches = itertools.cycle([made_up(case, device) for _ in range(BATCHES)])

    def work(count: int) -> None:
        for prepared in itertools.islice(batches, count):
            step(prepared, 0.0)

    return work


def refuse(sentence: str) -> None:
    """A step that is not replayed must not be timed as one that is."""
    raise RuntimeError(sentence)


def protocol(case: Case) -> Run:
    """By which it learns."""
    how = {"epochs": 1, "batch_size": case.batch, "precision": "bfloat16", "lr": 0.01}
    return Run(method="simple", dataset="cifar10", model=case.model, **how)


def network(case: Case, device: torch.device) -> nn.Module:
    """In training, always with the same first weights."""
    torch.manual_seed(0)
    facts = DATASETS["cifar10"]
    shape = {"classes": case.classes, "channels": 3, "image_size": case.side}
    net = nets.build(case.model, **shape, mean=facts.mean, std=facts.std, precision="bfloat16")
    return net.to(device).to(memory_format=torch.channels_last)


def made_up(case: Case, device: torch.device) -> Mixed:
    """Random images and labels."""
    x = torch.rand(case.batch, 3, case.side, case.side, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(case.classes, (case.batch,), device=device)
    return Mixed(x, torch.eye(case.classes, device=device)[labels])


def scaled_roofline(case: Case, device: torch.device, rates: Rates) -> float:
    """Images a second that fused kernels could train at these rates."""
    run = protocol(case)
    step, prepared = Step(run, Alone(network(case, device), run)), made_up(case, device)
    with counting() as count:
        step(prepared, 0.0)
    return case.roofline * count.seconds(BOOK) / count.seconds(rates)


def claimed(case: Case, found: Mapping[str, list[float]], roofline: float) -> list[Claim]:
    """What is aimed at with a case, beside what was found."""
    eager, replayed = found["eager"], found["replayed"]
    thousands, shares = ([one / unit for one in replayed] for unit in (1e3, roofline / 100))
    times = [one / other for one, other in zip(replayed, eager, strict=True)]
    return [
        measured(f"{case.name}, replayed, thousand images a second", thousands, case.target / 1e3, unit=""),
        measured(f"{case.name}, replayed beside step by step", times, TIMES if case.host_bound else 1.0),
        measured(f"{case.name}, replayed, share of the roofline", shares, 100 * SHARE, unit="%"),
    ]


if __name__ == "__main__":
    as_a_worker()
    main()
