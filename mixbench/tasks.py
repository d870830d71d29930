"""What is learned from a batch: `Task`, and `Classify`, training a network on mixed images."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import methods
from methods import Batch, Criterion, Mixed, Network
from mixbench import nets
from mixbench.data import Content, facts_of
from mixbench.data.read import Pictures, content_of, read
from mixbench.data.resident import Resident, stratified_subset
from mixbench.execution import Execution
from mixbench.spec import LINKS, Run
from mixbench.streams import Streams

Weights = Callable[[Run], bytes]
"""Fetches what a finished run learned, as its task's `Task.weights` made it."""


TEST_BATCH = 500

LEAST_LOG = -100.0
"""Where torch's binary cross-entropy ends a logarithm, so that a loss stays finite."""


@dataclass(frozen=True)
class Evaluation:
    """How a network does on the test set.

    Attributes:
        metrics: ``top1`` and ``top5`` in percent, ``test_loss`` in nats.
        predictions: per test image, in order: the five most probable ``classes`` and their ``log_probabilities``.
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
    """

    trainable: nn.Module
    steps: int
    content: str
    official: bool

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


class Classify:
    """Train a network to classify, on images that the run's method mixes (tables 1, 2, 5, 6, 8, 9 and 10)."""

    def __init__(self, run: Run, streams: Streams, execution: Execution, weights: Weights) -> None:
        pictures, content = load(run, execution)
        self.content, self.official = content.fingerprint, content.official
        with streams.initialising():
            self.net = network(run, execution)
            given = {link: _frozen(need, execution, weights) for link in LINKS if (need := getattr(run, link))}
        self.trainable = self.net
        self.mixer = methods.build(run.method, dict(run.options), given).to(execution.device)
        if any(parameter.requires_grad for parameter in self.mixer.parameters()):
            raise ValueError(
                f"the mixer '{run.method}' has parameters that learn, and no task trains them; freeze them"
            )
        self.mixer.generator = streams.mix
        chosen = None
        if run.train_images is not None:
            chosen = stratified_subset(pictures.train_y, run.train_images, streams.generator("subset"))
        resident = partial(
            Resident,
            classes=pictures.classes,
            pad_mode=run.pad_mode,
            device=torch.device(execution.device),
            channels_last=execution.channels_last,
        )
        self._train = resident(pictures.train_x, pictures.train_y, pad=run.pad, flip=run.flip, subset=chosen)
        test = slice(run.test_images)
        self._test = resident(pictures.test_x[test], pictures.test_y[test], pad=0, flip=False)
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
        return as_bytes(self.net.state_dict())


TASKS: Mapping[str, Callable[[Run, Streams, Execution, Weights], Task]] = MappingProxyType({"classify": Classify})


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy in nats of (M, G) logits with (M, G) soft labels, one per image: (M,)."""
    return F.cross_entropy(logits, y, reduction="none")


def binary_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy on the softmax of (M, G) logits with (M, G) soft labels, mean over the classes: (M,).

    As in the code of Verma et al. (2019) and of Kim et al. (2020), main.py of both: torch's `BCELoss` of the softmax,
    whose logarithms end at -100.
    """
    log_p = logits.log_softmax(1)
    top = log_p.argmax(1, keepdim=True)
    # Only one class can be so sure that 1 - p has no digits left: there it is the sum of the others.
    others = log_p.scatter(1, top, LEAST_LOG).logsumexp(1, keepdim=True)
    log_rest = (-log_p.exp().scatter(1, top, 0.0)).log1p().scatter(1, top, others)
    return -(y * log_p.clamp_min(LEAST_LOG) + (1 - y) * log_rest).mean(1)


CRITERIA: Mapping[str, Criterion] = MappingProxyType({"ce": cross_entropy, "bce": binary_cross_entropy})


def scored(log_probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Metrics and predictions from (N, G) log-probabilities and (N,) labels. Waits for the device, once."""
    best = log_probabilities.topk(min(5, log_probabilities.shape[1]), dim=1)
    hits = best.indices == labels[:, None]
    losses = -log_probabilities.gather(1, labels[:, None])
    sums = torch.stack([hits[:, 0].sum(), hits.sum(), losses.sum()]).double().cpu().tolist()
    top1, top5, loss = (value / len(labels) for value in sums)
    predictions = {"classes": best.indices.short().cpu().numpy(), "log_probabilities": best.values.cpu().numpy()}
    return Evaluation({"top1": 100 * top1, "top5": 100 * top5, "test_loss": loss}, predictions)


@functools.lru_cache(maxsize=2)
def _load(dataset: str, root: str, image_size: int | None) -> tuple[Pictures, Content]:
    pictures = read(dataset, root=Path(root), image_size=image_size)
    return pictures, content_of(dataset, pictures, root=Path(root))


def load(run: Run, execution: Execution) -> tuple[Pictures, Content]:
    """The pictures that a run is about, and what is known of them; read once per process.

    Raises:
        mixbench.data.DataError: data are missing or damaged.
        ValueError: the own image folder has changed since the sweep was planned.
    """
    source = execution.source(run)
    pictures, content = _load(source, execution.data, run.image_size)
    if run.content and content.fingerprint != run.content:
        raise ValueError(f"{source} has changed since the sweep was planned; start the sweep again")
    return pictures, content


def network(run: Run, execution: Execution) -> nn.Module:
    """The run's network, freshly initialised, on its device and in its memory layout."""
    _, content = load(run, execution)
    facts = facts_of(execution.source(run), root=Path(execution.data), image_size=run.image_size, content=content)
    net = nets.build(
        run.model,
        classes=facts.classes,
        channels=facts.channels,
        image_size=facts.image_size,
        mean=run.mean or facts.mean,
        std=run.std or facts.std,
        precision=run.precision,
    ).to(execution.device)
    return net.to(memory_format=torch.channels_last) if execution.channels_last else net


def _frozen(run: Run, execution: Execution, weights: Weights) -> nn.Module:
    """The network that another run learned."""
    net = network(run, execution)
    net.load_state_dict(from_bytes(weights(run), execution.device))
    return net


def as_bytes(state: Any) -> bytes:
    """A state of tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, device: str) -> Any:
    """The state that `as_bytes` wrote; nothing but tensors and plain values is read."""
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def arrays(predictions: Mapping[str, Any]) -> bytes:
    """Predictions as an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **predictions)
    return buffer.getvalue()
