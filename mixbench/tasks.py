"""What is learned from a batch: `Task`, and `Classify`, training a network on mixed images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from methods import Batch, Mixed, Network
from methods.saliency import eval_mode
from mixbench import materials
from mixbench.criteria import CRITERIA
from mixbench.execution import Execution
from mixbench.learning import Average, Group, groups_of, moves, settled
from mixbench.materials import Weights
from mixbench.result import MIXER
from mixbench.shares import Share
from mixbench.spec import EMA, Run
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
        trainable: what the training is about; the checkpoint keeps it.
        groups: all that the optimiser updates.
        beside: what else moves during training, by name; the checkpoint keeps it too.
        steps: of an epoch.
        content: fingerprint of the data.
        official: whether the data are the official release.
        from_start: whether the curve begins before the first step, with an epoch 0.
    """

    trainable: nn.Module
    groups: Sequence[Group]
    beside: Mapping[str, nn.Module]
    steps: int
    content: str
    official: bool
    from_start: bool

    def batches(self, epoch: int, skip: int) -> Iterator[Any]:
        """The batches of an epoch, counted from 0, on the device; without the first ``skip``."""
        ...

    def prepare(self, batch: Any) -> Any:
        """What is made of a batch before the network's step: mixing, a teacher's answers."""
        ...

    def loss(self, prepared: Any) -> Tensor:
        """The network's step: a scalar to minimise."""
        ...

    def stepped(self, done: int, steps: int) -> None:
        """An update is over: ``done`` of all the ``steps`` of the training are."""
        ...

    def evaluate(self) -> Evaluation:
        """Metrics and predictions on the test set."""
        ...

    def weights(self) -> bytes:
        """What was learned, for runs that need this one."""
        ...

    def files(self) -> Mapping[str, bytes]:
        """What was learned beside that, by the name of its file."""
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
            self.mixer = settled(materials.mixer_of(run, streams, execution, weights, net=self.net), run, self.net)
        self.trainable = self.net
        self.groups: Sequence[Group] = [(run, list(self.net.parameters())), *groups_of(self.mixer, run)]
        self.average = Average(self.net, run.ema) if run.ema else None
        moving = {EMA: self.average, "mixer": self.mixer if moves(self.mixer) else None}
        self.beside: Mapping[str, nn.Module] = {name: module for name, module in moving.items() if module is not None}
        self._train = materials.train_set(run, streams, execution)
        materials.check_batches(self.mixer, run, len(self._train))
        materials.give_memory(self.mixer, run, self._train, execution, weights)
        self._test = materials.test_set(run, execution)
        self._criterion = CRITERIA[run.criterion]
        self._streams = streams
        self._batch_size = run.batch_size
        self._share = Share(streams.rank, run.gpus)
        self.steps = self._train.steps(run.batch_size, share=self._share)

    def batches(self, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, in the order and views that the run's seed draws for it."""
        return self._train.epoch(self._streams, epoch, self._batch_size, skip=skip, share=self._share)

    def prepare(self, batch: Batch) -> Mixed:
        """Mix the batch, with gradients where the mixer learns."""
        with torch.set_grad_enabled(len(self.groups) > 1):
            return self.mixer(batch, cast("Network", self.net))

    def loss(self, prepared: Mixed) -> Tensor:
        """The run's criterion of the network's answers and the mixed labels, or what the method makes of it."""
        return prepared.loss(prepared.logits(self.net), self._criterion)

    def weight(self, step: int) -> float:
        """By what the loss of a step counts among those of the processes that train together."""
        return self._share.weight(step, len(self._train), self._batch_size)

    def stepped(self, done: int, steps: int) -> None:
        """The average follows the network, and so does what the mixer keeps of it."""
        if self.average is not None:
            self.average.follow(self.net)
        self.mixer.stepped(cast("Network", self.net), done, steps)

    def evaluate(self) -> Evaluation:
        """Top-1, top-5 and loss on the test images, un-augmented, in the run's precision.

        They are the network's, or those of the mixer's headline; of every other network under its name, ``ema_top1``.
        """
        beside = {name: self._tested(net) for name, net in self._beside().items()}
        counted = beside[self.mixer.headline] if self.mixer.headline else self._tested(self.net)
        named = {
            f"{name}_{metric}": value
            for name, evaluation in beside.items()
            for metric, value in evaluation.metrics.items()
        }
        return Evaluation({**counted.metrics, **named}, counted.predictions)

    def _beside(self) -> Mapping[str, nn.Module]:
        """The networks that are evaluated beside the one in training, by name."""
        average = {} if self.average is None else {EMA: self.average}
        return {**self.mixer.scored(cast("Network", self.net)), **average}

    @torch.no_grad()
    def _tested(self, net: nn.Module) -> Evaluation:
        with eval_mode(cast("Network", net)):
            answers = [(net(batch.x).log_softmax(1), batch.y) for batch in self._test.test_batches(TEST_BATCH)]
        log_probabilities = torch.cat([one for one, _ in answers])
        labels = torch.cat([y for _, y in answers]).argmax(1)
        return scored(log_probabilities, labels)

    def weights(self) -> bytes:
        """The state of the network that counts: the one in training, or the mixer's headline; never the average."""
        counts = self._beside()[self.mixer.headline] if self.mixer.headline else self.net
        return materials.as_bytes(counts.state_dict())

    def files(self) -> Mapping[str, bytes]:
        """The state of a mixer that learned."""
        return {MIXER: materials.as_bytes(self.mixer.state_dict())} if self.mixer.learners() else {}

    def notes(self, curve: Curve) -> Mapping[str, Any]:  # noqa: ARG002
        """What the mixer says of its work, and which of its networks the accuracies are of."""
        return {**self.mixer.notes(), **({"scored": self.mixer.headline} if self.mixer.headline else {})}


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
