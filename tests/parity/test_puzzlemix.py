"""PuzzleMix against snu-mllab/PuzzleMix, from an input gradient to mixed images and labels, part by part."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods import graphcut
from methods.blocks import DISTANCES, UNITS, Objective, block_costs, block_saliency, label_prior, same_block, swapped
from methods.maxflow import by_pulses
from methods.ops import Poll, pair, soft_labels
from methods.puzzlemix import PuzzleMix
from methods.saliency import magnitude
from methods.transport import assemble, sources

CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return request.param


@pytest.fixture
def by_any_solver(request, monkeypatch):
    """Both solvers of the minimum cut, on the CPU."""
    if request.param == "pulses":
        monkeypatch.setattr(graphcut, "sink_side", by_pulses)


class Recorded:
    """A recorded batch on a device."""

    def __init__(self, case, device):
        self.case, self.device = case, device
        self.blocks, self.n = int(case["block_num"]), int(case["n_labels"])
        self.lam, self.eta = float(case["lam"]), float(case["eta"])
        self.weights = {"beta": float(case["beta"]), "gamma": float(case["gamma"])}
        self.weights["neigh_size"] = int(case["neigh_size"])
        self.partners = torch.stack([torch.arange(len(case["partner"])), torch.from_numpy(case["partner"])], 1).to(
            device
        )
        self.label = self("label").long()

    def __call__(self, name):
        return torch.from_numpy(self.case[name]).to(self.device)

    def plain(self, x):
        """Images in [0, 1] of normalised ones."""
        return x * self("channel_std").view(1, -1, 1, 1) + self("channel_mean").view(1, -1, 1, 1)

    def normalised(self, x):
        return (x - self("channel_mean").view(1, -1, 1, 1)) / self("channel_std").view(1, -1, 1, 1)

    @property
    def x(self):
        return self.plain(self("images"))

    @property
    def prior(self):
        return label_prior(self.lam, self.n, self.blocks, self.eta).to(self.device)

    @property
    def saliency(self):
        return block_saliency(self("saliency"), self.blocks)

    @property
    def costs(self):
        return block_costs(self.x, self.partners, self.saliency, **self.weights)

    def integers(self):
        """Our costs of labels, and weights down and to the right, cut off as the authors' are."""
        scale = UNITS * self.blocks**2
        costs = self.costs
        return [(scale * part).long() for part in (costs.of_labels(self.prior), costs.down, costs.right)]

    def energy(self, labels):
        """The recorded objective of labels, (N,)."""
        t = labels.cpu().double() / (self.n - 1)
        first, second, prior, down, right = (
            torch.from_numpy(self.case[name]).double()
            for name in ("cost_show_first", "cost_show_second", "prior", "pair_extra_down", "pair_extra_right")
        )
        smooth = float(self.case["beta_scaled"])
        own = (1 - t) * first + t * second + prior[labels.cpu()]
        below, beside = (smooth + down) * t.diff(dim=1) ** 2, (smooth + right) * t.diff(dim=2) ** 2
        return (own.sum((1, 2)) + below.sum((1, 2)) + beside.sum((1, 2))).numpy()

    def shown(self):
        """First and second images, normalised, with the recorded noise."""
        if not self.case["noise"].size:
            return self("images"), self("images")
        noisy = self.normalised((self.x + self("noise")).clamp(0, 1))
        return [noisy if self.case[f"adv_{which}"] else self("images") for which in ("first", "second")]

    def moved(self):
        """Our sources of the recorded mask on the recorded grid, of first and second images."""
        side = int(self.case["t_grid"]) or self.blocks
        own = torch.arange(side**2, device=self.device).expand(len(self.label), -1)
        if not self.case["use_transport"]:
            return own, own
        saliency, mask, eps = self("t_saliency"), self("t_mask"), float(self.case["t_eps"])
        return (
            sources(saliency, mask > 0, eps, Poll()),
            sources(saliency[self.partners[:, 1]], mask < 1, eps, Poll()),
        )

    def share(self):
        """The recorded mask on the grid of what is moved."""
        return same_block(self("mask_block"), int(self.case["t_grid"]) or self.blocks)


@pytest.fixture
def recorded(case, device):
    return Recorded(case, device)


def assert_close(ours, theirs):
    """Within 1e-5 of the largest magnitude of a recorded array."""
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=0, atol=max(1e-5 * theirs.abs().max().item(), 1e-12))


@pytest.mark.cases("puzzlemix_saliency_")
def test_puzzlemix_has_the_recorded_saliency(case, device):
    saliency = magnitude(torch.from_numpy(case["input_gradient"]).to(device))
    assert_close(saliency, torch.from_numpy(case["saliency"]).to(device))
    for blocks in (2, 4, 8, 16):
        assert_close(block_saliency(saliency, blocks), torch.from_numpy(case[f"saliency_block_{blocks}"]).to(device))


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_has_the_recorded_costs(recorded):
    costs, smooth = recorded.costs, float(recorded.case["beta_scaled"])
    assert_close(recorded.saliency, recorded("saliency_block"))
    assert_close(costs.shown[0], recorded("cost_show_first"))
    assert_close(costs.shown[1], recorded("cost_show_second"))
    assert_close(costs.down - smooth, recorded("pair_extra_down"))
    assert_close(costs.right - smooth, recorded("pair_extra_right"))
    assert_close(recorded.prior, recorded("prior"))


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_has_the_recorded_integers_on_a_gpu_but_for_one_unit(recorded):
    for ours, name in zip(recorded.integers(), ("label_cost_int", "weight_down_int", "weight_right_int"), strict=True):
        assert (ours - recorded(name).long()).abs().max() <= (1 if ours.is_cuda else 0)


@pytest.mark.cases("puzzlemix_mix_")
@pytest.mark.parametrize("by_any_solver", ["scipy", "pulses"], indirect=True)
def test_puzzlemix_swaps_to_the_recorded_labels(recorded, by_any_solver):
    distances = torch.tensor(DISTANCES[recorded.n], device=recorded.device)
    numbers = torch.arange(recorded.n, device=recorded.device)
    costs, down, right = (recorded(name).long() for name in ("label_cost_int", "weight_down_int", "weight_right_int"))
    labels = graphcut.swap(costs * distances[-1], down, right, distances[(numbers[:, None] - numbers).abs()], Poll())
    assert torch.equal(labels, recorded.label)


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_swaps_its_own_costs_to_the_recorded_labels(recorded):
    labels = swapped(recorded.costs, recorded.prior, Poll())
    assert (recorded.energy(labels) <= recorded.case["energy"] * (1 + 1e-6)).all()
    names = ("label_cost_int", "weight_down_int", "weight_right_int")
    same = [(ours == recorded(name)).flatten(1).all(1) for ours, name in zip(recorded.integers(), names, strict=True)]
    alike = torch.stack(same).all(0).cpu()
    if recorded.n == 2:
        alike |= torch.from_numpy(recorded.case["minimiser_unique"])
    assert alike.any() if labels.is_cuda else alike.all()
    assert torch.equal(labels.cpu()[alike], recorded.label.cpu()[alike])


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_finds_labels_as_cheap_as_the_recorded_minimum(recorded):
    objective = Objective(n_labels=recorded.n, eta=recorded.eta, solver="exact", **recorded.weights)
    labels = objective.labels(recorded.x, recorded.partners, recorded.saliency, recorded.lam, Poll())
    assert (recorded.energy(labels) <= recorded.case["energy_best"] * (1 + 1e-6)).all()


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_moves_the_recorded_blocks_to_what_is_visible(recorded):
    if not recorded.case["use_transport"]:
        return
    assert_close(block_saliency(recorded("saliency"), int(recorded.case["t_grid"])), recorded("t_saliency"))
    mask = recorded("t_mask").flatten(1)
    first, second = recorded.moved()
    assert torch.equal(first[mask > 0], recorded("source_first").long()[mask > 0])
    assert torch.equal(second[mask < 1], recorded("source_second").long()[mask < 1])


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_mixes_the_recorded_labels_and_moves_as_recorded(recorded):
    share = recorded.share()
    mixed = assemble(*recorded.shown(), recorded.partners, share, recorded.moved())
    exactly = {} if recorded.case["noise"].size else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(mixed, recorded("mixed"), **(exactly or {"rtol": 0, "atol": 1e-6}))
    torch.testing.assert_close(share.mean((1, 2)), recorded("ratio"), rtol=0, atol=1e-6)
    if recorded.case["soft_label"].size:
        y = F.one_hot(recorded("class_id"), int(recorded.case["num_classes"]))
        soft = soft_labels(y, recorded.partners, pair(share.mean((1, 2))))
        torch.testing.assert_close(soft, recorded("soft_label"), rtol=0, atol=1e-6)


@pytest.mark.cases("puzzlemix_mix_")
def test_puzzlemix_goes_from_saliency_to_the_recorded_mask_and_blocks(recorded):
    case = recorded.case
    options = {name: int(case[name]) for name in ("neigh_size", "t_size", "n_labels")}
    options |= {name: float(case[name]) for name in ("beta", "gamma", "eta", "t_eps")}
    mixer = PuzzleMix(block_num=(recorded.blocks,), transport=bool(case["use_transport"]), **options)
    share, (first, second) = mixer.solve(
        recorded.x, recorded.partners, recorded("saliency"), recorded.blocks, recorded.lam
    )
    labelled_alike = (share == recorded.share()).flatten(1).all(1)
    assert labelled_alike.float().mean() > 0.8 if share.is_cuda else labelled_alike.all()
    mixed = assemble(*recorded.shown(), recorded.partners, share, (first, second))
    torch.testing.assert_close(mixed[labelled_alike], recorded("mixed")[labelled_alike], rtol=0, atol=1e-6)


@pytest.mark.cases("puzzlemix_transport_")
def test_puzzlemix_gains_by_transport_what_is_recorded(case):
    saliency, visible = torch.from_numpy(case["saliency"]), torch.from_numpy(case["mask"] > 0)
    side, eps = int(case["t_grid"]), float(case["t_eps"])
    source, place = sources(saliency, visible, eps, Poll()), torch.arange(side**2)
    squared = (source // side - place // side) ** 2 + (source % side - place % side) ** 2
    lost = eps * squared.double() / (side - 1) ** 2 - saliency.double().flatten(1).gather(1, source)
    np.testing.assert_allclose((lost * visible.flatten(1)).sum(1), case["objective"], rtol=0, atol=1e-6)


@pytest.mark.cases("puzzlemix_transport_")
def test_puzzlemix_transports_as_recorded(case, device):
    mask, saliency, image = (torch.from_numpy(case[name]).to(device) for name in ("mask", "saliency", "image"))
    visible = mask.flatten(1) > 0
    source = sources(saliency, mask > 0, float(case["t_eps"]), Poll())
    assert torch.equal(source[visible], torch.from_numpy(case["source"]).to(device).long()[visible])
    themselves = torch.arange(len(mask), device=device)[:, None].expand(-1, 2)
    moved = assemble(image.float(), image.float(), themselves, torch.ones_like(mask), (source, source))
    shown = same_block(mask > 0, image.shape[2])[:, None].expand_as(moved)
    assert torch.equal(moved[shown], torch.from_numpy(case["moved"]).to(device)[shown])
