"""A stored set of mixed images as a run: what it holds, that it is made once, and who uses it."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from methods.bank import Mixes
from methods.supermix_offline import Beside
from mixbench import checking, materials, tasks
from mixbench.bank import MakeBank
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.launch import plan, prepare
from mixbench.resolve import load_sweep
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import State, train

TEACHER = Run(
    method="simple", dataset="digits", model="tiny", epochs=30, batch_size=50, pad=1, flip=False, train_images=200
)
BANK = Run.from_dict(
    TEACHER.to_dict()
    | {"task": "bank", "method": "supermix", "teacher": TEACHER.to_dict(), "epochs": 20, "bank_images": 70}
    | {"pad": 0, "batch_size": 32, "options": {"max_iter": 4, "mask_width": 4}}
)
USE = TEACHER.to_dict() | {"method": "supermix_offline", "epochs": 2, "teacher": TEACHER.to_dict()}
USE |= {"bank": BANK.to_dict()}
SWEEP = """
settings: [digits/tiny]
methods: {rows}
seeds: [0, 1]
teacher: {{method: simple, seed: 0}}
recipes:
  digits/tiny: {{epochs: 2, batch_size: 50, pad: 1, flip: false, train_images: 100}}
  bank: {{task: bank, epochs: 9, pad: 0, bank_images: 20}}
  search: {{task: search, lr: 5.0e-4}}
"""
LINKED = "{method: supermix, recipe: bank, seed: 0, mask_width: 4, max_iter: 5}"


def changed(**changes):
    return Run.from_dict(BANK.to_dict() | changes)


def ignore(steps, of, metrics):
    pass


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """What `TEACHER` learned, as bytes."""
    store = Store(tmp_path_factory.mktemp("teacher"), tell=print)
    return train(TEACHER, store.claim(TEACHER, Execution()), Execution(), None, ignore).weights


@pytest.fixture
def make(teacher, tmp_path):
    """Banks, in results folders of their own."""
    numbers = iter(range(100))

    def made(run=BANK, *, progress=ignore, attempt=None):
        attempt = attempt or Store(tmp_path / str(next(numbers)), tell=print).claim(run, Execution())
        return train(run, attempt, Execution(), lambda need: teacher, progress)

    return made


@pytest.fixture
def load(tmp_path):
    def loaded(rows):
        (tmp_path / "s.yaml").write_text(SWEEP.format(rows=rows))
        return load_sweep(tmp_path / "s.yaml", data=tmp_path, results=tmp_path / "results")

    return loaded


def mixes_of(trained):
    return Mixes(**torch.load(io.BytesIO(trained.weights), weights_only=True))


def asked(teacher):
    """The network that was asked."""
    return MakeBank(BANK, Streams(0), Execution(), lambda need: teacher)._mixer.teacher


# ---- what it holds


@pytest.mark.parametrize("k", [2, 3])
def test_bank_holds_as_many_mixes_as_asked_for_in_which_the_teacher_sees_all_images(make, teacher, k):
    mixes = mixes_of(make(changed(bank_images=33, options={"k": k, "mask_width": 4, "max_iter": 9})))
    assert mixes.x.shape == (33, 1, 8, 8)
    assert len(mixes.x.flatten(1).unique(dim=0)) > 25
    logits, classes = asked(teacher)(mixes.x / 255), mixes.classes.sort(1).values
    unlike = (classes.diff(dim=1) > 0).all(1)
    seen = (logits.topk(k, dim=1).indices.sort(1).values == classes).all(1)
    assert seen[unlike].float().mean() > 0.9  # of 8 bits, and not of the floats that were tested


def test_bank_says_of_which_images_its_mixes_are(make, teacher):
    mixes = mixes_of(make())
    pictures, _ = materials.load(BANK, Execution())
    sources = torch.from_numpy(pictures.train_x)[mixes.sources][..., 0]
    likeliest = asked(teacher)(sources.flatten(0, 1)[:, None] / 255).argmax(1).view(-1, 2)
    assert torch.equal(likeliest, mixes.classes)
    torch.testing.assert_close(mixes.lam.sum(1), torch.ones(70))
    x = mixes.x[:, 0].int()
    assert (x <= sources.int().amax(1)).all()
    assert (x >= sources.int().amin(1) - 1).all()  # cut off, so a level less at most
    assert set(mixes.sources.flatten().tolist()) <= set(
        materials.train_set(BANK, Streams(0), Execution())._numbers.tolist()
    )


def test_bank_tells_how_full_it_is_and_how_much_finished(make):
    trained = make()
    assert [entry["stored"] for entry in trained.curve] == sorted(entry["stored"] for entry in trained.curve)
    assert trained.evaluation.metrics["stored"] == 70
    assert trained.evaluation.metrics["finished"] == pytest.approx(100 * trained.notes["finished"], abs=1e-3)
    assert "train_loss" not in trained.curve[0]
    assert trained.notes["teacher"] == TEACHER.id
    assert 0 < trained.notes["finished"] < 1


def test_bank_mixes_nothing_more_once_it_is_full(make):
    calls = []
    trained = make(progress=lambda steps, of, metrics: calls.append(steps))
    assert len(calls) < 20 * 7
    assert "train_loss" not in trained.curve[-1]


@pytest.mark.parametrize("stopped", [1, 3])
def test_bank_goes_on_where_it_was_stopped_and_ends_the_same(make, tmp_path, stopped):
    whole = make()
    store = Store(tmp_path / "stopped", tell=print)
    attempt = store.claim(BANK, Execution())

    def stop(steps, of, metrics):
        if steps == stopped:
            attempt.stop.set()

    with pytest.raises(StoppedError, match=f"at step {stopped}"), attempt:
        make(attempt=attempt, progress=stop)
    rest = make(attempt=store.claim(BANK, Execution()))
    assert rest.curve == whole.curve
    for ours, theirs in zip(mixes_of(rest), mixes_of(whole), strict=True):
        assert torch.equal(ours, theirs)


def test_bank_that_is_not_full_in_the_end_is_refused(make):
    with pytest.raises(
        ValueError, match=r"with epochs: 1 the bank holds only \d+ of its 5000 images; take more epochs"
    ):
        make(changed(epochs=1, bank_images=5000))


# ---- what it is as a run


@pytest.mark.parametrize(
    "unread",
    [
        {"lr": 0.3, "momentum": 0.0, "weight_decay": 0.1, "nesterov": False},
        {"schedule": "cosine", "lr_end": 0.01, "warmup": 3},
        {"milestones": [1, 2], "lr_drop": 0.5},
        {"test_images": 9, "criterion": "bce", "mean": [0.5], "std": [0.5], "precision": "bfloat16"},
    ],
)
def test_bank_is_the_same_run_whatever_is_said_of_training(unread):
    assert changed(**unread) == BANK


@pytest.mark.parametrize(
    "read", [{"bank_images": 71}, {"seed": 1}, {"pad": 2}, {"epochs": 21}, {"batch_size": 33}, {"options": {"k": 3}}]
)
def test_bank_is_another_run_where_it_would_hold_other_images(read):
    assert changed(**read).id != BANK.id


def test_size_of_a_bank_is_none_of_a_run_that_makes_no_bank():
    assert Run.from_dict(TEACHER.to_dict() | {"bank_images": 3}) == TEACHER


def test_bank_is_made_once_for_all_runs_that_ask_for_it(load):
    sweep = load(
        f"{{simple: , supermix_offline: {{bank: {LINKED}}}, soft: {{method: supermix_offline, "
        f"label_from: lam, bank: {LINKED}}}}}"
    )
    first, second, third = sweep.stages()
    assert [run.task for run in second] == ["bank"]
    assert second[0].teacher in first
    assert [run.bank for run in third] == [second[0]] * 4
    assert sweep.asked_by()[second[0]] == "supermix_offline -> bank supermix"


REFUSED = {
    "no bank": ("{supermix_offline: }", "supermix_offline needs a bank; say which with 'bank:', like bank: {method: "),
    "a bank that no such task makes": (
        "{supermix_offline: {bank: {method: supermix}}}",
        "bank: supermix is asked for with task: classify, but a bank comes of task: bank",
    ),
    "a bank for a teacher": (
        "{softmax_cam: {teacher: {method: supermix, recipe: bank}}}",
        "teacher: supermix is asked for with task: bank, but a teacher comes of task: classify or import",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_links_that_lead_to_no_bank_are_refused(case, load):
    rows, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=r"s\.yaml") as refusal:
        load(rows)
    assert sentence in str(refusal.value)


REHEARSED = {
    "a bank of mixes that nothing judges": (
        "{supermix_offline: {bank: {method: mixup, recipe: bank}}}",
        "supermix_offline -> bank mixup: the method 'mixup' makes no mixes to be stored; take supermix for a bank",
    ),
    "masks wider than the images": (
        "{supermix_offline: {bank: {method: supermix, recipe: bank, mask_width: 9}}}",
        "supermix_offline -> bank supermix: mask_width is 9, but images have 8 x 8 pixels: make it smaller",
    ),
    "batches smaller than k": (
        "{supermix: {k: 3, mask_width: 4, set: {batch_size: 2}}}",
        "supermix: the mixer needs 3 images, but with a batch_size of 2",
    ),
    "a negative pad": (f"{{supermix_offline: {{pad: -1, bank: {LINKED}}}}}", "supermix_offline: pad is -1"),
}


@pytest.mark.parametrize("case", REHEARSED)
def test_what_could_not_be_mixed_is_refused_before_anything_is_trained(case, load, tmp_path):
    rows, sentence = REHEARSED[case]
    sweep, store, execution = load(rows), Store(tmp_path / "results", tell=print), Execution()
    planned = plan(sweep, store)
    with pytest.raises(ValueError, match=r"s\.yaml") as refusal:
        checking.rehearse(planned, prepare(planned, store, execution), tmp_path / "s.yaml", execution)
    assert sentence in str(refusal.value)


def test_sweep_with_a_bank_is_rehearsed(load, tmp_path):
    sweep, store = load(f"{{supermix_offline: {{bank: {LINKED}}}}}"), Store(tmp_path / "results", tell=print)
    planned = plan(sweep, store)
    checking.rehearse(planned, prepare(planned, store, Execution()), tmp_path / "s.yaml", Execution())


def test_bank_of_other_pictures_is_refused_before_it_is_made():
    use = Run.from_dict(USE | {"epochs": 30})
    digits = materials.facts(TEACHER, Execution())
    for change, sentence in (({"image_size": 16}, "bank holds images of 1 x 16 x 16"), ({"classes": 11}, "11 classes")):
        facts = {use: digits, use.teacher: digits, BANK: replace(digits, **change)}
        with pytest.raises(ValueError, match=sentence):
            checking._mix_once(use, facts)


# ---- who uses it


def test_network_is_trained_with_the_mixes_of_a_bank_beside_natural_images(make, teacher, tmp_path):
    learned = {TEACHER: teacher, BANK: make().weights}
    run = Run.from_dict(USE)
    task = tasks.Classify(run, Streams(0), Execution(), learned.get)
    for batch in task.batches(0, 0):
        mixed = task.prepare(batch)
        assert isinstance(mixed, Beside)
        assert torch.equal(mixed.x[len(batch.x) :], batch.x)
    attempt = Store(tmp_path / "use", tell=print).claim(run, Execution())
    trained = train(run, attempt, Execution(), learned.get, ignore)
    assert trained.curve[1]["train_loss"] < trained.curve[0]["train_loss"]


def test_checkpoint_of_an_earlier_version_which_kept_losses_of_a_bank_is_gone_on_from(tmp_path):
    task = SimpleNamespace(trainable=torch.nn.Linear(1, 1), beside={}, steps=9, groups=[(BANK, [])])
    step, streams = Step(BANK, task), Streams(0)
    saved = {
        "trainable": task.trainable.state_dict(), "beside": {}, "optimiser": step.optimiser.state_dict(),
        "streams": streams.state_dict(), "epoch": 1, "step": 4, "losses": torch.zeros(4), "curve": [], "makers": [],
    }  # fmt: skip
    attempt = SimpleNamespace(saved=lambda: iter([materials.as_bytes(saved)]))
    state = State.restored(attempt, task, step, streams, Execution())
    assert (state.epoch, state.step, len(state.losses)) == (1, 4, 0)
