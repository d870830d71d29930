import pytest
import torch

from methods.boxes import box_around, box_of, draw_centres, draw_kept, inside_of, paste, share_outside
from methods.cutmix import CutMix
from methods.ops import draw_partners


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_boxes_of_a_seed_never_change():
    mixer = CutMix(prob=0.7)
    mixer.generator = seeded(7)
    assert mixer.draw_boxes(4, 32, 40).tolist() == [
        [0, 10, 21, 40],
        [25, 32, 25, 32],
        [14, 23, 14, 23],
        [1, 27, 19, 40],
    ]


def test_nothing_is_cut_from_what_is_not_to_be_mixed():
    kept = draw_kept(2_000, 1.0, 0.3, seeded())
    assert 0.65 < (kept == 1).float().mean() < 0.75
    boxes = box_around(kept, draw_centres(2_000, 32, 32, seeded()), 32, 32)
    assert (share_outside(boxes, 32, 32)[kept == 1] == 1).all()


def test_centres_cover_rows_and_columns_of_the_image():
    centres = draw_centres(2_000, 5, 9, seeded())
    assert set(centres[:, 0].tolist()) == set(range(5))
    assert set(centres[:, 1].tolist()) == set(range(9))


@pytest.mark.parametrize(
    ("lam", "centre", "box"),
    [
        (0.75, (16, 16), [8, 8, 24, 24]),
        (0.75, (0, 31), [0, 23, 8, 32]),  # clipped at the upper right corner
        (0.0, (16, 16), [0, 0, 32, 32]),
        (0.7, (10, 10), [2, 2, 18, 18]),  # a side of 17.5 is cut to 17 and loses one more pixel in halving
        (1.0, (16, 16), [16, 16, 16, 16]),
    ],
)
def test_box_has_the_drawn_area_around_its_centre_and_is_clipped(lam, centre, box):
    assert box_around(torch.tensor([lam]), torch.tensor([centre]), 32, 32).tolist() == [box]


def test_box_has_the_shape_of_the_image():
    assert box_around(torch.tensor([0.75]), torch.tensor([[20, 50]]), 40, 100).tolist() == [[10, 25, 30, 75]]


def test_share_outside_is_what_clipped_boxes_leave():
    boxes = torch.tensor([[0, 0, 2, 5], [3, 3, 3, 3], [0, 0, 4, 5]])
    assert share_outside(boxes, 4, 5).tolist() == [0.5, 1.0, 0.0]


def test_paste_takes_the_box_from_the_partner_and_the_rest_from_the_image():
    x = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 4, 4).contiguous()
    mixed = paste(x, torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1, 0, 3, 2]]))
    picture = torch.tensor([[0.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert torch.equal(mixed, torch.stack([picture, 1 - picture])[:, None].expand(2, 3, 4, 4))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_paste_of_one_box_equals_paste_of_that_box_for_each_image(layout):
    x = torch.randn(6, 3, 8, 8, generator=seeded()).contiguous(memory_format=layout)
    partners, box = draw_partners(6, 2, seeded()), torch.tensor([[1, 0, 6, 5]])
    one, each = paste(x, partners, box), paste(x, partners, box.expand(6, 4))
    assert torch.equal(one, each)
    assert one.is_contiguous(memory_format=layout)
    assert each.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("side", "box"), [(0.3, [7, 7, 13, 13]), (0.0, [10, 10, 10, 10]), (0.29, [8, 8, 12, 12])])
def test_box_of_a_side_has_that_share_of_the_side_rounded_down(side, box):
    assert box_of(torch.tensor([side], dtype=torch.float64), torch.tensor([[10, 10]]), 20, 20).tolist() == [box]


def test_box_stays_where_its_centre_is():
    centres = torch.ones(2, 2, dtype=torch.int64, device="meta")
    boxes = box_around(torch.tensor([0.2, 0.8]), centres, 32, 32)
    x, partners = torch.empty(2, 3, 32, 32, device="meta"), torch.ones(2, 2, dtype=torch.int64, device="meta")
    assert paste(x, partners, boxes).device == paste(x, partners, boxes[:1]).device == boxes.device == x.device


def test_boxes_choose_between_two_batches_bit_for_bit():
    x, y = torch.randn(2, 3, 4, 6, 6, generator=seeded())
    boxes = torch.tensor([[0, 0, 6, 6], [2, 2, 2, 6], [1, 2, 3, 4]])
    chosen = inside_of(boxes, y.clone(), x)
    assert torch.equal(chosen[:2], torch.stack([y[0], x[1]]))
    assert int((chosen[2] != x[2]).sum()) == int((chosen[2] == y[2]).sum()) == 4 * 4
