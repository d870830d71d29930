import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from methods import Batch, Mixed, graphcut, transport
from methods.blocks import block_saliency, divisor, label_prior, same_block
from methods.contract import CRITERION, SmallNetwork, check
from methods.maxflow import by_pulses
from methods.ops import Poll
from methods.puzzlemix import Draws, PuzzleMix, against
from methods.saliency import clean_gradient
from methods.transport import assemble, sources

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


def saliency_of(kind, count=SIZE, side=16, seed=2):
    """(count, side, side): even noise; all in a corner; with pixels, and a whole image, that have none."""
    noise = torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))
    if kind == "peaked":
        noise[:, :2, :2] += side**2
    if kind == "holed":
        noise = noise * (noise > 0.8)
        noise[0] = 0
    return noise


def in_turn(count):
    """Each image with the next one."""
    return torch.stack([torch.arange(count), torch.arange(count).roll(-1)], dim=1)


# ---- what it shows


@pytest.mark.parametrize("options", [{}, {"transport": False}, {"n_labels": 2}, {"n_labels": 4}, {"solver": "exact"}])
def test_puzzlemix_weighs_labels_by_what_is_visible(options, net):
    values = torch.linspace(0, 1, SIZE)
    for seed in range(4):
        mixed = mix(PuzzleMix(**options), net, values[:, None, None, None].expand(-1, 3, 16, 16), seed=seed)
        torch.testing.assert_close(mixed.x.mean((1, 2, 3)), mixed.y @ values)


@pytest.mark.parametrize("kind", ["even", "peaked", "holed"])
@pytest.mark.parametrize("blocks", [2, 4, 8, 16])
@pytest.mark.parametrize("t_eps", [0.8, 0.01])
def test_puzzlemix_is_never_black_where_no_image_is(kind, blocks, t_eps):
    x, partners = torch.ones(SIZE, 3, 16, 16), in_turn(SIZE)
    share, moved = PuzzleMix(t_eps=t_eps).solve(pictures(), partners, saliency_of(kind), blocks, 0.5)
    torch.testing.assert_close(assemble(x, x, partners, share, moved), x)


def test_puzzlemix_cuts_an_image_without_saliency_as_one_that_is_as_salient_everywhere():
    zero, even = torch.zeros(SIZE, 16, 16), torch.ones(SIZE, 16, 16)
    found = [PuzzleMix().solve(pictures(), in_turn(SIZE), saliency, 8, 0.5) for saliency in (zero, even)]
    assert torch.equal(found[0][0], found[1][0])
    assert 0 < found[0][0].mean() < 1


def test_puzzlemix_shows_the_block_that_holds_most_of_the_saliency():
    # A share of 60 % in a block of 256 overflows the 32 bits of the authors' solver, which then hides it.
    saliency = torch.full((2, 16, 16), 0.4 / 255)
    saliency[0, 3, 4] = 0.6
    share, _ = PuzzleMix(transport=False).solve(pictures(2), in_turn(2), saliency, 16, 0.5)
    assert share[0, 3, 4] == 1  # the image itself, where it is salient
    assert share[1, 3, 4] == 0  # its partner, likewise


def test_puzzlemix_shows_more_of_the_image_itself_as_lam_grows():
    mixer, shown = PuzzleMix(eta=1.0), []
    for lam in (0.05, 0.35, 0.65, 0.95):
        share, _ = mixer.solve(pictures(), in_turn(SIZE), saliency_of("even"), 8, lam)
        shown.append(share.mean().item())
    assert shown == sorted(shown)
    assert shown[-1] - shown[0] > 0.2


def test_puzzlemix_shows_whole_pictures_where_smoothness_counts_for_everything():
    share, _ = PuzzleMix(beta=100.0).solve(pictures(), in_turn(SIZE), saliency_of("even"), 8, 0.5)
    assert (share.flatten(1) == share[:, :1, 0]).all()


def test_puzzlemix_mixes_an_image_that_is_alone_with_itself(net):
    x = pictures(1)
    mixed = mix(PuzzleMix(transport=False), net, x)
    torch.testing.assert_close(mixed.x, x)
    assert torch.equal(mixed.y, torch.eye(SIZE)[:1])


def test_puzzlemix_mixes_nothing_where_the_options_say_so(net):
    x = pictures()
    mixed = mix(PuzzleMix(mixup_prob=0.0), net, x)
    assert torch.equal(mixed.x, x)
    assert torch.equal(mixed.y, torch.eye(SIZE))


def test_puzzlemix_draws_each_number_of_blocks_as_often():
    mixer = PuzzleMix(block_num=(2, 4, 8))
    mixer.generator = torch.Generator().manual_seed(0)
    drawn = [mixer.draw(4).blocks for _ in range(300)]
    assert all(80 < drawn.count(blocks) < 120 for blocks in (2, 4, 8))


def test_exact_never_pays_more_than_swap_and_less_somewhere():
    found = {}
    for solver in ("swap", "exact"):
        objective = PuzzleMix(solver=solver).objective
        saliency = block_saliency(saliency_of("holed", 64, 32), 16)
        found[solver] = objective.labels(pictures(64, 32), in_turn(64), saliency, 0.5, Poll())
    differ = (found["swap"] != found["exact"]).flatten(1).any(1)
    assert 0 < differ.float().mean() < 1


@pytest.mark.parametrize(("side", "most", "expected"), [(14, 4, 2), (8, 4, 4), (2, 4, 2), (7, 4, 1), (6, 4, 3)])
def test_windows_fill_a_block(side, most, expected):
    assert divisor(side, most) == expected


@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_label_prior_is_the_binomial_distribution_of_what_is_shown(n_labels):
    prior = label_prior(0.3, n_labels, 4, 1.6)
    probability = (prior * -10).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-6)
    t = torch.arange(n_labels, dtype=torch.float64) / (n_labels - 1)
    assert (probability @ (1 - t)).item() == pytest.approx(0.3, abs=1e-6)


# ---- transport


def told_off(saliency, visible, t_eps):
    """Transport of one image as the authors' description has it: a matrix of costs, and T rounds over all of it."""
    side = len(saliency)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    squared = ((places[:, None] - places[None]) ** 2).sum(2) / (side - 1) ** 2
    cost = squared.float() * t_eps - saliency.flatten()[:, None] * visible.flatten().float()[None]
    for _ in range(side):
        choice = F.one_hot(cost.argmin(1), side**2)
        bids = torch.where(choice == 1, cost, 0)
        winner = bids.argmin(0)
        won = F.one_hot(winner, side**2).T * choice
        cost = cost + (choice - won)
    return torch.where(bids.amin(0) < 0, winner, -1)


@pytest.mark.parametrize("kind", ["even", "peaked", "holed"])
@pytest.mark.parametrize("side", [2, 4, 8])
@pytest.mark.parametrize("t_eps", [2.0, 0.8, 0.1, 0.01])
def test_transport_is_that_of_all_rounds_over_the_whole_matrix(kind, side, t_eps):
    saliency = block_saliency(saliency_of(kind, 8), side)
    visible = torch.rand(8, side, side, generator=torch.Generator().manual_seed(3)) < 0.4
    found = sources(saliency, visible, t_eps, Poll())
    for one, shown, source in zip(saliency, visible, found, strict=True):
        expected = told_off(one, shown, t_eps)
        arrives = shown.flatten() & (expected >= 0)
        assert torch.equal(source[arrives], expected[arrives])
        assert torch.equal(
            source[shown.flatten() & (expected < 0)], torch.arange(side**2)[shown.flatten() & (expected < 0)]
        )


@pytest.mark.parametrize("kind", ["even", "peaked", "holed"])
@pytest.mark.parametrize("t_eps", [0.8, 0.01])
def test_transport_shows_no_block_twice(kind, t_eps):
    saliency = block_saliency(saliency_of(kind, 32), 8)
    visible = torch.rand(32, 8, 8, generator=torch.Generator().manual_seed(4)) < 0.6
    for source, shown in zip(sources(saliency, visible, t_eps, Poll()), visible, strict=True):
        kept = source[shown.flatten()]
        assert len(kept.unique()) == len(kept)


def test_transport_takes_less_than_10_mb_for_a_large_image(monkeypatch):
    # 224 pixels, 16 blocks along a side, and a saliency more peaked than any that was seen.
    kept, keep = [], transport._next_gain

    def watched(*args):
        kept.append(keep(*args))
        return kept[-1]

    monkeypatch.setattr(transport, "_next_gain", watched)
    PuzzleMix(t_size=-1).solve(pictures(2, 224), in_turn(2), saliency_of("peaked", 2, 224), 16, 0.5)
    assert kept[0].numel() * kept[0].element_size() / 2 < 10e6 / 2  # all else is a few numbers a block


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_assembled_images_show_each_block_of_either_where_it_was_sent(layout):
    x, partners = pictures(3, 4).contiguous(memory_format=layout), in_turn(3)
    share = torch.tensor([[1.0, 0.0], [0.5, 1.0]]).expand(3, 2, 2)
    moved = torch.tensor([[3, 1, 2, 0]]).expand(3, 4), torch.tensor([[0, 2, 2, 3]]).expand(3, 4)
    mixed, other = assemble(x, 1 - x, partners, share, moved), 1 - x.roll(-1, 0)
    assert torch.equal(mixed[:, :, :2, :2], x[:, :, 2:, 2:])
    assert torch.equal(mixed[:, :, :2, 2:], other[:, :, 2:, :2])
    torch.testing.assert_close(mixed[:, :, 2:, :2], (x[:, :, 2:, :2] + other[:, :, 2:, :2]) / 2)
    assert torch.equal(mixed[:, :, 2:, 2:], x[:, :, :2, :2])
    assert mixed.is_contiguous(memory_format=layout)


def test_what_lies_in_a_block_is_told_on_a_finer_grid():
    assert same_block(torch.tensor([[[1, 2], [3, 4]]]), 4)[0].tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


# ---- learning from clean images, adversarial noise


def test_clean_images_are_learned_from_too(net):
    x = pictures()
    mixer, twin = PuzzleMix(clean_lam=0.5, mixup_prob=1.0), copy.deepcopy(net)
    mixed = mix(mixer, net, x)
    loss = mixed.loss(mixed.logits(net), CRITERION)
    loss.backward()
    clean = 2 * 0.5 / SIZE * F.cross_entropy(twin(x), torch.eye(SIZE))
    plain = Mixed(mixed.x, mixed.y)
    expected = plain.loss(plain.logits(twin), CRITERION) + clean
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(("clean_lam", "passes"), [(0.0, 0), (1.0, 1)])
def test_statistics_move_only_where_clean_images_are_learned_from(clean_lam, passes, net):
    mix(PuzzleMix(clean_lam=clean_lam), net, pictures())
    assert int(net.layer1[1].num_batches_tracked) == passes


def test_saliency_is_taken_in_training_mode_where_clean_images_are_learned_from(net):
    x, y = pictures(), torch.eye(SIZE)
    net.layer1[1].running_mean += 1.0
    evaluated, _ = clean_gradient(net, x, y, 0.0)
    trained, _ = clean_gradient(net, x, y, 1.0)
    assert not torch.allclose(evaluated / evaluated.norm(), trained / trained.norm(), rtol=0.1)


@pytest.mark.parametrize("eps", [2.0, 10.0])
def test_adversarial_noise_is_no_larger_than_asked_for(eps, net):
    options = {"transport": False, "n_labels": 2}
    x = pictures()
    plain, noisy = (mix(PuzzleMix(adv_p=p, adv_eps=eps, **options), net, x) for p in (0.0, 1.0))
    apart = torch.minimum(*((noisy.x - images).abs() for images in (x, x[plain_partners(x)])))
    assert 0 < apart.max() <= eps / 255 + 1e-6
    assert plain.x.shape == noisy.x.shape


def plain_partners(x):
    mixer = PuzzleMix()
    mixer.generator = torch.Generator().manual_seed(0)
    return mixer.draw(len(x)).partners[:, 1]


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("noisy", [(True, False), (False, True), (True, True)])
def test_adversarial_noise_is_where_it_was_drawn_and_climbs_from_there(noisy, strength, net, monkeypatch):
    mixer, x, y = PuzzleMix(adv_p=0.5, transport=False), pictures() * 0.5 + 0.25, torch.eye(SIZE)
    noise, gradient = pictures(seed=3) * 0.02 - 0.01, pictures(seed=4) - 0.5
    draws = Draws(mixed=True, blocks=4, lam=0.5, partners=in_turn(SIZE), noisy=noisy, strength=strength)
    seen, own = [], torch.arange(16).expand(SIZE, -1)
    mixer.draw, mixer.draw_noise = lambda count: draws, lambda images: noise
    looking = lambda net, images, *_: (seen.append(images), (gradient, None))[1]  # noqa: E731
    monkeypatch.setattr("methods.puzzlemix.clean_gradient", looking)
    climbed = strength * against(noise, gradient, mixer.adv_eps)
    for share, expected in ((1.0, x + noisy[0] * climbed), (0.0, (x + noisy[1] * climbed).roll(-1, 0))):
        mixer.solve = lambda *_, share=share: (torch.full((SIZE, 4, 4), share), (own, own))
        torch.testing.assert_close(mixer(Batch(x, y), net).x, expected)
    assert torch.equal(seen[0], x + noise)


def test_adversarial_noise_climbs_the_loss_from_where_it_was_drawn():
    noise, gradient = torch.tensor([0.01, -0.01, 0.0, 0.02]), torch.tensor([3.0, -2.0, 0.0, -1.0])
    climbed = against(noise, gradient, 0.02)
    torch.testing.assert_close(climbed, torch.tensor([0.02, -0.02, 0.0, 0.02 - 0.02 - 2 / 255]))


def test_adversarial_noise_is_added_to_partners_apart_from_the_images_themselves():
    mixer = PuzzleMix(adv_p=0.3)
    mixer.generator = torch.Generator().manual_seed(0)
    noisy = torch.tensor([mixer.draw(2).noisy for _ in range(400)]).float()
    assert ((noisy.mean(0) - 0.3).abs() < 0.07).all()
    assert abs(noisy.prod(1).mean().item() - 0.09) < 0.05


# ---- what it keeps and refuses

OTHER_OPTIONS = [
    {"clean_lam": 1.0},
    {"adv_p": 1.0, "adv_eps": 10.0},
    {"adv_p": 0.5, "clean_lam": 0.5},
    {"solver": "exact", "n_labels": 4},
    {"transport": False, "n_labels": 2},
    {"t_size": -1, "t_eps": 0.01},
    {"mixup_prob": 0.5, "block_num": (8,)},
]


@pytest.mark.parametrize("options", OTHER_OPTIONS)
def test_contract_is_kept_with_other_options(options):
    check(PuzzleMix(**options))


class Questions(TorchDispatchMode):
    """Counts what is asked of tensors by the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"solver": "exact"}])
def test_all_that_the_device_is_asked_is_counted_and_a_few_dozen_times_at_most(options, monkeypatch):
    monkeypatch.setattr(graphcut, "sink_side", by_pulses)
    mixer, x, partners = PuzzleMix(**options), pictures(), in_turn(SIZE)
    with Questions() as questions:
        share, moved = mixer.solve(x, partners, saliency_of("even"), 8, 0.5)
        assemble(x, x, partners, share, moved)
    assert mixer.notes()["polls"] == questions.count
    assert 0 < questions.count < 80


REFUSED = [
    ({"n_labels": 5}, "n_labels is 5: it must be one of 2, 3, 4"),
    ({"n_labels": 1}, "n_labels is 1"),
    ({"gamma": 1.5}, "gamma is 1.5: it must be between 0 and 1; above 1 it can be cheaper for neighbours to differ"),
    ({"gamma": -0.1}, "gamma is -0.1"),
    ({"beta": -1.0}, "beta is -1.0: it must be a finite number, at least 0"),
    ({"beta": 1e6}, "beta is 1000000.0 and eta 0.2: with 2 blocks along a side, the integers .* would overflow"),
    ({"beta": math.inf}, "beta is inf"),
    ({"eta": 1e9}, "beta is 1.2 and eta 1000000000.0: with 2 blocks"),
    ({"eta": math.nan}, "eta is nan"),
    ({"block_num": ()}, "block_num is empty"),
    ({"block_num": (4, 1)}, "block_num holds 1: a side must have a whole number of blocks, at least 2"),
    ({"block_num": (2.5,)}, "block_num holds 2.5"),
    ({"neigh_size": 0}, "neigh_size is 0"),
    ({"t_size": 0}, "t_size is 0: it must be at least 1, in pixels, or -1"),
    ({"t_eps": 0.0}, "t_eps is 0.0: it must be above 0; take transport false"),
    ({"t_eps": math.nan}, "t_eps is nan"),
    ({"solver": "swop"}, "solver is 'swop': it must be one of swap, exact"),
    ({"clean_lam": -1.0}, "clean_lam is -1.0"),
    ({"adv_p": 2.0}, "adv_p is 2.0"),
    ({"adv_eps": 300.0}, "adv_eps is 300.0: it must be between 0 and 255"),
    ({"mixup_alpha": 0.0}, "mixup_alpha is 0.0: .* take mixup_prob 0 to mix nothing"),
    ({"mixup_alpha": -1.0}, "mixup_alpha is -1.0"),
    ({"mixup_prob": 1.5}, "mixup_prob is 1.5"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_options_are_checked_when_a_mixer_is_built(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        PuzzleMix(**options)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((2, 3, 16, 24), "images have 16 x 24 pixels: puzzlemix mixes square ones"),
        ((2, 3, 12, 12), "block_num holds 8, but images have 12 pixels a side: take of 2, 3, 4, 6, 12"),
        ((2, 3, 96, 96), "t_size is 4: of 96 pixels that leaves more than 16 blocks a side to move.* take -1"),
    ],
)
def test_images_that_have_no_such_grid_are_refused_whatever_number_is_drawn(shape, sentence, net):
    for seed in range(4):
        with pytest.raises(ValueError, match=sentence):
            mix(PuzzleMix(), net, torch.rand(shape), seed=seed)


@pytest.mark.parametrize("spoiled", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(spoiled, net):
    with torch.no_grad():
        net.fc.weight.fill_(spoiled)
    with pytest.raises(FloatingPointError, match="is NaN or infinite, so its training has diverged; take a smaller lr"):
        mix(PuzzleMix(), net, pictures())
