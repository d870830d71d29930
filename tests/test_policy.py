import io

import pytest
import torch
import torch.nn.functional as F

from methods.masks import LOWEST_TAU
from methods.ops import draw_lam, draw_partners, soft_labels
from methods.policy import Draws, Form, MixingModule, restored
from methods.warps import LearnedWarp

FILL = torch.tensor([0.1, 0.5, 0.8]).view(1, 3, 1, 1)
SIZES = [(8, 8), (32, 32), (40, 24)]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(count, k, *, seed=0):
    source = generator(seed)
    partners, lam = draw_partners(count, k, source), draw_lam(count, k, 1.0, source)
    return Draws(partners, lam, torch.randn(count, generator=source))


def pictures(height=32, width=32, *, count=6):
    """Images and maps of noise."""
    images = torch.rand(count, 4, height, width, generator=generator(1))
    return images[:, :3], images[:, 3:]


def learned(*, k=2, size=32, **parts):
    """A module that has been taught something: its warps are no longer the identity."""
    torch.manual_seed(0)
    module = MixingModule(Form(k=k, size=size, **parts))
    if isinstance(module.warp, LearnedWarp):
        torch.nn.init.normal_(module.warp.fc2.weight, std=0.1)
    return module


def parts_of(module, x, maps, given, *, precision=torch.float32):
    return module.parts(x, maps, given, fill=FILL, precision=precision)


def mix(module, x, maps, given):
    return module(x, maps, given, fill=FILL, precision=torch.float32)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask", ["learned", "softmax_cam"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_masks_share_out_every_pixel(k, mask, precision):
    masks = parts_of(learned(k=k, mask=mask), *pictures(40, 24), draws(6, k), precision=precision).masks
    assert masks.shape == (6, k, 40, 24)
    assert masks.dtype == torch.float32
    assert bool(((masks >= 0) & (masks <= 1)).all())
    torch.testing.assert_close(masks.sum(1), torch.ones(6, 40, 24))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("k", [2, 3, 4])
def test_warp_starts_by_leaving_everything_in_place(k, height, width):
    x, maps = pictures(height, width)
    given = draws(6, k)
    parts = parts_of(MixingModule(Form(k=k, size=32)), x, maps, given)
    torch.testing.assert_close(torch.stack([*parts.images], 1) + FILL[:, None], x[given.partners], rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.maps, maps[:, 0][given.partners], rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_module_sums_masked_images_whatever_k_is(k):
    x, maps = pictures()
    module, given = learned(k=k), draws(6, k)
    parts = parts_of(module, x, maps, given)
    warped = [
        F.grid_sample(x[partner] - FILL, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
        for partner, theta in zip(given.partners.unbind(1), parts.theta.unbind(1), strict=True)
    ]
    expected = (parts.masks[:, :, None] * (torch.stack(warped, 1) + FILL[:, None])).sum(1)
    torch.testing.assert_close(mix(module, x, maps, given), expected, rtol=0, atol=1e-6)


def test_warp_depends_on_the_noise():
    x, maps = pictures()
    given = draws(6, 2)
    first, second = (parts_of(learned(), x, maps, given._replace(z=z)).theta for z in (given.z, given.z + 1))
    assert bool(((first - second).abs().amax((1, 2, 3)) > 1e-4).all())


def test_module_without_masks_adds_deviations_from_the_fill_colour():
    x, maps = pictures()
    given = draws(6, 3)
    mixed = mix(MixingModule(Form(k=3, size=32, mask="none")), x, maps, given)
    torch.testing.assert_close(mixed, x[given.partners].sum(1) - 2 * FILL, rtol=0, atol=1e-5)


def test_transfer_to_a_higher_resolution_keeps_theta():
    x, maps = pictures(32, 32)
    module, given = learned(), draws(6, 2)
    larger = [images.repeat_interleave(2, 2).repeat_interleave(2, 3) for images in (x, maps)]
    theta, images, *_ = parts_of(module, *larger, given)
    torch.testing.assert_close(theta, parts_of(module, x, maps, given).theta, rtol=0, atol=1e-6)
    assert images[0].shape == (6, 3, 64, 64)


@pytest.mark.parametrize("tau", [LOWEST_TAU, 0.005, 0.0, -1.0])
def test_tau_is_never_below_its_bound_yet_has_a_gradient(tau):
    module = learned()
    module.mask.tau.data.fill_(tau)
    assert torch.equal(module.tau, torch.tensor(LOWEST_TAU))
    mix(module, *pictures(), draws(6, 2)).square().sum().backward()
    assert module.mask.tau.grad.item() != 0


def test_a_lower_tau_makes_sharper_masks():
    module = learned()
    sharpness = []
    for tau in (1.0, 0.1, 0.01):
        module.mask.tau.data.fill_(tau)
        sharpness.append(parts_of(module, *pictures(), draws(6, 2)).masks.amax(1).mean().item())
    assert sharpness == sorted(sharpness)
    assert sharpness[2] > sharpness[0] + 0.1


def test_half_precision_changes_warps_and_masks_by_little():
    full, half = (
        parts_of(learned(), *pictures(), draws(6, 2), precision=precision)
        for precision in (torch.float32, torch.bfloat16)
    )
    assert 0 < (full.theta - half.theta).abs().max().item() < 0.002
    assert 0 < (full.masks - half.masks).abs().max().item() < 0.01


def saved_and_loaded(module):
    """What another process reads."""
    buffer = io.BytesIO()
    torch.save(module.saved(), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


FORMS = [{}, {"k": 3, "mask_channels": 8}, {"warp": "none"}, {"mask": "none"}, {"warp": "none", "mask": "softmax_cam"}]


@pytest.mark.parametrize("parts", FORMS)
def test_restored_module_mixes_the_same_bits(parts):
    module = learned(size=40, **parts)
    again = restored(saved_and_loaded(module), Form(**({"k": 2, "size": 64} | parts)))
    given = draws(6, module.form.k)
    assert again.form == module.form
    assert torch.equal(mix(module, *pictures(), given), mix(again, *pictures(), given))


def test_a_policy_whose_search_diverged_is_refused():
    saved = learned().saved()
    next(iter(saved["state"].values())).view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="the policy has weights that are NaN or infinite: its search diverged"):
        restored(saved, Form(k=2, size=32))


def test_restoring_draws_nothing():
    saved = learned().saved()
    before = torch.get_rng_state()
    restored(saved, Form(k=2, size=32))
    assert torch.equal(torch.get_rng_state(), before)


def test_saved_policy_does_not_change_while_the_module_learns_on():
    module = learned()
    saved = module.saved()
    module.mask.tau.data.fill_(0.5)
    assert saved["tau"] == saved["state"]["mask.tau"].item() == 1


OTHERS = [
    ({}, {"k": 3}, "the policy was searched with k = 2, but 3 is asked for; take one that was searched"),
    ({"warp": "none"}, {}, "searched with warp = none, but learned is asked for"),
    ({}, {"mask": "none"}, "searched with mask = learned, but none is asked for"),
    ({"mask_layers": 2}, {}, "searched with mask_layers = 2, but 3 is asked for"),
]


@pytest.mark.parametrize(("searched", "asked", "sentence"), OTHERS)
def test_policy_of_another_form_is_refused(searched, asked, sentence):
    saved = learned(**searched).saved()
    with pytest.raises(ValueError, match=sentence):
        restored(saved, Form(**({"k": 2, "size": 32} | asked)))


SLOPE = torch.linspace(1, -1, 32).expand(32, 32)
"""Where a teacher looks for red; it looks for green at the other side."""


class Squares:
    """Pairs of a red and a green square, both in the middle, and a linear teacher that tells them apart by side.

    Moved apart, the red one to the left and the green one to the right, the teacher sees both; where they are, neither.
    """

    def __init__(self, pairs=8):
        self.pairs, labels = pairs, torch.arange(2 * pairs) // pairs
        self.x = torch.zeros(2 * pairs, 3, 32, 32)
        self.x[torch.arange(2 * pairs), labels, 12:20, 12:20] = 1
        self.maps = self.x.amax(1, keepdim=True)
        self.y = F.one_hot(labels, 10).float()
        self.weight = torch.zeros(10, 3, 32, 32)
        self.weight[0, 0], self.weight[1, 1] = SLOPE / 8, -SLOPE / 8

    def draws(self, seed):
        count = 2 * self.pairs
        partners = torch.stack([torch.arange(count), torch.arange(count).roll(self.pairs)], dim=1)
        return draws(count, 2, seed=seed)._replace(partners=partners)

    def excess(self, module, given):
        """Cross-entropy over the entropy of the labels, where the red square comes first."""
        mixed = module(self.x, self.maps, given, fill=torch.zeros(1, 3, 1, 1), precision=torch.float32)
        y = soft_labels(self.y, given.partners, given.lam)[: self.pairs]
        logits = mixed[: self.pairs].flatten(1) @ self.weight.flatten(1).T
        return F.cross_entropy(logits, y) - torch.special.entr(y).sum(1).mean()

    def distances(self, module, given):
        """Columns from the middle of the red square to that of the green one, (pairs,)."""
        parts = module.parts(self.x, self.maps, given, fill=torch.zeros(1, 3, 1, 1), precision=torch.float32)
        columns = parts.maps[: self.pairs].sum(2)
        middles = (columns * torch.arange(32)).sum(2) / columns.sum(2)
        return middles[:, 1] - middles[:, 0]


def test_search_separates_two_squares_at_the_same_place_and_halves_the_excess():
    torch.manual_seed(0)
    module, task = MixingModule(Form(k=2, size=32)), Squares()
    unseen = task.draws(1000)
    before = task.excess(module, unseen).item()
    assert task.distances(module, unseen).abs().max() < 0.1
    sgd = torch.optim.SGD(module.parameters(), lr=0.0005, momentum=0.9, weight_decay=0.01)
    for step in range(60):
        sgd.zero_grad()
        task.excess(module, task.draws(step)).backward()
        sgd.step()
    assert task.excess(module, unseen).item() < before / 2
    assert task.distances(module, unseen).min() > 8
