from functools import partial

import pytest
import torch
import torch.nn.functional as F

from methods import Batch, Mixed
from methods.augmix import COMMON, NAMES, AugMix, Draws, Views, augment, divergence
from methods.contract import SmallNetwork, check
from methods.pictures import apply
from mixbench import criteria

SIZE = 6
CRITERION = partial(F.cross_entropy, reduction="none")


def pictures(*, size=SIZE, channels=3, height=16, width=16):
    """8-bit pictures in [0, 1]."""
    shape = size, channels, height, width
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1)) / 255


def mix(mixer, x, *, seed=0):
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(Batch(x, torch.eye(10)[torch.arange(len(x)) % 10]), None)


OPTIONS = [
    {"all_ops": True, "severity": 10.0},
    {"width": 1, "depth": 1},
    {"width": 2, "depth": 5},
    {"alpha": 0.2},
    {"jsd": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_contract_is_kept_with_other_options(options):
    check(AugMix(**options))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(17, 17), (9, 20), (1, 1)])
def test_pictures_of_any_size_are_mixed_grey_ones_too(height, width, channels):
    x = pictures(channels=channels, height=height, width=width)
    mixed = mix(AugMix(all_ops=True), x)
    assert mixed.x.shape == (3 * SIZE, channels, height, width)
    assert mixed.x.min() >= 0
    assert mixed.x.max() <= 1 + 1e-6


def test_the_first_view_is_the_image_and_the_others_are_two_mixtures_of_it():
    x = pictures()
    first, second, third = mix(AugMix(), x).x.chunk(3)
    assert torch.equal(first, x)
    for one, other in ((first, second), (first, third), (second, third)):
        assert (one != other).flatten(1).any(1).all()


def test_a_mixture_is_the_weighted_sum_of_the_image_and_its_chains():
    mixer, x = AugMix(all_ops=True), pictures()
    mixed = mix(mixer, x).x[SIZE:]
    mixer.generator.manual_seed(0)
    draws = mixer.draw(2 * SIZE)
    chains = augment((255 * x).round().byte().repeat(2, 1, 1, 1), draws).view(2 * SIZE, 3, *x.shape[1:]) / 255
    sums = torch.einsum("nk,nkchw->nchw", draws.weights, chains)
    own, rest = draws.lam[:, :, None, None, None].unbind(1)
    torch.testing.assert_close(mixed, own * x.repeat(2, 1, 1, 1) + rest * sums, rtol=0, atol=1e-6)


def test_a_chain_does_not_depend_on_those_beside_it():
    x = (255 * pictures()).round().byte()
    draws = AugMix(all_ops=True, severity=10.0).draw(SIZE)
    chains = augment(x, draws)
    for chain, found in enumerate(chains):
        each = (draws.ops, draws.levels, draws.coins)
        alone = Draws(draws.lam, torch.ones(1, 1), draws.depths[[chain]], *(one[:, [chain]] for one in each))
        assert torch.equal(augment(x[[chain // 3]], alone)[0], found)


def test_a_chain_is_as_many_operations_as_drawn_one_after_the_other():
    ops = torch.tensor([[NAMES.index("posterize")], [NAMES.index("solarize")], [NAMES.index("equalize")]])
    levels, coins = torch.full((3, 1), 3.0, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    picture = (255 * pictures(size=1)).byte()
    expected = picture
    for depth, (name, strength) in enumerate([("posterize", 3.0), ("solarize", 180.0), ("equalize", 0.0)], 1):
        expected = apply(expected, [name], torch.tensor([strength], dtype=torch.float64))
        draws = Draws(torch.ones(1, 2), torch.ones(1, 1), torch.tensor([depth]), ops, levels, coins)
        assert torch.equal(augment(picture, draws), expected)


def test_draws_are_the_authors():
    draws = AugMix().draw(4000)
    assert draws.depths.unique(return_counts=True)[0].tolist() == [1, 2, 3]
    assert (draws.depths.bincount()[1:] / len(draws.depths) - 1 / 3).abs().max() < 0.02
    assert draws.ops.unique().tolist() == list(range(COMMON))
    assert 0.1 <= draws.levels.min() < draws.levels.max() <= 3
    assert abs(draws.levels.mean() - 1.55) < 0.02
    assert abs((draws.coins > 0.5).double().mean() - 0.5) < 0.02
    torch.testing.assert_close(draws.weights.sum(1), torch.ones(4000))
    assert (draws.weights.mean(0) - 1 / 3).abs().max() < 0.02
    assert abs(draws.weights.var() - 1 / 18) < 0.004  # of Dirichlet(1, 1, 1)
    assert abs(draws.lam[:, 0].var() - 1 / 12) < 0.004  # of Beta(1, 1)


def test_all_ops_draws_from_the_four_that_are_left_out_too():
    assert AugMix(all_ops=True).draw(500).ops.unique().tolist() == list(range(len(NAMES)))
    assert NAMES[COMMON:] == ("color", "contrast", "brightness", "sharpness")


def test_alpha_0_leaves_images_alone():
    x = pictures()
    torch.testing.assert_close(mix(AugMix(alpha=0), x).x, x.repeat(3, 1, 1, 1))


def test_without_jsd_one_mixture_is_shown_alone():
    x = pictures()
    mixed = mix(AugMix(jsd=0), x)
    assert type(mixed) is Mixed
    assert mixed.x.shape == x.shape
    assert (mixed.x != x).flatten(1).any(1).all()


@pytest.mark.parametrize("criterion", criteria.CRITERIA.values())
def test_the_loss_is_the_criterion_of_the_images_and_12_times_the_divergence(criterion):
    torch.manual_seed(0)
    net, mixed = SmallNetwork(), mix(AugMix(), pictures())
    logits = mixed.logits(net)
    p = logits.view(3, SIZE, 10).softmax(2)
    middle = p.mean(0)
    apart = sum((one * (one / middle).log()).sum(1).mean() for one in p) / 3
    expected = criterion(logits[:SIZE], mixed.y).mean() + 12 * apart
    torch.testing.assert_close(mixed.loss(logits, criterion), expected)


def test_the_divergence_of_equal_answers_is_0():
    assert divergence(torch.randn(1, 5, 10).expand(3, 5, 10)).abs() < 1e-6


def test_the_gradient_is_finite_where_a_probability_underflows():
    logits = torch.tensor([[[0.0, -300.0, 5.0]], [[-200.0, 0.0, 400.0]], [[0.0, 0.0, -1e4]]], requires_grad=True)
    loss = Views(torch.empty(0), torch.eye(3)[:1], 12.0).loss(logits.view(3, 3), CRITERION)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    "x", [torch.rand(4, 3, 8, 8), pictures() * 255, pictures() - 0.5, pictures() + 2e-3], ids=["", "255", "low", "off"]
)
def test_images_that_are_not_8_bit_are_refused_in_one_sentence(x):
    with pytest.raises(ValueError, match=r"the images are not 8-bit pictures, whose values are 0, 1, \.\.\., 255"):
        mix(AugMix(), x)


def test_digits_and_bfloat16_count_as_8_bit():
    digits = (255 * torch.arange(17) / 16).round().byte() / 255
    mix(AugMix(), digits.view(1, 1, 17, 1))
    x = torch.arange(256).view(1, 1, 16, 16).bfloat16() / 255
    mixer = AugMix()
    assert mix(mixer, x).x.dtype == torch.bfloat16
    assert mixer.pictures(x).flatten().tolist() == list(range(256))


def test_only_the_first_batch_is_asked_and_nothing_else_of_the_device():
    mixer, net = AugMix(all_ops=True), SmallNetwork().to("meta")
    mix(mixer, pictures())
    mixed = mix(mixer, pictures().to("meta"))
    assert mixed.loss(mixed.logits(net), lambda logits, y: (logits - y.to("meta")).sum(1)).device.type == "meta"
    assert mixer.poll.count == 1


REFUSED = [
    ({"severity": 0.0}, "severity is 0.0: it must lie between 0.1 and 10"),
    ({"severity": 11.0}, "severity is 11.0"),
    ({"width": 0}, "width is 0: a mixture has at least 1 chain"),
    ({"depth": 0}, "depth is 0: it must be at least 1, or -1"),
    ({"alpha": -1.0}, "alpha is -1.0"),
    ({"jsd": -1.0}, "jsd is -1.0"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED, ids=str)
def test_options_are_checked_when_the_mixer_is_built(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        AugMix(**options)
