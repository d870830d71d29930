import pytest
import torch

from methods import Batch, build, saliencymix
from methods.contract import SmallNetwork, check
from methods.finegrained import fine_grained
from methods.saliency import peaks
from methods.saliencymix import SaliencyMix, official_peak
from methods.views import ViewCache

SIZE = 12
BOTH = ["paper", "official"]


def pictures(side=32, *, seed=1):
    """8-bit images, (SIZE, 3, side, side), each with one bright spot somewhere on noise."""
    generator = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.rand(SIZE, 3, side, side, generator=generator)
    for image, (row, column) in zip(
        x, torch.randint(3, side - 3, (SIZE, 2), generator=generator).tolist(), strict=True
    ):
        image[:, row - 2 : row + 2, column - 2 : column + 2] += 0.6
    return (x * 255).round() / 255


def mix(mixer, x, *, seed=0, view=None):
    """The mixed batch of images whose labels tell them apart, and whom each has met."""
    mixer.generator = torch.Generator().manual_seed(seed)
    partners = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return mixer(Batch(x, torch.eye(len(x)), view), SmallNetwork()), partners


def pasted(mixed, x):
    """Top, left, bottom, right of what is not the image's own, and None where nothing is."""
    boxes = []
    for other in (mixed.x != x).any(1):
        rows, columns = other.any(1).nonzero()[:, 0], other.any(0).nonzero()[:, 0]
        boxes.append((int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else None)
    return boxes


@pytest.mark.parametrize("saliency", BOTH)
@pytest.mark.parametrize("seed", range(4))
def test_labels_are_weighed_by_the_area_that_is_visible(saliency, seed):
    x = (torch.arange(1.0, SIZE + 1) / 255).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).contiguous()
    mixed, _ = mix(SaliencyMix(saliency=saliency), x, seed=seed)
    visible = (mixed.x[:, 0].flatten(1)[:, :, None] == x[:, 0, 0, 0]).float().mean(1)
    torch.testing.assert_close(mixed.y, visible)


@pytest.mark.parametrize("saliency", BOTH)
def test_every_pixel_is_that_of_the_image_or_of_its_partner(saliency):
    x = pictures()
    mixed, partners = mix(SaliencyMix(saliency=saliency), x)
    assert ((mixed.x == x) | (mixed.x == x[partners])).all()


def test_boxes_lie_around_the_peak_of_the_image_that_they_are_cut_from():
    x = pictures(64)
    for seed in range(5):
        mixed, partners = mix(SaliencyMix(), x, seed=seed)
        for box, (row, column) in zip(pasted(mixed, x), peaks(fine_grained(x))[partners].tolist(), strict=True):
            if box is not None:
                top, left, bottom, right = box
                assert row == (top + bottom) / 2 or top == 0 or bottom == 64
                assert column == (left + right) / 2 or left == 0 or right == 64


def test_each_image_has_a_box_and_a_lam_of_its_own():
    mixed, _ = mix(SaliencyMix(), pictures())
    assert len(mixed.y.diagonal().unique()) > SIZE / 2
    assert len(set(pasted(mixed, pictures()))) > SIZE / 2


def test_the_published_code_has_one_box_a_batch_around_a_peak_of_the_first_source():
    x = pictures()
    for seed in range(5):
        mixed, partners = mix(SaliencyMix(saliency="official"), x, seed=seed)
        boxes = set(pasted(mixed, x)) - {None}
        ((row, column),) = official_peak(x[partners[:1]], SmallNetwork()).tolist()
        assert len(boxes) == 1
        ((top, left, bottom, right),) = boxes
        assert row == (top + bottom) / 2 or top == 0 or bottom == 32
        assert column == (left + right) / 2 or left == 0 or right == 32


def test_the_published_code_sees_what_the_network_sees():
    net = SmallNetwork()
    before = official_peak(pictures(), net)
    net.std.mul_(1.1)
    assert not torch.equal(official_peak(pictures(), net), before)


@pytest.mark.parametrize("options", [{"alpha": 0}, {"prob": 0}, {"prob": 0, "saliency": "official"}])
def test_nothing_is_mixed_where_the_options_say_so(options):
    mixed, _ = mix(SaliencyMix(**options), pictures())
    assert torch.equal(mixed.x, pictures())
    assert torch.equal(mixed.y, torch.eye(SIZE))


@pytest.mark.parametrize(("saliency", "per_batch"), [("paper", False), ("official", True)])
def test_images_or_batches_are_mixed_with_the_probability_asked_for(saliency, per_batch):
    mixer = SaliencyMix(saliency=saliency, prob=0.5)
    shares = torch.stack([(mix(mixer, pictures(), seed=seed)[0].y.diagonal() < 1).float().mean() for seed in range(60)])
    assert 0.3 < shares.mean() < 0.55
    assert bool((shares > 0).all()) != per_batch


def test_a_peak_is_found_once_for_each_view(monkeypatch):
    found = []
    monkeypatch.setattr(saliencymix, "fine_grained", lambda x: found.append(len(x)) or fine_grained(x))
    x, view = pictures(), torch.arange(SIZE) // 2 * 2
    x = x[view]  # two images of each view
    kept, fresh = SaliencyMix(), SaliencyMix()
    kept.views = ViewCache(SIZE)
    for seed in range(3):
        once, _ = mix(kept, x, seed=seed, view=view)
        again, _ = mix(fresh, x, seed=seed, view=view)
        assert torch.equal(once.x, again.x)
        assert torch.equal(once.y, again.y)
    assert found == [SIZE, SIZE, SIZE, SIZE]  # the first of these for the one that keeps, the others for the other


def test_peaks_that_are_kept_take_4_bytes_a_view():
    mixer = SaliencyMix()
    mixer.views = ViewCache(100)
    mix(mixer, pictures(), view=torch.arange(SIZE))
    assert mixer.views._table.nbytes == 400
    assert mixer.remembers
    assert not SaliencyMix(saliency="official").remembers


@pytest.mark.parametrize("options", [{"saliency": "official"}, {"prob": 0.5}, {"alpha": 0.2}])
def test_contract_is_kept_with_other_options(options):
    check(build("saliencymix", options, {}))


@pytest.mark.parametrize("saliency", BOTH)
@pytest.mark.parametrize("channels", [1, 3])
def test_bfloat16_images_stay_bfloat16_and_labels_float32(saliency, channels):
    mixer = SaliencyMix(saliency=saliency)
    mixed = mixer(Batch(pictures()[:, :channels].bfloat16(), torch.eye(SIZE)), SmallNetwork(channels=channels))
    assert (mixed.x.dtype, mixed.y.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(mixed.y.sum(1), torch.ones(SIZE))


@pytest.mark.parametrize("saliency", BOTH)
@pytest.mark.parametrize(("height", "width"), [(12, 32), (32, 8)])
def test_images_too_small_for_the_surrounds_are_refused(saliency, height, width):
    batch = Batch(torch.rand(4, 3, height, width), torch.eye(4))
    with pytest.raises(
        ValueError, match=f"{height} x {width} pixels are too small for saliencymix.* at least 13 pixels"
    ):
        SaliencyMix(saliency=saliency)(batch, SmallNetwork())


def test_a_smallest_image_is_mixed():
    SaliencyMix()(Batch(torch.rand(4, 3, 13, 13), torch.eye(4)), SmallNetwork())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"saliency": "cam"}, "saliency is 'cam': it must be one of paper, official"),
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"prob": 1.5}, "prob is 1.5"),
    ],
)
def test_options_are_checked_when_it_is_built(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build("saliencymix", options, {})
