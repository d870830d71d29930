"""Training without mixing: what every other method is compared with."""

from __future__ import annotations

from methods.base import Batch, Mixed, Mixer, Network, register


@register("simple")
class Simple(Mixer):
    """Leaves images and labels as they are."""

    label = "Simple"
    source = ""
    alone = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, batch: Batch, net: Network) -> Mixed:
        """The batch itself."""
        return Mixed(batch.x, batch.y)
