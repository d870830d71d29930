"""A method that is timed, `Subject`: its mixer and a network, and its works by column; imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from methods import Batch, Mixed, Mixer, Network
from methods.bank import Maker
from methods.views import ViewCache
from mixbench import catalog
from mixbench.criteria import CRITERIA
from mixbench.fields import LINKS
from mixbench.graph import Recorder
from mixbench.learning import Group, groups_of
from mixbench.replay import WARM_UP, ReplayedStep
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.timing.floor import Count, counting
from mixbench.timing.inputs import Inputs
from mixbench.timing.kernels import Answer, giving, noting, watching
from mixbench.timing.rounds import Work

COLUMNS = ("kernel", "cold", "amortised", "step")
"""What is timed: mixing alone, maps and gradients given; all that a new batch needs; that with what training keeps of
earlier epochs; a whole step of training, in which a batch is mixed as a new one."""

EPOCHS, PAD = 200, 4
"""The protocol of the column ``amortised``: so many epochs, crops after padding by so many pixels, and flips."""

LARGEST_CROPPED = 64
"""Pixels of a side from which on images are cropped at random sizes, so that no view comes twice."""

LR = 1e-6

SETTLED = 4 * (WARM_UP + 1)
"""Steps until those of a few forms are replayed, see `mixbench.replay`."""

COUNTED = 4
"""Mixes whose operations are counted, since what is drawn may change them; one of a search for mixes, which is long."""

GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, fill an interval evenly, however many there are."""


class Subject:
    """A method, ready to be timed.

    Attributes:
        run: which, see `mixbench.timing.runs.timed`.
        mixer: its mixer.
        built: seconds that the mixer's constructor took.
        inside: whether it mixes inside the network: then only a training step shows what that costs.
        told: what is to be known of its training step.

    Args:
        run, mixer, built: as above.
        net: in training.
        inputs: what is mixed.
        seed: of the draws.
        precision: of passes, as runs name it.
        recorder: has training steps replayed, as on a GPU; None: they are not.
    """

    def __init__(
        self,
        run: Run,
        mixer: Mixer,
        net: nn.Module,
        inputs: Inputs,
        *,
        seed: int,
        precision: str = "float32",
        built: float = 0.0,
        recorder: Recorder | None = None,
    ) -> None:
        self.run, self.mixer, self.built = run, mixer, built
        self.told: list[str] = []
        self.inside = False
        self._net, self._inputs, self._seed = net.train(), inputs, seed
        # The step is a training's in all but its rate: weights that learn nothing stay finite on whatever pictures.
        trained = replace(run, lr=LR, precision=precision)
        self.groups: Sequence[Group] = [(trained, list(net.parameters())), *groups_of(mixer, trained)]
        self.trainable = net
        self._step = ReplayedStep(trained, self, recorder, self.told.append) if recorder else Step(trained, self)
        self._views = ViewCache(inputs.images) if mixer.remembers else None
        self._seen: set[int] = set()
        self._answers: dict[int, Answer] = {}
        self._finished = 0.0
        self._alone = self._can_be_alone()

    def settle(self) -> None:
        """Take the steps behind which training is as it stays: what is replayed has been captured by then."""
        for number in range(SETTLED):
            self._training(number)()

    def loss(self, prepared: Mixed) -> Tensor:
        """Of a mixed batch, as in training."""
        return prepared.loss(prepared.logits(self._net), CRITERIA["ce"])

    def works(self) -> Mapping[str, Work]:
        """What is timed of it, by column; those that would be the same as another are left out."""
        works = {"cold": Work(self._cold, self._images), "step": Work(self._training, self._whole)}
        works |= {"kernel": Work(self._kernel, self._images)} if self._alone else {}
        return works | ({"amortised": Work(self._amortised, self._images)} if self.keeps else {})

    @property
    def runs(self) -> dict[str, str]:
        """The folders of the runs whose networks, policies and banks it has, by link; "" for what learned nothing."""
        asked = [link for link in catalog.declaration(self.run.method).given if link in LINKS]
        needs = {link: getattr(self.run, link) for link in asked}
        return {link: need.folder if need else "" for link, need in needs.items()}

    @property
    def keeps(self) -> bool:
        """Whether it keeps what it knows of a view."""
        return self._views is not None and self._inputs[0].x.shape[2] <= LARGEST_CROPPED

    @property
    def steps(self) -> list[int]:
        """How many mixes finished after so many steps, those at 0 did not; none where mixing is no search."""
        return [int(count) for count in self.mixer.step_counts] if isinstance(self.mixer, Maker) else []

    def counted(self) -> list[Count]:
        """What several cold mixes compute."""
        found = []
        for number in range(1 if isinstance(self.mixer, Maker) else COUNTED):
            work = self._cold(number)
            with counting() as count:
                mixed = cast("Mixed", work())
            self.inside |= mixed.pictures is None
            found.append(count)
        return found

    def _mix(self, batch: Batch) -> Mixed:
        with torch.set_grad_enabled(len(self.groups) > 1):
            return self.mixer(batch, cast("Network", self._net))

    def _draws(self, number: int) -> None:
        """The draws of a round are the same for all methods, as far as they draw alike."""
        self.mixer.generator = torch.Generator().manual_seed(1_000_003 * self._seed + number)
        self._finished = self._count()

    def _cold(self, number: int) -> Callable[[], object]:
        self.mixer.views = None
        self._draws(number)
        return partial(self._mix, self._inputs[number])

    def _kernel(self, number: int) -> Callable[[], object]:
        batch = self._inputs[number]
        self._learn(number)
        self._draws(number)
        answer = self._answers.get(number % len(self._inputs.batches))
        return partial(self._mix, batch) if answer is None else partial(self._mix_given, batch, answer)

    def _mix_given(self, batch: Batch, answer: Answer) -> Mixed:
        with giving(self._net, answer):
            return self._mix(batch)

    def _amortised(self, number: int) -> Callable[[], object]:
        batch = self._inputs[number]
        self._learn(number)
        self._draws(number)
        epoch = EPOCHS * ((number * GOLDEN) % 1.0)
        new = torch.rand(len(batch.x), generator=torch.Generator().manual_seed(number)) < new_share(epoch)
        cast("ViewCache", self._views).forget(cast("Tensor", batch.view)[new])
        return partial(self._mix, batch)

    def _training(self, number: int) -> Callable[[], object]:
        mix = self._cold(number)

        def train() -> None:
            self._step(mix(), 0.0)
            self.mixer.stepped(cast("Network", self._net), 0, 1)

        return train

    def _learn(self, number: int) -> None:
        """Have it known what a mixer would ask about a batch."""
        self.mixer.views = self._views
        place = number % len(self._inputs.batches)
        if place in self._seen:
            return
        self._seen.add(place)
        self._draws(number)
        with noting(self._net) as answers:
            self._mix(self._inputs[number])
        if answers:
            self._answers[place] = answers[-1]

    def _can_be_alone(self) -> bool:
        """Whether mixing can be told from asking: nobody is asked but once, and not for features alone."""
        if isinstance(self.mixer, Maker):
            return False
        self._learn(0)
        with watching(self.mixer, self._net) as passes:
            self._mix(self._inputs[0])
        return passes.own == 0 and passes.net == passes.whole <= 1

    def _images(self) -> float:
        return self._count() - self._finished if isinstance(self.mixer, Maker) else self._whole()

    def _whole(self) -> float:
        return float(len(self._inputs[0].x))

    def _count(self) -> float:
        return float(self.mixer.step_counts[1:].sum()) if isinstance(self.mixer, Maker) else 0.0


def new_share(epoch: float) -> float:
    """The probability that a view was in no earlier epoch of the protocol."""
    return float((1 - 1 / views_of_an_image()) ** epoch)


def views_of_an_image() -> int:
    """In how many ways the protocol crops and flips it."""
    return 2 * (2 * PAD + 1) ** 2
