"""The search as a run: what it learns, from whom, and how others come by it."""

import io

import pytest
import torch

from mixbench import materials, tasks
from mixbench.attempts import StoppedError
from mixbench.execution import Execution
from mixbench.resolve import load_sweep
from mixbench.search import Search
from mixbench.spec import Run
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import train

TEACHER = Run(
    method="simple", dataset="digits", model="tiny", epochs=30, batch_size=50, pad=1, flip=False, train_images=200
)
SEARCH = Run.from_dict(
    TEACHER.to_dict()
    | {"task": "search", "method": "transformmix", "teacher": TEACHER.to_dict(), "epochs": 20, "lr": 5e-4}
    | {"weight_decay": 0.01}
)

SWEEP = """
settings: [digits/tiny]
methods: {rows}
seeds: [0, 1]
teacher: {{method: simple}}
{policy}
recipes:
  digits/tiny: {{epochs: 2, batch_size: 50, pad: 1, flip: false, train_images: 100}}
  search: {{task: search, epochs: 3, lr: 5.0e-4, weight_decay: 0.01}}
"""


def changed(**changes):
    return Run.from_dict(SEARCH.to_dict() | changes)


def ignore(steps, of):
    pass


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """What `TEACHER` learned, as bytes."""
    store = Store(tmp_path_factory.mktemp("teacher"), tell=print)
    return train(TEACHER, store.claim(TEACHER, Execution()), Execution(), None, ignore).weights


@pytest.fixture
def search(teacher, tmp_path):
    """Searches, in results folders of their own."""
    made = iter(range(100))

    def searched(run=SEARCH, execution=None, *, progress=ignore, attempt=None):
        execution = execution or Execution()
        attempt = attempt or Store(tmp_path / str(next(made)), tell=print).claim(run, execution)
        return train(run, attempt, execution, lambda need: teacher, progress)

    return searched


@pytest.fixture
def load(tmp_path):
    def loaded(rows="[simple, transformmix]", policy="policy: {recipe: search}"):
        (tmp_path / "s.yaml").write_text(SWEEP.format(rows=rows, policy=policy))
        return load_sweep(tmp_path / "s.yaml", data=tmp_path, results=tmp_path)

    return loaded


@pytest.mark.parametrize("method", ["transformmix", "wo_stn", "wo_mpn"])
def test_search_lowers_the_excess(search, method):
    changes = {"method": method} | ({"momentum": 0.0} if method == "wo_mpn" else {})
    curve = search(changed(**changes)).curve
    assert curve[-1]["excess"] < curve[0]["excess"]
    assert curve[-1]["train_loss"] < 0.9 * curve[0]["train_loss"]
    assert ("tau" in curve[-1]) == (method != "wo_mpn")


def test_search_keeps_no_predictions(search):
    assert search().evaluation.predictions == {}


def test_search_learns_the_same_however_often_it_is_evaluated(search):
    often, seldom = search(), search(execution=Execution(evaluate_every=7))
    assert often.weights == seldom.weights


def test_search_leaves_its_teacher_as_it_was(teacher):
    task = Search(SEARCH, Streams(0), Execution(), lambda need: teacher)
    before = {name: value.clone() for name, value in task._teacher.state_dict().items()}
    for batch in task.batches(0, 0):
        task.loss(task.prepare(batch)).backward()
    assert all(torch.equal(value, before[name]) for name, value in task._teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in task._teacher.parameters())
    assert all(parameter.grad is not None for parameter in task.trainable.parameters())


def test_search_goes_on_where_it_was_stopped_and_ends_the_same(search, tmp_path):
    whole = search()
    store = Store(tmp_path / "stopped", tell=print)
    attempt = store.claim(SEARCH, Execution())

    def stop(steps, of):
        if steps == 9:
            attempt.stop.set()

    with pytest.raises(StoppedError, match="at step 9"), attempt:
        search(attempt=attempt, progress=stop)
    rest = search(attempt=store.claim(SEARCH, Execution()))
    assert rest.curve == whole.curve
    for name, value in policy_of(whole)["state"].items():
        assert torch.equal(value, policy_of(rest)["state"][name])


def policy_of(trained):
    return torch.load(io.BytesIO(trained.weights), weights_only=True)


def test_searched_policy_is_used_as_it_is_and_stays_so(search, teacher):
    searched = search()
    run = changed(task="classify", policy=SEARCH.to_dict(), epochs=2)
    weights = {SEARCH: searched.weights, TEACHER: teacher}
    task = tasks.Classify(run, Streams(0), Execution(), weights.__getitem__)
    for batch in task.batches(0, 0):
        task.loss(task.prepare(batch)).backward()
    for name, value in policy_of(searched)["state"].items():
        assert torch.equal(value, task.mixer.policy.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in task.mixer.policy.parameters())


def test_task_run_without_a_policy_does_not_pretend_to_learn_one(teacher):
    with pytest.raises(ValueError, match="has parameters that learn, and no task trains them"):
        tasks.Classify(changed(task="classify"), Streams(0), Execution(), lambda need: teacher)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "mixup", "teacher": None}, "'mixup' has no policy that a teacher could teach"),
        ({"method": "wo_stn", "options": {"mask": "softmax_cam"}}, "'wo_stn' has nothing to learn"),
    ],
)
def test_search_of_what_cannot_learn_is_refused(teacher, changes, sentence):
    plain = {name: value for name, value in (SEARCH.to_dict() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=sentence):
        Search(Run.from_dict(plain), Streams(0), Execution(), lambda need: teacher)


def test_sweep_trains_teachers_then_searches_then_what_uses_them(load):
    stages = load().stages()
    assert [[(run.method, run.task) for run in stage] for stage in stages] == [
        [("simple", "classify")] * 2,
        [("transformmix", "search")] * 2,
        [("transformmix", "classify")] * 2,
    ]
    simple, searches, uses = stages
    assert [run.teacher for run in searches] == simple == [run.teacher for run in uses]
    assert [run.policy for run in uses] == searches
    assert [run.policy for run in searches] == [None, None]


def test_one_search_may_serve_all_seeds(load):
    _, searches, uses = load(policy="policy: {recipe: search, seed: 0}").stages()
    assert len(searches) == 1
    assert {run.policy for run in uses} == set(searches)


def test_search_has_the_options_of_the_row_it_serves(load):
    (search,) = {run.policy for run in load("{transformmix: {k: 3, policy: {recipe: search, seed: 0}}}").stages()[-1]}
    assert dict(search.options) == {"k": 3}


def test_method_that_needs_a_policy_says_so_while_loading(load):
    with pytest.raises(ValueError, match="transformmix needs a policy; say which with 'policy:'"):
        load(policy="")


def test_mixer_is_given_the_images_side_by_the_harness(teacher):
    mixer = materials.mixer_of(SEARCH, Streams(0), Execution(), lambda need: teacher)
    assert mixer.policy.form.size == 32


@pytest.mark.parametrize(("batch_size", "rest"), [(99, 2), (2, 2)])
def test_batches_too_small_to_mix_are_refused_before_anything_is_trained(teacher, batch_size, rest):
    run = changed(options={"k": 3}, batch_size=batch_size)
    with pytest.raises(ValueError, match=f"needs 3 images, but .* leave a batch of {rest}; choose another batch_size"):
        Search(run, Streams(0), Execution(), lambda need: teacher)


def test_a_rest_of_one_image_which_is_left_out_is_no_batch(teacher):
    Search(changed(options={"k": 3}, batch_size=199), Streams(0), Execution(), lambda need: teacher)


def test_teacher_whose_weights_are_no_numbers_any_more_is_named(teacher):
    state = torch.load(io.BytesIO(teacher), weights_only=True)
    state["fc.bias"][3] = torch.nan
    with pytest.raises(ValueError, match=f"the teacher {TEACHER.folder} has weights that are NaN or infinite: its"):
        materials.mixer_of(SEARCH, Streams(0), Execution(), lambda need: materials.as_bytes(state))
