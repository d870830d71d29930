import copy

import pytest
import torch
from torch import nn

from methods import Batch, Mixed
from methods.contract import SmallNetwork, check
from methods.manifold_mixup import HiddenMixed, ManifoldMixup
from mixbench import criteria, nets

SIZE = 10


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SmallNetwork()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.rand(SIZE, 3, 16, 16, generator=generator), torch.eye(SIZE))


def mix(mixer, batch, net, *, seed=0):
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(batch, net)


def go_on(net, stage, out):
    """The answers of a network from what a stage put out."""
    for number in range(stage + 1, 4):
        out = net.get_submodule(f"layer{number}")(out)
    return net.classify(out)


@pytest.mark.parametrize("draw", ["batch", "sample"])
@pytest.mark.parametrize("layers", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_contract_is_kept_in_each_layer(layers, draw):
    check(ManifoldMixup(layers=layers, draw=draw))


@pytest.mark.parametrize("draw", ["batch", "sample"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_what_a_stage_puts_out_is_mixed_as_labels_are(stage, draw, net, batch):
    mixed = mix(ManifoldMixup(layers=(stage,), draw=draw), batch, net.eval())
    out = (batch.x - net.mean) / net.std
    for number in range(1, stage + 1):
        out = net.get_submodule(f"layer{number}")(out)
    blended = torch.einsum("nm,mdhw->ndhw", mixed.y, out)  # labels tell images apart, so they are the weights
    torch.testing.assert_close(mixed.logits(net), go_on(net, stage, blended), rtol=1e-4, atol=1e-5)
    assert not torch.equal(mixed.logits(net), net(batch.x))


def test_layer_0_mixes_images_as_mixup_does(net, batch):
    mixed = mix(ManifoldMixup(layers=(0,)), batch, net)
    assert type(mixed) is Mixed
    torch.testing.assert_close(mixed.x.flatten(1), mixed.y @ batch.x.flatten(1))


def test_a_layer_is_drawn_for_each_batch_each_as_often(net, batch):
    mixer = ManifoldMixup()
    mixes = [mix(mixer, batch, net, seed=seed) for seed in range(300)]
    drawn = [one.stage if isinstance(one, HiddenMixed) else "the image" for one in mixes]
    assert set(drawn) == {"the image", "layer1", "layer2"}
    assert all(70 < drawn.count(layer) < 130 for layer in set(drawn))


def test_one_lam_is_drawn_for_a_batch_unless_it_is_asked_for_each_sample(net, batch):
    for draw, most in (("batch", 1), ("sample", SIZE)):
        own = mix(ManifoldMixup(draw=draw), batch, net).y.diagonal()
        assert (len(own[own < 1].unique()) > 1) == (most > 1)


def test_lam_comes_from_the_authors_beta_of_2(net, batch):
    own = torch.cat([mix(ManifoldMixup(draw="sample"), batch, net, seed=seed).y.diagonal() for seed in range(200)])
    own = own[own < 1]
    assert abs(own.mean() - 0.5) < 0.02
    assert abs(own.var() - 1 / 20) < 0.005  # of Beta(2, 2)


def test_the_gradient_flows_into_both_partners(net, batch):
    partners = torch.arange(SIZE)[:, None] + torch.tensor([0, 1])
    x = batch.x.requires_grad_()
    mixed = HiddenMixed(x, batch.y, "layer1", partners % SIZE, torch.tensor([[0.25, 0.75]]))
    (gradient,) = torch.autograd.grad(mixed.logits(net.eval())[0, 0], x)
    assert (gradient.flatten(1).abs().sum(1) > 0).tolist() == [True, True, *[False] * (SIZE - 2)]


@pytest.mark.parametrize("stage", [1, 2])
def test_two_networks_answer_the_same_mix_and_keep_no_hook(stage, net, batch):
    mixed = mix(ManifoldMixup(layers=(stage,)), batch, net)
    other = copy.deepcopy(net)
    assert torch.equal(mixed.logits(net), mixed.logits(other))
    assert torch.equal(mixed.logits(net.eval()), mixed.logits(net))
    assert not any(part._forward_hooks for one in (net, other) for part in one.modules())


def test_a_network_that_fails_keeps_no_hook_either(net, batch):
    mixed = mix(ManifoldMixup(layers=(1,)), batch, net)
    net.layer3 = nn.Conv2d(1, 1, 1)
    with pytest.raises(RuntimeError):
        mixed.logits(net)
    assert not net.layer1._forward_hooks


@pytest.mark.parametrize("criterion", criteria.CRITERIA.values())
def test_the_loss_is_the_criterion_of_mixed_labels(criterion, net, batch):
    mixed = mix(ManifoldMixup(layers=(1,)), batch, net)
    logits = mixed.logits(net)
    assert torch.equal(mixed.loss(logits, criterion), criterion(logits, mixed.y).mean())


@pytest.mark.parametrize("stage", [1, 2])
def test_features_keep_their_precision_under_autocast(stage, batch):
    problem = {"classes": 10, "channels": 3, "image_size": 16, "mean": (0.5,), "std": (0.25,)}
    torch.manual_seed(0)
    net = nets.build("resnet18", **problem, precision="bfloat16")
    seen = []
    net.get_submodule(f"layer{stage + 1}").register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mixed = mix(ManifoldMixup(layers=(stage,)), batch, net)
    mixed.loss(mixed.logits(net), criteria.cross_entropy).backward()
    assert [one.dtype for one in seen] == [torch.bfloat16]
    assert net.conv1.weight.grad.isfinite().all()


@pytest.mark.parametrize("layer", [0, 1])
def test_images_may_be_bfloat16(layer, net, batch):
    half = Batch(batch.x.bfloat16(), batch.y)
    mixed = mix(ManifoldMixup(layers=(layer,)), half, net)
    assert mixed.x.dtype == torch.bfloat16
    assert mixed.y.dtype == torch.float32
    assert mixed.loss(mixed.logits(net), criteria.cross_entropy).isfinite()


def test_nothing_is_mixed_at_alpha_0(net, batch):
    for layers in ((0,), (1,)):
        mixed = mix(ManifoldMixup(alpha=0, layers=layers), batch, net.eval())
        assert torch.equal(mixed.y, batch.y)
        assert torch.equal(mixed.logits(net), net(batch.x))


@pytest.mark.parametrize("layer", [0, 4])
def test_a_layer_that_the_network_lacks_is_refused_whichever_is_drawn(layer, net, batch):
    with pytest.raises(ValueError, match=r"layers holds 4, but the network has no layer4; take of 0, 1, 2, 3 \(0 is"):
        mix(ManifoldMixup(layers=(layer, 4)), batch, net)
    mix(ManifoldMixup(layers=(layer, 4)), batch, SmallNetwork(stages=4))


@pytest.mark.parametrize("layers", [(), (1, -1)])
def test_layers_are_checked_when_the_mixer_is_built(layers):
    with pytest.raises(ValueError, match=r"layers is \[.*\]: it must hold at least one number, 0 for the image"):
        ManifoldMixup(layers=layers)
