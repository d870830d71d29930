"""What each choice brings to the network's own step on the CPU: layouts, a fused update, rectifying in place.

    python benchmarks/step.py [--models resnet8,resnet20] [--rounds N] [--out DIR]

The step as training does it, beside the same with one thing left as torch has it by default; batches of 128 of
3 x 32 x 32, no augmentation, one thread, interleaved, CPU time. Nothing but the layout changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from types import MappingProxyType
from typing import Any
from unittest import mock

import torch
from claims import Claim, by_turns, faster, options, publish
from machine import as_a_worker, heading
from torch import Tensor, nn
from torch.nn import functional as F

from mixbench import nets
from mixbench.data import DATASETS
from mixbench.nets import resnet

BATCH, CLASSES = 128, 10
NOISE = 0.97
"""What a choice that brings nothing may seem to cost."""

OURS = "ours"
NOTHING: Mapping[str, Callable[..., Tensor]] = MappingProxyType({})


def main() -> None:
    """Measure, and publish a table in Markdown."""
    parser = options(__doc__, rounds=15)
    parser.add_argument("--models", default="resnet8,resnet20")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines, claims = ["| step | ms |", "|---|---|"], []
    for model in asked.models.split(","):
        for precision in ("float32", "bfloat16"):
            spent = by_turns(steps(model, precision), asked.rounds, thrown_away=2)
            lines += [f"| {model}, {precision}, {name} | {median(each):.1f} |" for name, each in spent.items()]
            claims += claimed(f"{model}, {precision}", spent)
    how = f"batch {BATCH} of 3 x 32 x 32, one thread, CPU time, median of {asked.rounds} rounds"
    publish("step", asked.out, "\n".join([heading("The network's own step", how), *lines]), claims)


def steps(model: str, precision: str) -> Mapping[str, Callable[[], object]]:
    """The step, and what it would be without each choice."""
    return {
        OURS: step(model, precision),
        "contiguous": step(model, precision, layout=torch.contiguous_format),
        "update not fused": step(model, precision, fused=False),
        "relu as torch has it": step(model, precision, patched={"rectified": F.relu}),
        "shortcut by slicing": step(model, precision, patched={"Subsample.forward": sliced}),
    }


def step(
    model: str,
    precision: str,
    *,
    layout: torch.memory_format = torch.channels_last,
    fused: bool = True,
    patched: Mapping[str, Callable[..., Tensor]] = NOTHING,
) -> Callable[[], object]:
    """Forward, backward and update, on the same batch each time."""
    torch.manual_seed(0)
    facts = DATASETS["cifar10"]
    shape = {"classes": CLASSES, "channels": 3, "image_size": 32}
    net: nn.Module = nets.build(model, **shape, mean=facts.mean, std=facts.std, precision=precision)
    net = net.to(memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=fused)
    x = torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(CLASSES, (BATCH,))

    def work() -> None:
        with ExitStack() as stack:
            for name, instead in patched.items():
                stack.enter_context(mock.patch(f"{resnet.__name__}.{name}", instead))
            loss = F.cross_entropy(net(x), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return work


def sliced(shortcut: Any, x: Tensor) -> Tensor:
    """A shortcut without weights, whose gradient is contiguous, so that in channels_last two layouts meet."""
    stride, zeros = shortcut._stride, shortcut._zeros
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, zeros, zeros))


def claimed(whose: str, spent: Mapping[str, list[float]]) -> list[Claim]:
    """That no choice costs anything."""
    return [
        faster(f"{whose}: a step beside one {name}", spent[OURS], spent[name], NOISE) for name in spent if name != OURS
    ]


if __name__ == "__main__":
    as_a_worker()
    main()
