"""What every mixer promises the training loop, as one call: `check(mixer)` belongs in the test of your own mixer."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise, product
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Criterion, Mixed, Mixer, Network, TeacherMixer
from methods.saliency import eval_mode

SIZES = (8, 5, 2, 1)
SIDE = 32
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CRITERION: Criterion = partial(F.cross_entropy, reduction="none")
TOLERANCE = 1e-5
"""Sums of float32 weights miss 1, and mixed pixels the ends of [0, 1], by a few roundings."""

MEND = {
    "weights": "work on a copy, or put the old values back",
    "gradients": "take yours with torch.autograd.grad, which leaves .grad alone",
    "requires_grad flags": "put them back, or the network stops learning",
    "buffers": "run it in eval mode, or declare moves_statistics = True if it has to run in train mode",
    "modes": "remember the mode of every submodule and set each one back in a finally",
    "hooks": "remove yours in a finally",
}
"""What a mixer may change of a network, and what to do instead."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class SmallNetwork(nn.Module):
    """The smallest network that keeps the promises of `Network`: for any images and classes, in so many stages."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, channels: int = 3, classes: int = 10, stages: int = 3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, channels, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, channels, 1, 1), 0.25))
        self._stages = [f"layer{number}" for number in range(1, stages + 1)]
        for name, (inputs, outputs) in zip(self._stages, pairwise([channels, 8, *[16] * (stages - 1)]), strict=True):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2 if name == "layer2" else 1, padding=1)
            self.add_module(name, nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.fc = nn.Linear(16, classes)

    def features(self, x: Tensor) -> Tensor:
        """Last feature map, (N, 16, h, w), of images in [0, 1]."""
        out = (x - self.mean) / self.std
        for name in self._stages:
            out = self.get_submodule(name)(out)
        return out

    def classify(self, features: Tensor) -> Tensor:
        """Logits, (N, G), of a feature map."""
        return cast("Tensor", self.fc(features.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, G)."""
        return self.classify(self.features(x))


def check(mixer: Mixer, *, net: Network | None = None) -> None:
    """Run a mixer on batches of 8, 5, 2 and 1 images, in train and eval mode, both memory formats, and in bfloat16.

    Asserts what the training loop relies on: shapes; finite images in [0, 1] (unless ``in_range`` is False) in the
    memory format of the batch's; float32 labels, whose rows are not negative and sum to 1; the same batch from the same
    generator state, drawn from ``mixer.generator`` and not from a global one; and that inputs, network and teacher are
    left as they were (batch statistics may move if ``moves_statistics`` is True). No batch is smaller than ``least``.
    Of a mixer that learns, that the loss reaches it; and that what it has scored gives logits.

    Args:
        mixer: is given its generator and its mode back; networks of its own may have moved.
        net: the network in training, of which a copy is used; by default a `SmallNetwork`. Images are 32 x 32, with
            the channels of its ``mean``, and labels have the classes of its ``fc``.

    Raises:
        AssertionError: a promise is broken; the sentence says what to mend, its note on which batch.
    """
    trial = _small_network() if net is None else copy.deepcopy(net)
    generator, training = mixer.generator, mixer.training
    mixer.generator = torch.Generator()
    try:
        sizes = sorted({max(size, mixer.least) for size in SIZES}, reverse=True)
        for size, mode, layout in product(sizes, ("train", "eval"), LAYOUTS):
            with _named(f"{type(mixer).__name__} in {mode} mode, on a {layout} batch of {size}"):
                _set_modes(mixer, trial, training=mode == "train")
                _check_batch(mixer, trial, _batch(trial, size, LAYOUTS[layout]))
        with _named(f"{type(mixer).__name__} on images in bfloat16"):
            batch = _batch(trial, sizes[0], torch.contiguous_format)
            _check_batch(mixer, trial, Batch(batch.x.bfloat16(), batch.y))
    finally:
        mixer.generator = generator
        mixer.train(training)


def _small_network() -> Network:
    """One with the same weights each time, which leaves the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmallNetwork()


def _batch(net: Network, size: int, layout: torch.memory_format) -> Batch:
    generator = torch.Generator().manual_seed(size)
    classes = net.fc.out_features
    x = torch.rand(size, net.mean.shape[1], SIDE, SIDE, generator=generator)
    x = (51 * x).round() / 51  # 8-bit pictures; pure black and white occur, where a mix leaves [0, 1] first
    y = F.one_hot(torch.randint(classes, (size,), generator=generator), classes) * 0.9 + 0.1 / classes
    return Batch(x.to(net.mean.device).contiguous(memory_format=layout), y.to(net.mean.device))


def _set_modes(mixer: Mixer, net: Network, *, training: bool) -> None:
    module = cast("nn.Module", net)
    mixer.train(training)
    module.train(training)
    *_, last = module.modules()
    last.train(not training)  # one submodule unlike the rest shows whether each mode is put back or just the root's
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)


@contextmanager
def _named(case: str) -> Iterator[None]:
    """Note on every error in which case it happened."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while checking {case}")
        raise


def _check_batch(mixer: Mixer, net: Network, batch: Batch) -> None:
    given, world = Batch(batch.x.clone(), batch.y.clone()), _global_states()
    with _left_as_found(mixer, net, statistics=not mixer.moves_statistics):
        mixed = _mix(mixer, net, batch)
    _check_global(world)
    remedy = "mix into a new tensor, or a buffer of your own"
    assert torch.equal(batch.x, given.x), f"batch.x was written to: {remedy}"
    assert torch.equal(batch.y, given.y), f"batch.y was written to: {remedy}"
    _check_images(mixer, batch, mixed)
    _check_labels(batch, mixed)
    x, y = mixed.x.clone(), mixed.y.clone()
    again = _mix(mixer, net, batch)
    remedy = "draw everything with generator=self.generator"
    assert torch.equal(x, again.x), f"the same generator state gave other images: {remedy}"
    assert torch.equal(y, again.y), f"the same generator state gave other labels: {remedy}"
    with _left_as_found(mixer, net, statistics=False):
        _check_loss(again, net, mixer.learners())
    with _left_as_found(mixer, net, statistics=True):
        mixer.stepped(net, 1, 2)
        _check_scored(mixer, net, batch)


def _mix(mixer: Mixer, net: Network, batch: Batch) -> Mixed:
    cast("torch.Generator", mixer.generator).manual_seed(0)
    with torch.set_grad_enabled(bool(mixer.learners())):
        mixed = mixer(batch, net)
    assert isinstance(mixed, Mixed), f"the mixer returned a {type(mixed).__name__}: return a Mixed"
    return mixed


def _check_images(mixer: Mixer, batch: Batch, mixed: Mixed) -> None:
    x = mixed.x.detach()
    views = max(len(x) // len(batch.x), 1)
    assert x.shape == (views * len(batch.x), *batch.x.shape[1:]), (
        f"images of shape {tuple(batch.x.shape)} came back as {tuple(x.shape)}: return as many, of the same channels "
        f"and size (for several views of each, a multiple)"
    )
    assert x.dtype == batch.x.dtype, f"mixed images are {x.dtype}, the batch's {batch.x.dtype}: convert them back"
    assert bool(x.isfinite().all()), "mixed images hold NaN or infinity: look for a division by 0"
    low, high = float(x.min()), float(x.max())
    assert not mixer.in_range or (low >= -TOLERANCE and high <= 1 + TOLERANCE), (
        f"mixed images lie in [{low:.4g}, {high:.4g}]: keep them in [0, 1], or declare in_range = False"
    )
    for name, layout in LAYOUTS.items():
        assert not batch.x.is_contiguous(memory_format=layout) or x.is_contiguous(memory_format=layout), (
            f"images given as {name} came back in another memory format: build them from batch.x, or end with "
            f".contiguous(memory_format=...)"
        )


def _check_labels(batch: Batch, mixed: Mixed) -> None:
    y = mixed.y
    assert y.shape == batch.y.shape, (
        f"labels of shape {tuple(batch.y.shape)} came back as {tuple(y.shape)}: return one row of soft labels an image"
    )
    assert y.dtype == torch.float32, f"labels are {y.dtype}: return float32, as methods.ops.soft_labels does"
    assert bool((y >= 0).all()), f"a label is {float(y.min()):.4g}: weights of labels must not be negative or NaN"
    worst = float((y.sum(1) - 1).abs().max())
    assert worst <= TOLERANCE, f"a row of labels misses a sum of 1 by {worst:.4g}: use weights that sum to 1"


def _check_loss(mixed: Mixed, net: Network, learners: Sequence[nn.Parameter]) -> None:
    logits = mixed.logits(cast("nn.Module", net))
    assert logits.shape == (len(mixed.x), mixed.y.shape[1]), (
        f"logits have shape {tuple(logits.shape)}: return a row of classes for each of the {len(mixed.x)} images"
    )
    loss = mixed.loss(logits, CRITERION)
    assert loss.ndim == 0, f"the loss has shape {tuple(loss.shape)}: return one number, the mean over the batch"
    assert bool(loss.isfinite()), f"the loss is {loss.item()}: look for a logarithm of 0"
    assert loss.requires_grad, "the loss has no gradient: compute it from the logits, without detaching them"
    reached = torch.autograd.grad(loss, learners, allow_unused=True) if learners else [loss]
    assert any(gradient is not None for gradient in reached), (
        "the mixer has parameters that require gradients, and the loss reaches none: mix by them, without detaching, "
        "or freeze them"
    )


@torch.no_grad()
def _check_scored(mixer: Mixer, net: Network, batch: Batch) -> None:
    scored = mixer.scored(net)
    assert not mixer.headline or mixer.headline in scored, (
        f"headline is '{mixer.headline}', but scored() has {', '.join(scored) or 'no network'}: name one of these"
    )
    for name, network in scored.items():
        with eval_mode(cast("Network", network)):
            logits = network(batch.x)
        assert logits.shape == batch.y.shape, (
            f"the scored network '{name}' answers with the shape {tuple(logits.shape)}: return a row an image"
        )


def _global_states() -> Mapping[str, Any]:
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 (the one that mixers must not use)
    numpy = (legacy["key"].tolist(), legacy["pos"])
    return {"torch's": torch.get_rng_state().tolist(), "NumPy's": numpy, "random's": random.getstate()}


def _check_global(before: Mapping[str, Any]) -> None:
    after = _global_states()
    for owner, state in before.items():
        assert after[owner] == state, f"{owner} global generator was used: draw with generator=self.generator instead"


@contextmanager
def _left_as_found(mixer: Mixer, net: Network, *, statistics: bool) -> Iterator[None]:
    """Assert that network and teacher come out of the block as they went in; batch statistics too, if asked."""
    watched = {"network": net} | ({"teacher": mixer.teacher} if isinstance(mixer, TeacherMixer) else {})
    before = {whose: _state(module) for whose, module in watched.items()}
    yield
    for whose, module in watched.items():
        after = _state(module)
        for kind, name in before[whose] | after:
            same = _same(before[whose].get((kind, name)), after.get((kind, name)))
            exempt = not statistics and name.endswith(STATISTICS)
            assert same or exempt, f"the {whose}'s {kind} changed ({name or 'the root'}): {MEND[kind]}"


def _state(net: Network) -> dict[tuple[str, str], Any]:
    """All that a mixer must leave as it was, by a word of `MEND` and a name."""
    module = cast("nn.Module", net)
    state: dict[tuple[str, str], Any] = {}
    for name, parameter in module.named_parameters():
        state["weights", name] = parameter.detach().clone()
        state["gradients", name] = None if parameter.grad is None else parameter.grad.clone()
        state["requires_grad flags", name] = parameter.requires_grad
    for name, buffer in module.named_buffers():
        state["buffers", name] = buffer.clone()
    for name, part in module.named_modules():
        state["modes", name] = part.training
        state["hooks", name] = [handle for kind in HOOKS for handle in getattr(part, kind)]
    return state


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before, after)
    return bool(before == after)
