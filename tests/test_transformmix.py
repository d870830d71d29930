import math

import pytest
import torch

from methods import Batch, build
from methods.contract import SmallNetwork, check
from methods.saliency import cam
from methods.warps import LearnedWarp
from mixbench.criteria import cross_entropy

NAMES = ["transformmix", "wo_stn", "wo_mpn"]
SIZE = 6


class Teacher(SmallNetwork):
    """Counts its forward passes."""

    passes = 0

    def features(self, x):
        self.passes += 1
        return super().features(x)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return Teacher()


@pytest.fixture
def net():
    torch.manual_seed(1)
    return SmallNetwork()


@pytest.fixture
def batch():
    x = torch.rand(SIZE, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.eye(10)[:SIZE])


def made(name, teacher, *, policy=None, image_size=32, **options):
    """A mixer whose warps, where it has any, are no longer the identity."""
    mixer = build(name, options, {"teacher": teacher, "policy": policy, "image_size": image_size})
    if policy is None and isinstance(mixer.policy.warp, LearnedWarp):
        torch.nn.init.normal_(mixer.policy.warp.fc2.weight, std=0.05)
    return mixer


def mix(mixer, batch, net, *, seed=0):
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(batch, net)


def loss_of(mixer, batch, teacher):
    """What a search minimises."""
    mixed = mix(mixer, batch, teacher)
    return mixed.loss(mixed.logits(teacher), cross_entropy)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight_that_is_learned_and_nothing_else(name, teacher, batch):
    mixer = made(name, teacher)
    loss_of(mixer, batch, teacher).backward()
    assert all(bool(parameter.grad.any()) for parameter in mixer.policy.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_what_is_learned_is_f_s_f_m_and_tau(teacher):
    learned = {name: {key.partition(".")[0] for key in made(name, teacher).policy.state_dict()} for name in NAMES}
    assert learned == {"transformmix": {"warp", "mask"}, "wo_stn": {"mask"}, "wo_mpn": {"warp"}}
    assert "mask.tau" in made("wo_stn", teacher).policy.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_a_search_leaves_the_teacher_as_it_was(name, teacher, batch):
    mixer = made(name, teacher).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    loss_of(mixer, batch, teacher).backward()
    torch.optim.SGD(mixer.policy.parameters(), lr=0.1).step()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [2, 3, 4])
def test_teacher_is_asked_once_for_a_batch_whatever_k_is(name, k, teacher, net, batch):
    mix(made(name, teacher, k=k), batch, net)
    assert teacher.passes == 1


@pytest.mark.parametrize("k", [2, 3, 4])
def test_labels_are_weighed_by_a_lam_for_each_image(k, teacher, net, batch):
    mixer = made("transformmix", teacher, k=k)
    y = mix(mixer, batch, net).y
    mixer.generator.manual_seed(0)
    draws, _ = mixer.draw(batch.x)
    expected = torch.zeros(SIZE, 10)
    for row, (partners, lam) in enumerate(zip(draws.partners, draws.lam, strict=True)):
        for partner, share in zip(partners, lam, strict=True):
            expected[row, partner] += share
    torch.testing.assert_close(y, expected)
    assert draws.lam.shape == (SIZE, k)
    assert len(draws.lam.unique()) == SIZE * k
    assert len(draws.z.unique()) == SIZE


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_is_not_chosen_passes_unchanged(name, teacher, net, batch):
    mixer = made(name, teacher, mix_prob=0.5)
    changed = 0
    for seed in range(20):
        mixed = mix(mixer, batch, net, seed=seed)
        mixer.generator.manual_seed(seed)
        _, chosen = mixer.draw(batch.x)
        same = [torch.equal(one, other) for one, other in zip(mixed.x, batch.x, strict=True)]
        assert same == (chosen == 0).tolist()
        assert torch.equal(mixed.y[chosen == 0], batch.y[chosen == 0])
        changed += SIZE - sum(same)
    assert 0.35 < changed / (20 * SIZE) < 0.65


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_mixed_with_probability_0(name, teacher, net, batch):
    mixed = mix(made(name, teacher, mix_prob=0), batch, net)
    assert torch.equal(mixed.x, batch.x)
    assert torch.equal(mixed.y, batch.y)


def test_what_lies_outside_of_the_frame_has_the_mean_colour_of_the_network_in_training(teacher, net, batch):
    net.mean.copy_(torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1))
    mixer = made("transformmix", teacher)
    torch.nn.init.constant_(mixer.policy.warp.fc2.bias[2::3], 9.0)
    mixed = mix(mixer, batch, net)
    torch.testing.assert_close(mixed.x, net.mean.expand_as(batch.x))


def test_cam_class_chooses_whose_map_is_seen(teacher, batch):
    labelled, predicted = (made("transformmix", teacher, cam_class=word) for word in ("label", "prediction"))
    assert torch.equal(labelled.maps(batch), cam(teacher.eval(), batch.x, batch.y))
    assert torch.equal(predicted.maps(batch), cam(teacher, batch.x, None))
    assert not torch.equal(labelled.maps(batch), predicted.maps(batch))


def test_wo_stn_with_the_mask_of_softmax_cam_makes_the_images_of_softmax_cam(teacher, net, batch):
    ablated = mix(made("wo_stn", teacher, mask="softmax_cam"), batch, net)
    softmax = mix(build("softmax_cam", {"label_from": "lam"}, {"teacher": teacher}), batch, net)
    torch.testing.assert_close(ablated.x, softmax.x)
    torch.testing.assert_close(ablated.y, softmax.y)


def test_wo_mpn_may_leave_the_range(teacher, net, batch):
    bright = Batch(torch.ones_like(batch.x), batch.y)
    assert mix(made("wo_mpn", teacher), bright, net).x.max() > 1.1


@pytest.mark.parametrize("name", [*NAMES, "softmax_cam"])
@pytest.mark.parametrize("part", ["layer1.0", "fc"])
def test_a_teacher_that_answers_nan_is_not_hidden(name, part, teacher, net, batch):
    torch.nn.init.constant_(teacher.get_submodule(part).weight, math.nan)
    given = {"teacher": teacher} | ({} if name == "softmax_cam" else {"policy": None, "image_size": 32})
    mixed = mix(build(name, {}, given), batch, net)
    assert mixed.loss(mixed.logits(net), cross_entropy).isnan()


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_mixes_the_same_bits_in_another_mixer(name, teacher, net, batch):
    first = made(name, teacher, k=3)
    second = made(name, teacher, k=3, policy=first.policy.saved(), image_size=64)
    assert torch.equal(mix(first, batch, net).x, mix(second, batch, net).x)


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_images_smaller_than_the_convolutions_need_are_mixed_too(side, teacher, net):
    mixer = made("transformmix", teacher, image_size=side)
    assert mixer.policy.form.size == max(32, side)
    batch = Batch(torch.rand(SIZE, 3, side, side), torch.eye(10)[:SIZE])
    assert mix(mixer, batch, net).x.shape == batch.x.shape


OTHER_OPTIONS = [
    ("transformmix", {"k": 3, "cam_class": "prediction"}),
    ("transformmix", {"mix_prob": 0.5, "alpha": 0.2}),
    ("transformmix", {"mask_layers": 1, "mask_channels": 8, "mask_kernel": 5}),
    ("wo_stn", {"mask": "softmax_cam", "k": 4}),
    ("wo_mpn", {"k": 3}),
]


@pytest.mark.parametrize(("name", "options"), OTHER_OPTIONS)
def test_contract_is_kept_with_other_options(name, options, teacher):
    check(made(name, teacher, **options))


@pytest.mark.parametrize("name", NAMES)
def test_contract_is_kept_in_half_precision(name, teacher):
    mixer = made(name, teacher)
    mixer.precision = torch.bfloat16
    check(mixer)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("k", "size"), [(2, 1), (3, 2), (4, 1)])
def test_a_batch_with_fewer_than_k_images_is_refused(name, k, size, teacher, net, batch):
    few = Batch(batch.x[:size], batch.y[:size])
    with pytest.raises(ValueError, match=f"k is {k}, but the batch size is {size}: take a smaller k or larger"):
        mix(made(name, teacher, k=k), few, net)


@pytest.mark.parametrize(
    ("name", "searched", "sentence"),
    [
        ("transformmix", ("transformmix", {"k": 3}), "searched with k = 3, but 2 is asked for"),
        ("transformmix", ("wo_stn", {}), "searched with warp = none, but learned is asked for"),
        ("wo_mpn", ("transformmix", {}), "searched with mask = learned, but none is asked for"),
        ("wo_stn", ("wo_stn", {"mask": "softmax_cam"}), "searched with mask = softmax_cam, but learned is asked for"),
    ],
)
def test_a_policy_that_was_searched_for_something_else_is_refused(name, searched, sentence, teacher):
    other, options = searched
    policy = made(other, teacher, **options).policy.saved()
    with pytest.raises(ValueError, match=sentence):
        made(name, teacher, policy=policy)


REFUSED = [
    ("transformmix", {"k": 1}, "k is 1: it must be at least 2"),
    ("wo_stn", {"k": 0}, "k is 0"),
    ("wo_mpn", {"alpha": -1.0}, "alpha is -1.0"),
    ("wo_mpn", {"alpha": 0.0}, "alpha is 0.0: .* take mix_prob 0 to mix nothing"),
    ("transformmix", {"mix_prob": 1.5}, "mix_prob is 1.5"),
    ("transformmix", {"cam_class": "labels"}, "cam_class is 'labels': it must be one of label, prediction"),
    ("wo_stn", {"mask": "cam"}, "mask is 'cam': it must be one of learned, softmax_cam"),
    ("transformmix", {"mask_layers": 0}, "mask_layers is 0: it must be at least 1"),
    ("transformmix", {"mask_channels": 0}, "mask_channels is 0: it must be at least 1"),
    ("transformmix", {"mask_kernel": 4}, "mask_kernel is 4: it must be odd"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), REFUSED)
def test_options_are_checked_when_a_mixer_is_built(name, options, sentence, teacher):
    with pytest.raises(ValueError, match=sentence):
        made(name, teacher, **options)
