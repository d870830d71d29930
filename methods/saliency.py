"""Where a network looks: saliency maps for mixers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Batch, Criterion, Mixed, Network, TeacherMixer
from methods.ops import beside, check_choice, costs

ROUNDING = 1e-6
"""A map whose range is below this share of its largest magnitude is constant but for float32 rounding."""

PASS, GPU_PASS = 32, 64
"""Images of a teacher's pass, always: the last bits of its answers can depend on how many are asked together."""


class CamMixer(TeacherMixer):
    """A mixer that is shown where its teacher looks, and where it may remember views, asks once for each.

    Args:
        teacher: the trained network whose maps are taken.
        cam_class: "label" takes the map of the image's label; "prediction" of the class that the teacher predicts, as
            the TransformMix paper does for data that the teacher was not trained on (section 4.2).
    """

    def __init__(self, teacher: Network, *, cam_class: str) -> None:
        super().__init__(teacher)
        self.cam_class = check_choice("cam_class", cam_class, ("label", "prediction"))
        self.remembers = f"{cam_class}'s CAM"
        self._asked = self._shown = 0

    def maps(self, batch: Batch) -> Tensor:
        """The class activation maps of a batch, (N, 1, H, W), see `cam`."""
        self._asked += len(batch.x)
        if self.views is None or batch.view is None:
            raw = self._look(batch, slice(None))
        else:
            raw = self.views(batch.view, partial(self._look, batch))
        return full_size(raw, *batch.x.shape[2:])

    def notes(self) -> Mapping[str, float | str]:
        """How many maps it needed, for how many of them the teacher was not asked, and where they are kept.

        Of this process: what an earlier one that was stopped did for the same run is not in it.
        """
        place = {} if self.views is None else {"maps_kept_on": self.views.place}
        found = {"maps": self._asked, "maps_saved": self._asked - self._shown} | place
        return costs(forward=1 + self._shown / max(1, self._asked)) | found

    def _look(self, batch: Batch, places: Tensor | slice) -> Tensor:
        if isinstance(places, Tensor):
            (places,) = beside(batch.x, places)
        x, y = batch.x[places], batch.y[places]
        self._shown += len(x)
        return look(self.teacher, x, y if self.cam_class == "label" else None)


@contextmanager
def eval_mode(net: Network) -> Iterator[None]:
    """The network in eval mode, and then each of its parts in the mode in which it was found."""
    modes = {part: part.training for part in cast("nn.Module", net).modules()}
    cast("nn.Module", net).eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def input_gradient(net: Network, x: Tensor, y: Tensor) -> Tensor:
    """How the mean cross-entropy of a batch changes with its normalised images, (N, C, H, W).

    The network is asked in eval mode, once forth and back, and left as it was found; of its weights no gradient is
    computed.

    Args:
        net: the network that is asked.
        x: (N, C, H, W) images in [0, 1].
        y: (N, G) soft labels.
    """
    with torch.enable_grad(), eval_mode(net):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(x), y), x)
    return gradient * net.std


def clean_gradient(net: Network, x: Tensor, y: Tensor, clean_lam: float) -> tuple[Tensor, Tensor | None]:
    """`input_gradient`; or with a ``clean_lam`` above 0, in training mode, and the loss whose gradient it is.

    The network can also learn from that loss; its batch statistics move.
    """
    if clean_lam == 0:
        return input_gradient(net, x, y), None
    learning = [weight for weight in cast("nn.Module", net).parameters() if weight.requires_grad]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        # Cross-entropy grows with the number of classes where a mean over them does not (main.py of the authors).
        loss = 2 * clean_lam / y.shape[1] * F.cross_entropy(net(x), y)
        gradient, *of_weights = torch.autograd.grad(loss, [x, *learning], allow_unused=True)
        clean = cast("Tensor", Differentiated.apply(loss.detach(), of_weights, *learning))
    return gradient * net.std, clean


def gradient_costs(clean_lam: float) -> dict[str, float]:
    """What steps cost whose mixer asks for `clean_gradient`, see `methods.ops.costs`."""
    return costs(images=2, forward=2, backward=2) if clean_lam else costs(forward=2, backward=1.5)


class Differentiated(torch.autograd.Function):
    """A loss that has been differentiated: what is known of its gradient need not be computed a second time."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, of_weights: Sequence[Tensor | None], *weights: Tensor) -> Tensor:  # noqa: ARG004
        """The scalar ``loss``; ``of_weights`` is its gradient by each of ``weights``, None by one that it lacks."""
        ctx.of_weights = of_weights
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """That gradient, for the weights."""
        return None, None, *(None if one is None else one * upstream for one in ctx.of_weights)


@dataclass(frozen=True)
class WithClean(Mixed):
    """A mixed batch whose images are also learned from as they were.

    Attributes:
        clean: scalar loss of the images before mixing, see `clean_gradient`.
    """

    clean: Tensor

    def loss(self, logits: Tensor, criterion: Criterion) -> Tensor:
        """The loss of the mixed images and that of the clean ones."""
        return super().loss(logits, criterion) + self.clean


def magnitude(gradient: Tensor) -> Tensor:
    """The root of the mean square over channels, (N, H, W), of (N, C, H, W)."""
    # The square of a small float32 is 0: each image's gradient is brought to a largest entry of 1 for it.
    largest = gradient.abs().amax((1, 2, 3), keepdim=True)
    scaled = gradient / largest.masked_fill(largest == 0, 1)
    return scaled.square().mean(1).sqrt() * largest[:, 0]


def peaks(maps: Tensor) -> Tensor:
    """Row and column of the largest value of each map, (N, H, W): (N, 2) int64; of several, the first as one reads."""
    place = maps.flatten(1).argmax(1)
    width = maps.shape[2]
    return torch.stack([place // width, place % width], dim=1)


def cam(teacher: Network, x: Tensor, y: Tensor | None) -> Tensor:
    """Class activation maps in [0, 1], (N, 1, H, W) float32 (Zhou et al., 2016). A constant map becomes all zeros.

    Each image is shown to the teacher once, without gradient. The teacher runs in the mode it is in, and keeps it:
    `TeacherMixer` holds its own in eval mode.

    Args:
        teacher: the network that is asked.
        x: (N, C, H, W) images in [0, 1].
        y: (N, G) soft labels, whose largest entry is the class of the map; None takes the class the teacher predicts.

    Raises:
        ValueError: the labels have other classes than the teacher knows.
    """
    return full_size(look(teacher, x, y), *x.shape[2:])


@torch.no_grad()
def look(teacher: Network, x: Tensor, y: Tensor | None) -> Tensor:
    """As `cam`, but at the size of the teacher's last feature map and in its own range: (N, 1, h, w) float32."""
    known = teacher.fc.out_features
    if y is not None and y.shape[1] != known:
        raise ValueError(
            f"the teacher knows {known} classes, the labels have {y.shape[1]}: set cam_class to prediction"
        )
    size = PASS if x.device.type == "cpu" else GPU_PASS
    parts = [slice(start, start + size) for start in range(0, len(x), size)]
    return torch.cat([_pass(teacher, x[part], None if y is None else y[part], size) for part in parts])


def _pass(teacher: Network, x: Tensor, y: Tensor | None, size: int) -> Tensor:
    """`look` at ``size`` images: these, repeated until they are so many."""
    filled = x if len(x) == size else x[torch.arange(size, device=x.device) % len(x)]
    features = teacher.features(filled)[: len(x)]
    scores = teacher.classify(features) if y is None else y
    return raw_cam(features, teacher.fc.weight[scores.argmax(1)])


def raw_cam(features: Tensor, class_weight: Tensor) -> Tensor:
    """Feature maps, (N, D, h, w), summed with the weights of a class, (N, D): (N, 1, h, w) float32."""
    # A product and a sum, not a matrix product: autocast would run that in bfloat16.
    return (features * class_weight[:, :, None, None]).sum(1, keepdim=True)


def full_size(raw: Tensor, height: int, width: int) -> Tensor:
    """Maps (N, 1, h, w) brought to size (bilinear, half-pixel centres), and then each to [0, 1].

    The other order gives another map. One that is constant becomes all zeros.
    """
    maps = F.interpolate(raw, size=(height, width), mode="bilinear", align_corners=False)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    spread = high - low
    flat = spread <= ROUNDING * torch.maximum(low.abs(), high.abs())
    return (maps - low) / spread.masked_fill(flat, torch.inf)
