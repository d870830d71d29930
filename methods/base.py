"""The words every mixer speaks: a `Batch` goes in, a `Mixed` comes out, a `Network` may be asked on the way."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from methods.ops import Poll
from methods.views import ViewCache

Criterion = Callable[[Tensor, Tensor], Tensor]
"""(M, G) logits and (M, G) soft labels -> (M,) losses."""

ENTRY_POINTS = "mixbench.mixers"
"""The entry-point group under which other people's packages offer their mixers."""


@dataclass(frozen=True)
class Batch:
    """Images and labels before mixing.

    Attributes:
        x: (N, C, H, W) images in [0, 1]; a mixer never writes to them.
        y: (N, G) soft labels, float32; each row sums to 1.
        view: (N,) int64 on the CPU, the id of each image's (image, crop, flip), where that set is finite; else None.
    """

    x: Tensor
    y: Tensor
    view: Tensor | None = None


@dataclass(frozen=True)
class Mixed:
    """A mixed batch: what the network sees and what it should answer.

    A method that cannot be said as one image batch with soft labels (hidden layers, several views, an extra term)
    subclasses this in its own file and overrides `logits` or `loss`; the training loop only ever calls these two.

    Attributes:
        x: (M, C, H, W) images in [0, 1], in the memory format of the batch's images.
        y: (N, G) soft labels, float32; each row sums to 1.
        replayable: whether a step of one batch can be repeated for another by its operations alone: `logits` and `loss`
            do the same ones for all whose tensors have equal shapes and whose other fields, plain values, are equal.
            It is not inherited: a subclass says so itself.
    """

    x: Tensor
    y: Tensor
    replayable: ClassVar[bool] = True

    @property
    def pictures(self) -> Tensor | None:
        """What a mix of each image looks like, (N, C, H, W); None where images are mixed inside the network."""
        return self.x[: len(self.y)]

    def logits(self, net: nn.Module) -> Tensor:
        """Answers of ``net`` for this batch, (M, G)."""
        return cast("Tensor", net(self.x))

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """Scalar training loss for `logits`: the mean of ``criterion`` over the batch."""
        return criterion(logits, self.y).mean()


@runtime_checkable
class Network(Protocol):
    """What a network owes the mixers: its normalisation, its stages and its classifier, declared.

    Its stages are the submodules ``layer1``, ``layer2`` and so on, two at least: `features` runs each once, one after
    the other, and each puts out a feature map, (N, D, h, w).

    Attributes:
        mean, std: (1, C, 1, 1) buffers; ``(x - mean) / std`` is the first thing that `features` does.
        fc: the linear layer after global average pooling; its weights make class activation maps.
    """

    mean: Tensor
    std: Tensor
    fc: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Last feature map, (N, D, h, w), of images in [0, 1]."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        """Logits, (N, G), of a feature map."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Logits, (N, G): ``classify(features(x))``."""
        ...


class Mixer(nn.Module):
    """Turns a batch into a mixed batch. What it returns is valid until its next call: it may reuse its buffers.

    The constructor's signature is the declaration. Keyword-only parameters are the options that YAML may set, each
    with a literal default; positional parameters are given by the harness, by name (``teacher``). Images stay in
    [0, 1]; every network normalises its own input. The caller decides whether gradients are recorded.

    One that has parameters which require gradients learns during training: it is called with gradients, what the loss
    reaches is updated with the network, and all of its state is saved with the network's. It may be given ``net``, the
    network in training, to begin as a copy of it, but keeps no hold of it: every call brings it.
    """

    label: str = ""
    """How tables print it: "Manifold Mixup"."""
    source: str = ""
    """Where it was published: "Verma et al., 2019"."""
    defaults: str = ""
    """Where the defaults of its options are from: "main.py of facebookresearch/mixup-cifar10"."""
    draws: str = ""
    """What it draws, and for how many images at once: "lam for each image"."""
    asks: str = ""
    """What it asks of the network in training: "the gradient of the images"."""
    passes: float = 1.0
    """What a step of training costs, in passes of the network forth and back, its own included; for estimates."""
    alone: bool = False
    """True: no image ever meets another one."""
    in_range: bool = True
    """False declares to the contract that mixed images may leave [0, 1]."""
    moves_statistics: bool = False
    """True declares to the contract that the network is run in train mode, so its batch statistics move."""
    generator: torch.Generator | None = None
    """The CPU generator it draws from; None: torch's global one."""
    precision: torch.dtype = torch.float32
    """In which networks of its own compute, where they are large; all else, and what it returns, is float32."""
    least: int = 1
    """The fewest images that it can mix; it refuses a smaller batch with a ValueError."""
    remembers: str = ""
    """What it would ask of the same view again, in words: equal words of equal teachers mean equal values."""
    views: ViewCache | None = None
    """Where it keeps that; None: nowhere."""
    learns_by: Mapping[str, Mapping[str, float]] = MappingProxyType({})
    """How parts of it learn, by their names, where not as the network: lr, lr_end, momentum, weight_decay."""
    headline: str = ""
    """Whose accuracies are a run's own, of the `scored` networks; "": those of the network in training."""
    poll: Poll | None = None
    """Counts how often it asked the device for a value, as a solver must to see if it is done; None: it never does."""

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch of any size from `least` up; ``net`` is the network in training, returned as it was found.

        Raises:
            FloatingPointError: what it asked the network for is not finite: the training has diverged.
        """
        raise NotImplementedError

    def learners(self) -> list[nn.Parameter]:
        """Its parameters that learn."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def stepped(self, net: Network, done: int, steps: int) -> None:
        """Network and mixer have learned from a batch: ``done`` of all the ``steps`` of the training are over."""

    def scored(self, net: Network) -> Mapping[str, nn.Module]:
        """Networks that are evaluated beside ``net``, by name; each gives logits, (N, G), for images in [0, 1].

        The one that `headline` names takes the weights of ``net``: what later runs ask for is given to them from it.
        """
        return {}

    def notes(self) -> Mapping[str, float | str]:
        """What a result should say of its work so far; asked after evaluations, where a wait does no harm."""
        return {}

    def __call__(self, batch: Batch, net: Network) -> Mixed:
        """`forward`, typed."""
        return cast("Mixed", super().__call__(batch, net))


PARTS = ("mean", "std", "fc", "features", "classify")
"""What makes a network a `Network`, by name."""


class TeacherMixer(Mixer):
    """A mixer that asks a trained network, which stays frozen and in eval mode whatever the mixer's own mode.

    Raises:
        ValueError: the teacher is no `Network`.
    """

    def __init__(self, teacher: Network) -> None:
        super().__init__()
        # Not by isinstance: from Python 3.12 on, that does not see the buffers and submodules of a module.
        lacking = [name for name in PARTS if not hasattr(teacher, name)]
        if lacking:
            raise ValueError(
                f"the teacher, a {type(teacher).__name__}, lacks {', '.join(lacking)}: give it what "
                f"methods.base.Network asks for"
            )
        module = cast("nn.Module", teacher)
        self._teacher = module.requires_grad_(requires_grad=False).eval()

    @property
    def teacher(self) -> Network:
        """The frozen network that is asked."""
        return cast("Network", self._teacher)

    def train(self, mode: bool = True) -> TeacherMixer:
        """Set the mode of everything but the teacher."""
        super().train(mode)
        self._teacher.eval()
        return self


M = TypeVar("M", bound=type[Mixer])
_registered: dict[str, type[Mixer]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: make a mixer known as ``name``, which is its file's name, its YAML key and its table row."""

    def remember(mixer: M) -> M:
        known = _registered.get(name)
        if known is not None and known.__module__ != mixer.__module__:
            raise ValueError(f"two mixers are called '{name}': {known.__module__} and {mixer.__module__}; rename one")
        _registered[name] = mixer
        return mixer

    return remember


def find(name: str) -> type[Mixer]:
    """The mixer class of that name: ``methods/<name>.py``, or another package's entry point.

    Raises:
        ValueError: no mixer has that name, or two have it.
    """
    ours = name.isidentifier() and find_spec(f"methods.{name}") is not None
    theirs = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
    places = [f"methods.{name}"] * ours + [point.value for point in theirs]
    if len(places) > 1:
        raise ValueError(f"two mixers are called '{name}': {' and '.join(places)}; rename one or uninstall it")
    if theirs:
        return cast("type[Mixer]", theirs[0].load())
    if ours:
        importlib.import_module(f"methods.{name}")
    if name not in _registered:
        raise ValueError(f"no mixer is called '{name}': neither methods/{name}.py nor an installed package has it")
    return _registered[name]


def build(name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> Mixer:
    """The mixer ``name`` with these options (keyword-only parameters) and what the harness gives it (positional)."""
    return find(name)(**given, **options)
