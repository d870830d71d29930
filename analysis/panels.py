"""The paper's figures of mixes: what they are made of (2, 6, 8 and 9), under which temperature (4) and lam (5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from analysis.figures import Array, Block, Panel, Picture, Row
from analysis.mixes import TRIES, Mix, PolicyMix, Scene, Shown, mix, mix_by_policy
from methods.masks import LearnedMask
from methods.ops import draw_lam
from methods.transformmix import PolicyMixer
from mixbench import catalog

TEMPERATURES = (1.0, 0.5, 0.2, 0.01)
"""Shown beside the learned one."""
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The lam of image 1; the other images of a mix have equal parts of the rest."""


def parts(scene: Scene) -> Panel:
    """Inputs, and of each method with a policy its maps, moved images, masks and results; of any other the results."""
    inputs = (_row(f"input {number}", images) for number, images in _numbered(batch.x for batch in scene.batches))
    blocks = [Block(f"Test images of {scene.methods[0].source.run.dataset}", tuple(inputs))]
    for shown in scene.methods:
        mixer = shown.policy_mixer
        rows = [_results(scene, shown, _drawn(scene, shown))] if mixer is None else _explained(scene, shown, mixer)
        blocks.append(Block(_title(shown), tuple(rows)))
    caption = (
        "Each column is one mix of the images above it, which were drawn, not chosen, but no two of a mix from one "
        "class. Under a mask stands its mean, under a result what its label weighs."
    )
    if any(shown.policy_mixer is None for shown in scene.methods):
        caption += (
            f" A method without a policy draws for itself, up to {TRIES} times, until all its images are in the mix, "
            f"and it is one of pixels."
        )
    return _panel(scene, blocks, caption)


def temperatures(scene: Scene) -> Panel:
    """Masks and results of each mix at several temperatures; the images of a mix have the same lam.

    Raises:
        ValueError: a method has no learned mask.
    """
    blocks = []
    for shown in scene.methods:
        mixer = shown.policy_mixer
        mask = None if mixer is None else mixer.policy.mask
        if mixer is None or not isinstance(mask, LearnedMask):
            raise ValueError(f"--figure tau: {shown.name} has no learned mask, so no temperature; leave it out")
        blocks += [_by_temperature(scene, shown, mixer, mask, number) for number in range(len(scene.batches))]
    caption = "One mix at several temperatures τ of the softmax that makes the masks; all its images have the same λ."
    return _panel(scene, blocks, f"{caption} Under a mask stands its mean.")


def coefficients(scene: Scene) -> Panel:
    """Masks, or moved images where there are none, and results of each mix as the lam of image 1 grows.

    Raises:
        ValueError: a method has no policy.
    """
    blocks = []
    for shown in scene.methods:
        mixer = shown.policy_mixer
        if mixer is None:
            raise ValueError(f"--figure lam: {shown.name} has no policy that could be given a lam; leave it out")
        blocks += [_by_lam(scene, shown, mixer, number) for number in range(len(scene.batches))]
    caption = "One mix as λ, the weight of image 1, grows; its other images have equal parts of the rest."
    return _panel(scene, blocks, f"{caption} Under a mask stands its mean.")


FIGURES: Mapping[str, Callable[[Scene], Panel]] = MappingProxyType(
    {"parts": parts, "tau": temperatures, "lam": coefficients}
)
"""By the words of ``--figure``."""


def _panel(scene: Scene, blocks: Sequence[Block], caption: str) -> Panel:
    """The blocks, and what is to be said of them: a figure also says which runs it is of."""
    return Panel(tuple(blocks), (caption, *(shown.source.sentence for shown in scene.methods)))


def _drawn(scene: Scene, shown: Shown) -> list[Mix]:
    return [mix(shown, inputs, scene.generator(number)) for number, inputs in enumerate(scene.inputs(shown))]


def _explained(scene: Scene, shown: Shown, mixer: PolicyMixer) -> list[Row]:
    """CAMs, moved images where the policy moves them, masks where it has some, and results; each lam is drawn."""
    mixes = []
    for number, inputs in enumerate(scene.inputs(shown)):
        generator = scene.generator(number)
        lam = draw_lam(1, shown.k, mixer.alpha, generator)[0]
        mixes.append(mix_by_policy(mixer, shown.net, inputs, lam, torch.randn((), generator=generator)))
    rows = [
        Row(
            f"CAM {image + 1}",
            tuple(Picture(_array(one.maps[image]), over=_array(one.inputs.x[image])) for one in mixes),
        )
        for image in range(shown.k)
    ]
    moved = _moved(mixes) if mixer.policy.form.warp != "none" else []
    masks = _masks(mixes) if mixer.policy.form.mask != "none" else []
    return [*rows, *moved, *masks, _results(scene, shown, mixes)]


def _by_temperature(scene: Scene, shown: Shown, mixer: PolicyMixer, mask: LearnedMask, number: int) -> Block:
    """One mix: each moved image and its mask at each temperature, and the results."""
    inputs = scene.inputs(shown)[number]
    lam, z = torch.full((shown.k,), 1 / shown.k), torch.randn((), generator=scene.generator(number))
    learned = float(mask.temperature.detach())
    # What reads the same is not shown twice.
    taus = sorted([*(tau for tau in TEMPERATURES if f"{tau:.2g}" != f"{learned:.2g}"), learned], reverse=True)
    mixes = []
    for tau in taus:
        with _temperature(mask, tau):
            mixes.append(mix_by_policy(mixer, shown.net, inputs, lam, z))
    led = "moved" if mixer.policy.form.warp != "none" else "input"
    heads = (led, *(f"τ = {tau:.2g}" + "\n(learned)" * (tau == learned) for tau in taus))
    return Block(_title(shown), _led(mixes[0].moved, _masks(mixes), shown, mixes), heads)


@contextmanager
def _temperature(mask: LearnedMask, tau: float) -> Iterator[None]:
    """Inside, the mask has another temperature."""
    learned = mask.tau.data
    mask.tau.data = torch.full_like(learned, tau)
    try:
        yield
    finally:
        mask.tau.data = learned


def _by_lam(scene: Scene, shown: Shown, mixer: PolicyMixer, number: int) -> Block:
    """One mix: each image and its mask at each lam, and the results."""
    inputs, z = scene.inputs(shown)[number], torch.randn((), generator=scene.generator(number))
    lams = [torch.tensor([share, *[(1 - share) / (shown.k - 1)] * (shown.k - 1)]) for share in SHARES]
    mixes = [mix_by_policy(mixer, shown.net, inputs, lam, z) for lam in lams]
    rows = _masks(mixes) if mixer.policy.form.mask != "none" else _moved(mixes)
    return Block(_title(shown), _led(inputs.x, rows, shown, mixes), ("input", *(f"λ = {share}" for share in SHARES)))


def _led(leads: Tensor, rows: Sequence[Row], shown: Shown, mixes: Sequence[PolicyMix]) -> tuple[Row, ...]:
    """The rows, each led by an image, and one of results."""
    led = [Row(row.label, (_picture(lead), *row.pictures)) for lead, row in zip(leads, rows, strict=True)]
    return *led, Row(_result(shown), (None, *(_picture(one.x) for one in mixes)))


def _moved(mixes: Sequence[PolicyMix]) -> list[Row]:
    return [_row(f"moved {number}", images) for number, images in _numbered(one.moved for one in mixes)]


def _masks(mixes: Sequence[PolicyMix]) -> list[Row]:
    return [
        Row(f"mask {number}", tuple(Picture(_array(mask), f"{float(mask.mean()):.2f}") for mask in masks))
        for number, masks in _numbered(one.masks for one in mixes)
    ]


def _results(scene: Scene, shown: Shown, mixes: Sequence[Mix]) -> Row:
    return Row(_result(shown), tuple(Picture(_array(one.x), _weighed(scene, one)) for one in mixes))


def _result(shown: Shown) -> str:
    """What its row is called: what leaves [0, 1] cannot be shown."""
    return "result" if shown.mixer.in_range else "result, clipped"


def _weighed(scene: Scene, mixed: Mix) -> str:
    """What the label weighs, a line for each class that is in it, those of the inputs first."""
    shown = mixed.inputs.y.argmax(1).tolist()
    others = [label for label in mixed.y.nonzero()[:, 0].tolist() if label not in shown]  # as a teacher may see it
    weights = ((label, float(mixed.y[label])) for label in (*shown, *others))
    return "\n".join(f"{scene.classes[label]}: {weight:.2f}" for label, weight in weights if weight > 0)


def _title(shown: Shown) -> str:
    """The method as tables print it, with the options that are not its defaults, and its temperature."""
    options = [f"{name} = {value}" for name, value in shown.source.run.options]
    tau = shown.policy_mixer.policy.tau if shown.policy_mixer else None
    learned = [] if tau is None else [f"τ = {float(tau):.2g}"]
    return ", ".join([catalog.declaration(shown.name).label, *options, *learned])


def _numbered(columns: Iterable[Tensor]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """From the k images of each column to the images of each row, counted from 1."""
    return enumerate(zip(*columns, strict=True), start=1)


def _row(label: str, images: Iterable[Tensor]) -> Row:
    return Row(label, tuple(map(_picture, images)))


def _picture(image: Tensor) -> Picture:
    return Picture(_array(image))


def _array(image: Tensor) -> Array:
    """(H, W, C) of an image (C, H, W); a map (H, W) as it is."""
    return np.asarray(image.movedim(0, -1) if image.ndim == 3 else image, np.float32)
