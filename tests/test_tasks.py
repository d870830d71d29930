"""What a task makes of a batch: criteria."""

import math

import pytest
import torch
from torch.nn import functional as F

from methods import Mixed
from mixbench import tasks
from mixbench.criteria import CRITERIA, binary_cross_entropy
from mixbench.execution import Execution
from mixbench.fields import CHOICES
from mixbench.spec import Run
from mixbench.streams import Streams

RUN = Run(method="simple", dataset="digits", model="tiny", epochs=1, batch_size=20, pad=1, train_images=40)


def answers(scale, *, images=6, classes=10):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(images, classes, generator=generator, dtype=torch.float64)
    return logits, torch.rand(images, classes, generator=generator, dtype=torch.float64).softmax(1)


def torchs_own(logits, y):
    return F.binary_cross_entropy(logits.softmax(1), y, reduction="none").mean(1)


def gradient(criterion, logits, y):
    logits = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(criterion(logits, y).sum(), logits)
    return found


def between_two(gap, *, right):
    """Logits that say the first of two classes, by so much, and labels."""
    return torch.tensor([[gap, 0.0]]), torch.tensor([[1.0, 0.0] if right else [0.0, 1.0]])


def classify(**changes):
    return tasks.Classify(Run.from_dict(RUN.to_dict() | changes), Streams(0), Execution(), None)


def test_every_criterion_that_a_run_may_name_is_there():
    assert tuple(CRITERIA) == CHOICES["criterion"]


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_gives_one_loss_an_image(name):
    assert CRITERIA[name](*answers(1)).shape == (6,)


@pytest.mark.parametrize("scale", [0.1, 1, 3])
def test_bce_is_torchs_binary_cross_entropy_of_the_softmax(scale):
    logits, y = answers(scale)
    torch.testing.assert_close(binary_cross_entropy(logits, y), torchs_own(logits, y))
    torch.testing.assert_close(gradient(binary_cross_entropy, logits, y), gradient(torchs_own, logits, y))


def test_bce_ends_logarithms_where_torch_does():
    for gap in (50.0, 200.0, 1e6):
        logits, y = between_two(gap, right=False)
        assert binary_cross_entropy(logits, y).item() == pytest.approx(min(gap, 100))
    assert torchs_own(logits, y).item() == 100


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("gap", [20.0, 90.0, 110.0, 1e4, 1e30])
def test_bce_has_a_finite_gradient_where_the_softmax_underflows(gap, right):
    logits, y = between_two(gap, right=right)
    assert binary_cross_entropy(logits, y).isfinite().all()
    assert gradient(binary_cross_entropy, logits, y).isfinite().all()


def test_bce_keeps_its_digits_where_a_float32_softmax_is_1():
    logits, y = between_two(30.0, right=False)
    assert logits.softmax(1)[0, 0] == 1
    torch.testing.assert_close(gradient(binary_cross_entropy, logits, y), torch.tensor([[1.0, -1.0]]))


def test_bce_asks_the_device_for_no_value():
    logits, y = torch.empty(4, 3, device="meta"), torch.empty(4, 3, device="meta")
    assert binary_cross_entropy(logits, y).device.type == "meta"


@pytest.mark.parametrize("name", CRITERIA)
def test_classify_trains_by_the_criterion_of_its_run(name):
    task = classify(criterion=name)
    batch = next(task.batches(0, 0))
    expected = CRITERIA[name](task.net(batch.x), batch.y).mean()
    assert torch.equal(task.loss(Mixed(batch.x, batch.y)), expected)


def test_classify_reports_cross_entropy_whatever_it_trains_by():
    ce, bce = (classify(criterion=name).evaluate().metrics for name in ("ce", "bce"))
    assert ce == bce
    assert ce["test_loss"] == pytest.approx(math.log(10), rel=0.5)
