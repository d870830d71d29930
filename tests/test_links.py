"""Which finished runs `mixbench time` takes networks and policies from."""

from dataclasses import replace

import pytest

from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.timing.links import Links, links
from mixbench.timing.runs import timed
from mixbench.worker import execute

SIMPLE = Run(
    method="simple", dataset="digits", model="tiny", epochs=8, batch_size=50, pad=1, flip=False, train_images=200
)
OTHER = replace(SIMPLE, seed=1, epochs=1)
SEARCH = replace(OTHER, task="search", method="transformmix", teacher=OTHER, lr=5e-3, weight_decay=0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A results folder with two teachers and a search that asked the second; to be read only."""
    store = Store(tmp_path_factory.mktemp("trained") / "results", tell=print)
    for run in (SIMPLE, OTHER, SEARCH):
        with store.claim(run, Execution()) as attempt:
            execute(run, attempt, store, Execution(), print)
    return store


def test_the_teacher_is_the_one_whom_searches_asked(trained):
    found = links("digits/tiny", trained)
    assert (found.teacher, dict(found.policies)) == (OTHER, {"transformmix": SEARCH})


def test_a_method_is_given_what_it_asks_for_and_is_there(trained):
    found = links("digits/tiny", trained)
    plain = {
        name: timed(replace(SIMPLE, method=name), batch_size=4) for name in ("mixup", "softmax_cam", "transformmix")
    }
    given = {name: found.given(run) for name, run in plain.items()}
    assert given["mixup"] == plain["mixup"]
    assert given["softmax_cam"] == replace(plain["softmax_cam"], teacher=OTHER)
    assert given["transformmix"] == replace(plain["transformmix"], teacher=OTHER, policy=SEARCH)


def test_the_teacher_is_that_of_the_least_seed_where_nothing_was_searched(tmp_path, finish):
    for run in (OTHER, SIMPLE, replace(SIMPLE, mini=True, seed=0, epochs=2)):
        finish(tmp_path, run)
    assert links("digits/tiny", Store(tmp_path, tell=print)).teacher == SIMPLE


def test_nothing_is_found_for_another_setting(trained):
    assert links("cifar10/resnet8", trained) == Links(None, {}, None)


def test_supermix_is_timed_with_a_trained_teacher_by_images_that_finished(trained, mixbench):
    said = mixbench(
        *("time", "--device", "cpu", "--batch-size", 8, "--trials", 2, "--settings", "digits/tiny"),
        *("--methods", "supermix,transformmix", "--results", trained.root),
    )
    assert said.code == 0, said.err
    text = " ".join(said.out.split())
    assert f"SuperMix: teacher {OTHER.folder}; times are for images that finished" in text
    assert f"TransformMix: teacher {OTHER.folder}; policy {SEARCH.folder}" in text
    assert "Paid once" in text


RECIPES = """\
digits/tiny: {epochs: 1, batch_size: 50, pad: 1, flip: false, train_images: 100}
search: {task: search, epochs: 1, batch_size: 50, lr: 5.0e-4, weight_decay: 0.01, schedule: constant}
"""


def test_time_trains_what_is_missing_where_it_is_told_to(mixbench, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "recipes.yaml").write_text(RECIPES)
    words = ("time", "--device", "cpu", "--batch-size", 8, "--trials", 1, "--settings", "digits/tiny")
    said = mixbench(*words, "--methods", "transformmix", "--train")
    assert said.code == 0, said.err
    assert "teacher simple-digits-tiny-s0-" in " ".join(said.out.split())
    assert "policy transformmix-search-digits-tiny-s0-" in " ".join(said.out.split())


def test_time_trains_nothing_on_made_up_pictures(refused):
    words = ("--methods", "transformmix", "--size", "16", "--model", "resnet8", "--train")
    assert "--train: on made-up pictures nothing can be learned" in refused("time", "--device", "cpu", *words)


def test_time_says_why_nothing_could_be_trained(mixbench):
    said = mixbench("time", "--device", "cpu", "--settings", "digits/tiny", "--methods", "transformmix", "--train")
    assert said.code == 2
    assert "--train: `mixbench run" in said.err
    assert "there is no recipe for the setting 'digits/tiny'" in said.err
