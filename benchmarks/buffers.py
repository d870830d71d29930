"""What fresh memory costs at 224 pixels: nothing beside buffers that are kept, in the environment of workers.

    python benchmarks/buffers.py [--rounds N] [--out DIR]

A mixer makes a new batch at every call. Elsewhere the system hands out that memory cleared, page by page, which takes
longer than the mixing; workers have freed memory handed out again, see `mixbench.process.KEEPING_MEMORY`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import cast

import torch
from claims import by_turns, faster, options, publish
from machine import as_a_worker, heading
from torch import Tensor

import methods
from methods import Batch, Network

BATCH, SIDE = 128, 224


def main() -> None:
    """Measure, and publish a table in Markdown."""
    asked = options(__doc__, rounds=11).parse_args()
    torch.set_num_threads(1)
    x = torch.rand(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    batch = Batch(x, torch.eye(10)[torch.randint(10, (BATCH,))])
    mixer, kept = methods.build("mixup", {}, {}), torch.empty_like(x)
    calls: Mapping[str, Callable[[], object]] = {
        "Mixup": partial(mixer, batch, cast("Network", None)),
        "Mixup into a kept buffer": partial(into, kept, x, torch.randperm(BATCH)),
        "a copy": x.clone,
        "a copy into a kept buffer": partial(kept.copy_, x),
    }
    spent = by_turns(calls, asked.rounds, thrown_away=2)
    how = f"batch {BATCH} of 3 x {SIDE} x {SIDE}, one thread, CPU time, median of {asked.rounds} rounds"
    lines = [heading("Buffers", how), "| what | ms |", "|---|---|"]
    lines += [f"| {name} | {median(each):.1f} ({min(each):.1f} to {max(each):.1f}) |" for name, each in spent.items()]
    claims = [
        faster(f"{what}, 224 pixels, beside a kept buffer", spent[what], spent[f"{what} into a kept buffer"], 0.8)
        for what in ("Mixup", "a copy")
    ]
    publish("buffers", asked.out, "\n".join(lines), claims)


def into(kept: Tensor, x: Tensor, partners: Tensor) -> None:
    """One lam for the batch, in place: the least that Mixup could do."""
    torch.index_select(x, 0, partners, out=kept)
    kept.lerp_(x, 0.3)


if __name__ == "__main__":
    as_a_worker()
    main()
