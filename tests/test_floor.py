"""What is counted of a call, and the floor that follows from it."""

import pytest
import torch
from torch.nn import functional as F

from mixbench.timing.floor import Count, Operation, Rates, counting, measured_rates

FLOAT = 4


def test_a_matrix_product_counts_twice_its_multiplications_and_every_matrix_once():
    one, other = torch.rand(8, 16), torch.rand(16, 32)
    with counting() as found:
        one @ other
    assert found.operations == [Operation(2 * 8 * 16 * 32, FLOAT * (8 * 16 + 16 * 32 + 8 * 32))]


def test_a_convolution_and_its_gradient_are_counted():
    x, weight = torch.rand(2, 3, 8, 8, requires_grad=True), torch.rand(4, 3, 3, 3)
    forth = 2 * 2 * 4 * 8 * 8 * 3 * 9
    with counting() as found:
        F.conv2d(x, weight, padding=1).sum().backward()
    assert found.flops == 2 * forth  # the gradient of the images alone costs as much as the way forth


def test_a_sum_counts_its_arguments_and_its_result():
    x, y = torch.rand(100), torch.rand(100)
    with counting() as found:
        x + y
        x.add_(x)
    assert [one.bytes for one in found.operations] == [FLOAT * 300, FLOAT * 100]


def test_another_look_at_the_same_memory_counts_as_nothing():
    x = torch.rand(4, 25)
    with counting() as found:
        x.view(100)[3:].expand(7, 97).t()
    assert found.operations == []


def test_an_expanded_dimension_is_read_once():
    with counting() as found:
        torch.rand(1, 10).expand(50, 10).sum()
    assert found.operations[-1].bytes == FLOAT * 11


def test_the_peak_is_what_is_held_at_once():
    x = torch.rand(1000)
    with counting() as found:
        y = x + 1
        y = y + 1  # the first sum is free after this
        y + 1
    assert found.peak == 2 * FLOAT * 1000


def test_every_operation_takes_the_longer_of_its_arithmetic_and_its_traffic():
    count = Count([Operation(flops=100, bytes=1), Operation(flops=1, bytes=100)])
    assert count.seconds(Rates(flops=10, bytes=50)) == 10 + 2


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_device_has_rates(precision):
    rates = measured_rates(torch.device("cpu"), precision)
    assert 1e8 < rates.flops < 1e14
    assert 1e8 < rates.bytes < 1e13
