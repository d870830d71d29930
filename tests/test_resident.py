import numpy as np
import pytest
import torch

from methods import Batch
from mixbench.data.resident import Cropped, Resident, stratified_subset
from mixbench.streams import Streams

CPU = torch.device("cpu")


def pictures(count=6, *, height=5, width=5, channels=3, classes=3, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.integers(1, 256, (count, height, width, channels), dtype=np.uint8)
    return x, np.arange(count) % classes


def resident(x, y, **changes):
    options = {"classes": 3, "pad": 2, "pad_mode": "zeros", "flip": True, "device": CPU, "channels_last": False}
    return Resident(x, y, **{**options, **changes})


def taken(data, images, views):
    return Batch(*data.gather(images, views), data.ids(images, views))


def by_slicing(x, view, *, pad, pad_mode):
    """The view of one (H, W, C) image, cut out by hand: (C, H, W) in [0, 1]."""
    height, width = x.shape[:2]
    side = 2 * pad + 1
    flipped, place = divmod(view, side * side)
    top, left = divmod(place, side)
    mode = {"zeros": "constant", "reflect": "reflect"}[pad_mode]
    crop = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode=mode)[top : top + height, left : left + width]
    crop = crop[:, ::-1] if flipped else crop
    return torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pad", "pad_mode", "flip"), [(2, "zeros", True), (2, "reflect", True), (1, "zeros", False)])
def test_every_view_is_the_crop_and_flip_that_its_number_says(channels_last, channels, pad, pad_mode, flip):
    x, y = pictures(2, height=4, width=6, channels=channels)
    data = resident(x, y, pad=pad, pad_mode=pad_mode, flip=flip, channels_last=channels_last)
    assert data.views == (2 * pad + 1) ** 2 * (1 + flip)
    for image in range(2):
        views = torch.arange(data.views)
        batch = taken(data, torch.full_like(views, image), views)
        told = [by_slicing(x[image], view, pad=pad, pad_mode=pad_mode) for view in range(data.views)]
        assert torch.equal(batch.x, torch.stack(told))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("channels_last", "memory_format"), [(False, torch.contiguous_format), (True, torch.channels_last)]
)
def test_a_batch_has_the_memory_format_that_was_asked_for(channels, channels_last, memory_format):
    data = resident(*pictures(channels=channels), channels_last=channels_last)
    x = next(data.epoch(Streams(0), 0, 4)).x
    assert x.stride() == torch.empty(x.shape, memory_format=memory_format).stride()
    assert x.dtype == torch.float32


def test_padding_with_zeros_is_black():
    x, y = pictures(1)
    corner = taken(resident(x, y, pad=5), torch.tensor([0]), torch.tensor([0]))
    assert corner.x.abs().max() == 0


def test_labels_are_one_hot():
    x, y = pictures(6, classes=3)
    batch = taken(resident(x, y, classes=4), torch.tensor([4, 2]), torch.tensor([0, 0]))
    assert torch.equal(batch.y, torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]))


def test_an_id_is_the_images_number_times_the_views_plus_the_view():
    data = resident(*pictures())
    assert taken(data, torch.tensor([4, 2]), torch.tensor([7, 0])).view.tolist() == [4 * 50 + 7, 2 * 50]


def test_the_images_of_a_subset_keep_their_ids():
    x, y = pictures(8)
    images, views = torch.tensor([0, 2]), torch.tensor([3, 49])
    part = taken(resident(x, y, subset=torch.tensor([1, 3, 6])), images, views)
    whole = taken(resident(x, y), torch.tensor([1, 6]), views)
    assert torch.equal(part.view, whole.view)
    assert torch.equal(part.x, whole.x)
    assert torch.equal(part.y, whole.y)


def test_the_ids_of_an_epoch_say_which_views_were_given():
    x, y = pictures(7)
    data = resident(x, y)
    for batch in data.epoch(Streams(0), 0, 3):
        for id_, image in zip(batch.view.tolist(), batch.x, strict=True):
            number, view = divmod(id_, data.views)
            assert torch.equal(image, by_slicing(x[number], view, pad=2, pad_mode="zeros"))


def ids(data, *, seed=0, epoch=0, batch_size=3, skip=0):
    return [batch.view.tolist() for batch in data.epoch(Streams(seed), epoch, batch_size, skip=skip)]


def test_an_epoch_gives_each_image_once():
    data = resident(*pictures(8))
    assert sorted(id_ // data.views for batch in ids(data) for id_ in batch) == list(range(8))


def test_epochs_differ_in_order_and_in_views():
    data = resident(*pictures(30))
    first, second = (np.concatenate(ids(data, epoch=epoch)) for epoch in (0, 1))
    assert (first // data.views).tolist() != (second // data.views).tolist()
    assert (first % data.views).tolist() != (second % data.views).tolist()


def test_an_epoch_is_the_same_whenever_it_is_drawn():
    data = resident(*pictures(30))
    first = ids(data, epoch=2)
    ids(data, epoch=1)
    torch.rand(5)
    assert ids(data, epoch=2) == first
    assert ids(data, epoch=2, seed=1) != first


def test_all_views_are_drawn():
    data = resident(*pictures(2000, height=4, width=4, channels=1), pad=1)
    assert {id_ % data.views for batch in ids(data, batch_size=100) for id_ in batch} == set(range(18))


@pytest.mark.parametrize("skip", range(5))
def test_an_epoch_taken_up_at_a_step_is_the_rest_of_the_whole(skip):
    data = resident(*pictures(11))
    whole = list(data.epoch(Streams(0), 3, 3))
    rest = list(data.epoch(Streams(0), 3, 3, skip=skip))
    assert len(rest) == len(whole) - skip
    for one, other in zip(whole[skip:], rest, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.view, other.view)


def test_views_and_order_do_not_depend_on_the_batch_size():
    data = resident(*pictures(12))
    by_threes, by_fours = (np.concatenate(ids(data, batch_size=size)).tolist() for size in (3, 4))
    assert by_threes == by_fours


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(8, 3, [3, 3, 2]), (7, 3, [3, 3]), (6, 3, [3, 3]), (2, 3, [2]), (3, 1, [1] * 3)]
)
def test_a_rest_is_a_smaller_batch_unless_it_is_a_single_image(count, batch_size, sizes):
    data = resident(*pictures(count))
    assert [len(batch) for batch in ids(data, batch_size=batch_size)] == sizes
    assert data.steps(batch_size) == len(sizes)


@pytest.mark.parametrize("flip", [False, True])
def test_test_batches_are_all_images_as_they_are(flip):
    x, y = pictures(7)
    batches = list(resident(x, y, flip=flip).test_batches(3))
    assert torch.equal(torch.cat([batch.x for batch in batches]), torch.from_numpy(x).permute(0, 3, 1, 2) / 255)
    assert torch.cat([batch.y for batch in batches]).argmax(1).tolist() == y.tolist()


def test_test_batches_have_no_ids_that_training_images_have():
    assert next(resident(*pictures()).test_batches(3)).view is None


def test_a_batch_may_be_written_to():
    x, y = pictures(1)
    data = resident(x, y, pad=0, flip=False)
    only = torch.tensor([0])
    taken(data, only, only).x.zero_()
    assert torch.equal(taken(data, only, only).x[0], by_slicing(x[0], 0, pad=0, pad_mode="zeros"))


def test_reflecting_needs_less_padding_than_pixels():
    with pytest.raises(ValueError, match=r"pad is 5 \(reflect\), but the pictures are 5 x 5; make it smaller"):
        resident(*pictures(), pad=5, pad_mode="reflect")


def test_an_unknown_padding_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="pad_mode is edge; there are: zeros, reflect"):
        resident(*pictures(), pad_mode="edge")


# ---- subsets


def subset(y, count, *, seed=0):
    return stratified_subset(np.array(y), count, Streams(seed).generator("subset"))


def test_a_subset_has_as_many_images_of_each_class():
    y = np.arange(100) % 5
    assert np.bincount(y[subset(y, 35)]).tolist() == [7] * 5


def test_what_cannot_be_shared_out_goes_to_the_first_classes():
    y = np.arange(100) % 5
    assert np.bincount(y[subset(y, 12)]).tolist() == [3, 3, 2, 2, 2]


def test_a_subset_has_each_image_once_in_ascending_order():
    chosen = subset(np.arange(100) % 5, 50).tolist()
    assert chosen == sorted(set(chosen))


def test_a_subset_is_drawn_by_the_seed():
    y = np.arange(100) % 5
    assert subset(y, 20).tolist() == subset(y, 20).tolist()
    assert subset(y, 20).tolist() != subset(y, 20, seed=1).tolist()


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(ValueError, match="6 images need 3 of class 1, which has 2; ask for fewer"):
        subset([0, 0, 0, 0, 0, 0, 1, 1], 6)


# ---- speed on a device


@pytest.mark.gpu
def test_an_epoch_never_waits_for_the_device():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    data = resident(*pictures(64), device=torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in data.epoch(Streams(0), 0, 8):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_subset_of_all_images_is_all_of_them_though_classes_differ_in_size():
    y = np.array([0, 0, 0, 1])
    assert stratified_subset(y, 4, torch.Generator().manual_seed(0)).tolist() == [0, 1, 2, 3]


# ---- random resized crops


def cropped(x, y, **changes):
    options = {"classes": 3, "flip": True, "interpolation": "bicubic", "device": CPU, "channels_last": False}
    return Cropped(x, y, **{**options, **changes})


def batches(data, *, seed=0, epoch=0, batch_size=3, skip=0):
    return list(data.epoch(Streams(seed), epoch, batch_size, skip=skip))


def test_crops_have_no_views_since_these_are_without_end():
    data = cropped(*pictures(7, height=9, width=9))
    assert data.ids_below is None
    assert [batch.view for batch in batches(data)] == [None, None]


def test_crops_follow_seed_and_epoch_and_not_the_batch_size():
    data = cropped(*pictures(8, height=9, width=9))
    first = torch.cat([batch.x for batch in batches(data)])
    assert torch.equal(first, torch.cat([batch.x for batch in batches(data, batch_size=4)]))
    assert not torch.equal(first, torch.cat([batch.x for batch in batches(data, seed=1)]))
    assert not torch.equal(first, torch.cat([batch.x for batch in batches(data, epoch=1)]))


def test_crops_of_an_epoch_go_on_where_it_is_taken_up():
    data = cropped(*pictures(8, height=9, width=9))
    for one, other in zip(batches(data)[1:], batches(data, skip=1), strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_of_the_image_whose_label_they_have_and_mirrored_where_that_is_wanted(flip):
    x, y = pictures(6, height=8, width=8, classes=6)
    x[:] = 40 * y[:, None, None, None]
    x[:, :, :4] += 9  # every crop through the middle is lighter on the left, unless it is mirrored
    (batch,) = batches(cropped(x, y, classes=6, flip=flip, interpolation="bilinear"), batch_size=6)
    assert ((batch.x.amin((1, 2, 3)) * 255).round() // 40).tolist() == batch.y.argmax(1).tolist()
    darker = (batch.x[..., 0] < batch.x[..., -1]).flatten(1).any(1)
    assert bool(darker.any()) == flip


@pytest.mark.parametrize("channels_last", [False, True])
def test_crops_have_the_memory_format_that_was_asked_for(channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x = batches(cropped(*pictures(height=9, width=9), channels_last=channels_last))[0].x
    assert x.stride() == torch.empty(x.shape, memory_format=memory_format).stride()
