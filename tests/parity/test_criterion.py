"""Binary cross-entropy on the softmax against vikasverma1077/manifold_mixup."""

import pytest
import torch

from mixbench.criteria import binary_cross_entropy


@pytest.mark.cases("manifoldmix_features")
def test_bce_has_the_recorded_loss_and_gradient(case):
    for number, y in enumerate(torch.from_numpy(case["mixed_targets"])):
        logits = torch.from_numpy(case["logits"]).requires_grad_()
        loss = binary_cross_entropy(logits, y).mean()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.item() == pytest.approx(case["bce_loss"][number], rel=0, abs=1e-6)
        torch.testing.assert_close(gradient, torch.from_numpy(case["grad_logits"][number]), rtol=0, atol=1e-7)
