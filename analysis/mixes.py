"""Images mixed as in training, one mix at a time: whose, of what, and what they were put together from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from analysis.sources import Source
from methods import Batch, Mixer, Network, TeacherMixer
from methods.ops import soft_labels
from methods.policy import Draws
from methods.transformmix import PolicyMixer
from mixbench import materials
from mixbench.data.read import class_names
from mixbench.endings import MissingNeedError
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.streams import Streams

TRIES = 100
"""How often a mixer may draw until all images of a batch are in its first mix, where two meet at every second try."""


@dataclass(frozen=True)
class Mix:
    """One mixed image.

    Attributes:
        inputs: the k images that could be mixed, whose classes differ.
        x: (C, H, W), what came of them.
        y: (G,), its label.
    """

    inputs: Batch
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class PolicyMix(Mix):
    """One with what it was put together from.

    Attributes:
        maps: (k, H, W), of the inputs.
        moved: (k, C, H, W), the inputs where the policy moved them.
        masks: (k, H, W), how much of each is shown.
    """

    maps: Tensor
    moved: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Shown:
    """A method whose mixes are shown.

    Attributes:
        source: where its mixer is taken from.
        mixer: in eval mode.
        net: the network that was trained with it; of a search, the teacher.
    """

    source: Source
    mixer: Mixer
    net: Network

    @property
    def name(self) -> str:
        """The method's."""
        return self.source.run.method

    @property
    def k(self) -> int:
        """Images of a mix."""
        return max(2, self.mixer.least)

    @property
    def policy_mixer(self) -> PolicyMixer | None:
        """The mixer, where it has a policy that says how it mixes."""
        return self.mixer if isinstance(self.mixer, PolicyMixer) else None


@dataclass(frozen=True)
class Scene:
    """What is there to be drawn.

    Attributes:
        methods: in the order of the figure.
        batches: the images of each mix, as many as the method that mixes the most takes.
        classes: their names, by number.
        streams: what all methods draw from.
    """

    methods: Sequence[Shown]
    batches: Sequence[Batch]
    classes: Sequence[str]
    streams: Streams

    def inputs(self, shown: Shown) -> list[Batch]:
        """What a method mixes for each column: the first images of each batch."""
        return [Batch(batch.x[: shown.k], batch.y[: shown.k]) for batch in self.batches]

    def generator(self, number: int) -> torch.Generator:
        """What every method draws the mix of that number from, afresh."""
        return self.streams.generator("shown draws", number)


def set_up(sources: Sequence[Source], execution: Execution, store: Store, *, count: int, seed: int) -> Scene:
    """The mixers of the sources, and the images of ``count`` mixes that the seed draws.

    Raises:
        ValueError: data are missing or have changed, or there are not enough test images.
    """
    methods = [_prepare(source, execution, store) for source in sources]
    run, streams = sources[0].run, Streams(seed)
    k = max(shown.k for shown in methods)
    batches = _draw_batches(run, execution, count, k, streams.generator("shown images"))
    return Scene(methods, batches, class_names(execution.source(run), root=Path(execution.data)), streams)


def _prepare(source: Source, execution: Execution, store: Store) -> Shown:
    run, streams = source.run, Streams(source.run.seed)

    def read(what: Callable[[Run], bytes], run: Run) -> bytes:
        try:
            return what(run)
        except MissingNeedError as error:
            raise ValueError(f"{source.run.method}: {error}") from error

    weights = partial(read, store.read_weights)
    with streams.initialising():
        net = materials.network(run, execution).eval()
        mixer = materials.mixer_of(run, streams, execution, weights, net=net).eval()
    finished = source.finished
    if isinstance(mixer, TeacherMixer) and finished is not None and finished.task == "search":
        return Shown(source, mixer, mixer.teacher)
    if finished is not None:
        net.load_state_dict(materials.from_bytes(weights(finished), execution.device))
    if finished is not None and run.policy is None and mixer.learners():
        mixer.load_state_dict(materials.from_bytes(read(store.read_mixer, finished), execution.device))
    return Shown(source, mixer, cast("Network", net))


def _draw_batches(run: Run, execution: Execution, count: int, k: int, generator: torch.Generator) -> list[Batch]:
    """Batches of k test images, no two of a class: so the label of a mix says who is in it. No image comes twice."""
    images = materials.test_set(run, execution)
    labels = materials.load(run, execution)[0].test_y[: len(images)].tolist()
    left = torch.randperm(len(images), generator=generator).tolist()
    batches: list[Batch] = []
    for _ in range(count):
        chosen = _unlike(left, labels, k)
        if len(chosen) < k:
            raise ValueError(f"the test images of {run.dataset} make no {count} mixes of {k} classes; ask for fewer")
        left = [image for image in left if image not in chosen]
        batches += images.test_batches(k, order=torch.tensor(chosen))
    return batches


def _unlike(images: Sequence[int], labels: Sequence[int], k: int) -> list[int]:
    """The first k images of different classes, or as many as there are."""
    chosen: dict[int, int] = {}
    for image in images:
        chosen.setdefault(labels[image], image)
        if len(chosen) == k:
            break
    return list(chosen.values())


@torch.no_grad()
def mix(shown: Shown, inputs: Batch, generator: torch.Generator) -> Mix:
    """What a mixer makes of the first of its inputs.

    Whom that meets is for the mixer to draw, and may be itself: it draws again until all inputs are in the mix, but
    not without end, as there are methods that mix nothing. Of a method that also mixes inside the network a mix of
    images is shown.

    Raises:
        ValueError: it mixes inside the network only.
    """
    shown.mixer.generator = generator
    for _ in range(TRIES):
        mixed = shown.mixer(inputs, shown.net)
        pictures = mixed.pictures
        if pictures is not None and (shown.mixer.alone or int((mixed.y[0] > 0).sum()) == len(inputs.x)):
            break
    if pictures is None:
        raise ValueError(f"{shown.name} mixes what is inside the network, of which there is no picture; leave it out")
    return Mix(inputs, pictures[0].clone(), mixed.y[0].clone())


@torch.no_grad()
def mix_by_policy(mixer: PolicyMixer, net: Network, inputs: Batch, lam: Tensor, z: Tensor) -> PolicyMix:
    """The mix of k inputs under (k,) ``lam`` and a noise ``z``, a scalar, instead of what the mixer would draw."""
    k = len(inputs.x)
    # Each input begins a mix of all; only that of the first is kept.
    partners = (torch.arange(k)[:, None] + torch.arange(k)) % k
    draws = Draws(partners, lam.expand(k, k), z.expand(k))
    maps, fill = mixer.maps(inputs), net.mean
    parts = mixer.policy.parts(inputs.x, maps, draws, fill=fill, precision=mixer.precision)
    y = soft_labels(inputs.y, partners, draws.lam)
    moved = torch.stack([image[0] for image in parts.images]) + fill[0]
    return PolicyMix(inputs, parts.mixed(fill)[0], y[0], maps[:, 0], moved, parts.masks[0])
