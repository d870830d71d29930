"""What a task works with, as a run asks for it: pictures, networks and mixers; and how what is learned is stored."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import methods
from methods import Mixer
from methods.views import ViewCache
from mixbench import catalog, nets
from mixbench.data import Content, Facts, facts_of, imagenet
from mixbench.data.images import Images
from mixbench.data.read import Pictures, content_of, read
from mixbench.data.resident import Cropped, Resident, stratified_subset
from mixbench.execution import Execution
from mixbench.shares import Share
from mixbench.spec import Run
from mixbench.streams import Streams

Weights = Callable[[Run], bytes]
"""Fetches what a finished run learned, as its task's `mixbench.tasks.Task.weights` made it."""


@functools.lru_cache(maxsize=2)
def _load(dataset: str, root: str, image_size: int | None) -> tuple[Pictures | imagenet.Files, Content]:
    if dataset == "imagenet":
        found = imagenet.list_files(Path(root))
        return found, imagenet.content_of(found)
    pictures = read(dataset, root=Path(root), image_size=image_size)
    return pictures, content_of(dataset, pictures, root=Path(root))


def load(run: Run, execution: Execution) -> tuple[Pictures | imagenet.Files, Content]:
    """The pictures that a run is about, or their files, and what is known of them; read once per process.

    Raises:
        mixbench.data.DataError: data are missing or damaged.
        ValueError: the own image folder has changed since the sweep was planned.
    """
    source = execution.source(run)
    pictures, content = _load(source, execution.data, run.image_size)
    if run.content and content.fingerprint != run.content:
        raise ValueError(f"{source} has changed since the sweep was planned; start the sweep again")
    return pictures, content


def facts(run: Run, execution: Execution) -> Facts:
    """The facts of a run's data set, with the counts of what is at hand."""
    _, content = load(run, execution)
    return facts_of(execution.source(run), root=Path(execution.data), image_size=run.image_size, content=content)


def network(run: Run, execution: Execution) -> nn.Module:
    """The run's network, freshly initialised, on its device and in its memory layout."""
    net = network_for(run, facts(run, execution)).to(execution.device)
    return net.to(memory_format=torch.channels_last) if execution.channels_last else net


def network_for(run: Run, about: Facts) -> nn.Module:
    """The run's network for such data, freshly initialised, on the CPU."""
    return nets.build(
        run.model,
        classes=about.classes,
        channels=about.channels,
        image_size=about.image_size,
        mean=run.mean or about.mean,
        std=run.std or about.std,
        precision=run.precision,
    )


def train_set(run: Run, streams: Streams, execution: Execution) -> Images:
    """The images that a run trains on: all, or as many of each class as its seed draws; in every view."""
    pictures, _ = load(run, execution)
    chosen = None
    if run.train_images is not None:
        chosen = stratified_subset(pictures.train_y, run.train_images, streams.generator("subset"))
    if isinstance(pictures, imagenet.Files):
        return _decoded(run, pictures.train, execution, chosen)
    x, y, device = pictures.train_x, pictures.train_y, _device(execution)
    if run.augment == "resized_crop":
        interpolation = facts(run, execution).interpolation
        return Cropped(
            x, y, classes=pictures.classes, flip=run.flip, interpolation=interpolation, subset=chosen, **device
        )
    return Resident(
        x, y, classes=pictures.classes, pad=run.pad, pad_mode=run.pad_mode, flip=run.flip, subset=chosen, **device
    )


def smallest_batch(run: Run, images: int) -> int:
    """The fewest of so many images that the run's mixer is ever given at once."""
    return Share(of=run.gpus).smallest(images, run.batch_size)


def check_batches(mixer: Mixer, run: Run, images: int) -> None:
    """Refuse, before anything is trained, batches that the mixer could not mix with themselves.

    Raises:
        ValueError: the batches, or the rest of an epoch that fills none, have fewer images than the mixer needs.
    """
    smallest = smallest_batch(run, images)
    if smallest < mixer.least:
        leave = f"leave each of {run.gpus} GPUs a part" if run.gpus > 1 else "leave a batch"
        raise ValueError(
            f"the mixer needs {mixer.least} images, but with a batch_size of {run.batch_size} the {images} training "
            f"images {leave} of {smallest}; choose another batch_size"
        )


def test_set(run: Run, execution: Execution) -> Images:
    """The images that a run is tested on: all, or the first so many; as they are."""
    pictures, _ = load(run, execution)
    if isinstance(pictures, imagenet.Files):
        return _decoded(run, pictures.test, execution, torch.arange(len(pictures.test_y))[: run.test_images])
    x, y = pictures.test_x[: run.test_images], pictures.test_y[: run.test_images]
    plain: dict[str, Any] = {"pad": 0, "pad_mode": "zeros", "flip": False}
    return Resident(x, y, classes=pictures.classes, **plain, **_device(execution))


def _decoded(run: Run, part: imagenet.Part, execution: Execution, subset: torch.Tensor | None) -> Images:
    from mixbench.data.decoded import Decoded  # with torchvision, which takes as long to import as torch itself

    about = facts(run, execution)
    return Decoded(
        part,
        size=about.image_size,
        interpolation=about.interpolation,
        flip=run.flip,
        workers=execution.workers,
        subset=subset,
        **_device(execution),
    )


def _device(execution: Execution) -> dict[str, Any]:
    """Where images are to be, and how they lie there."""
    return {"device": torch.device(execution.device), "channels_last": execution.channels_last}


def mixer_of(
    run: Run, streams: Streams, execution: Execution, weights: Weights, *, net: nn.Module | None = None
) -> Mixer:
    """The run's mixer, with all that it asks for: what other runs learned, the side of the images, and ``net``.

    Args:
        run: whose mixer.
        streams: what it draws from.
        execution: where it is.
        weights: fetches what other runs learned.
        net: the network in training, for a mixer that begins with a copy of it; None in a search, which has none.

    Raises:
        ValueError: it asks for what is not there.
    """
    asked = catalog.declaration(run.method).given
    given = {name: net if name == "net" and net else _given(name, run, execution, weights) for name in asked}
    mixer = methods.build(run.method, dict(run.options), given).to(execution.device)
    mixer.generator = streams.mix
    if run.precision == "bfloat16":
        mixer.precision = torch.bfloat16
    return mixer


def give_memory(mixer: Mixer, run: Run, images: Images, execution: Execution, weights: Weights) -> None:
    """Let the mixer keep what it would ask of a view again; runs of this process that ask the same share it."""
    if not mixer.remembers or execution.cam_cache == "off" or images.ids_below is None:
        return
    teacher = "" if run.teacher is None else hashlib.sha256(weights(run.teacher)).hexdigest()
    pictures, content = load(run, execution)
    views = content.fingerprint, run.image_size, run.pad, run.pad_mode, run.flip
    asked = (mixer.remembers, teacher, run.teacher, *views, *execution.bits().values())
    ids_below = images.ids_below + len(pictures.test_y)  # the ids of test images follow those of training
    mixer.views = _memory(asked, ids_below, host=execution.cam_cache == "host")


@functools.lru_cache(maxsize=1)
def _memory(asked: tuple[Hashable, ...], ids_below: int, *, host: bool) -> ViewCache:  # noqa: ARG001
    return ViewCache(ids_below, host=host)


def _given(name: str, run: Run, execution: Execution, weights: Weights) -> Any:
    if name == "image_size":
        return facts(run, execution).image_size
    if name == "net":
        raise ValueError(f"{run.folder}: '{run.method}' learns beside a network in training, and a search has none")
    need: Run | None = getattr(run, name)
    if need is None and (name, run.task) == ("policy", "search"):
        return None
    if need is None:
        raise ValueError(f"{run.folder} needs a {name}")
    return _frozen(need, execution, weights) if name == "teacher" else from_bytes(weights(need), execution.device)


def _frozen(run: Run, execution: Execution, weights: Weights) -> nn.Module:
    """The network that another run learned.

    Raises:
        ValueError: it is no network any more that could be asked.
    """
    net = network(run, execution)
    state = from_bytes(weights(run), execution.device)
    if not all(bool(values.isfinite().all()) for values in state.values()):
        raise ValueError(
            f"the teacher {run.folder} has weights that are NaN or infinite: its training diverged in the end; give "
            f"it a recipe with a smaller lr, or take another teacher"
        )
    net.load_state_dict(state)
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
