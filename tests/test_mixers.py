import pytest
import torch

from methods import Batch, build
from methods.contract import SmallNetwork, check
from methods.cutmix import CutMix
from methods.lr import LR, move_apart
from methods.mixup import Mixup
from methods.saliency import cam
from methods.simple import Simple
from methods.softmax_cam import SoftmaxCAM

SIZE = 12


def mix(mixer, x, *, seed=0):
    """The mixed batch of images whose labels tell them apart: row n, column m of y is image m's share in image n."""
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(Batch(x, torch.eye(len(x))), None)


def pictures():
    """Random images, (SIZE, 3, 8, 8)."""
    return torch.rand(SIZE, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def numbered(*, width=8):
    """Images that hold nothing but their own number, (SIZE, 1, 8, width)."""
    return torch.arange(float(SIZE)).view(-1, 1, 1, 1).expand(-1, 1, 8, width).contiguous()


def visible(x):
    """Share of the pixels of each image that show number m, (SIZE, SIZE)."""
    return (x.flatten(1)[:, :, None] == torch.arange(SIZE)).float().mean(1)


def own_shares(mixed):
    """Share of the image itself in each image that has met another one."""
    return mixed.y.diagonal()[mixed.y.diagonal() < 1]


def test_simple_leaves_images_and_labels_as_they_are():
    x = pictures()
    mixed = mix(Simple(), x)
    assert torch.equal(mixed.x, x)
    assert torch.equal(mixed.y, torch.eye(SIZE))


@pytest.mark.parametrize("draw", ["batch", "sample"])
def test_mixup_weighs_images_as_it_weighs_labels(draw):
    x = pictures()
    mixed = mix(Mixup(draw=draw), x)
    torch.testing.assert_close(mixed.x.flatten(1), mixed.y @ x.flatten(1))


@pytest.mark.parametrize("mixer", [Mixup, CutMix])
def test_one_lam_is_drawn_for_the_whole_batch_by_default(mixer):
    assert len(own_shares(mix(mixer(), pictures())).unique()) == 1


@pytest.mark.parametrize("mixer", [Mixup(draw="sample"), CutMix(draw="sample"), LR()])
def test_lam_is_drawn_for_each_sample_where_that_is_chosen(mixer):
    shares = own_shares(mix(mixer, numbered(width=64)))
    assert len(shares.unique()) > SIZE / 2


def test_mixup_does_not_fold_lam_to_the_larger_half():
    shares = torch.stack([own_shares(mix(Mixup(), pictures(), seed=seed))[0] for seed in range(20)])
    assert 5 < int((shares < 0.5).sum()) < 15


@pytest.mark.parametrize("mixer", [Mixup(alpha=0), CutMix(alpha=0), CutMix(prob=0), LR(alpha=0)])
def test_nothing_is_mixed_where_the_options_say_so(mixer):
    mixed = mix(mixer, pictures())
    assert torch.equal(mixed.x, pictures())
    assert torch.equal(mixed.y, torch.eye(SIZE))


@pytest.mark.parametrize("draw", ["batch", "sample"])
@pytest.mark.parametrize("seed", range(5))
def test_cutmix_weighs_labels_by_the_area_that_is_visible(draw, seed):
    mixed = mix(CutMix(draw=draw), numbered(), seed=seed)
    torch.testing.assert_close(mixed.y, visible(mixed.x))


@pytest.mark.parametrize("draw", ["batch", "sample"])
def test_cutmix_leaves_every_pixel_in_its_place(draw):
    x = pictures()
    mixed = mix(CutMix(draw=draw), x)
    assert (mixed.x[:, None] == x[None]).any(1).all()


def test_cutmix_cuts_one_box_for_the_whole_batch_by_default():
    changed = mix(CutMix(), numbered(), seed=2).x != numbered()
    boxes = {tuple(box.flatten().tolist()) for box in changed if box.any()}
    assert len(boxes) == 1


def test_cutmix_mixes_a_batch_with_the_probability_asked_for():
    mixer = CutMix(prob=0.5)
    mixed = [bool((mix(mixer, numbered(), seed=seed).x != numbered()).any()) for seed in range(100)]
    assert 35 < sum(mixed) < 60


def test_cutmix_mixes_an_image_with_the_probability_asked_for_where_it_draws_for_each():
    mixer = CutMix(prob=0.5, draw="sample")
    mixed = [(mix(mixer, numbered(), seed=seed).y.diagonal() < 1).float().mean() for seed in range(100)]
    assert 0.35 < torch.stack(mixed).mean() < 0.5
    assert all(0 < share < 1 for share in mixed)


def test_lr_shows_the_left_of_the_image_right_of_the_right_of_its_partner():
    x = torch.arange(10.0).view(2, 1, 1, 5)
    moved = move_apart(x, torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 5]))
    assert moved.flatten(1).tolist() == [[7, 8, 9, 0, 1], [5, 6, 7, 8, 9]]


def test_lr_shows_the_partner_alone_where_lam_is_0():
    x = numbered()
    moved = move_apart(x, torch.tensor([[n, SIZE - 1 - n] for n in range(SIZE)]), torch.zeros(SIZE, dtype=torch.int64))
    assert torch.equal(moved, x.flip(0))


def test_lr_weighs_labels_by_the_columns_that_are_visible():
    mixed = mix(LR(), numbered(width=9))
    torch.testing.assert_close(mixed.y, visible(mixed.x))


def test_lr_shows_a_strip_as_wide_as_lam_says_to_the_nearest_column():
    lam = mix(Mixup(draw="sample"), numbered()).y.diagonal()  # the same draws from the same seed
    strips = mix(LR(), numbered(width=10)).y.diagonal()
    torch.testing.assert_close(strips, (lam * 10).round() / 10)


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    return SmallNetwork()


def tenfold(x):
    """A batch of ten images, each of a class of its own."""
    return Batch(x[:10], torch.eye(10))


def masks_of(mixer, batch):
    """Partners and images of a mix, with the softmax of the two maps of each pixel, (10, 2, 1, 8, 8)."""
    mixer.generator = torch.Generator().manual_seed(0)
    mixed = mixer(batch, None)
    partners = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    maps = cam(mixer.teacher, batch.x, batch.y)
    return mixed, partners, torch.stack([maps, maps[partners]], dim=1).softmax(1)


def test_softmax_cam_shares_out_each_pixel_by_the_softmax_of_two_maps(teacher):
    batch = tenfold(pictures())
    mixed, partners, masks = masks_of(SoftmaxCAM(teacher), batch)
    torch.testing.assert_close(mixed.x, masks[:, 0] * batch.x + masks[:, 1] * batch.x[partners])


def test_softmax_cam_weighs_labels_by_the_mean_of_the_mask(teacher):
    batch = tenfold(pictures())
    mixed, partners, masks = masks_of(SoftmaxCAM(teacher), batch)
    weights = masks.mean((2, 3, 4))
    torch.testing.assert_close(mixed.y, weights[:, :1] * batch.y + weights[:, 1:] * batch.y[partners])


def test_softmax_cam_can_weigh_labels_by_a_drawn_lam_instead(teacher):
    batch = tenfold(pictures())
    by_mask, *_ = masks_of(SoftmaxCAM(teacher), batch)
    by_lam, *_ = masks_of(SoftmaxCAM(teacher, label_from="lam", alpha=0), batch)
    assert torch.equal(by_mask.x, by_lam.x)
    assert torch.equal(by_lam.y, batch.y)


def test_softmax_cam_can_take_the_map_of_the_predicted_class_instead(teacher):
    predicting = SoftmaxCAM(teacher, cam_class="prediction")
    batch = tenfold(pictures())
    predicted = Batch(batch.x, torch.eye(10)[teacher(batch.x).argmax(1)])
    mixed, *_ = masks_of(predicting, batch)
    assert torch.equal(mixed.x, masks_of(SoftmaxCAM(teacher), predicted)[0].x)
    assert not torch.equal(mixed.x, masks_of(SoftmaxCAM(teacher), batch)[0].x)


OTHER_OPTIONS = [
    ("mixup", {"draw": "sample"}),
    ("cutmix", {"draw": "sample"}),
    ("cutmix", {"prob": 0.5, "alpha": 0.2}),
    ("softmax_cam", {"label_from": "lam"}),
    ("softmax_cam", {"cam_class": "prediction"}),
]


@pytest.mark.parametrize(("name", "options"), OTHER_OPTIONS)
def test_contract_is_kept_with_other_options(name, options, teacher):
    check(build(name, options, {"teacher": teacher} if name == "softmax_cam" else {}))


REFUSED = [
    ("mixup", {"alpha": -1.0}, "alpha is -1.0"),
    ("mixup", {"draw": "image"}, "draw is 'image': it must be one of batch, sample"),
    ("cutmix", {"alpha": float("nan")}, "alpha is nan"),
    ("cutmix", {"prob": 1.5}, "prob is 1.5"),
    ("cutmix", {"draw": ""}, "draw is ''"),
    ("lr", {"alpha": float("inf")}, "alpha is inf"),
    ("softmax_cam", {"alpha": -1.0}, "alpha is -1.0"),
    ("softmax_cam", {"label_from": "cam"}, "label_from is 'cam': it must be one of mask, lam"),
    ("softmax_cam", {"cam_class": "labels"}, "cam_class is 'labels': it must be one of label, prediction"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), REFUSED)
def test_options_are_checked_when_a_mixer_is_built(name, options, sentence, teacher):
    with pytest.raises(ValueError, match=sentence):
        build(name, options, {"teacher": teacher} if name == "softmax_cam" else {})


def test_softmax_cam_takes_no_maps_of_classes_that_the_teacher_does_not_know():
    x, y = torch.rand(4, 3, 16, 16), torch.eye(7)[:4]
    teacher = SmallNetwork()
    with pytest.raises(ValueError, match="set cam_class to prediction"):
        build("softmax_cam", {}, {"teacher": teacher})(Batch(x, y), teacher)
    build("softmax_cam", {"cam_class": "prediction"}, {"teacher": teacher})(Batch(x, y), teacher)
