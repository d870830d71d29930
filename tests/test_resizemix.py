import pytest
import torch
import torch.nn.functional as F

from methods import Batch, build
from methods.contract import check
from methods.resizemix import ResizeMix, paste_whole

SIZE = 12
BOTH = ["paper", "mmpretrain"]
DRAWS = ["batch", "sample"]


def pictures(height=32, width=32):
    return torch.rand(SIZE, 3, height, width, generator=torch.Generator().manual_seed(1))


def mix(mixer, x, *, seed=0):
    """The mixed batch of images whose labels tell them apart."""
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(Batch(x, torch.eye(len(x))), None)


def boxes(mixer, count, *, height=200, width=200):
    mixer.generator = torch.Generator().manual_seed(0)
    return mixer.draw_boxes(count, height, width)


def test_paper_pastes_what_nearest_makes_of_the_whole_partner():
    x, partners = pictures(), torch.stack([torch.arange(SIZE), torch.arange(SIZE).roll(-1)], 1)
    mixed = paste_whole(x, partners, torch.tensor([[4, 8, 20, 16]]), mode="nearest")
    assert torch.equal(mixed[:, :, 4:20, 8:16], x.roll(-1, 0)[:, :, ::2, ::4])
    mixed[:, :, 4:20, 8:16] = x[:, :, 4:20, 8:16]
    assert torch.equal(mixed, x)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_boxes_for_each_image_hold_what_torch_makes_of_the_whole_partner(mode, layout):
    x = pictures(33, 47).contiguous(memory_format=layout)
    partners = torch.stack([torch.arange(SIZE), torch.arange(SIZE).roll(-1)], 1)
    drawn = boxes(ResizeMix(draw="sample"), SIZE, height=33, width=47)
    mixed = paste_whole(x, partners, drawn, mode=mode)
    expected = x.clone()
    for number, (top, left, bottom, right) in enumerate(drawn.tolist()):
        small = F.interpolate(x[partners[number, 1]][None], size=(bottom - top, right - left), mode=mode)
        expected[number, :, top:bottom, left:right] = small[0]
    torch.testing.assert_close(mixed, expected, rtol=0, atol=0 if mode == "nearest" else 1e-5)
    assert mixed.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_every_side_of_a_box_takes_the_pixels_that_nearest_takes(size):
    x = torch.arange(float(size)).expand(1, 1, size, size).contiguous()
    boxes = torch.tensor([[0, 0, size, side] for side in range(1, size + 1)])
    partners = torch.zeros(size, 2, dtype=torch.int64)
    found = paste_whole(x.expand(size, -1, -1, -1), partners, boxes, mode="nearest")
    for side, one in enumerate(found, 1):
        assert torch.equal(one[:, :, :side], F.interpolate(x, size=(size, side), mode="nearest")[0])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_an_empty_box_leaves_the_image_as_it_is(mode):
    x, partners = pictures(), torch.arange(SIZE)[:, None].expand(-1, 2)
    for count in (1, SIZE):
        empty = torch.tensor([[5, 7, 5, 7]]).expand(count, 4)
        assert torch.equal(paste_whole(x, partners, empty, mode=mode), x)


@pytest.mark.parametrize("definition", BOTH)
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_weighed_by_the_area_that_is_visible(definition, draw, seed):
    x = torch.arange(float(SIZE)).view(-1, 1, 1, 1).expand(-1, 1, 32, 40).contiguous()
    mixed = mix(ResizeMix(definition=definition, draw=draw), x, seed=seed)
    visible = (mixed.x.round().flatten(1)[:, :, None] == torch.arange(SIZE)).float().mean(1)
    torch.testing.assert_close(mixed.y, visible)


@pytest.mark.parametrize(("definition", "least", "most"), [("paper", 0.1, 0.8), ("mmpretrain", 0.2**0.5, 0.9**0.5)])
def test_sides_of_a_box_are_what_the_definition_draws_and_clips(definition, least, most):
    top, left, bottom, right = boxes(ResizeMix(definition=definition), 5_000, height=200, width=400).unbind(1)
    whole = (top > 0) & (left > 0) & (bottom < 200) & (right < 400)
    high, wide = (bottom - top)[whole] / 200, (right - left)[whole] / 400
    assert ((high - wide).abs() <= 0.01).all()
    assert 0 < high.min() - least + 0.01 < 0.03
    assert high.max() <= most
    assert not whole.all()
    assert ((bottom > top) & (right > left)).all()


def test_tau_is_uniform_and_so_is_lam():
    tau = boxes(ResizeMix(), 20_000, height=10_000, width=10_000)
    lam = boxes(ResizeMix(definition="mmpretrain"), 20_000, height=10_000, width=10_000)
    for drawn, share in ((tau, lambda side: side), (lam, lambda side: 1 - side**2)):
        whole = (drawn[:, 0] > 0) & (drawn[:, 2] < 10_000)
        side = (drawn[:, 2] - drawn[:, 0]) / 10_000
        # A box of a side s is within the rows for a share 1 - s of the centres: each counts for all of them.
        weights = whole / (1 - side)
        mean = (weights * share(side)).sum() / weights.sum()
        assert mean == pytest.approx(0.45, abs=0.02)


def test_definitions_paste_about_a_quarter_and_a_half_before_clipping():
    scope = torch.linspace(0.1, 0.8, 1_001)
    assert (scope**2).mean() == pytest.approx(0.24, abs=0.01)
    mixed = [mix(ResizeMix(definition=one, draw="sample"), pictures(), seed=seed) for one in BOTH for seed in range(40)]
    outside = torch.stack([batch.y.diagonal().mean() for batch in mixed]).view(2, -1).mean(1)
    assert outside[0] > outside[1] + 0.15


def test_one_box_is_drawn_for_the_whole_batch_by_default():
    x = torch.arange(float(SIZE)).view(-1, 1, 1, 1).expand(-1, 1, 32, 32).contiguous()
    changed = mix(ResizeMix(), x).x != x
    assert len({tuple(box.flatten().tolist()) for box in changed if box.any()}) == 1
    changed = mix(ResizeMix(draw="sample"), x).x != x
    assert len({tuple(box.flatten().tolist()) for box in changed if box.any()}) > SIZE / 2


@pytest.mark.parametrize("draw", DRAWS)
def test_batches_or_images_are_mixed_with_the_probability_asked_for(draw):
    mixer = ResizeMix(prob=0.5, draw=draw)
    shares = torch.stack([(mix(mixer, pictures(), seed=seed).y.diagonal() < 1).float().mean() for seed in range(60)])
    assert 0.3 < shares.mean() < 0.55
    assert torch.equal(mix(ResizeMix(prob=0, draw=draw), pictures()).x, pictures())


@pytest.mark.parametrize(
    "options", [{"definition": "mmpretrain"}, {"draw": "sample"}, {"definition": "mmpretrain", "draw": "sample"}]
)
def test_contract_is_kept_with_other_options(options):
    check(build("resizemix", options, {}))


@pytest.mark.parametrize("definition", BOTH)
@pytest.mark.parametrize("draw", DRAWS)
def test_bfloat16_images_stay_bfloat16_and_labels_float32(definition, draw):
    mixed = mix(ResizeMix(definition=definition, draw=draw), pictures().bfloat16())
    assert (mixed.x.dtype, mixed.y.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("definition", "least"), [("paper", 20), ("mmpretrain", 5)])
def test_images_in_which_a_box_could_be_empty_are_refused(definition, least):
    mixer = ResizeMix(definition=definition, draw="sample")
    drawn = boxes(mixer, 20_000, height=least, width=least)
    assert ((drawn[:, 2] > drawn[:, 0]) & (drawn[:, 3] > drawn[:, 1])).all()
    mix(mixer, pictures(least, 40))
    with pytest.raises(
        ValueError, match=f"{least - 1} pixels a side are too small for resizemix.* at least {least} pix"
    ):
        mix(mixer, pictures(40, least - 1))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"definition": "openmixup"}, "definition is 'openmixup': it must be one of paper, mmpretrain"),
        (
            {"scope": (0.8, 0.1)},
            r"scope is \(0.8, 0.1\): it must be two numbers between 0 and 1, the smaller one first",
        ),
        ({"scope": (0.0, 0.5)}, "scope is"),
        ({"scope": (0.5,)}, "scope is"),
        ({"alpha": 0}, "alpha is 0: it must be a finite number above 0; take prob 0 to mix nothing"),
        ({"prob": -1.0}, "prob is -1.0"),
        ({"draw": "image"}, "draw is 'image'"),
    ],
)
def test_options_are_checked_when_it_is_built(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build("resizemix", options, {})
