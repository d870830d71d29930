"""What is learned from a batch: `Task`, and `Classify`, training a network on mixed images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from methods import Batch, Mixed, Mixer, Network
from mixbench import materials
from mixbench.criteria import CRITERIA
from mixbench.execution import Execution
from mixbench.materials import Weights
from mixbench.spec import Run
from mixbench.streams import Streams

TEST_BATCH = 500

Curve = Sequence[Mapping[str, float]]
"""An entry an epoch: ``epoch``, ``train_loss`` and, where it was evaluated, metrics."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on the test set.

    Attributes:
        metrics: by name, ``top1`` and ``top5`` in percent, losses in nats.
        predictions: arrays with an entry per test image, in order, by name; none where there are no answers to keep.
    """

    metrics: Mapping[str, float]
    predictions: Mapping[str, Any]


class Task(Protocol):
    """What the loop trains.

    Attributes:
        trainable: what the optimiser updates and the checkpoint keeps.
        steps: of an epoch.
        content: fingerprint of the data.
        official: whether the data are the official release.
        from_start: whether the curve begins before the first step, with an epoch 0.
    """

    trainable: nn.Module
    steps: int
    content: str
    official: bool
    from_start: bool

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 0, on the device; without the first ``skip``."""
        ...

    def prepare(self, batch: Batch) -> Any:
        """What is made of a batch before the network's step: mixing, a teacher's answers."""
        ...

    def loss(self, prepared: Any) -> Tensor:
        """The network's step: a scalar to minimise."""
        ...

    def evaluate(self) -> Evaluation:
        """Metrics and predictions on the test set."""
        ...

    def weights(self) -> bytes:
        """What was learned, for runs that need this one."""
        ...

    def notes(self, curve: Curve) -> Mapping[str, Any]:
        """What the result is to say beside its metrics; a ``warning``, one sentence, is told to the user too.

        Args:
            curve: of the epochs so far, the last of them evaluated.
        """
        ...


class Classify:
    """Train a network to classify, on images that the run's method mixes (tables 1, 2, 5, 6, 8, 9 and 10)."""

    from_start = False

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        content = materials.load(run, execution)[1]
        self.content, self.official = content.fingerprint, content.official
        with streams.initialising():
            self.net = materials.network(run, execution)
            self.mixer = settled(materials.mixer_of(run, streams, execution, weights), run)
        self.trainable = self.net
        self._train = materials.train_set(run, streams, execution)
        materials.check_batches(self.mixer, len(self._train), run.batch_size)
        materials.give_memory(self.mixer, run, self._train, execution, weights)
        self._test = materials.test_set(run, execution)
        self._criterion = CRITERIA[run.criterion]
        self._streams = streams
        self._batch_size = run.batch_size
        self.steps = self._train.steps(run.batch_size)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, in the order and views that the run's seed draws for it."""
        return self._train.epoch(self._streams, epoch, self._batch_size, skip=skip)

    def prepare(self, batch: Batch) -> Mixed:
        """Mix the batch."""
        with torch.no_grad():
            return self.mixer(batch, cast("Network", self.net))

    def loss(self, prepared: Mixed) -> Tensor:
        """The run's criterion of the network's answers and the mixed labels, or what the method makes of it."""
        return prepared.loss(prepared.logits(self.net), self._criterion)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Top-1, top-5 and loss on the test images, un-augmented, in the run's precision."""
        self.net.eval()
        answers = [(self.net(batch.x).log_softmax(1), batch.y) for batch in self._test.test_batches(TEST_BATCH)]
        self.net.train()
        log_probabilities = torch.cat([one for one, _ in answers])
        labels = torch.cat([y for _, y in answers]).argmax(1)
        return scored(log_probabilities, labels)

    def weights(self) -> bytes:
        """The network's state."""
        return materials.as_bytes(self.net.state_dict())

    def notes(self, curve: Curve) -> Mapping[str, Any]:  # noqa: ARG002
        """What the mixer says of its work."""
        return self.mixer.notes()


def settled(mixer: Mixer, run: Run) -> Mixer:
    """The mixer of a run that trains a network: what a search taught it is only used.

    Raises:
        ValueError: there is more in it that learns, which nothing would train.
    """
    if run.policy is not None:
        mixer.requires_grad_(requires_grad=False)
    if any(parameter.requires_grad for parameter in mixer.parameters()):
        raise ValueError(f"the mixer '{run.method}' has parameters that learn, and no task trains them; freeze them")
    return mixer


def scored(log_probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Metrics and predictions from (N, G) log-probabilities and (N,) labels. Waits for the device, once.

    Predictions are the five likeliest ``classes`` of each image and their ``log_probabilities``.
    """
    best = log_probabilities.topk(min(5, log_probabilities.shape[1]), dim=1)
    hits = best.indices == labels[:, None]
    losses = -log_probabilities.gather(1, labels[:, None])
    sums = torch.stack([hits[:, 0].sum(), hits.sum(), losses.sum()]).double().cpu().tolist()
    top1, top5, loss = (value / len(labels) for value in sums)
    predictions = {"classes": best.indices.short().cpu().numpy(), "log_probabilities": best.values.cpu().numpy()}
    return Evaluation({"top1": 100 * top1, "top5": 100 * top5, "test_loss": loss}, predictions)
