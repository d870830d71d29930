"""Class activation maps against another implementation: torch-cam's."""

import pytest
import torch
import torch.nn.functional as F
from torchcam import methods as torchcam

from methods.saliency import cam
from mixbench import nets

LAST_STAGES = {"tiny": "layer3", "resnet8": "layer3", "resnet18": "layer4"}


def stretched(raw, size):
    """Raw maps (N, h, w) brought to size, then each to [0, 1]."""
    maps = F.interpolate(raw[:, None], size=size, mode="bilinear", align_corners=False)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("predicted", [False, True], ids=["label", "prediction"])
@pytest.mark.parametrize("model", LAST_STAGES)
def test_cam_is_that_of_torch_cam(model, predicted):
    torch.manual_seed(0)
    mean = std = (0.5, 0.4, 0.3)
    net = nets.build(model, classes=10, channels=3, image_size=32, mean=mean, std=std).eval()
    x, y = torch.rand(6, 3, 32, 32), torch.eye(10)[torch.arange(6)]
    with torchcam.CAM(net, LAST_STAGES[model], "fc") as extractor:
        scores = net(x)
        classes = (scores if predicted else y).argmax(1)
        (raw,) = extractor(classes.tolist(), scores, normalized=False)
    ours = cam(net, x, None if predicted else y)
    torch.testing.assert_close(ours, stretched(raw, (32, 32)), rtol=0, atol=1e-5)
