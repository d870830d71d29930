"""The search as a run: what it learns, from whom, and how others come by it."""

import io
import re

import pytest
import torch

from mixbench import materials, tasks
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.resolve import load_sweep
from mixbench.search import Search, collapse
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
    | {"weight_decay": 0.01, "test_images": 200}
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


def ignore(steps, of, metrics):
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
    assert curve[-1]["train_loss"] < 0.9 * curve[1]["train_loss"]
    assert ("tau" in curve[-1]) == ("mask_slope" in curve[-1]) == (method != "wo_mpn")
    assert ("in_frame" in curve[-1]) == (method != "wo_stn")


def test_search_begins_its_curve_with_what_was_known_before_the_first_step(search, teacher):
    first, *others = search(changed(epochs=2)).curve
    untrained = Search(SEARCH, Streams(0), Execution(), lambda need: teacher).evaluate().metrics
    assert first == {"epoch": 0, **untrained}
    assert [entry["epoch"] for entry in others] == [1, 2]


def test_search_asks_its_teacher_for_nothing_more_to_be_diagnosed(teacher, monkeypatch):
    task = Search(SEARCH, Streams(0), Execution(), lambda need: teacher)
    asked, forward = [], task._teacher.forward
    monkeypatch.setattr(task._teacher, "forward", lambda x: asked.append(len(x)) or forward(x))
    task.evaluate()
    assert sum(asked) == task.mixer.notes()["maps"] == 200  # once for the answer, once for the maps


def test_search_notes_whom_it_learned_from_and_what_for(search):
    trained = search(changed(epochs=1, options={"k": 3}))
    expected = {"teacher": TEACHER.id, "k": 3, "resolution": 32, "excess_at_start": trained.curve[0]["excess"]}
    assert expected.items() <= trained.notes.items()


def test_search_keeps_no_predictions(search):
    assert search().evaluation.predictions == {}


def test_search_learns_the_same_however_often_it_is_evaluated(search):
    run = changed(epochs=12)
    often, seldom = search(run), search(run, Execution(evaluate_every=7))
    assert often.weights == seldom.weights


def test_search_leaves_its_teacher_as_it_was(teacher):
    task = Search(SEARCH, Streams(0), Execution(), lambda need: teacher)
    before = {name: value.clone() for name, value in task._teacher.state_dict().items()}
    for batch in task.batches(0, 0):
        task.loss(task.prepare(batch)).backward()
    assert all(torch.equal(value, before[name]) for name, value in task._teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in task._teacher.parameters())
    assert all(parameter.grad is not None for parameter in task.trainable.parameters())


@pytest.mark.parametrize("stopped", [1, 9])
def test_search_goes_on_where_it_was_stopped_and_ends_the_same(search, tmp_path, stopped):
    run = changed(epochs=4)
    whole = search(run)
    store = Store(tmp_path / "stopped", tell=print)
    attempt = store.claim(run, Execution())

    def stop(steps, of, metrics):
        if steps == stopped:
            attempt.stop.set()

    with pytest.raises(StoppedError, match=f"at step {stopped}"), attempt:
        search(run, attempt=attempt, progress=stop)
    rest = search(run, attempt=store.claim(run, Execution()))
    assert rest.curve == whole.curve
    for name, value in policy_of(whole)["state"].items():
        assert torch.equal(value, policy_of(rest)["state"][name])


FINE = {"excess": 2.2, "tau": 0.6, "in_frame": 0.8, "mask_slope": 0.98}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"excess": 4.2, "in_frame": 0.15, "mask_slope": 0.4}, ""),
        (
            {"in_frame": 0.003},
            r"excess 4.47 -> 2.20, an image is out of the frame \(in_frame 0.00\); .* an lr below 0.0005",
        ),
        (
            {"mask_slope": -0.2},
            r"masks do not follow lam \(mask_slope -0.20\); .* or momentum: 0.0 or more epochs \(in the policy link",
        ),
        ({"excess": 4.3}, r"excess 4.47 -> 4.30, the excess has hardly fallen;"),
        ({"excess": 4.4, "in_frame": 0.0}, r"out of the frame .*, the excess has hardly fallen;"),
    ],
)
def test_collapse_is_told_by_its_numbers(changes, said):
    start = {"epoch": 0, "excess": 4.47, "tau": 1.0, "in_frame": 1.0, "mask_slope": -0.6}
    found = collapse([start, {"epoch": 20, **FINE, **changes}], SEARCH)
    assert re.search(said, found) if said else found == ""


def test_collapse_is_judged_by_what_there_is():
    start, end = {"epoch": 0, "excess": 4.47}, {"epoch": 20, "excess": 2.2}
    assert collapse([start, end], SEARCH) == ""


def test_collapse_of_masks_and_excess_is_judged_once_a_search_is_over():
    start = {"epoch": 0, "excess": 4.47, "in_frame": 1.0, "mask_slope": -0.6}
    assert collapse([start, {"epoch": 3, **FINE, "mask_slope": 0.0, "excess": 4.46}], SEARCH) == ""
    assert collapse([start, {"epoch": 3, **FINE, "in_frame": 0.0}], SEARCH) != ""


def test_collapse_without_momentum_is_not_to_be_mended_by_less_of_it():
    found = collapse([{"epoch": 0, "excess": 4.0}, {"epoch": 20, "excess": 4.0}], changed(momentum=0.0))
    assert found.endswith("search again with an lr below 0.0005 or more epochs (in the policy link: set: {...})")


def test_search_that_collapses_is_told_when_it_shows_and_when_it_is_over(search, tmp_path):
    run = changed(method="wo_mpn", lr=0.05, epochs=30)
    told = []
    trained = search(run, attempt=Store(tmp_path / "told", tell=told.append).claim(run, Execution()))
    assert trained.curve[-1]["in_frame"] < 0.1
    assert len(told) == 2
    assert told[-1] == f"{run.folder}: {trained.notes['warning']}"
    assert all("an image is out of the frame (in_frame 0.0" in sentence for sentence in told)


def policy_of(trained):
    return torch.load(io.BytesIO(trained.weights), weights_only=True)


def test_searched_policy_is_used_as_it_is_and_stays_so(search, teacher):
    searched = search(changed(epochs=2))
    run = changed(task="classify", policy=SEARCH.to_dict(), epochs=2)
    weights = {SEARCH: searched.weights, TEACHER: teacher}
    task = tasks.Classify(run, Streams(0), Execution(), weights.__getitem__)
    for batch in task.batches(0, 0):
        task.loss(task.prepare(batch)).backward()
    for name, value in policy_of(searched)["state"].items():
        assert torch.equal(value, task.mixer.policy.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in task.mixer.policy.parameters())


def test_sweep_shows_what_a_search_learns_and_keeps_it(mixbench, tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP.format(rows="[transformmix]", policy="policy: {recipe: search, seed: 0}"))
    said = mixbench("run", "s.yaml", "--only", "transformmix")
    assert said.code == 0, said
    folder = r"transformmix-search-digits-tiny-s0-\w+"
    assert re.search(rf"\] {folder} done, excess \d+\.\d\d, tau 1\.00, [\d,]+ images/s", said.out)
    assert len(re.findall(r"\] transformmix-digits-tiny-s\d-\w+ done, top1 \d+\.\d, [\d,]+ images/s", said.out)) == 2
    out = mixbench("why", "transformmix-search").out
    assert re.search(r"\n  train_loss .*, teacher \w+, k 2, resolution 32, excess_at_start \d+\.\d\d\n", out)


def test_run_that_may_not_search_is_refused_in_one_sentence_and_nothing_starts(mixbench, load, tmp_path):
    uses = load(policy="policy: {recipe: search, seed: 0}").stages()[-1]
    said = mixbench("run", "s.yaml", "--no-search")
    command = "mixbench run s.yaml"
    assert said.code == 2
    assert said.out == ""
    assert said.err == (
        f"mixbench: --no-search: {uses[0].folder} needs the search {uses[0].policy.folder}, which is not done; "
        f"do: {command}\n"
    )
    assert not (tmp_path / "results").exists()
    assert mixbench("run", "s.yaml", "--no-search", "--only", "simple", "--dry-run").code == 0


def test_task_run_without_a_policy_does_not_pretend_to_learn_one(teacher):
    with pytest.raises(ValueError, match=r"transformmix-digits-tiny-s0-.* needs a policy"):
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
