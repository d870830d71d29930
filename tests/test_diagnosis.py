"""What tells a mixing module that has collapsed from one that has learned."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from methods.diagnosis import Signs, diagnosis, follows, in_frame, signs, watched
from methods.ops import draw_lam, draw_partners
from methods.policy import Draws, Form, MixingModule, Parts

IN_PLACE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def theta(*images, mixes=3):
    """The same matrices for each mix."""
    return torch.tensor(images).expand(mixes, -1, 2, 3)


def scaled(factor, *, right=0.0):
    """Shows ``factor`` times the frame's width of an image: it shrinks where that is more than 1."""
    return [[factor, 0.0, right], [0.0, factor, 0.0]]


def of(*matrices):
    return in_frame(theta(*matrices))[0].tolist()


def module(**form):
    return MixingModule(Form(k=2, size=32, **form))


def mix(policy, count=6, *, seed=0):
    source = torch.Generator().manual_seed(seed)
    draws = Draws(
        draw_partners(count, 2, source), draw_lam(count, 2, 1.0, source), torch.randn(count, generator=source)
    )
    pictures = torch.rand(count, 4, 8, 8, generator=source)
    how = {"fill": torch.zeros(1, 3, 1, 1), "precision": torch.float32}
    policy(pictures[:, :3], pictures[:, 3:], draws, **how)
    return policy.parts(pictures[:, :3], pictures[:, 3:], draws, **how), draws


def test_an_image_that_stays_in_place_is_wholly_in_the_frame():
    assert of(IN_PLACE, IN_PLACE) == [1.0, 1.0]


def test_a_mirrored_or_turned_image_is_in_the_frame_too():
    assert of([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]) == [1.0, 1.0]


def test_an_image_that_is_moved_is_in_the_frame_with_what_stays():
    assert of(scaled(1.0, right=0.5), scaled(1.0, right=-1.0)) == pytest.approx([0.75, 0.5])


def test_an_image_that_has_left_the_frame_is_not_in_it():
    assert of(scaled(1.0, right=2.1), scaled(1.0, right=-5.0)) == [0.0, 0.0]


@pytest.mark.parametrize("factor", [2.0, 17.0, 60.0])
def test_an_image_that_is_shrunk_or_enlarged_counts_by_the_smaller_share(factor):
    shrunk, enlarged = of(scaled(factor), scaled(1 / factor))
    assert shrunk == pytest.approx(1 / factor**2, abs=0.004)
    assert enlarged == pytest.approx(1 / factor**2)


def test_images_of_a_mix_and_mixes_of_a_batch_are_told_apart():
    matrices = torch.tensor([[IN_PLACE, scaled(1.0, right=1.0)], [scaled(1.0, right=3.0), scaled(0.5)]])
    torch.testing.assert_close(in_frame(matrices), torch.tensor([[1.0, 0.5], [0.0, 0.25]]))


def test_masks_follow_lam_as_their_means_grow_with_it():
    lam = draw_lam(500, 2, 1.0, torch.Generator().manual_seed(0))
    noise = torch.rand(500, 2, generator=torch.Generator().manual_seed(1))
    assert follows(lam, lam).item() == pytest.approx(1.0)
    assert follows(0.3 + 0.2 * lam, lam).item() == pytest.approx(0.2)
    assert follows(lam.flip(1), lam).item() == pytest.approx(-1.0)
    assert abs(follows(noise, lam).item()) < 0.1


def test_masks_that_are_all_the_same_do_not_follow_lam():
    lam = draw_lam(500, 2, 1.0, torch.Generator().manual_seed(0))
    assert abs(follows(torch.full((500, 2), 0.3), lam).item()) < 0.01
    assert follows(torch.full((500, 2), 0.5), lam).item() == 0.0


def test_one_image_of_three_whose_mask_does_not_follow_is_enough():
    lam = draw_lam(500, 3, 1.0, torch.Generator().manual_seed(0))
    shown = lam.clone()
    shown[:, 1] = lam[:, 1].flip(0)
    assert abs(follows(shown, lam).item()) < 0.1


def test_signs_are_those_of_the_parts():
    masks = torch.stack([torch.full((3, 4, 4), 0.2), torch.full((3, 4, 4), 0.8)], 1)
    lam = torch.tensor([[0.1, 0.9]]).expand(3, 2)
    parts = Parts(theta(IN_PLACE, scaled(1.0, right=1.0)), [], torch.zeros(3, 2, 4, 4), masks)
    within, shown, same = signs(parts, Draws(torch.zeros(3, 2), lam, torch.zeros(3)))
    torch.testing.assert_close(within, torch.tensor([[1.0, 0.5]]).expand(3, 2))
    torch.testing.assert_close(shown, torch.tensor([[0.2, 0.8]]).expand(3, 2))
    assert same is lam


def test_diagnosis_is_of_the_image_that_is_worst_off_in_all_batches():
    lam = draw_lam(4, 2, 1.0, torch.Generator().manual_seed(0))
    batches = [
        Signs(torch.tensor([[1.0, 0.2]]), lam[:1], lam[:1]),
        Signs(torch.tensor([[0.1, 0.8]] * 3), lam[1:], lam[1:]),
    ]
    found = diagnosis(module(), batches)
    assert found == {"in_frame": pytest.approx((1.0 + 3 * 0.1) / 4), "mask_slope": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ({}, {"in_frame", "mask_slope"}),
        ({"mask": "none"}, {"in_frame"}),
        ({"warp": "none"}, {"mask_slope"}),
        ({"warp": "none", "mask": "softmax_cam"}, set()),
    ],
)
def test_diagnosis_is_of_what_is_learned_alone(form, names):
    policy = module(**form)
    with watched(policy) as seen:
        mix(policy)
    found = diagnosis(policy, seen)
    assert found.keys() == names
    assert all(math.isfinite(value) for value in found.values())


def test_a_watched_policy_leaves_the_signs_of_what_it_mixes_and_of_nothing_afterwards():
    policy = module()
    with watched(policy) as seen:
        expected = [signs(*mix(policy, seed=seed)) for seed in (1, 2)]
    mix(policy)
    assert len(seen) == 2
    for one, other in zip(seen, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_policy_that_has_no_parts_is_left_alone():
    class Stranger(nn.Module):
        form = SimpleNamespace(warp="learned", mask="learned")

        def forward(self, x):
            return x

    policy = Stranger()
    with watched(policy) as seen:
        policy(torch.zeros(1))
    assert diagnosis(policy, seen) == {}
