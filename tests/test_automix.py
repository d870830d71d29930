"""AutoMix: its masks, what it and the network learn from, and the copy that follows the network."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from methods import Batch
from methods.attention import Headed, MaskBlock, channels_of, stage_features, stage_named
from methods.automix import AutoMix, momentum_at
from methods.contract import SmallNetwork, check
from methods.ops import draw_lam, draw_partners
from mixbench import nets
from mixbench.criteria import binary_cross_entropy, cross_entropy

N, SIDE = 6, 16


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SmallNetwork()


@pytest.fixture
def batch():
    return Batch(torch.rand(N, 3, SIDE, SIDE, generator=seeded(1)), torch.eye(10)[torch.arange(N)])


@pytest.fixture
def automix(net):
    """Makes mixers beside the same network, whose blocks say something: as drawn, they say next to nothing."""

    def made(**options):
        torch.manual_seed(1)
        mixer = AutoMix(net, SIDE, **options)
        with torch.no_grad():
            for parameter in mixer.block.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded(2)))
        mixer.generator = seeded()
        return mixer

    return made


def draws(alpha=2.0, seed=0):
    """What is drawn: lam and partners of the mix that teaches the block, then of the one that the network sees."""
    generator = seeded(seed)
    for _ in range(2):
        lam = draw_lam(1, 2, alpha, generator)[0, 0]
        yield lam, draw_partners(N, 2, generator)[:, 1]


def literal_mask(block, own, other, lam, size):
    """What each pixel shows of the other image: the block written out sum by sum, from its specification."""
    if block.lam_concat:
        own = torch.cat([own, torch.full_like(own[:, :1], lam)], dim=1)
        other = torch.cat([other, torch.full_like(other[:, :1], 1 - lam)], dim=1)
    w_q, w_v = block.query.weight[:, :, 0, 0], block.value.weight[:, :, 0, 0]
    query = torch.einsum("dc,nchw->ndhw", w_q, own) + block.query.bias[:, None, None]
    key = torch.einsum("dc,nchw->ndhw", w_q, other) + block.query.bias[:, None, None]
    value = torch.einsum("dc,nchw->ndhw", w_v, other) + block.value.bias[:, None, None]
    weight = torch.einsum("ndhw,nduv->nhwuv", query, key) / math.sqrt(w_q.shape[0])
    weight = weight.exp() / weight.exp().sum((3, 4), keepdim=True)
    mask = 1 / (1 + torch.exp(-torch.einsum("nhwuv,nduv->ndhw", weight, value)))
    factor = size // mask.shape[2]
    return mask.repeat_interleave(factor, 2).repeat_interleave(factor, 3)


@pytest.mark.parametrize("lam_concat", [False, True])
def test_block_is_its_specification_written_out(lam_concat):
    block = MaskBlock(8, lam_concat=lam_concat)
    for parameter in block.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=seeded())
    own, other = torch.randn(2, 3, 8, 4, 6, generator=seeded(1))
    expected = literal_mask(block, own, other, 0.3, 4)
    torch.testing.assert_close(block(own, other, 0.3).sigmoid(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lam_concat", [False, True])
def test_block_begins_with_small_normal_weights_and_no_bias(lam_concat):
    torch.manual_seed(0)
    block = MaskBlock(256, lam_concat=lam_concat)
    assert block.query.weight.shape == (128, 256 + lam_concat, 1, 1)
    assert block.query.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert block.value.weight.shape == (1, 256 + lam_concat, 1, 1)
    assert not block.query.bias.any()
    assert not block.value.bias.any()


@pytest.mark.parametrize("lam_concat", [False, True])
def test_network_sees_a_mix_by_the_mask_of_draws_of_its_own_and_the_images_as_they_were(
    automix, batch, net, lam_concat
):
    mixer = automix(lam_concat=lam_concat, lam_margin=0.0)
    twin = copy.deepcopy(mixer.twin)
    mixed = mixer(batch, net)
    _, (lam, partner) = draws()
    features = stage_features(twin, "layer2", batch.x).detach()
    mask = literal_mask(mixer.block, features, features[partner], float(lam), SIDE)
    expected = batch.x * (1 - mask) + batch.x[partner] * mask
    torch.testing.assert_close(mixed.x[:N], expected.detach(), rtol=1e-4, atol=1e-5)
    assert torch.equal(mixed.x[N:], batch.x)
    torch.testing.assert_close(mixed.y, lam * batch.y + (1 - lam) * batch.y[partner])


@pytest.mark.parametrize("criterion", [cross_entropy, binary_cross_entropy])
def test_loss_has_the_four_published_terms(automix, batch, net, criterion):
    mixer = automix(mask_loss_margin=0.01)
    twin, q, q_one = (copy.deepcopy(one) for one in (mixer.twin, net, mixer.one))
    mixed = mixer(batch, net)
    loss = mixed.loss(mixed.logits(net), criterion)

    def mix_loss(logits, lam, partner):
        return (lam * criterion(logits, batch.y) + (1 - lam) * criterion(logits, batch.y[partner])).mean()

    (lam_mb, partner_mb), (lam_bb, partner_bb) = draws()
    features = stage_features(twin, "layer2", batch.x).detach()
    mask = literal_mask(mixer.block, features, features[partner_mb], float(lam_mb), SIDE)
    x_mb = batch.x * (1 - mask) + batch.x[partner_mb] * mask
    one = F.linear(q.features(batch.x).mean((2, 3)), q_one.weight, q_one.bias)
    terms = (
        mix_loss(q(mixed.x[:N]), lam_bb, partner_bb),
        criterion(one, batch.y).mean(),
        mix_loss(twin(x_mb), lam_mb, partner_mb),
        0.1 * F.relu(((1 - mask).mean() - lam_mb).abs() - 0.01),
    )
    assert all(term > 0 for term in terms)
    torch.testing.assert_close(loss, sum(terms))


def test_copy_teaches_the_block_and_nothing_else_does(automix, batch, net):
    mixer = automix()
    mixed = mixer(batch, net)
    criterion = cross_entropy
    taught = criterion(mixed.answers, mixed.taught).mean() + mixed.penalty
    alone = torch.autograd.grad(taught, list(mixer.block.parameters()), retain_graph=True)
    mixed.loss(mixed.logits(net), criterion).backward()
    for parameter, gradient in zip(mixer.block.parameters(), alone, strict=True):
        assert gradient.abs().sum() > 0
        assert torch.equal(parameter.grad, gradient)
    assert all(parameter.grad is None for parameter in mixer.twin.parameters())
    assert mixer.one.weight.grad.abs().sum() > 0
    assert net.fc.weight.grad.abs().sum() > 0


def test_mean_of_a_mask_costs_nothing_within_the_margin(automix, batch, net):
    assert automix(mask_loss_margin=1.0)(batch, net).penalty == 0
    assert automix(mask_loss_margin=0.0)(batch, net).penalty > 0


@pytest.mark.parametrize("lam_margin", [0.0, 0.5])
def test_network_is_shown_plain_mixup_where_lam_leaves_next_to_nothing(automix, batch, net, lam_margin):
    mixed = automix(lam_margin=lam_margin)(batch, net)
    _, (lam, partner) = draws()
    plain = lam * batch.x + (1 - lam) * batch.x[partner]
    assert torch.allclose(mixed.x[:N], plain, atol=1e-6) == (lam_margin == 0.5)


def test_statistics_of_the_copy_are_those_of_its_own_two_passes(automix, batch, net):
    mixer = automix()
    twin = copy.deepcopy(mixer.twin)
    mixed = mixer(batch, net)
    assert torch.equal(net.layer1[1].running_mean, torch.zeros(8))
    (_, partner), _ = draws()
    features = stage_features(twin, "layer2", batch.x).detach()
    mask = mixer.mask(
        features, type("Drawn", (), {"own": 0.5, "partners": torch.stack([partner, partner], 1)}), batch.x
    )
    twin(batch.x[partner].lerp(batch.x, mask))
    for name, value in twin.named_buffers():
        torch.testing.assert_close(dict(mixer.twin.named_buffers())[name], value)
    mixed.logits(net)
    mixer.stepped(net, 1, 10)
    assert torch.equal(mixer.twin.layer1[1].running_mean, twin.layer1[1].running_mean)


def test_momentum_waits_a_tenth_of_the_training_and_then_rises_along_a_cosine():
    start, end = 0.999, 0.999999
    assert [momentum_at(share, start, end) for share in (0, 0.05, 0.0999)] == [start] * 3
    for share in (0.1, 0.5, 0.9):
        expected = end - (end - start) * (math.cos(math.pi * share) + 1) / 2
        assert momentum_at(share, start, end) == expected > start
    assert momentum_at(1, start, end) == end


def test_copy_and_its_heads_follow_the_network_by_the_momentum(automix, net):
    mixer = automix(momentum=0.75)
    before = {name: value.clone() for name, value in mixer.twin.named_parameters()}
    head = mixer.twin_one.weight.clone()
    with torch.no_grad():
        for parameter in (*net.parameters(), *mixer.one.parameters()):
            parameter.add_(1)
    mixer.stepped(net, 1, 100)
    for name, value in mixer.twin.named_parameters():
        torch.testing.assert_close(value, before[name] + 0.25)
    torch.testing.assert_close(mixer.twin_one.weight, head + 0.25)


@pytest.mark.parametrize("decays", [False, True])
def test_weight_of_the_masks_mean_decays_where_that_is_asked_for(automix, net, decays):
    mixer = automix(mask_loss_decay=decays)
    weights = []
    for done in (1, 5, 10):
        mixer.stepped(net, done, 10)
        weights.append(mixer.mask_weight.item())
    expected = [0.05 * (1 + math.cos(math.pi * done / 10)) if decays else 0.1 for done in (1, 5, 10)]
    assert weights == pytest.approx(expected, abs=1e-8)


def test_four_networks_are_scored_and_the_copy_with_its_mix_head_counts(automix, batch, net):
    mixer = automix()
    with torch.no_grad():
        for parameter in (*net.parameters(), *mixer.twin_one.parameters()):
            parameter.mul_(1.1)
    scored = mixer.scored(net)
    answers = {name: network.eval()(batch.x) for name, network in scored.items()}
    assert mixer.headline == "k_mix"
    assert list(answers) == ["k_mix", "k_one", "q_mix", "q_one"]
    assert len(torch.stack([*answers.values()]).unique(dim=0)) == 4
    assert torch.equal(answers["k_mix"], mixer.twin(batch.x))
    assert torch.equal(answers["q_mix"], net(batch.x))
    assert torch.equal(answers["q_one"], mixer.one(net.features(batch.x).mean((2, 3))))


STAGES = {
    "resnet18": ("layer3", 256, 32, 8),
    "preactresnet18": ("layer3", 256, 64, 8),
    "wrn28_10": ("layer2", 320, 32, 16),
    "resnet8": ("layer2", 32, 32, 16),
    "resnet50": ("layer3", 1024, 224, 14),
    "tiny": ("layer2", 16, 8, 4),
}


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_the_last_but_one_as_the_authors_choose_it(name):
    stage, channels, size, side = STAGES[name]
    with torch.device("meta"):
        net = nets.build(name, classes=10, channels=3, image_size=size, mean=(0.5,), std=(0.25,))
    assert stage_named(net, 0) == stage
    assert channels_of(net, stage, size) == channels
    assert stage_features(net, stage, torch.empty(1, 3, size, size, device="meta")).shape[2:] == (side, side)
    assert stage_named(net, 1) == "layer1"


def test_network_without_stages_is_refused():
    with pytest.raises(ValueError, match="Linear has no stages that are called layer1"):
        stage_named(torch.nn.Linear(1, 1), 0)


@pytest.mark.parametrize(
    "options", [{"lam_concat": True}, {"layer": 1}, {"layer": 3}, {"mask_loss_decay": True}, {"lam_margin": 0.5}]
)
def test_contract_is_kept_with_other_options(options, net):
    check(AutoMix(net, 32, **options))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_batches_of_any_size_are_mixed_and_learned_from(automix, net, size):
    mixer = automix()
    x = torch.rand(size, 3, SIDE, SIDE, generator=seeded())
    mixed = mixer(Batch(x, torch.eye(10)[torch.arange(size)]), net)
    mixed.loss(mixed.logits(net), cross_entropy).backward()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.learners())


def test_attention_is_computed_in_float32_whatever_the_networks_compute_in():
    net = nets.build("tiny", classes=10, channels=3, image_size=SIDE, mean=(0.5,), std=(0.25,), precision="bfloat16")
    mixer = AutoMix(net, SIDE)
    mixer.precision = torch.bfloat16
    seen = []
    mixer.block.register_forward_hook(lambda module, inputs, out: seen.extend([inputs[0].dtype, out.dtype]))
    x = torch.rand(4, 3, SIDE, SIDE)
    mixed = mixer(Batch(x, torch.eye(10)[:4]), net)
    assert set(seen) == {torch.float32}
    assert mixed.x.dtype == torch.float32
    assert mixed.loss(mixed.logits(net), cross_entropy).isfinite()
    assert Headed(net, mixer.one)(x).dtype == torch.float32


def test_images_of_half_precision_stay_so(automix, batch, net):
    mixed = automix()(Batch(batch.x.bfloat16(), batch.y), net)
    assert mixed.x.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"end_momentum": 1.0}, "end_momentum is 1.0: it must be at least 0 and less than 1; with 1 the copy"),
        ({"mask_loss": -1.0}, "mask_loss is -1.0"),
        ({"lam_margin": 0.6}, "lam_margin is 0.6: it must be between 0 and 0.5"),
        ({"layer": 9}, "layer is 9, but the network has the stages 1 to 3"),
        ({"mask_lr": (0.1, 0.01, 0.0)}, "mask_lr has 3 numbers: it must have two"),
        ({"mask_momentum": 1.0}, "mask_momentum is 1.0"),
    ],
)
def test_options_are_checked_when_the_mixer_is_built(automix, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        automix(**options)


def test_block_learns_at_a_rate_of_its_own_where_that_is_asked_for(automix):
    assert automix().learns_by == {"block": {}}
    by = automix(mask_lr=(0.1, 0.001), mask_momentum=0.0).learns_by
    assert by == {"block": {"lr": 0.1, "lr_end": 0.001, "momentum": 0.0}}


def test_block_computes_in_float32_whoever_calls_it_under_autocast():
    block, features = MaskBlock(8, lam_concat=True), torch.rand(2, 8, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(features, features.flip(0), 0.3)
    assert found.dtype == torch.float32
    assert torch.equal(found, block(features, features.flip(0), 0.3))


def test_copy_follows_by_the_momentum_of_the_step_that_is_over_counted_from_0():
    net = SmallNetwork()
    mixer = AutoMix(net, SIDE, momentum=0.5, end_momentum=0.9)
    with torch.no_grad():
        net.fc.bias.fill_(1.0)
        mixer.twin.fc.bias.zero_()
    mixer.stepped(net, 11, 100)  # the eleventh step, of which ten hundredths of the training were over
    assert mixer.twin.fc.bias[0].item() == pytest.approx(1 - momentum_at(0.10, 0.5, 0.9))
    assert momentum_at(0.10, 0.5, 0.9) != pytest.approx(momentum_at(0.11, 0.5, 0.9))
