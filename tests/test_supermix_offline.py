import pytest
import torch
from torch import nn

from methods import Batch
from methods.bank import Mixes, as_bytes, empty
from methods.contract import CRITERION, SmallNetwork, check
from methods.supermix_offline import SuperMixOffline, cropped

SIZE, CLASSES = 12, 5


@pytest.fixture
def bank():
    """Twenty images that hold nothing but their own number and a bright column at their left."""
    x = torch.arange(1, 21, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 8, 8)
    x[..., 0] += 200
    classes = torch.stack([torch.arange(20) % CLASSES, torch.arange(1, 21) % CLASSES], 1)
    lam = torch.tensor([[0.3, 0.7]]).expand(20, -1)
    return Mixes(x, lam, classes, classes)._asdict()


class Numbers(SmallNetwork):
    """Finds likeliest the class that the number of an image of the bank leaves, divided by that of classes."""

    def __init__(self):
        super().__init__(classes=CLASSES)
        self.asked = []

    def forward(self, x):
        self.asked.append(x)
        return torch.eye(CLASSES)[(x[:, 0, 4, 4] * 255).round().long() % CLASSES]


def batch(side=8):
    return Batch(torch.rand(SIZE, 3, side, side), torch.eye(CLASSES)[torch.arange(SIZE) % CLASSES])


def mix(bank, given, *, seed=0, teacher=None, **options):
    mixer = SuperMixOffline(teacher or Numbers(), bank, **options)
    mixer.generator = torch.Generator().manual_seed(seed)
    return mixer(given, None)


def numbers(mixed):
    """Which images of the bank these are, as long as nothing is cut off."""
    return (mixed.x[:SIZE, 0, 4, 4] * 255).round().long() - 1


def test_images_of_the_bank_stand_before_natural_ones(bank):
    given = batch()
    mixed = mix(bank, given, pad=0, flip=False)
    assert torch.equal(mixed.x[SIZE:], given.x)
    assert torch.equal(as_bytes(mixed.x[:SIZE] + 0.5 / 255), bank["x"][numbers(mixed)])
    assert len(numbers(mixed).unique()) > SIZE / 2


def test_images_of_the_bank_have_the_class_that_the_teacher_sees_or_all_by_lam(bank):
    seen, soft = (mix(bank, batch(), pad=0, flip=False, label_from=label) for label in ("teacher", "lam"))
    chosen = numbers(seen)
    assert torch.equal(seen.y, torch.eye(CLASSES)[(chosen + 1) % CLASSES])
    first, second = (torch.eye(CLASSES)[bank["classes"][chosen][:, place]] for place in (0, 1))
    torch.testing.assert_close(soft.y, 0.3 * first + 0.7 * second)


def test_teacher_is_asked_of_mixed_images_as_they_are_shown(bank):
    teacher = Numbers()
    mixed = mix(bank, batch(), teacher=teacher)
    assert torch.equal(teacher.asked[0], mixed.x[:SIZE])


def test_half_of_the_images_are_mirrored_where_that_is_asked_for(bank):
    bright = [mix(bank, batch(), seed=seed, pad=0).x[:SIZE, 0, 0, 0] > 0.5 for seed in range(20)]
    assert 0.4 < torch.cat(bright).float().mean() < 0.6


def test_crops_begin_where_they_are_told():
    x = torch.arange(1.0, 10).view(1, 1, 3, 3).repeat(3, 1, 1, 1)
    corners, mirrored = torch.tensor([[1, 0, 2], [1, 2, 0]]), torch.tensor([False, False, True])
    plain, lower, upper = cropped(x, 1, corners, mirrored)[:, 0]
    assert torch.equal(plain, x[0, 0])
    assert lower.tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert upper.tolist() == [[5, 4, 0], [8, 7, 0], [0, 0, 0]]


def test_images_are_moved_by_no_more_than_the_padding(bank):
    mixed = [mix(bank, batch(), seed=seed, pad=2, flip=False) for seed in range(10)]
    places = torch.cat([(each.x[:SIZE, 0] > 0.5).any(1).float().argmax(1) for each in mixed])
    assert set(places.tolist()) == {0, 1, 2}  # the bright column at the left, or cut off


class Recording(nn.Module):
    """Answers by the mean of a pass."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return x.mean().expand(len(x), CLASSES) * torch.arange(float(CLASSES))


def test_mixed_and_natural_images_are_seen_in_passes_of_their_own(bank):
    given, net = batch(), Recording()
    mixed = mix(bank, given)
    logits = mixed.logits(net)
    assert torch.equal(net.seen[0], given.x)
    assert torch.equal(net.seen[1], mixed.x[:SIZE])
    losses = [CRITERION(logits[:SIZE], mixed.y).mean(), CRITERION(logits[SIZE:], given.y).mean()]
    torch.testing.assert_close(mixed.loss(logits, CRITERION), torch.stack(losses).mean())


@pytest.mark.parametrize("options", [{"label_from": "lam"}, {"pad": 0, "flip": False}])
def test_contract_is_kept_with_other_options(options):
    check(SuperMixOffline(SmallNetwork(), empty(9, 3, channels=3, side=32)._asdict(), **options))


@pytest.mark.parametrize(("options", "sentence"), [({"pad": -1}, "pad is -1"), ({"label_from": "x"}, "label_from is")])
def test_options_are_checked_when_a_mixer_is_built(bank, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        SuperMixOffline(Numbers(), bank, **options)


def test_bank_of_other_images_or_more_classes_is_refused(bank):
    with pytest.raises(ValueError, match="the bank holds images of 3 x 8 x 8, but the batch of 3 x 9 x 9: take a bank"):
        mix(bank, batch(9))
    with pytest.raises(ValueError, match="bank and teacher know 5 classes, but the labels have 4: take a bank"):
        mix(bank, Batch(batch().x, torch.eye(4)[torch.arange(SIZE) % 4]))


def test_bank_goes_where_the_mixer_goes(bank):
    mixer = SuperMixOffline(Numbers(), bank).to("meta")
    assert all(part.device.type == "meta" for part in mixer.bank)
    assert not {*mixer.state_dict()} & {*Mixes._fields}
