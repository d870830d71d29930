"""What a network's answers to mixed images cost, one loss per image."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from methods import Criterion

LEAST_LOG = -100.0
"""Where torch's binary cross-entropy ends a logarithm, so that a loss stays finite."""


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


def excess(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of (M, G) logits with (M, G) soft labels above its least value, the labels' entropy: (M,).

    It is the Kullback-Leibler divergence of the answers from the labels, and has the cross-entropy's gradient by the
    logits: only unlike it, it says how far there is to go.
    """
    entropy: Tensor = -torch.special.xlogy(y, y).sum(1)
    return cross_entropy(logits, y) - entropy


CRITERIA: Mapping[str, Criterion] = MappingProxyType({"ce": cross_entropy, "bce": binary_cross_entropy})
"""What a run's ``criterion`` may be."""
