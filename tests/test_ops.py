import pytest
import torch

from methods.ops import (
    beside,
    blend,
    check_alpha,
    check_choice,
    check_prob,
    draw_lam,
    draw_partners,
    pair,
    rectified,
    soft_labels,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [-0.5, float("nan"), float("inf")])
def test_alpha_must_be_finite_and_not_negative(alpha):
    with pytest.raises(ValueError, match=r"alpha is .*: it must be a finite number, at least 0; take"):
        check_alpha(alpha)


@pytest.mark.parametrize("prob", [-0.1, 1.1, float("nan")])
def test_prob_must_be_a_probability(prob):
    with pytest.raises(ValueError, match=r"prob is .*: it must lie between 0 and 1; take 1"):
        check_prob(prob)


def test_a_choice_must_be_one_of_its_words():
    with pytest.raises(ValueError, match=r"^draw is 'image': it must be one of batch, sample$"):
        check_choice("draw", "image", ("batch", "sample"))


def test_partners_begin_with_the_image_itself_and_go_on_with_permutations():
    partners = draw_partners(50, 3, seeded())
    assert partners.dtype == torch.int64
    assert partners[:, 0].tolist() == list(range(50))
    for column in (1, 2):
        assert sorted(partners[:, column].tolist()) == list(range(50))
        assert partners[:, column].tolist() != list(range(50))
    assert partners[:, 1].tolist() != partners[:, 2].tolist()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_of_two_has_mean_and_variance_of_a_beta_distribution(alpha):
    lam = draw_lam(20_000, 2, alpha, seeded()).double()
    assert lam[:, 0].mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert lam[:, 0].var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lam_of_three_has_mean_and_variance_of_a_dirichlet_distribution(alpha):
    lam = draw_lam(20_000, 3, alpha, seeded()).double()
    torch.testing.assert_close(lam.mean(0), torch.full((3,), 1 / 3).double(), rtol=0, atol=0.01)
    variance = torch.full((3,), 2 / (9 * (3 * alpha + 1))).double()
    torch.testing.assert_close(lam.var(0), variance, rtol=0.05, atol=0)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 1e-3, 0.2, 1.0, 100.0, 1e9])
def test_lam_rows_are_weights_for_any_alpha(alpha, k):
    lam = draw_lam(2_000, k, alpha, seeded())
    assert (lam.shape, lam.dtype) == ((2_000, k), torch.float32)
    assert lam.min() >= 0
    torch.testing.assert_close(lam.sum(1), torch.ones(2_000), rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_lam_of_a_tiny_alpha_lets_each_image_win_as_often(k):
    lam = draw_lam(6_000, k, 1e-6, seeded())
    assert (lam.amax(1) > 0.999).all()
    torch.testing.assert_close(lam.mean(0), torch.full((k,), 1 / k), rtol=0, atol=0.03)


@pytest.mark.parametrize("alpha", [0.0, -1.0])
@pytest.mark.parametrize("k", [2, 3])
def test_lam_without_alpha_is_the_image_itself(alpha, k):
    assert draw_lam(2, k, alpha, seeded()).tolist() == [[1.0] + [0.0] * (k - 1)] * 2


def test_draws_of_a_seed_never_change():
    generator = seeded(7)
    assert draw_partners(5, 2, generator)[:, 1].tolist() == [0, 1, 3, 2, 4]
    two, three = draw_lam(2, 2, 0.2, generator), draw_lam(1, 3, 1.0, generator)
    torch.testing.assert_close(two[:, 0], torch.tensor([0.9987649, 0.8905332]))
    torch.testing.assert_close(three, torch.tensor([[0.5400025, 0.3862869, 0.0737107]]))


def test_draws_without_a_generator_follow_torch_manual_seed():
    torch.manual_seed(3)
    first = draw_lam(4, 2, 1.0, None)
    torch.manual_seed(3)
    assert torch.equal(draw_lam(4, 2, 1.0, None), first)
    assert torch.equal(draw_lam(4, 2, 1.0, seeded(3)), first)


def test_beside_moves_draws_to_the_device_of_the_images():
    x = torch.empty(2, device="meta")
    partners, lam = beside(x, torch.arange(2), torch.ones(2))
    assert partners.device == lam.device == x.device


def test_pair_gives_the_partner_what_the_image_leaves():
    weights = pair(torch.tensor([0.25, 1.0], dtype=torch.float64))
    assert weights.dtype == torch.float32
    assert weights.tolist() == [[0.25, 0.75], [1.0, 0.0]]


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("rows", [1, 6])
def test_blend_is_the_weighted_sum_of_an_image_and_its_partners(k, rows):
    x = torch.rand(6, 3, 4, 5, generator=seeded())
    partners, lam = draw_partners(6, k, seeded()), draw_lam(rows, k, 1.0, seeded())
    expected = torch.stack([
        sum(lam[n % rows, j] * x[partners[n, j]] for j in range(k)) for n in range(6)
    ])  # fmt: skip
    torch.testing.assert_close(blend(x, partners, lam), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blend_is_the_same_with_and_without_a_gradient(k, layout):
    x = torch.rand(6, 3, 5, 7, generator=seeded()).contiguous(memory_format=layout)
    partners, lam = draw_partners(6, k, seeded()), draw_lam(6, k, 1.0, seeded())
    learning = blend(x.clone().requires_grad_(), partners, lam)
    assert learning.requires_grad
    torch.testing.assert_close(blend(x, partners, lam), learning.detach(), rtol=0, atol=2e-7)


def test_blend_weighs_bfloat16_images_in_float32():
    x, lam = torch.rand(6, 3, 5, 7, generator=seeded()), draw_lam(6, 2, 1.0, seeded())
    mixed = blend(x.bfloat16(), draw_partners(6, 2, seeded()), lam)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), blend(x, draw_partners(6, 2, seeded()), lam), rtol=0, atol=0.01)


def test_blend_keeps_the_memory_format():
    x = torch.rand(6, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    mixed = blend(x, draw_partners(6, 3, seeded()), draw_lam(6, 3, 1.0, seeded()))
    assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_soft_labels_weigh_labels_like_images():
    y = torch.eye(3)
    partners = torch.tensor([[0, 1], [1, 1], [2, 0]])
    labels = soft_labels(y, partners, torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(labels, torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]]))


def test_soft_labels_are_float32_whatever_the_labels_are():
    y = torch.eye(3, dtype=torch.bfloat16)
    labels = soft_labels(y, draw_partners(3, 2, seeded()), torch.tensor([[0.7, 0.3]]))
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(1), torch.ones(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_rectified_is_relu_with_and_without_a_gradient(precision, layout):
    x = 100 * torch.randn(4, 3, 5, 5, generator=seeded())
    x.view(-1)[:4] = torch.tensor([0.0, -0.0, float("inf"), float("-inf")])
    x = x.to(precision).contiguous(memory_format=layout)
    learned = x.clone().requires_grad_()
    found = rectified(learned * 1)
    found.sum().backward()
    assert torch.equal(found, x.relu())
    assert torch.equal(learned.grad, (x > 0).to(precision))
    without = rectified(x.clone())
    assert torch.equal(without, x.relu())
    assert without.dtype == precision
    assert without.stride() == x.stride()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_rectified_lets_nan_through(precision):
    nan = (torch.tensor([float("inf")]) - float("inf")).to(precision)  # as kernels make it: with either sign
    assert rectified(torch.cat([nan, -nan])).isnan().all()
