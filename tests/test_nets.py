import importlib.util
import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from methods.base import Network
from mixbench.data import DATASETS
from mixbench.nets import MODELS, SMALLEST, STAGES, build
from mixbench.nets.resnet import Subsample
from mixbench.nets.wide_resnet import Block as WideBlock

SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")


def made(name, *, seed=0, **changes):
    torch.manual_seed(seed)
    facts = DATASETS["cifar10"]
    problem = {"classes": 10, "channels": 3, "image_size": 32, "mean": facts.mean, "std": facts.std}
    return build(name, **{**problem, **changes})


def small(name, **changes):
    """A network for images about as small as it takes, and two such images."""
    side = max(SMALLEST[name], 8)
    return made(name, image_size=side, **changes), torch.rand(2, 3, side, side)


def weights(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(params=MODELS)
def net_and_x(request):
    return small(request.param)


@pytest.fixture
def net(net_and_x):
    return net_and_x[0].eval()


@pytest.fixture
def x(net_and_x):
    return net_and_x[1]


def test_every_network_keeps_what_mixers_are_promised(net):
    assert isinstance(net, Network)
    assert net.mean.shape == net.std.shape == (1, 3, 1, 1)


def test_answers_are_the_classified_features(net, x):
    features = net.features(x)
    assert features.shape[1] == net.fc.in_features
    assert torch.equal(net(x), net.classify(features))
    assert torch.equal(net(x), net.fc(features.mean((2, 3))))


def test_normalising_is_the_networks_first_operation(net, x):
    told = net(x)
    normalised = (x - net.mean) / net.std
    net.mean.zero_()
    net.std.fill_(1)
    torch.testing.assert_close(net(normalised), told, rtol=1e-4, atol=1e-5)


def test_one_number_normalises_all_channels():
    assert made("tiny", mean=(0.5,), std=(0.25,)).mean.flatten().tolist() == [0.5] * 3


def test_the_normalisation_belongs_to_the_data_and_not_to_the_weights(net):
    assert not {"mean", "std"} & set(net.state_dict())


def test_stages_can_be_asked_for_by_name(net):
    stages = [name for name, _ in net.named_children() if name.startswith("layer")]
    assert stages == [f"layer{number}" for number in range(1, len(stages) + 1)]
    assert len(stages) >= 3


@pytest.mark.parametrize("name", MODELS)
def test_the_number_of_stages_is_known_without_building_the_network(name):
    with torch.device("meta"):
        assert (
            len([name for name, _ in made(name, image_size=64).named_children() if name.startswith("layer")])
            == STAGES[name]
        )


@pytest.mark.parametrize("name", [name for name in MODELS if name != "wrn28_10"])
def test_the_last_stage_puts_out_the_features(name):
    net, x = small(name)
    last = [name for name, _ in net.named_children() if name.startswith("layer")][-1]
    features, stage = features_and_output(net, last, x)
    assert torch.equal(features, stage)


def test_a_wide_resnets_features_are_its_last_stage_normalised_and_cut_off_below_0():
    net, x = small("wrn28_10")
    features, stage = features_and_output(net, "layer3", x)
    assert torch.equal(features, net.bn1(stage).relu())


def features_and_output(net, name, x):
    """The features of images, and what the module ``name`` put out on the way."""
    seen = []
    handle = net.eval().get_submodule(name).register_forward_hook(lambda module, inputs, out: seen.append(out))
    features = net.features(x)
    handle.remove()
    return features, seen[0]


@pytest.mark.parametrize(
    ("name", "problem", "count"),
    [
        ("tiny", {"channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.4,)}, 8_610),
        ("resnet8", {}, 75_290),
        ("resnet20", {}, 269_722),
        ("resnet18", {}, 11_173_962),
        ("preactresnet18", {"classes": 100}, 11_217_316),  # 11.22 M in snu-mllab/PuzzleMix
        ("wrn28_10", {"classes": 100}, 36_546_980),  # 36.55 M in snu-mllab/PuzzleMix, where convolutions have biases
        ("resnet50", {"classes": 1000, "image_size": 224}, 25_557_032),  # torchvision's documentation
    ],
)
def test_networks_have_the_published_number_of_weights(name, problem, count):
    assert weights(made(name, **problem)) == count


def test_a_wide_resnet_has_the_papers_number_of_weights_but_for_the_biases_of_convolutions():
    net = made("wrn28_10")
    biases = sum(layer.bias.numel() for layer in net.modules() if isinstance(layer, nn.Conv2d))
    assert weights(net) - biases == 36_479_194  # Zagoruyko & Komodakis (2016): 36.5 M


@pytest.mark.parametrize(
    ("name", "image_size", "side"),
    [
        ("tiny", 32, 16),
        ("resnet8", 32, 8),
        ("resnet20", 32, 8),
        ("resnet18", 32, 4),
        ("preactresnet18", 32, 4),
        ("preactresnet18", 64, 4),
        ("wrn28_10", 32, 8),
        ("wrn28_10", 64, 8),
        ("resnet50", 224, 7),
    ],
)
def test_feature_maps_have_the_usual_size(name, image_size, side):
    with torch.no_grad():
        features = made(name, image_size=image_size).features(torch.rand(1, 3, image_size, image_size))
    assert features.shape[2:] == (side, side)


def test_a_wide_resnet_has_stride_and_momentum_where_the_published_code_has_them():
    net = made("wrn28_10")
    assert [layer.stride for layer in (net.layer2[0].conv1, net.layer2[0].conv2)] == [(1, 1), (2, 2)]
    assert net.bn1.momentum == 0.9
    assert net.layer3[0].bn1.momentum == 0.1


def test_a_wide_resnets_shortcut_carries_the_input_itself():
    block, x = WideBlock(4, 8, 2), torch.rand(2, 4, 6, 6)
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(x), block.shortcut(x))


@pytest.mark.parametrize(("name", "layer"), [("preactresnet18", "layer4"), ("wrn28_10", "layer3")])
def test_kim_et_als_networks_begin_with_torchs_own_weights(name, layer):
    convolution = made(name).get_submodule(layer)[1].conv1
    assert convolution.weight.abs().max().item() == pytest.approx(convolution.weight[0].numel() ** -0.5, rel=0.01)


def test_resnet50_answers_as_torchvisions_with_the_same_weights():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=10).eval()
    net, x = small("resnet50", mean=(0.0,), std=(1.0,))
    net.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x), theirs(x))


def test_resnet50_takes_images_of_any_number_of_channels():
    net = made("resnet50", channels=1, image_size=64, mean=(0.5,), std=(0.5,))
    with torch.no_grad():
        assert net(torch.rand(2, 1, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_first_weights_are_a_function_of_the_seed(name):
    first, same, other = (small(name, seed=seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_first_convolutions_have_he_et_als_spread():
    layer = made("resnet18").layer3[1].conv1
    assert layer.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_networks_run_in_bfloat16_and_learn(name):
    net, x = small(name, precision="bfloat16")
    features = net.features(x)
    logits = net.classify(features)
    logits.logsumexp(1).mean().backward()
    assert features.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_the_memory_format_of_the_images_reaches_the_features(net, x):
    net.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    assert net.features(x).is_contiguous(memory_format=torch.channels_last)


def test_both_memory_formats_answer_alike(net, x):
    told = net(x)
    last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, told, rtol=1e-3, atol=1e-4)


def test_an_unknown_network_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no model 'resnet9'; there are: tiny, resnet8, resnet20, resnet18"):
        made("resnet9")


def test_images_too_small_for_a_network_are_refused():
    with pytest.raises(ValueError, match="image_size is 8, but this network needs 16 pixels or more"):
        made("resnet18", image_size=8)


# ---- published weights


@pytest.fixture(scope="module")
def published():
    """ResNet-20 with the weights of akamaster/pytorch_resnet_cifar10."""
    path = SHARED / "data" / "checkpoints" / "cifar10_resnet20.pt"
    if not path.exists():
        pytest.skip(f"no {path}; MIXBENCH_SHARED names the folder of public checkpoints")
    state = torch.load(path, weights_only=True)
    net = made("resnet20", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    net.load_state_dict({name.replace("linear", "fc"): value for name, value in state.items()})
    return net.eval()


def test_resnet20_with_published_weights_knows_the_pictures_it_was_trained_on(published):
    folder = SHARED / "data"
    spec = importlib.util.spec_from_file_location("unpack_cifar", folder / "unpack_cifar.py")
    packs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packs)
    pack = packs.load(folder / "cifar10_exact4000.npz", splits=("train",), per_class=30)
    x, y = torch.from_numpy(pack["train_x"]).permute(0, 3, 1, 2) / 255, torch.from_numpy(pack["train_y"])
    with torch.no_grad():
        right = (published(x).argmax(1) == y).float().mean().item()
    assert right > 0.99  # 99.8 % on all 4,000, says who published them


@pytest.mark.parametrize("name", MODELS)
def test_the_smallest_image_a_network_takes_is_the_one_that_is_said(name):
    made(name, image_size=SMALLEST[name])
    with pytest.raises(ValueError, match="pixels or more"):
        made(name, image_size=SMALLEST[name] - 1)


def test_gradient_of_a_shortcut_without_weights_lies_as_its_input_does():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    found = Subsample(4, 8, 2)(x)
    assert torch.equal(found, expected)
    upstream = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, x, upstream)
    assert torch.equal(gradient, *torch.autograd.grad(expected, x, upstream))
    assert gradient.is_contiguous(memory_format=torch.channels_last)
