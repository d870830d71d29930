"""Mixed images that are made once and used by many runs: the task `MakeBank`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods import Batch, Mixer
from methods.bank import Maker, Mixes, empty
from mixbench import materials
from mixbench.execution import Execution
from mixbench.learning import Group
from mixbench.materials import Weights
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.tasks import Curve, Evaluation


class Shelf(nn.Module):
    """A bank that is being filled: buffers, so that a checkpoint holds them.

    Attributes:
        held: how many images are in it, a scalar.
        tried: how many mixes were made for it, a scalar.
        good: how many of these were good enough, a scalar; those that have no place any more among them.
    """

    held: Tensor
    tried: Tensor
    good: Tensor

    def __init__(self, room: Mixes) -> None:
        super().__init__()
        for name, value in room._asdict().items():
            self.register_buffer(name, value)
        for name in ("held", "tried", "good"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @property
    def mixes(self) -> Mixes:
        """All places, also those that are still empty."""
        return Mixes(*(getattr(self, name) for name in Mixes._fields))

    @property
    def full(self) -> bool:
        """Whether there is no place left."""
        return int(self.held) == len(self.mixes.x)

    def add(self, mixes: Mixes, *, tried: int) -> None:
        """Put in what was good enough of so many mixes; what has no place is left out."""
        held, room = int(self.held), self.mixes
        count = min(len(mixes.x), len(room.x) - held)
        for place, value in zip(room, mixes, strict=True):
            place[held : held + count] = value[:count]
        self.held += count
        self.tried += tried
        self.good += len(mixes.x)


class MakeBank:
    """Mix the training images until as many mixes as the run asks for are good enough: its ``bank_images``.

    An epoch is a pass over the training images, and ``epochs`` are the most that are taken. Nothing is learned.
    """

    from_start = False

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        content = materials.load(run, execution)[1]
        self.content, self.official = content.fingerprint, content.official
        with streams.initialising():
            self._mixer = materials.mixer_of(run, streams, execution, weights)
        self._maker = maker(self._mixer, run)
        self._train = materials.train_set(run, streams, execution)
        materials.check_batches(self._mixer, run, len(self._train))
        about = materials.facts(run, execution)
        room = empty(run.bank_images, self._maker.k, channels=about.channels, side=about.image_size)
        self._shelf = Shelf(room).to(execution.device)
        self.trainable: nn.Module = self._shelf
        self.groups: Sequence[Group] = [(run, [])]
        self.beside: Mapping[str, nn.Module] = {}
        self._streams = streams
        self._run = run
        self.steps = self._train.steps(run.batch_size)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, as `mixbench.tasks.Classify` has them, until the bank is full."""
        batches = self._train.epoch(self._streams, epoch, self._run.batch_size, skip=skip)
        for batch in () if self._shelf.full else batches:
            yield batch
            if self._shelf.full:
                return

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Tensor:
        """Mix a batch and store what is good enough; the share of its mixes that is not, a scalar."""
        mixes = self._maker.finished(batch)
        numbers = self._train.numbers(batch).to(mixes.sources.device)
        self._shelf.add(mixes._replace(sources=numbers[mixes.sources]), tried=len(batch.x))
        return mixes.lam.new_tensor(1 - len(mixes.x) / len(batch.x))

    def loss(self, prepared: Tensor) -> Tensor:
        """The share itself: there is nothing to minimise."""
        return prepared

    def stepped(self, done: int, steps: int) -> None:
        """Nothing follows."""

    def evaluate(self) -> Evaluation:
        """``stored``, how many images there are; ``finished``, how many of all mixes were good enough, in percent."""
        finished = 100 * int(self._shelf.good) / max(1, int(self._shelf.tried))
        return Evaluation({"stored": float(self._shelf.held), "finished": finished}, {})

    def weights(self) -> bytes:
        """The bank, as a run with a ``bank`` link is given it.

        Raises:
            ValueError: it is not full.
        """
        shelf = self._shelf
        if not shelf.full:
            raise ValueError(
                f"with epochs: {self._run.epochs} the bank holds only {int(shelf.held)} of its {len(shelf.mixes.x)} "
                f"images; take more epochs, a smaller bank_images, or options with which more mixes finish"
            )
        return materials.as_bytes(shelf.mixes._asdict())

    def files(self) -> Mapping[str, bytes]:
        """None beside the bank."""
        return {}

    def notes(self, curve: Curve) -> Mapping[str, Any]:  # noqa: ARG002
        """What the mixer says of its work, and whom it asked."""
        teacher = self._run.teacher
        return dict[str, Any](self._mixer.notes()) | ({"teacher": teacher.id} if teacher else {})


def maker(mixer: Mixer, run: Run) -> Maker:
    """The mixer, if its mixes can be stored.

    Raises:
        ValueError: they cannot.
    """
    if not isinstance(mixer, Maker):
        raise ValueError(f"the method '{run.method}' makes no mixes to be stored; take supermix for a bank")
    return mixer
