"""What a timed mixer is given: what finished runs learned, else what has learned nothing; imports torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import methods
from methods import Mixer
from methods.bank import Maker, empty
from mixbench import catalog, materials, nets
from mixbench.attempts import MissingNeedError
from mixbench.data import Facts
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing.inputs import Inputs
from mixbench.timing.links import Links
from mixbench.timing.request import Row

STORED = 2048
"""Images of a made-up bank."""


@dataclass(frozen=True)
class Given:
    """What there is for the mixers of a setting.

    Attributes:
        links: finished runs.
        store: where their weights are.
        facts: of the pictures.
        model: of every network, by name.
        inputs: what is mixed.
        precision: of passes, as runs name it.
        device: where all is.
    """

    links: Links
    store: Store
    facts: Facts
    model: str
    inputs: Inputs
    precision: str
    device: torch.device

    def network(self) -> nn.Module:
        """One that has learned nothing, laid out as training has it."""
        net = nets.build(
            self.model,
            classes=self.inputs.classes,
            channels=self.facts.channels,
            image_size=self.facts.image_size,
            mean=self.facts.mean,
            std=self.facts.std,
            precision=self.precision,
        )
        return net.to(self.device).to(memory_format=torch.channels_last)

    def mixer(self, row: Row, net: nn.Module) -> Mixer:
        """The mixer of a row, for a network in training.

        Raises:
            ValueError: it asks for what is not there, or what it does would mean nothing.
        """
        asked = catalog.declaration(row.method).given
        can_give: dict[str, Callable[[], Any]] = {
            "teacher": self._teacher,
            "policy": lambda: self._learned(self.links.policies.get(row.method)),
            "bank": self._bank,
            "image_size": lambda: self.facts.image_size,
            "net": lambda: net,
        }
        unknown = [name for name in asked if name not in can_give]
        if unknown:
            raise ValueError(f"it asks for '{unknown[0]}'; mixbench can give it: {', '.join(can_give)}")
        mixer = methods.build(row.method, dict(row.options), {name: can_give[name]() for name in asked})
        if isinstance(mixer, Maker) and (self.links.teacher is None or not self.inputs.real):
            raise ValueError(
                "it mixes until its teacher recognises the images, which means nothing without a teacher that was "
                "trained and the pictures it knows; train Simple on them first"
            )
        if "policy" in asked:  # what a search taught it does not learn any more
            mixer.requires_grad_(requires_grad=False)
        mixer.precision = torch.bfloat16 if self.precision == "bfloat16" else torch.float32
        return mixer.to(self.device)

    def runs(self, row: Row) -> dict[str, str]:
        """The folders of the runs whose networks, policies and banks a row was given; "" where it is made up."""
        there = {"teacher": self.links.teacher, "policy": self.links.policies.get(row.method), "bank": self._stored}
        asked = catalog.declaration(row.method).given
        return {name: run.folder if run else "" for name, run in there.items() if name in asked}

    @property
    def _stored(self) -> Run | None:
        return next(iter(self.links.banks), None)

    def _teacher(self) -> nn.Module:
        net, state = self.network(), self._learned(self.links.teacher)
        if state is not None:
            if len(state["fc.bias"]) != self.inputs.classes:
                raise ValueError(f"its teacher knows {len(state['fc.bias'])} classes, the pictures have others")
            net.load_state_dict(state)
        return net

    def _bank(self) -> Any:
        if self._stored:
            return self._learned(self._stored)
        room = empty(STORED, 2, channels=self.facts.channels, side=self.facts.image_size)
        return room._replace(x=torch.randint(256, room.x.shape, dtype=torch.uint8))._asdict()

    def _learned(self, run: Run | None) -> Any:
        """What a run learned; None where there is none."""
        if run is None:
            return None
        try:
            return materials.from_bytes(self.store.read_weights(run), str(self.device))
        except MissingNeedError as error:
            raise ValueError(str(error)) from error
