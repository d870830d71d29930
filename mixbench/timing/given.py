"""What a timed mixer is given: what finished runs learned, else what has learned nothing; imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import methods
from methods import Mixer
from methods.bank import Maker, empty
from mixbench import catalog, materials
from mixbench.data import Facts
from mixbench.execution import Execution
from mixbench.materials import Weights
from mixbench.spec import Run

STORED = 2048
"""Images of a made-up bank."""


@dataclass(frozen=True)
class Given:
    """What there is for the mixers of a setting.

    Attributes:
        facts: of the pictures.
        real: whether they are a data set's, so that what a teacher sees in them means something.
        precision: of passes, as runs name it.
        weights: fetches what finished runs learned.
        execution: where all is.
    """

    facts: Facts
    real: bool
    precision: str
    weights: Weights
    execution: Execution

    def network(self, run: Run) -> nn.Module:
        """A run's network, which has learned nothing, laid out as training has it."""
        net = materials.network_for(replace(run, precision=self.precision), self.facts).to(self.execution.device)
        return net.to(memory_format=torch.channels_last) if self.execution.channels_last else net

    def mixer(self, subject: Run, net: nn.Module) -> tuple[Mixer, float]:
        """The mixer of a subject, for a network in training, and the seconds that its constructor took.

        Raises:
            ValueError: it asks for what is not there, or what it does would mean nothing.
        """
        can_give: dict[str, Callable[[], Any]] = {
            "teacher": lambda: self._teacher(subject),
            "policy": lambda: self._learned(subject.policy),
            "bank": lambda: self._learned(subject.bank) or self._made_up(),
            "image_size": lambda: self.facts.image_size,
            "net": lambda: net,
        }
        asked = catalog.declaration(subject.method).given
        unknown = [name for name in asked if name not in can_give]
        if unknown:
            raise ValueError(f"it asks for '{unknown[0]}'; mixbench can give it: {', '.join(can_give)}")
        given = {name: can_give[name]() for name in asked}
        begun = time.perf_counter()
        mixer = methods.build(subject.method, dict(subject.options), given)
        seconds = time.perf_counter() - begun
        if isinstance(mixer, Maker) and not self.real:
            raise ValueError("it mixes until its teacher recognises the images, which means nothing on made-up ones")
        if "policy" in asked:  # what a search taught it does not learn any more
            mixer.requires_grad_(requires_grad=False)
        mixer.precision = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        return mixer.to(self.execution.device), seconds

    def _teacher(self, subject: Run) -> nn.Module:
        """The subject's teacher, or a network of random weights.

        Raises:
            ValueError: it knows other classes than there are.
        """
        net, state = self.network(subject.teacher or subject), self._learned(subject.teacher)
        if state is not None:
            if len(state["fc.bias"]) != self.facts.classes:
                raise ValueError(f"its teacher knows {len(state['fc.bias'])} classes, the pictures have others")
            net.load_state_dict(state)
        return net

    def _made_up(self) -> Any:
        """A bank of noise."""
        room = empty(STORED, 2, channels=self.facts.channels, side=self.facts.image_size)
        return room._replace(x=torch.randint(256, room.x.shape, dtype=torch.uint8))._asdict()

    def _learned(self, run: Run | None) -> Any:
        """What a run learned; None where there is none."""
        return None if run is None else materials.from_bytes(self.weights(run), self.execution.device)
