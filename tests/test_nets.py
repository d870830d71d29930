import importlib.util
import os
from pathlib import Path

import pytest
import torch

from methods.base import Network
from mixbench.data import DATASETS
from mixbench.nets import MODELS, SMALLEST, build

SHARED = Path(__file__).parents[1] / os.environ.get("MIXBENCH_SHARED", "../shared")


def made(name, *, seed=0, **changes):
    torch.manual_seed(seed)
    facts = DATASETS["cifar10"]
    problem = {"classes": 10, "channels": 3, "image_size": 32, "mean": facts.mean, "std": facts.std}
    return build(name, **{**problem, **changes})


def weights(net):
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.fixture(params=MODELS)
def net(request):
    return made(request.param)


def test_every_network_keeps_what_mixers_are_promised(net):
    assert isinstance(net, Network)
    assert net.mean.shape == net.std.shape == (1, 3, 1, 1)


def test_answers_are_the_classified_features(net):
    x = torch.rand(2, 3, 32, 32)
    net.eval()
    features = net.features(x)
    assert features.shape[1] == net.fc.in_features
    assert torch.equal(net(x), net.classify(features))
    assert torch.equal(net(x), net.fc(features.mean((2, 3))))


def test_normalising_is_the_networks_first_operation(net):
    x = torch.rand(2, 3, 32, 32)
    net.eval()
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


def test_the_last_stage_puts_out_the_features(net):
    x = torch.rand(2, 3, 32, 32)
    net.eval()
    seen = []
    last = [name for name, _ in net.named_children() if name.startswith("layer")][-1]
    handle = net.get_submodule(last).register_forward_hook(lambda module, inputs, out: seen.append(out))
    assert torch.equal(net.features(x), seen[0])
    handle.remove()


@pytest.mark.parametrize(
    ("name", "problem", "count"),
    [
        ("tiny", {"channels": 1, "image_size": 8, "mean": (0.3,), "std": (0.4,)}, 8_610),
        ("resnet8", {}, 75_290),
        ("resnet20", {}, 269_722),
        ("resnet18", {}, 11_173_962),
    ],
)
def test_networks_have_the_published_number_of_weights(name, problem, count):
    assert weights(made(name, **problem)) == count


@pytest.mark.parametrize(("name", "side"), [("tiny", 16), ("resnet8", 8), ("resnet20", 8), ("resnet18", 4)])
def test_feature_maps_of_cifar_images_have_the_usual_size(name, side):
    with torch.no_grad():
        assert made(name).features(torch.rand(2, 3, 32, 32)).shape[2:] == (side, side)


@pytest.mark.parametrize("name", MODELS)
def test_first_weights_are_a_function_of_the_seed(name):
    first, same, other = (made(name, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_first_convolutions_have_he_et_als_spread():
    layer = made("resnet18").layer3[1].conv1
    assert layer.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_networks_run_in_bfloat16_and_learn(name):
    net = made(name, precision="bfloat16")
    x = torch.rand(4, 3, 32, 32)
    features = net.features(x)
    logits = net.classify(features)
    logits.logsumexp(1).mean().backward()
    assert features.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_the_memory_format_of_the_images_reaches_the_features(net):
    net.to(memory_format=torch.channels_last)
    x = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    assert net.features(x).is_contiguous(memory_format=torch.channels_last)


def test_both_memory_formats_answer_alike(net):
    x = torch.rand(2, 3, 32, 32)
    net.eval()
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
