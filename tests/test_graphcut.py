"""The graph cuts against trying all labellings; both solvers of the minimum cut against each other."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods import graphcut
from methods.graphcut import cut, exact, neighbours, swap, to_neighbours
from methods.maxflow import by_pulses, by_scipy
from methods.ops import Poll

KINDS = ["wide", "narrow", "flat", "free", "heavy"]
"""Costs and weights: of a wide range; of a narrow one, with many ties; all equal; without edges; with strong edges."""


def problem(kind, seed, height, width, n, count=16):
    """Random costs, and weights of the edges down and to the right."""
    generator = torch.Generator().manual_seed(seed)
    of_costs, of_weights = {"wide": (1000, 300), "narrow": (2, 2), "flat": (0, 1), "free": (5, 0), "heavy": (9, 99)}[
        kind
    ]

    def draw(most, *shape):
        return torch.randint(-most if most == of_costs else 0, most + 1, (count, *shape), generator=generator)

    costs = draw(of_costs, height, width, n)
    return costs, draw(of_weights, height - 1, width).abs(), draw(of_weights, height, width - 1).abs()


def labellings(height, width, labels):
    """All labellings of a grid, (labels ** blocks, H, W)."""
    return torch.tensor(list(product(labels, repeat=height * width))).view(-1, height, width)


def energies(costs, down, right, distances, labels):
    """What labellings (M, H, W) of one grid cost, edge by edge, (M,)."""
    own = costs.expand(len(labels), *costs.shape).gather(3, labels[..., None]).sum((1, 2, 3))
    below = down * distances[labels[:, :-1], labels[:, 1:]]
    beside = right * distances[labels[:, :, :-1], labels[:, :, 1:]]
    return own + below.sum((1, 2)) + beside.sum((1, 2))


def squares(n):
    labels = torch.arange(n)
    return (labels[:, None] - labels) ** 2


def lowest(candidates, energy):
    """Of the cheapest labellings the one that is nowhere above another."""
    best = candidates[energy == energy.min()]
    assert (best == best.amin(0)).flatten(1).all(1).any()
    return best.amin(0)


def tried_swap(costs, down, right, distances):
    """Alpha-beta swap of one grid, each move by trying all ways to deal the blocks out."""
    height, width, n = costs.shape
    labels = torch.zeros(height, width, dtype=torch.int64)
    energy = energies(costs, down, right, distances, labels[None])
    while True:
        for low, high in sorted(
            ((a, b) for a in range(n) for b in range(a + 1, n)), key=lambda pair: (pair[0], -pair[1])
        ):
            held = (labels == low) | (labels == high)
            dealt = torch.where(held, labellings(height, width, (low, high)), labels).unique(dim=0)
            labels = lowest(dealt, energies(costs, down, right, distances, dealt))
        before, energy = energy, energies(costs, down, right, distances, labels[None])
        if energy >= before:
            return labels


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 3), (1, 4), (3, 2)])
def test_cut_is_the_cheapest_labelling_with_the_fewest_second_labels(kind, height, width):
    costs, down, right = problem(kind, 1, height, width, 2)
    found = cut(costs[..., 1] - costs[..., 0], to_neighbours(down, right), Poll())
    candidates = labellings(height, width, (0, 1))
    for one in zip(costs, down, right, found, strict=True):
        energy = energies(*one[:3], squares(2), candidates)
        assert torch.equal(one[3].long(), lowest(candidates, energy))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width", "n"), [(2, 2, 2), (2, 2, 3), (3, 3, 3), (2, 2, 4), (1, 5, 4)])
def test_exact_is_the_cheapest_labelling_with_the_lowest_labels(kind, height, width, n):
    costs, down, right = problem(kind, 2, height, width, n)
    candidates = labellings(height, width, range(n))
    for one in zip(costs, down, right, exact(costs, down, right, Poll()), strict=True):
        energy = energies(*one[:3], squares(n), candidates)
        assert torch.equal(one[3], lowest(candidates, energy))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width", "n"), [(2, 2, 3), (3, 3, 3), (2, 3, 4)])
def test_swap_is_alpha_beta_swap(kind, height, width, n):
    costs, down, right = problem(kind, 3, height, width, n)
    for one in zip(costs, down, right, swap(costs, down, right, squares(n), Poll()), strict=True):
        assert torch.equal(one[3], tried_swap(*one[:3], squares(n)))


@st.composite
def grids(draw):
    """One grid of 2 x 2 or 3 x 3 blocks and 2 or 3 labels: costs, and weights of the edges down and to the right."""
    side, n, most = (
        draw(st.sampled_from([(2, 2), (2, 3), (3, 3)])),
        draw(st.integers(2, 3)),
        draw(st.integers(0, 10**6)),
    )
    height, width = side

    def numbers(least, *shape):
        count = int(torch.tensor(shape).prod())
        return torch.tensor(draw(st.lists(st.integers(least, most), min_size=count, max_size=count))).view(1, *shape)

    return numbers(-most, height, width, n), numbers(0, height - 1, width), numbers(0, height, width - 1)


@settings(deadline=None, max_examples=60)
@given(grids())
def test_whatever_the_costs_exact_is_least_and_swap_is_alpha_beta_swap(grid):
    _, height, width, n = grid[0].shape
    one, candidates = [part[0] for part in grid], labellings(height, width, range(n))
    least = lowest(candidates, energies(*one, squares(n), candidates))
    assert torch.equal(exact(*grid, Poll())[0], least)
    assert torch.equal(swap(*grid, squares(n), Poll())[0], tried_swap(*one, squares(n)))


def test_swap_takes_distances_that_are_no_metric_and_differ_from_grid_to_grid():
    costs, down, right = problem("wide", 4, 2, 3, 4)
    generator = torch.Generator().manual_seed(4)
    distances = torch.randint(9, (len(costs), 4, 4), generator=generator).triu(1)
    distances = distances + distances.transpose(1, 2)
    for one in zip(costs, down, right, distances, swap(costs, down, right, distances, Poll()), strict=True):
        assert torch.equal(one[4], tried_swap(*one[:4]))


def test_swap_of_two_labels_is_exact():
    two = problem("narrow", 5, 6, 6, 2, count=64)
    assert torch.equal(swap(*two, squares(2), Poll()), exact(*two, Poll()))


def test_swap_misses_the_minimum_now_and_then_and_exact_never_costs_more():
    costs, down, right = problem("wide", 6, 6, 6, 3, count=64)
    swapped, best = swap(costs, down, right, squares(3), Poll()), exact(costs, down, right, Poll())
    gaps = torch.stack(
        [
            energies(*one[:3], squares(3), torch.stack(one[3:])).diff()[0]
            for one in zip(costs, down, right, best, swapped, strict=True)
        ]
    )
    assert (gaps >= 0).all()
    assert (gaps > 0).any()


@pytest.mark.parametrize("solve", [swap, exact])
def test_a_grid_is_labelled_alike_alone_and_among_others(solve):
    costs, down, right = problem("wide", 7, 4, 5, 3)
    more = (squares(3),) if solve is swap else ()
    together = solve(costs, down, right, *more, Poll())
    alone = [
        solve(*(part[number : number + 1] for part in (costs, down, right)), *more, Poll()) for number in range(16)
    ]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solve", [swap, exact])
def test_pulses_cut_as_scipy_does(kind, solve, monkeypatch):
    costs, down, right = problem(kind, 8, 8, 7, 3)
    more = (squares(3),) if solve is swap else ()
    expected = solve(costs, down, right, *more, Poll())
    monkeypatch.setattr(graphcut, "sink_side", by_pulses)
    assert torch.equal(solve(costs, down, right, *more, Poll()), expected)


@pytest.mark.parametrize(("demand", "reaching"), [(5, 0), (9, 38)])
def test_pulses_go_a_long_way_to_the_sink(demand, reaching):
    supply = torch.zeros(1, 1, 1, 99, dtype=torch.int64)
    supply[..., 0], supply[..., -1] = 7, -demand
    right = torch.full((1, 1, 98), 8)
    right[..., 60] = 6  # the way is that narrow, and the sink's side ends there if more is asked for
    capacity = to_neighbours(torch.zeros(1, 0, 99, dtype=torch.int64), right)[:, :, None]
    plane = [(0, *offset) for offset in graphcut.BESIDE]
    found = by_pulses(supply, capacity, plane, Poll())
    assert int(found.sum()) == reaching
    assert torch.equal(found, by_scipy(supply, capacity, plane))


def test_a_cost_beyond_32_bits_is_no_other_cost():
    costs, down, right = problem("narrow", 9, 3, 3, 3)
    costs[:, 0, 0, 1] = 2**40
    labels = swap(costs, down, right, squares(3), Poll())
    for one in zip(costs, down, right, labels, strict=True):
        assert torch.equal(one[3], tried_swap(*one[:3], squares(3)))


@pytest.mark.parametrize("weight", [-1, 2**31])
def test_weights_that_cannot_be_cut_are_refused(weight):
    costs, down, right = problem("narrow", 10, 3, 3, 3)
    down[0, 0, 0] = weight
    costs[0, 0, 0] = torch.tensor([0, 2**33, 2**33])
    with pytest.raises(ValueError, match="must not be negative" if weight < 0 else "scale costs and weights down"):
        exact(costs, down, right, Poll())


def test_neighbours_are_those_that_the_weights_belong_to():
    numbers = torch.arange(6).view(1, 2, 3)
    weights = to_neighbours(torch.ones(1, 1, 3, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.int64))
    met = [
        set(beside[there > 0].tolist())
        for beside, there in zip(neighbours(numbers).flatten(2).unbind(2), weights.flatten(2).unbind(2), strict=True)
    ]
    assert met == [{1, 3}, {0, 2, 4}, {1, 5}, {0, 4}, {1, 3, 5}, {2, 4}]


def test_a_look_at_the_device_is_counted():
    poll = Poll()
    assert poll(torch.tensor(3.5)) == 3.5
    assert poll(torch.tensor(False)) == 0
    assert poll.count == 2
