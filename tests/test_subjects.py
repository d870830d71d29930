"""What is timed of a method: what a kernel is given, what is kept, what nobody can hide."""

from dataclasses import dataclass

import pytest
import torch
from invented import measure
from tape import Tape

from methods import Mixed, Mixer, build
from mixbench import nets
from mixbench.execution import Execution
from mixbench.replay import TOLERANCE
from mixbench.spec import Run
from mixbench.streams import Streams
from mixbench.timing import subjects
from mixbench.timing.inputs import inputs
from mixbench.timing.kernels import watching
from mixbench.timing.rounds import HostClock, Limits
from mixbench.timing.runs import facts_of, side_by_side, timed
from mixbench.timing.subjects import COLUMNS, Subject, new_share

SETTING = "16/resnet8"
SIZE = 6


@pytest.fixture(scope="module")
def pool():
    return inputs(measurement("16", "resnet8", SIZE), Execution(data="nowhere"), Streams(0), most=3)


def measurement(dataset, model, batch_size):
    run = Run(method="simple", dataset=dataset, model=model, epochs=1)
    return side_by_side([timed(run, batch_size)], machine="", made_up=dataset.isdecimal())


def network():
    torch.manual_seed(0)
    facts = facts_of(SETTING)
    return nets.build("resnet8", classes=facts.classes, channels=3, image_size=16, mean=facts.mean, std=facts.std)


def subject(pool, mixer, **how):
    run = Run(method="simple", dataset="16", model="resnet8", epochs=1)
    return Subject(run, mixer, network(), pool, seed=0, **how)


def mixer_of(method, **options):
    given = {
        "transformmix": {"teacher": network(), "policy": None, "image_size": 16},
        "softmax_cam": {"teacher": network()},
    }
    mixer = build(method, options, given.get(method, {}))
    return mixer.requires_grad_(requires_grad=False)


def passes(timed, column, number=1):
    call = timed.works()[column].prepare(number)
    with watching(timed.mixer, timed._net) as found:
        call()
    return found


def test_pictures_are_8_bit_and_every_batch_has_others(pool):
    assert len(pool.batches) == 3
    for batch in pool.batches:
        torch.testing.assert_close(batch.x * 255, (batch.x * 255).round(), atol=1e-4, rtol=0)
    assert not torch.equal(pool[0].x, pool[1].x)
    assert torch.equal(pool[0].x, pool[3].x)
    assert torch.cat([batch.view for batch in pool.batches]).tolist() == list(range(3 * SIZE))


def test_real_pictures_are_taken_where_they_are_at_hand(tmp_path):
    found = inputs(measurement("digits", "tiny", 4), Execution(data=str(tmp_path)), Streams(0), most=2)
    assert found.content
    assert found[0].x.shape == (4, 1, 8, 8)
    assert torch.cat([batch.view for batch in found.batches]).tolist() == list(range(8))


def test_batches_that_the_data_cannot_fill_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a batch has 5000 images, but digits has only 1000 to train on"):
        inputs(measurement("digits", "tiny", 5000), Execution(data=str(tmp_path)), Streams(0), most=2)


@pytest.mark.parametrize("method", ["puzzlemix", "comixup"])
def test_kernel_mixes_as_a_cold_mix_does_and_asks_nobody(pool, method):
    timed = subject(pool, mixer_of(method))
    for number in range(3):
        kernel, cold = (timed.works()[column].prepare(number)() for column in ("kernel", "cold"))
        assert torch.equal(kernel.x, cold.x)
        assert torch.equal(kernel.y, cold.y)
    assert passes(timed, "kernel").whole == 1  # asked, but no layer of it is run
    assert passes(timed, "kernel").net == 0
    assert passes(timed, "cold").net == 1


@pytest.mark.parametrize("method", ["transformmix", "softmax_cam"])
def test_kernel_is_given_the_maps_of_a_teacher(pool, method):
    timed = subject(pool, mixer_of(method))
    kernel, cold = (timed.works()[column].prepare(2)() for column in ("kernel", "cold"))
    assert torch.equal(kernel.x, cold.x)
    assert passes(timed, "kernel").own == 0
    assert passes(timed, "cold").own == 1


def test_amortised_asks_about_the_share_of_views_that_is_new(pool, monkeypatch):
    timed = subject(pool, mixer_of("softmax_cam"))
    monkeypatch.setattr(subjects, "new_share", lambda epoch: 0.0)
    assert passes(timed, "amortised").own == 0
    monkeypatch.setattr(subjects, "new_share", lambda epoch: 1.0)
    assert passes(timed, "amortised").own == 1


def test_share_of_new_views_falls_from_one():
    assert new_share(0) == 1
    assert new_share(162) == pytest.approx(0.367, abs=0.002)


def test_methods_that_keep_nothing_have_no_amortised_time(pool):
    assert set(subject(pool, mixer_of("mixup")).works()) == {"cold", "step", "kernel"}
    assert set(subject(pool, mixer_of("saliencymix")).works()) == set(COLUMNS)


def test_all_methods_of_a_round_draw_the_same(pool):
    first, second = (subject(pool, mixer_of("mixup")) for _ in range(2))
    assert torch.equal(*(one.works()["cold"].prepare(1)().x for one in (first, second)))
    assert not torch.equal(first.works()["cold"].prepare(4)().x, second.works()["cold"].prepare(1)().x)


def test_a_training_step_updates_the_network(pool):
    timed = subject(pool, mixer_of("mixup"))
    before = timed._net.fc.weight.clone()
    timed.works()["step"].prepare(0)()
    assert not torch.equal(timed._net.fc.weight, before)


def test_a_training_step_is_replayed_as_in_training_where_it_can_be(pool):
    tape, watch = Tape(), Watch()
    steps = {"mixup": mixer_of("mixup"), "sly": Sly(watch)}
    timed = {name: subject(pool, mixer, recorder=tape) for name, mixer in steps.items()}
    for number in range(6):
        for one in timed.values():
            one.works()["step"].prepare(number)()
    assert tape.replays == 3  # three steps are not replayed, and the fourth proves the graph
    assert timed["mixup"].told == []
    assert timed["sly"].told == ["CUDA graph: not used, since a Late does not declare that it can be replayed"]


def test_a_replayed_step_is_judged_by_the_precision_that_is_measured(pool):
    steps = [subject(pool, mixer_of("mixup"), recorder=Tape(), precision=name)._step for name in TOLERANCE]
    assert [step._tolerance for step in steps] == [*TOLERANCE.values()]


def test_settled_steps_are_replayed(pool):
    tape = Tape()
    timed = subject(pool, mixer_of("mixup"), recorder=tape)
    timed.settle()
    before = tape.replays
    timed.works()["step"].prepare(0)()
    assert (tape.replays - before, tape.captures) == (1, 1)


def test_a_method_that_mixes_inside_the_network_is_known(pool):
    manifold, mixup = (subject(pool, mixer_of(method)) for method in ("manifold_mixup", "mixup"))
    assert all(timed.counted() for timed in (manifold, mixup))
    assert (manifold.inside, mixup.inside) == (True, False)


class Watch:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@dataclass(frozen=True)
class Late(Mixed):
    """Does its work only when the network is asked."""

    watch: Watch

    def logits(self, net):
        self.watch.seconds += 5
        return super().logits(net)


class Sly(Mixer):
    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def forward(self, batch, net):
        self.watch.seconds += 1
        return Late(batch.x, batch.y, self.watch)


def test_work_that_a_mixer_puts_off_is_caught_by_the_training_step(pool):
    watch = Watch()
    works = subject(pool, Sly(watch)).works()
    limits = Limits(warm_up=0, fewest=3, most=3)
    found = measure(works, HostClock(wall=watch, cpu=watch), limits, seed=0, now=watch)
    seconds = {name: [reading.seconds["cpu"] for reading in of] for name, of in found.items()}
    assert seconds == {"kernel": [1] * 3, "cold": [1] * 3, "step": [6] * 3}
