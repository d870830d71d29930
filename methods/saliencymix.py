"""SaliencyMix: a box around the most salient pixel of one image, pasted into another."""

from __future__ import annotations

from functools import partial
from typing import Literal

from torch import Tensor

from methods.base import Batch, Mixed, Mixer, Network, register
from methods.boxes import box_around, draw_kept, paste, share_outside
from methods.finegrained import RADII, fine_grained, fine_grained_of_bytes
from methods.ops import beside, check_alpha, check_choice, check_prob, draw_partners, pair, soft_labels
from methods.saliency import peaks

SMALLEST = min(RADII) + 1
"""Pixels of a side below which every surround is the whole picture."""


@register("saliencymix")
class SaliencyMix(Mixer):
    """Pastes the box around the most salient pixel of another image at the same place (Uddin et al., 2021).

    Saliency is OpenCV's fine-grained one of the image that the box is cut from; in all else the box is CutMix's. The
    authors' code (afm-shahab-uddin/SaliencyMix) does not do what the paper says, and so there are two:

    - "paper": each image has a lam and a box of its own, from the saliency of its partner as an 8-bit picture. The
      peak of a view is computed once.
    - "official": what that code does under OpenCV 4.6 and 5.0. One lam and one box for the whole batch, from the
      partner of its first image alone; and OpenCV reads the bytes of the standardised float32 numbers for pixels, so
      that the peak has little to do with the picture.

    Both hand OpenCV's routine red, green and blue where it expects blue, green and red, as the authors do.

    Args:
        saliency: "paper" or "official".
        alpha: lam, the share that stays before clipping, is drawn from Beta(alpha, alpha); 0 mixes nothing. 1 is the
            authors'.
        prob: the probability of mixing an image, or a batch where ``saliency`` is "official". The authors mix half of
            CIFAR's batches and all of ImageNet's.
    """

    label = "SaliencyMix"
    source = "Uddin et al., 2021"
    defaults = "afm-shahab-uddin/SaliencyMix, its command for ImageNet; for CIFAR prob is 0.5"
    draws = "lam and a box for each image"

    def __init__(
        self, *, saliency: Literal["paper", "official"] = "paper", alpha: float = 1.0, prob: float = 1.0
    ) -> None:
        super().__init__()
        self.saliency = check_choice("saliency", saliency, ("paper", "official"))
        self.alpha = check_alpha(alpha)
        self.prob = check_prob(prob)
        self.remembers = "the peak of the fine-grained saliency" if saliency == "paper" else ""

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """Mix one batch.

        Raises:
            ValueError: the images are too small for the smallest surround, or have neither one channel nor three.
        """
        size, _, height, width = batch.x.shape
        if min(height, width) < SMALLEST:
            raise ValueError(
                f"images of {height} x {width} pixels are too small for saliencymix: each surround would be the whole "
                f"picture; take images with at least {SMALLEST} pixels a side"
            )
        partners = draw_partners(size, 2, self.generator)
        kept = draw_kept(size if self.saliency == "paper" else 1, self.alpha, self.prob, self.generator)
        (partners,) = beside(batch.x, partners)
        sources = partners[:, 1]
        centres = self.peaks(batch)[sources] if self.saliency == "paper" else official_peak(batch.x[sources[:1]], net)
        boxes = box_around(kept, centres, height, width)
        labels = soft_labels(batch.y, partners, pair(share_outside(boxes, height, width)))
        return Mixed(paste(batch.x, partners, boxes), labels)

    def peaks(self, batch: Batch) -> Tensor:
        """Row and column of the most salient pixel of each image as an 8-bit picture, (N, 2) int64."""
        if self.views is None or batch.view is None:
            return peaks(fine_grained(batch.x))
        return self.views(batch.view, partial(_small_peaks, batch.x)).long()


def official_peak(x: Tensor, net: Network) -> Tensor:
    """The peaks that the authors' code finds in images, (N, 2) int64: in those that it hands to the network."""
    return peaks(fine_grained_of_bytes((x.float() - net.mean) / net.std))


def _small_peaks(x: Tensor, places: Tensor) -> Tensor:
    """The peaks of the images at these places, on the CPU, as int16: they are kept for many views."""
    (places,) = beside(x, places)
    return peaks(fine_grained(x[places])).short()
