"""What other people's libraries do of what our mixers do, to be measured beside them.

timm, kornia and opencv-contrib-python are no part of mixbench; what is not installed is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torchvision.transforms import v2

import methods
from methods import Batch, Network
from methods.finegrained import fine_grained

CLASSES = 10
HOW = """Beside other libraries, on the same batch, contiguous. timm writes into the batch that it is given: so that it
stays as it was, as ours leave it, timm is given a copy, and making that counts. Its CutMix then turns the batch around
instead of drawing partners, and pastes in place. Mixup reads two batches and writes one, which nobody can leave out."""

OTHERS = {"timm": "timm", "kornia": "kornia", "cv2": "opencv-contrib-python"}
LEFT_OUT = "".join(
    f"; {name} is not installed and so left out" for module, name in OTHERS.items() if not find_spec(module)
)


@dataclass(frozen=True)
class Pair:
    """Two ways of doing the same.

    Attributes:
        what: is done.
        ours: does it.
        whose: the other library.
        theirs: does it.
        aim: how many times as long as ours it should take at least.
    """

    what: str
    ours: Callable[[], object]
    whose: str
    theirs: Callable[[], object]
    aim: float = 1

    @property
    def name(self) -> str:
        """What theirs is called."""
        return f"{self.what}, {self.whose}"


def pairs(batch: Batch, net: Network) -> Iterator[Pair]:
    """What is to be compared, on these images, whose labels all of the others take as numbers."""
    x, y = batch.x.contiguous(), batch.y.argmax(1)
    batch = Batch(x, batch.y)
    for name, transform in (("mixup", v2.MixUp), ("cutmix", v2.CutMix)):
        whole, each = (methods.build(name, {"draw": draw}, {}) for draw in ("batch", "sample"))

        def ours(whole: methods.Mixer = whole) -> object:
            return whole(batch, net)

        def ours_each(each: methods.Mixer = each) -> object:
            return each(batch, net)

        theirs = transform(num_classes=CLASSES)
        yield Pair(f"{name}", ours, "torchvision v2", lambda theirs=theirs: theirs(x, y))
        if find_spec("timm"):
            yield Pair(f"{name}", ours, "timm", _timm(name, "batch", x, y))
            yield Pair(f"{name}, per sample", ours_each, "timm elem", _timm(name, "elem", x, y), aim=8)
        if find_spec("kornia"):
            yield Pair(f"{name}", ours, "kornia", _kornia(name, x, y, same=True))
            yield Pair(f"{name}, per sample", ours_each, "kornia", _kornia(name, x, y, same=False))
    if find_spec("cv2"):
        yield Pair("saliency maps", lambda: fine_grained(x), "OpenCV, one by one", _opencv(x), aim=2.5)


def _timm(name: str, mode: str, x: Tensor, y: Tensor) -> Callable[[], object]:
    from timm.data.mixup import Mixup

    alphas = {"mixup_alpha": float(name == "mixup"), "cutmix_alpha": float(name == "cutmix")}
    theirs = Mixup(**alphas, mode=mode, label_smoothing=0.0, num_classes=CLASSES)
    return lambda: theirs(x.clone(), y)


def _kornia(name: str, x: Tensor, y: Tensor, *, same: bool) -> Callable[[], object]:
    import kornia.augmentation

    kind = kornia.augmentation.RandomMixUpV2 if name == "mixup" else kornia.augmentation.RandomCutMixV2
    with warnings.catch_warnings(action="ignore"):
        theirs = kind(data_keys=["input", "class"], same_on_batch=same)
    return lambda: theirs(x, y)


def _opencv(x: Tensor) -> Callable[[], object]:
    """Its maps of what is made 8-bit pictures beforehand, which ours does itself."""
    import cv2

    cv2.setNumThreads(1)
    routine = cv2.saliency.StaticSaliencyFineGrained_create()
    pictures = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return lambda: [routine.computeSaliency(picture) for picture in pictures]
