import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from methods import Batch, Mixed, supermasks
from methods.bank import as_bytes
from methods.contract import CRITERION, SmallNetwork, check
from methods.supermasks import (
    full_masks,
    required,
    shows,
    smoothed,
    smoothing_kernel,
)
from methods.supermix import SuperMix, in_turn, soft_target

CLASSES = 6


@pytest.fixture(scope="module")
def teacher():
    """One that tells six colours and patterns apart, so that some mixes finish and some do not."""
    torch.manual_seed(0)
    net = SmallNetwork(classes=CLASSES)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for seed in range(60):
        batch = pictures(48, seed=100 + seed)
        loss = F.cross_entropy(net(batch.x), batch.y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    optimiser.zero_grad()
    return net.eval()


def pictures(count=24, *, side=16, seed=1):
    """Noisy pictures, each with a bright stripe where its class says."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    x = 0.4 * torch.rand(count, 3, side, side, generator=generator)
    for image, number in zip(x, classes.tolist(), strict=True):
        lines = image if number < 3 else image.transpose(1, 2)
        lines[number % 3, 2 + 4 * (number % 3) : 5 + 4 * (number % 3)] += 0.5
    return Batch(x, F.one_hot(classes, CLASSES).float())


def made(teacher, batch, *, seed=0, **options):
    mixer = SuperMix(teacher, **options)
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer, mixer.make(batch)


def mix(teacher, batch, *, seed=0, **options):
    mixer = SuperMix(teacher, **options)
    mixer.generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return mixer(batch, None)


# ---- what it mixes


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("side", [16, 17])
def test_supermix_shows_the_teacher_all_classes_of_a_finished_mix(teacher, k, side):
    batch = pictures(side=side)
    _, mixes = made(teacher, batch, k=k)
    finished = mixes.solved.finished
    classes = teacher(batch.x).argmax(1)[mixes.partners]
    seen = teacher(mixes.x).topk(k, dim=1).indices.sort(1).values
    unlike = (mixes.target > 0).sum(1) == k
    assert (finished & unlike).float().mean() > 0.2
    assert (~finished).any()
    assert torch.equal(seen[finished & unlike], classes.sort(1).values[finished & unlike])
    assert torch.equal(shows(teacher(mixes.x), required(mixes.target, k)), finished)


@pytest.mark.parametrize("k", [2, 3])
def test_supermix_shares_out_every_pixel_of_its_images(teacher, k):
    batch = pictures()
    _, mixes = made(teacher, batch, k=k)
    members = batch.x[mixes.partners]
    assert (mixes.x <= members.amax(1) + 1e-6).all()
    assert (mixes.x >= members.amin(1) - 1e-6).all()
    masks = full_masks(mixes.solved.variables, 16, 16)
    torch.testing.assert_close(masks.sum(1), torch.ones(24, 16, 16))
    torch.testing.assert_close((masks[:, :, None] * members).sum(1), mixes.x)


def test_supermix_makes_of_a_set_the_same_whatever_else_is_in_the_batch(teacher):
    batch = pictures(12)
    _, alone = made(teacher, batch, tol=0.0, max_iter=4)
    twice = Batch(batch.x.repeat(2, 1, 1, 1), batch.y.repeat(2, 1))
    mixer = SuperMix(teacher, tol=0.0, max_iter=4)
    lam = alone.lam.repeat(2, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("methods.supermix.draw_lam", lambda *_: lam)
        beside = mixer.make(twice)
    assert torch.equal(beside.solved.finished[:12], alone.solved.finished)
    assert torch.equal(beside.solved.steps[:12], alone.solved.steps)
    torch.testing.assert_close(beside.x[:12], alone.x, rtol=0, atol=1e-3)


class Counting(SmallNetwork):
    """Counts the images of each pass."""

    def forward(self, x):
        self.passes.append(len(x))
        return super().forward(x)


def test_supermix_asks_the_teacher_once_a_step_and_only_about_what_has_not_finished(teacher):
    counting = Counting(classes=CLASSES)
    counting.load_state_dict(teacher.state_dict())
    counting.passes = []
    _, mixes = made(counting, pictures(), tol=0.0, max_iter=9)
    steps = mixes.solved.steps
    expected = [24, 24, *(int((steps >= step).sum()) for step in range(1, 10))]
    assert counting.passes == expected  # first the classes, then the plain mean of the images
    assert expected[-1] < 24


def test_supermix_gives_up_the_rest_once_few_enough_are_left(teacher):
    _, patient = made(teacher, pictures(), tol=0.0)
    _, hasty = made(teacher, pictures(), tol=70.0)
    unfinished = (~hasty.solved.finished).sum()
    before = (patient.solved.steps >= hasty.solved.steps.max()).sum()
    assert unfinished <= int(24 * 0.7) < before
    assert hasty.solved.steps.max() < patient.solved.steps.max()


def test_supermix_takes_at_least_one_step(teacher):
    _, mixes = made(teacher, pictures(), tol=100.0)
    assert (mixes.solved.steps == 1).all()
    assert (mixes.solved.variables.flatten(1) != 0).any(1).all()


def test_supermix_polled_seldom_ends_as_polled_after_each_step(teacher, monkeypatch):
    for tol in (0.0, 30.0):
        mixer, each = made(teacher, pictures(), tol=tol, max_iter=11)
        monkeypatch.setattr("methods.supermasks.PATIENCE", {"cpu": 4})
        rare, fourth = made(teacher, pictures(), tol=tol, max_iter=11)
        monkeypatch.undo()
        assert torch.equal(each.solved.steps, fourth.solved.steps)
        assert torch.equal(each.solved.finished, fourth.solved.finished)
        torch.testing.assert_close(
            each.solved.logits[each.solved.steps < 4], fourth.solved.logits[each.solved.steps < 4]
        )
        assert rare.poll.count < mixer.poll.count


class Questions(TorchDispatchMode):
    """Counts what is asked of tensors by the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("unfinished", ["drop", "keep", "plain"])
def test_all_that_the_device_is_asked_is_counted(teacher, unfinished, monkeypatch):
    monkeypatch.setattr("methods.supermasks.PATIENCE", {})
    mixer = SuperMix(teacher, unfinished=unfinished, max_iter=11, tol=0.0)
    mixer.generator, batch = torch.Generator().manual_seed(0), pictures()
    with Questions() as questions, torch.no_grad():
        mixer(batch, None)
    assert mixer.poll.count == questions.count == 4  # that the teacher is sound, and after 1, 4 and 8 steps


# ---- labels, and what becomes of what has not finished


def test_supermix_labels_a_mix_by_the_lam_of_what_the_teacher_sees(teacher):
    batch = pictures()
    _, mixes = made(teacher, batch)
    mixed = mix(teacher, batch, unfinished="keep")
    assert torch.equal(mixed.y, mixes.target)
    classes = teacher(batch.x).argmax(1)
    expected = mixes.lam[:, :1] * F.one_hot(classes, CLASSES)
    torch.testing.assert_close(mixed.y, expected + mixes.lam[:, 1:] * F.one_hot(classes.roll(-1), CLASSES))


def test_supermix_can_take_the_classes_of_labels_instead(teacher):
    batch = pictures()
    shifted = Batch(batch.x, batch.y.roll(1, 1))
    mixed = mix(teacher, shifted, class_from="label", unfinished="keep")
    _, mixes = made(teacher, shifted)
    torch.testing.assert_close(mixed.y, (mixes.lam[:, :, None] * shifted.y[mixes.partners]).sum(1))


def test_supermix_can_label_a_mix_by_what_the_teacher_finds_likeliest(teacher):
    mixed = mix(teacher, pictures(), label_from="teacher", unfinished="keep")
    assert torch.equal(mixed.y, F.one_hot(teacher(mixed.x).argmax(1), CLASSES).float())


def test_supermix_drops_unfinished_mixes_from_the_loss_by_default(teacher):
    batch = pictures()
    _, mixes = made(teacher, batch)
    mixed, finished = mix(teacher, batch), mixes.solved.finished
    logits = torch.randn(24, CLASSES, generator=torch.Generator().manual_seed(3), requires_grad=True)
    loss = mixed.loss(logits, CRITERION)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, CRITERION(logits[finished], mixes.target[finished]).mean())
    assert torch.equal(gradient.abs().sum(1) > 0, finished)
    assert torch.equal(mixed.x, mixes.x)


@pytest.fixture
def nothing_finishes(monkeypatch):
    monkeypatch.setattr("methods.supermasks.shows", lambda logits, wanted: torch.zeros(len(logits), dtype=torch.bool))


@pytest.mark.usefixtures("nothing_finishes")
def test_a_batch_of_which_nothing_finished_teaches_nothing(teacher):
    mixed = mix(teacher, pictures(), max_iter=2)
    logits = torch.randn(24, CLASSES, requires_grad=True)
    loss = mixed.loss(logits, CRITERION)
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.any()


def test_supermix_can_take_plain_images_for_unfinished_mixes(teacher):
    batch = pictures()
    _, mixes = made(teacher, batch)
    plain, finished = mix(teacher, batch, unfinished="plain"), mixes.solved.finished
    assert type(plain) is Mixed
    assert torch.equal(plain.x[~finished], batch.x[~finished])
    assert torch.equal(plain.y[~finished], batch.y[~finished])
    assert torch.equal(plain.x[finished], mixes.x[finished])
    assert torch.equal(plain.y[finished], mixes.target[finished])


def test_supermix_can_keep_unfinished_mixes(teacher):
    batch = pictures()
    _, mixes = made(teacher, batch)
    kept = mix(teacher, batch, unfinished="keep")
    assert type(kept) is Mixed
    assert torch.equal(kept.x, mixes.x)


def test_supermix_notes_what_has_finished_and_in_how_many_steps(teacher):
    mixer, mixes = made(teacher, pictures())
    assert mixer.notes()["finished"] == pytest.approx(mixes.solved.finished.float().mean().item())
    steps = mixes.solved.steps[mixes.solved.finished].float().mean().item()
    assert mixer.notes()["steps_to_finish"] == pytest.approx(steps)
    assert mixer.notes()["polls"] == mixer.poll.count > 0


def test_supermix_notes_all_batches_that_it_mixed(teacher, request):
    mixer, _ = made(teacher, pictures(), max_iter=4)
    before = mixer.notes()
    request.getfixturevalue("nothing_finishes")
    mixer.make(pictures())
    assert mixer.notes()["finished"] == pytest.approx(before["finished"] / 2)
    assert mixer.notes()["steps_to_finish"] == before["steps_to_finish"]


def test_notes_of_what_was_never_asked_are_zero(teacher):
    notes = SuperMix(teacher).notes()
    assert (notes["finished"], notes["steps_to_finish"], notes["polls"]) == (0, 0, 0)


# ---- its parts


def test_a_missing_class_of_a_set_is_the_one_of_the_lowest_number():
    target = soft_target(torch.tensor([[3, 3], [0, 0], [4, 1]]), torch.tensor([[0.3, 0.7]]).expand(3, 2), 5)
    assert required(target, 2).tolist() == [[0, 3], [0, 1], [1, 4]]


def test_sets_are_of_images_that_follow_each_other():
    assert in_turn(4, 3).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]]


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.39])
def test_little_sigma_does_not_smooth(sigma):
    maps = torch.rand(2, 2, 5, 5)
    assert torch.equal(smoothed(maps, smoothing_kernel(sigma)), maps)


def test_masks_of_very_small_variables_still_share_out_every_pixel():
    masks = full_masks(torch.full((1, 2, 4, 4), -1e4), 8, 8)
    torch.testing.assert_close(masks, torch.full((1, 2, 8, 8), 0.5))


def test_bytes_are_cut_off_and_not_rounded():
    assert as_bytes(torch.tensor([0.0, 0.999 / 255, 1.5 / 255, 1.0, 1.000001, -1e-6])).tolist() == [
        0,
        0,
        1,
        255,
        255,
        0,
    ]


# ---- what it keeps and refuses


OTHER_OPTIONS = [
    {"k": 3, "unfinished": "keep", "tol": 50.0},
    {"unfinished": "plain", "sigma": 0.0, "label_from": "teacher"},
    {"class_from": "label", "mask_width": 5, "lambda_s": 0.0},
]


@pytest.mark.parametrize("options", OTHER_OPTIONS)
def test_contract_is_kept_with_other_options(options):
    check(SuperMix(SmallNetwork(), max_iter=6, **options))


def test_supermix_mixes_images_of_half_precision(teacher):
    batch = pictures()
    half = Batch(batch.x.bfloat16(), batch.y)
    mixed = mix(teacher, half)
    assert mixed.x.dtype == torch.bfloat16
    assert mixed.weight.any()


def test_supermix_leaves_out_of_the_teacher_all_gradients(teacher):
    assert not any(parameter.requires_grad for parameter in SuperMix(teacher).teacher.parameters())
    mix(teacher, pictures())
    assert all(parameter.grad is None for parameter in teacher.parameters())


REFUSED = [
    ({"k": 1}, "k is 1: it must be 2 or 3"),
    ({"k": 4}, "k is 4: it must be 2 or 3"),
    ({"alpha": 0.0}, "alpha is 0.0: .* take the method simple to mix nothing"),
    ({"alpha": -1.0}, "alpha is -1.0"),
    ({"mask_width": 0}, "mask_width is 0: it must be at least 1"),
    ({"max_iter": 0}, "max_iter is 0: it must be at least 1"),
    ({"sigma": -1.0}, "sigma is -1.0"),
    ({"sigma": math.nan}, "sigma is nan"),
    ({"lambda_s": -1.0}, "lambda_s is -1.0"),
    ({"tol": 101.0}, "tol is 101.0: it must be between 0 and 100; it is in percent"),
    ({"unfinished": "leave"}, "unfinished is 'leave': it must be one of drop, keep, plain"),
    ({"class_from": "map"}, "class_from is 'map'"),
    ({"label_from": "mask"}, "label_from is 'mask'"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_options_are_checked_when_a_mixer_is_built(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SuperMix(SmallNetwork(), **options)


def test_more_images_than_classes_are_refused():
    with pytest.raises(ValueError, match="k is 3, but there are 2 classes: take a smaller k"):
        SuperMix(SmallNetwork(classes=2), k=3)


def test_something_that_is_no_network_is_no_teacher():
    with pytest.raises(ValueError, match="the teacher, a Linear, lacks"):
        SuperMix(nn.Linear(3, 3))


@pytest.mark.parametrize(
    ("options", "change", "sentence"),
    [
        ({"k": 3}, lambda x, y: (x[:2], y[:2]), "k is 3, but the batch size is 2: take a smaller k or larger batches"),
        ({"mask_width": 12}, lambda x, y: (x[..., :9], y), "mask_width is 12, but images have 16 x 9 pixels"),
        ({}, lambda x, y: (x, y[:, :5]), "the teacher knows 6 classes, the labels have 5"),
        ({}, lambda x, y: (x * math.nan, y), "the teacher's answers are NaN or infinite"),
    ],
)
def test_batches_that_it_cannot_mix_are_refused(teacher, options, change, sentence):
    batch = pictures()
    with pytest.raises(ValueError, match=sentence):
        mix(teacher, Batch(*change(batch.x, batch.y)), **options)


def test_as_many_mixes_may_remain_as_the_percentage_rounded_down_allows(teacher, monkeypatch):
    asked = []

    def noted(*given, allowed, poll):
        asked.append(allowed)
        return supermasks.solve(*given, allowed=allowed, poll=poll)

    monkeypatch.setattr("methods.supermix.solve", noted)
    for tol in (10.0, 0.0, 70.0):
        made(teacher, pictures(24), tol=tol, max_iter=1)
    assert asked == [2, 0, 16]


def test_smoothing_is_in_float32_whoever_asks_for_it_under_autocast():
    maps, kernel = torch.rand(2, 2, 8, 8), supermasks.smoothing_kernel(1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = supermasks.smoothed(maps, kernel)
    assert torch.equal(found, supermasks.smoothed(maps, kernel))
