import inspect
from itertools import product

import numpy as np
import pytest
import torch

from methods import Batch, graphcut, potts
from methods.collage import compatibility, most_held, rivals
from methods.comixup import CoMixup
from methods.contract import CRITERION, SmallNetwork, check
from methods.ops import Poll

SIZE = 12


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SmallNetwork(classes=SIZE)


def mix(mixer, net, x, *, seed=0):
    """The mixed batch of images whose labels tell them apart: row n, column m of y is image m's share in image n."""
    mixer.generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return mixer(Batch(x, torch.eye(SIZE)[: len(x)]), net)


def pictures(count=SIZE, side=16, seed=1):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def problem(seed, *, side=4, labels=9, weight=30, kind="even"):
    """Costs, (3, B * B, n), weight and distances, (3, n, n), of three grids."""
    generator = np.random.default_rng(seed)
    costs = generator.integers(0, 20000, (3, side**2, labels))
    apart = generator.choice([25, 100], (3, labels, labels))
    apart = np.maximum(np.triu(apart, 1), np.triu(apart, 1).transpose(0, 2, 1))
    if kind == "ties":
        costs = costs // 4000 * 4000
    if kind == "dear":  # all but two labels, the first of all among them
        costs[:, :, [0, *range(3, labels)]] += 10**6
    return costs, weight, apart


def as_graphcut(costs, weight, apart):
    side = int(costs.shape[1] ** 0.5)
    grid = torch.from_numpy(costs).view(len(costs), side, side, -1)
    down = torch.full((len(costs), side - 1, side), weight)
    return graphcut.swap(grid, down, down.transpose(1, 2), torch.from_numpy(apart), Poll()).flatten(1).numpy()


# ---- labels


@pytest.mark.parametrize("kind", ["even", "ties", "dear"])
@pytest.mark.parametrize("side", [2, 3, 4, 5])
@pytest.mark.parametrize("weight", [0, 5, 60])
def test_pairs_that_are_left_out_would_have_changed_nothing(kind, side, weight):
    for seed in range(3):
        given = problem(seed, side=side, weight=weight, kind=kind)
        assert np.array_equal(potts.swap(*given), as_graphcut(*given))


def test_cut_is_the_least_of_all_and_of_those_the_one_with_the_fewest_blocks():
    ways = np.array(list(product([False, True], repeat=9)))
    generator = np.random.default_rng(0)
    near = potts.neighbours(9)
    for _ in range(100):
        gain = generator.integers(-3, 4, 9)
        weight, held = int(generator.integers(0, 3)), generator.random(9) < 0.8
        allowed = ways[~(ways & ~held).any(1)]
        seams = [
            (allowed[:, block] != allowed[:, other]) & (held[block] & held[other])
            for block in range(9)
            for other in near[block]
            if other > block
        ]
        sums = (allowed * gain).sum(1) + weight * np.sum(seams, 0)
        best = allowed[sums == sums.min()]
        found = potts.cut(gain, weight, held, near)
        assert np.array_equal(found, best[best.sum(1).argmin()])


# ---- collages


def test_pairs_are_of_what_a_collage_shows_most():
    counts = np.array([[0, 7, 0, 8, 0], [0, 0, 16, 0, 0], [4, 1, 5, 0, 6]], np.float32)
    pairs, there = most_held(counts)
    assert [pairs[row][there[row]].tolist() for row in range(3)] == [[[1, 3]], [], [[0, 2], [0, 4], [2, 4]]]


def test_collages_of_the_same_images_are_parted():
    shares = np.zeros((1, 4, 4, 4), np.float32)
    for collage, images in enumerate([(0, 1), (2, 3), (0, 1), (2,)]):
        shares[0, collage, :, images[0]], shares[0, collage, :2, images[-1]] = 1, 1
    assert rivals(shares)[0].tolist() == [[1, 0, 0, 0], [0] * 4, [0, 1, 0, 0], [0] * 4]


def test_peaks_in_one_place_make_no_images_more_compatible():
    assert np.allclose(compatibility(np.zeros((2, 3, 3), np.float32), 0.1), 0.9 * np.eye(3))


# ---- the mixer


OPTIONS = [
    {},
    {"m_beta": 0.0},
    {"m_block_num": (8,)},
    {"m_part": 5},
    {"m_thres_type": "soft"},
    {"clean_lam": 0.0},
    {"m_niter": 1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_comixup_weighs_labels_by_what_is_visible(options, net):
    values = torch.linspace(0, 1, SIZE)
    mixed = mix(CoMixup(**options), net, values[:, None, None, None].expand(-1, 3, 16, 16))
    torch.testing.assert_close(mixed.x.mean((1, 2, 3)), mixed.y @ values)


def test_comixup_mixes_where_saliency_is_uneven_and_shows_whole_images_where_it_is_even():
    mixer = CoMixup()
    mixer.generator = torch.Generator().manual_seed(0)
    uneven = torch.rand(SIZE, 4, 4, generator=torch.Generator().manual_seed(0)).pow(3).repeat_interleave(4, 1)
    for saliency, most in ((uneven.repeat_interleave(4, 2), 5), (torch.ones(SIZE, 16, 16), 1)):
        shown = mixer.solve(saliency, mixer.draw(SIZE)).flatten(1)
        images = [len(collage.unique()) for collage in shown]
        assert max(images) <= most
        assert sum(images) / SIZE > 1.5 or most == 1


def test_comixup_mixes_within_partitions_of_which_the_last_may_be_smaller(net):
    y = mix(CoMixup(m_part=5), net, pictures()).y
    inside = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5), torch.ones(2, 2))
    assert torch.equal(y * inside, y)


def test_comixup_keeps_the_contract_with_and_without_clean_images():
    check(CoMixup())
    check(CoMixup(clean_lam=0.0, m_block_num=(2, 8), m_part=3))


def test_comixup_has_float32_labels_under_autocast(net):
    with torch.autocast("cpu", torch.bfloat16):
        assert mix(CoMixup(), net, pictures()).y.dtype == torch.float32


def test_comixup_asks_the_device_once(net):
    mixer = CoMixup()
    mix(mixer, net, pictures())
    assert mixer.notes()["polls"] == 1


def test_comixup_learns_from_clean_images_too(net):
    mixed = mix(CoMixup(), net, pictures())
    logits = mixed.logits(net)
    assert mixed.loss(logits, CRITERION) > CRITERION(logits, mixed.y).mean()
    assert type(mix(CoMixup(clean_lam=0.0), net, pictures())).__name__ == "Mixed"


def test_comixup_mixes_an_image_that_is_alone_with_itself(net):
    x = pictures(1)
    mixed = mix(CoMixup(), net, x)
    torch.testing.assert_close(mixed.x, x)
    assert torch.equal(mixed.y, torch.eye(SIZE)[:1])


def test_comixup_takes_an_image_without_saliency_as_one_that_is_as_salient_everywhere():
    mixer = CoMixup()
    mixer.generator = torch.Generator().manual_seed(0)
    draws, noise = mixer.draw(SIZE), torch.rand(SIZE, 16, 16, generator=torch.Generator().manual_seed(0))
    zero, even = noise.clone(), noise.clone()
    zero[0], even[0] = 0, 1
    assert torch.equal(mixer.solve(zero, draws), mixer.solve(even, draws))


# ---- bad input


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mixup_alpha": 0.0}, "mixup_alpha is 0.0: it must be a finite number above 0"),
        ({"m_part": 1}, "m_part is 1: a partition must have at least 2 images"),
        ({"m_block_num": ()}, "m_block_num is empty"),
        ({"m_block_num": (1,)}, "m_block_num holds 1: a side must have at least 2 blocks"),
        ({"m_beta": -1.0}, "m_beta is -1.0: it must be a finite number, at least 0"),
        ({"m_beta": 1e9}, "m_beta is 1000000000.0, .* would overflow"),
        ({"m_gamma": 1e9}, "m_gamma 1000000000.0 .* would overflow"),
        ({"m_thres": float("nan")}, "m_thres is nan"),
        ({"m_thres_type": "firm"}, "m_thres_type is 'firm': it must be one of hard, soft"),
        ({"m_omega": 2.0}, "m_omega is 2.0: it must be between 0 and 1"),
        ({"m_niter": 0}, "m_niter is 0: it must be at least 1"),
        ({"clean_lam": -1.0}, "clean_lam is -1.0"),
    ],
)
def test_comixup_refuses_options_that_make_no_sense(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        CoMixup(**options)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.rand(4, 3, 16, 12), "images have 16 x 12 pixels: comixup mixes square ones"),
        (torch.rand(4, 3, 18, 18), "m_block_num holds 4, but images have 18 pixels a side: take of 2, 3, 6, 9, 18"),
    ],
)
def test_comixup_refuses_images_that_it_cannot_mix(x, sentence, net):
    with pytest.raises(ValueError, match=sentence):
        mix(CoMixup(), net, x)


def test_comixup_refuses_a_gradient_that_is_not_finite(net):
    with pytest.raises(FloatingPointError, match="the network's gradient is NaN or infinite"):
        mix(CoMixup(), net, torch.full((4, 3, 16, 16), float("nan")))


def test_what_is_not_said_is_what_the_authors_say_for_cifar():
    said = {"mixup_alpha": 2.0, "m_block_num": (4,), "m_part": 20, "m_beta": 0.32, "m_gamma": 1.0, "m_thres": 0.83}
    said |= {"m_thres_type": "hard", "m_eta": 0.05, "m_omega": 0.001, "set_resolve": True, "m_niter": 4}
    options = inspect.signature(CoMixup).parameters
    assert {name: option.default for name, option in options.items()} == said | {"clean_lam": 1.0}
