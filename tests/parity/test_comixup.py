"""Co-Mixup against snu-mllab/Co-Mixup, from saliency to mixed images and labels, part by part."""

from itertools import count, takewhile

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.blocks import block_saliency
from methods.collage import Collages, compatibility, distances, image_costs, peak_positions
from methods.comixup import CoMixup, Draws, assemble, halves, shown_labels

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


class Recorded:
    """A recorded batch and its partitions."""

    def __init__(self, case):
        self.case = case
        self.blocks, self.size = int(case["block_num"]), int(case["partition"])
        self.weights = {name: float(case[name]) for name in ("beta", "gamma", "eta", "thres", "omega")}
        self.weights["thres_type"] = "soft" if case["thres_soft"] else "hard"
        self.collages = Collages(**self.weights, resolve=bool(case["resolve"]), niter=int(case["max_sweeps"]))
        self.parts = list(takewhile(lambda part: f"members_{part}" in case, count()))

    def mixer(self):
        weights = {f"m_{name}": value for name, value in self.weights.items()}
        counts = {"m_block_num": (self.blocks,), "m_part": self.size, "m_niter": int(self.case["max_sweeps"])}
        return CoMixup(**weights, **counts, set_resolve=bool(self.case["resolve"]))

    def saliency(self, device="cpu"):
        return torch.from_numpy(self.case["saliency"]).to(device)

    def draws(self):
        prior = np.concatenate([self.case[f"prior_draw_{part}"] for part in self.parts])
        labels = np.concatenate([self.case[f"initial_label_{part}"] for part in self.parts]).astype(np.int64)
        return Draws(self.blocks, torch.from_numpy(prior), torch.from_numpy(labels).flatten(1))

    def costs(self, part):
        """Of each image in each block, (1, B * B, m)."""
        saliency = block_saliency(self.saliency(), self.blocks).flatten(1).numpy()[self.case[f"members_{part}"]]
        return image_costs(saliency[None], self.case[f"prior_draw_{part}"][None], self.weights["eta"])

    def reach(self, part):
        return compatibility(
            distances(self.case["peak_position"][self.case[f"members_{part}"]][None]), self.collages.omega
        )

    def mask(self, part):
        """Recorded shares, (1, m, B * B, m)."""
        mask = self.case[f"mask_{part}"].astype(np.float32)
        return mask.reshape(1, len(mask), -1, len(mask))

    def shown(self):
        """The batch's images that the recorded blocks show."""
        parts = [self.case[f"members_{part}"][halves(self.mask(part))[0]] for part in self.parts]
        return torch.from_numpy(np.concatenate(parts)).view(-1, self.blocks, self.blocks, 2)


@pytest.fixture
def recorded(case):
    return Recorded(case)


@pytest.mark.cases("comixup_")
def test_comixup_has_the_recorded_peaks(recorded, device):
    peaks = peak_positions(recorded.saliency(device)).cpu()
    assert np.array_equal(peaks, recorded.case["peak_position"])
    assert np.array_equal(distances(peaks.numpy()[None])[0], recorded.case["peak_distance"])


@pytest.mark.cases("comixup_")
def test_comixup_partitions_a_batch_in_its_order(recorded):
    members = np.concatenate([recorded.case[f"members_{part}"] for part in recorded.parts])
    assert np.array_equal(members, np.arange(len(members)))
    assert all(len(recorded.case[f"members_{part}"]) == recorded.size for part in recorded.parts[:-1])


@pytest.mark.cases("comixup_")
def test_comixup_goes_from_saliency_and_draws_to_the_recorded_masks(recorded, device):
    mixer = recorded.mixer()
    assert torch.equal(mixer.solve(recorded.saliency(device), recorded.draws()), recorded.shown())
    assert mixer.poll.count == 1


@pytest.mark.cases("comixup_")
def test_comixup_pays_what_is_recorded_at_first_and_at_last(recorded):
    for part in recorded.parts:
        labels = recorded.case[f"initial_label_{part}"].astype(np.int64).reshape(1, recorded.mask(part).shape[1], -1)
        first = np.eye(labels.shape[1], dtype=np.float32)[labels]
        objective = [
            recorded.collages.objective(recorded.costs(part), shares) for shares in (first, recorded.mask(part))
        ]
        stored = recorded.case[f"objective_{part}"]
        np.testing.assert_allclose(np.ravel(objective), stored[[0, -1]], rtol=1e-5)


@pytest.mark.cases("comixup_")
def test_comixup_makes_every_traced_collage_as_recorded(recorded):
    for part in [part for part in recorded.parts if f"step_cost_{part}" in recorded.case]:
        trace = {name: recorded.case[f"step_{name}_{part}"] for name in ("sweep", "cost", "count", "result")}
        costs, reach, shares = recorded.costs(part), recorded.reach(part), trace["result"].astype(np.float32)
        images = costs.shape[2]
        for step, (sweep, cost, held, result) in enumerate(zip(*trace.values(), strict=True)):
            if step >= images:  # the one before of each collage is known; what others hold, too
                others = shares[step - images + 1 : step].sum((0, 1, 2))
                dearer = recorded.collages.penalty(reach, others[None], costs.shape[1])
                own = (costs + dearer[:, None]).reshape(cost.shape)
                parted = (cost - own) / recorded.collages.gamma * costs.shape[1]
                np.testing.assert_allclose(parted, np.round(parted), atol=1e-4)
            made = recorded.collages.remade(cost.reshape(1, -1, images), held[None], paired=sweep > 0)
            assert np.array_equal(made.reshape(result.shape), result)


@pytest.mark.cases("comixup_")
def test_comixup_mixes_the_recorded_masks_as_recorded(recorded, device):
    shown = recorded.shown().to(device)
    y = F.one_hot(torch.from_numpy(recorded.case["class_id"]), recorded.case["soft_label"].shape[1]).to(device)
    stored = torch.from_numpy(recorded.case["soft_label"]).to(device)
    torch.testing.assert_close(shown_labels(y, shown), stored, rtol=0, atol=1e-6)
    if "images" in recorded.case:
        mixed = assemble(torch.from_numpy(recorded.case["images"]).to(device), shown)
        torch.testing.assert_close(mixed.cpu(), torch.from_numpy(recorded.case["mixed"]), rtol=0, atol=1e-6)
