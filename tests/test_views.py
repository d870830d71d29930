"""What is kept of a view is what was computed for it, and nothing comes out otherwise for it."""

import dataclasses
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from methods import Mixer, views
from methods.views import ViewCache
from mixbench import materials
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.train import train

TEACHER = Run(
    method="simple", dataset="digits", model="tiny", epochs=3, batch_size=50, pad=1, flip=False, train_images=100
)


class Asked:
    """Computes ten times a view's id, as a vector of two, and notes whom it was asked for."""

    def __init__(self, ids):
        self.ids = ids
        self.places = []

    def __call__(self, places):
        self.places.append(places.tolist())
        return 10.0 * self.ids[places][:, None].expand(-1, 2)


def ask(cache, *ids):
    """The values that the cache gives for these ids, and the places that it had computed for them."""
    compute = Asked(torch.tensor(ids))
    return cache(compute.ids, compute)[:, 0].tolist(), [place for places in compute.places for place in places]


def test_cache_computes_each_view_once():
    cache = ViewCache(10)
    assert ask(cache, 3, 1, 9) == ([30, 10, 90], [0, 1, 2])
    assert ask(cache, 1, 2, 3) == ([10, 20, 30], [1])
    assert ask(cache, 2, 9) == ([20, 90], [])


def test_cache_gives_a_view_that_a_batch_holds_twice_one_value():
    assert ask(ViewCache(5), 4, 4)[0] == [40, 40]


def test_cache_computes_everything_where_there_is_no_room(monkeypatch):
    monkeypatch.setattr(views, "memory", lambda device: 100)
    cache = ViewCache(1000)
    assert ask(cache, 3, 1) == ask(cache, 3, 1) == ([30, 10], [0, 1])
    assert cache.place == "nowhere"


def test_cache_says_where_it_keeps():
    cache = ViewCache(5)
    assert cache.place == "nowhere"
    ask(cache, 1)
    assert cache.place == "cpu"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """What `TEACHER` learned, as bytes."""
    store = Store(tmp_path_factory.mktemp("teacher"), tell=print)
    return train(TEACHER, store.claim(TEACHER, Execution()), Execution(), None, ignore).weights


def ignore(steps, of, metrics):
    pass


@pytest.fixture
def trained(teacher, tmp_path):
    """Trains a run whose teacher is that, in a results folder of its own, with nothing kept of earlier ones."""
    folders = iter(range(100))

    def trained(run, *, cam_cache, attempt=None, progress=ignore, forget=True):
        if forget:
            materials._memory.cache_clear()
        execution = Execution(cam_cache=cam_cache)
        attempt = attempt or Store(tmp_path / str(next(folders)), tell=print).claim(run, execution)
        return train(run, attempt, execution, lambda need: teacher, progress)

    return trained


def asking(method, **changes):
    """A run of 12 epochs that asks the teacher, of which every view is seen several times."""
    return dataclasses.replace(TEACHER, method=method, teacher=TEACHER, epochs=12, **changes)


RUNS = {
    "softmax_cam": asking("softmax_cam"),
    "prediction": asking("softmax_cam", options=(("cam_class", "prediction"),)),
    "bfloat16": asking("softmax_cam", precision="bfloat16"),
    "search": asking("transformmix", task="search", lr=5e-4),
}


@pytest.mark.parametrize("name", RUNS)
def test_run_comes_out_the_same_with_and_without_its_maps_kept(trained, name):
    kept, fresh, host = (trained(RUNS[name], cam_cache=where) for where in ("device", "off", "host"))
    assert kept.curve == fresh.curve == host.curve
    assert kept.weights == fresh.weights == host.weights


def test_run_that_is_stopped_with_its_maps_comes_out_the_same_without_them(trained, tmp_path):
    run = RUNS["softmax_cam"]
    whole = trained(run, cam_cache="device")
    store = Store(tmp_path / "stopped", tell=print)
    attempt = store.claim(run, Execution())

    def stop(steps, of, metrics):
        if steps == 13:
            attempt.stop.set()

    with pytest.raises(StoppedError, match="at step 13"), attempt:
        trained(run, cam_cache="device", attempt=attempt, progress=stop)
    rest = trained(run, cam_cache="device", attempt=store.claim(run, Execution()))
    assert (rest.curve, rest.weights) == (whole.curve, whole.weights)


def test_runs_of_one_process_share_the_maps_of_one_teacher(trained):
    first, other = asking("softmax_cam"), asking("softmax_cam", seed=1)
    alone = trained(other, cam_cache="device")
    trained(first, cam_cache="device")
    after = trained(other, cam_cache="device", forget=False)
    assert after.weights == alone.weights
    assert after.notes["maps_saved"] > alone.notes["maps_saved"]


def test_run_says_how_many_maps_the_teacher_was_not_asked_for(trained):
    run = RUNS["softmax_cam"]
    kept, fresh = trained(run, cam_cache="device").notes, trained(run, cam_cache="off").notes
    assert kept["maps"] == fresh["maps"] == 12 * 100
    assert 0 < kept["maps_saved"] < 12 * 100
    assert fresh["maps_saved"] == 0
    assert kept["maps_kept_on"] == "cpu"
    assert "maps_kept_on" not in fresh


def test_cache_is_asked_in_training_once_for_each_view(trained):
    trained(RUNS["softmax_cam"], cam_cache="device")
    notes = trained(RUNS["softmax_cam"], cam_cache="device", forget=False).notes
    assert notes["maps_saved"] == notes["maps"]


@pytest.fixture
def memory(monkeypatch):
    """What a run's mixer is given to keep its values in."""
    pictures, _ = materials.load(RUNS["softmax_cam"], Execution())
    content = SimpleNamespace(fingerprint="these")
    monkeypatch.setattr(materials, "load", lambda run, execution: (pictures, content))
    materials._memory.cache_clear()

    def given(*, taught=b"", remembers="CAM", fingerprint="these", execution=None, **changes):
        run = dataclasses.replace(RUNS["softmax_cam"], **changes)
        mixer, images = Mixer(), SimpleNamespace(ids_below=900)
        mixer.remembers, content.fingerprint = remembers, fingerprint
        materials.give_memory(mixer, run, images, execution or Execution(), lambda need: taught)
        return mixer.views

    return given


@pytest.mark.parametrize("change", [{}, {"method": "wo_stn"}, {"seed": 3, "epochs": 5, "lr": 0.5}, {"batch_size": 20}])
def test_runs_whose_views_have_the_same_maps_share_them(memory, change):
    assert memory() is memory(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": dataclasses.replace(TEACHER, epochs=4)},
        {"taught": b"other weights"},
        {"remembers": "another class's CAM"},
        {"fingerprint": "other pictures"},
        {"dataset": "image_folder:there", "content": "these", "image_size": 64},
        {"pad": 2},
        {"pad_mode": "reflect"},
        {"flip": True},
        {"execution": Execution(threads=2)},
        {"execution": Execution(channels_last=False)},
    ],
    ids=str,
)
def test_runs_whose_views_have_other_maps_share_none(memory, change):
    assert memory() is not memory(**change)


def test_cache_is_where_it_is_asked_for(memory):
    assert not memory()._host
    assert memory(execution=Execution(cam_cache="host"))._host
    assert memory(execution=Execution(cam_cache="off")) is None
    assert memory(remembers="") is None


def test_mixer_without_a_teacher_keeps_what_it_finds_in_views(memory):
    peaks = memory(teacher=None, remembers="peak")
    assert peaks is memory(teacher=None, remembers="peak", method="saliencymix")
    assert peaks is not memory(teacher=None, remembers="another peak")


def test_cache_takes_no_memory_for_what_it_does_not_know():
    before = resident_bytes()
    ask(ViewCache(50_000_000), 7)
    assert resident_bytes() - before < 200e6  # of 400 MB; one more byte a view says what is known


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_maps_of_another_class_are_not_taken_for_those_of_the_label(trained):
    alone = trained(RUNS["prediction"], cam_cache="device")
    trained(RUNS["softmax_cam"], cam_cache="device")
    assert trained(RUNS["prediction"], cam_cache="device", forget=False).weights == alone.weights
