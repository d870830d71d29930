"""The loop: schedules, curve, checkpoints, and what it refuses."""

import io
import math
from dataclasses import replace

import pytest
import torch

from mixbench import materials, tasks
from mixbench.endings import OtherDataError, StoppedError
from mixbench.execution import Execution
from mixbench.spec import Run
from mixbench.step import lr_at
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import DivergedError, train

RUN = Run(method="cutmix", dataset="digits", model="tiny", epochs=3, batch_size=40, pad=1, flip=False, train_images=100)


def changed(**changes):
    return Run.from_dict(RUN.to_dict() | changes)


def trained(run, store, *, execution=None, steps=None):
    return train(run, store.claim(run, execution or Execution()), execution or Execution(), None, steps or ignore)


def ignore(steps, of, metrics):
    pass


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, tell=print)


def test_lr_steps_at_each_milestone():
    run = changed(epochs=10, lr=1.0, milestones=[4, 8])
    assert [lr_at(run, epoch) for epoch in (0, 3.9, 4, 7.9, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_lr_falls_along_a_cosine_after_a_linear_warm_up():
    run = changed(epochs=10, lr=1.0, schedule="cosine", lr_end=0.2, warmup=2)
    assert [lr_at(run, epoch) for epoch in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.6, 0.2])


def test_lr_stays_where_it_is_when_constant():
    assert {lr_at(changed(schedule="constant", lr=0.3), epoch) for epoch in (0, 1.5, 3)} == {0.3}


def test_training_learns(store):
    result = trained(changed(epochs=30, method="simple"), store)
    assert result.evaluation.metrics["top1"] > 40  # chance is 10
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"] / 2


def test_training_keeps_a_curve_of_every_epoch_and_the_predictions_of_the_last(store):
    result = trained(RUN, store)
    assert [entry["epoch"] for entry in result.curve] == [1, 2, 3]
    assert all({"train_loss", "top1", "top5", "test_loss"} <= entry.keys() for entry in result.curve)
    assert result.curve[-1]["top1"] == result.evaluation.metrics["top1"]
    assert result.evaluation.predictions["classes"].shape == (797, 5)
    assert result.evaluation.predictions["log_probabilities"].shape == (797, 5)


def test_training_evaluates_every_so_many_epochs_and_always_the_last_ten(store):
    result = trained(changed(epochs=25), store, execution=Execution(evaluate_every=4))
    evaluated = [entry["epoch"] for entry in result.curve if "top1" in entry]
    assert evaluated == [4, 8, 12, *range(16, 26)]


def test_training_does_the_same_however_often_it_evaluates(store, tmp_path):
    every = trained(changed(epochs=12), store, execution=Execution(evaluate_every=1))
    seldom = trained(changed(epochs=12), Store(tmp_path / "b", tell=print), execution=Execution(evaluate_every=5))
    assert every.evaluation.metrics == seldom.evaluation.metrics
    assert every.weights == seldom.weights


def test_training_reports_every_step(store):
    seen = []
    trained(RUN, store, steps=lambda steps, of, metrics: seen.append((steps, of)))
    assert seen == [(step, 9) for step in range(1, 10)]


def test_training_reports_with_every_step_the_metrics_of_the_last_evaluation(store):
    seen = []
    run, execution = changed(epochs=14), Execution(evaluate_every=3)
    result = trained(run, store, execution=execution, steps=lambda steps, of, metrics: seen.append(metrics))
    tops = [metrics.get("top1") for metrics in seen[::3]]  # of three steps an epoch
    curve = {entry["epoch"]: entry["top1"] for entry in result.curve if "top1" in entry}
    assert tops == [None, None, None, curve[3], curve[3], *(curve[epoch] for epoch in range(5, 14))]
    assert all(metrics.keys() <= {"top1", "top5", "test_loss"} for metrics in seen)


def test_training_that_diverges_names_epoch_and_step(store):
    with pytest.raises(DivergedError, match=r"the loss became (nan|inf) in epoch \d, step \d"):
        trained(changed(lr=1e30, epochs=3), store)


@pytest.mark.parametrize("method", ["puzzlemix", "comixup"])
def test_training_whose_gradient_diverges_before_its_loss_is_read_says_so_too(method, store):
    run = changed(method=method, lr=1e30, options={"puzzlemix": {"block_num": (4,)}}.get(method, {}))
    with pytest.raises(DivergedError, match=r"in epoch 1, step \d, the network's gradient is NaN or infinite"):
        trained(run, store)


def test_training_goes_on_in_the_middle_of_an_epoch(store, tmp_path):
    whole = trained(RUN, Store(tmp_path / "whole", tell=print))
    attempt = store.claim(RUN, Execution())

    def stop(steps, of, metrics):
        if steps == 5:
            attempt.stop.set()

    with pytest.raises(StoppedError, match="at step 5"), attempt:
        train(RUN, attempt, Execution(), None, stop)
    seen = []
    rest = trained(RUN, store, steps=lambda steps, of, metrics: seen.append(steps))
    assert seen == [6, 7, 8, 9]
    assert rest.curve == whole.curve
    assert rest.weights == whole.weights


@pytest.mark.parametrize("channels_last", [False, True])
def test_training_goes_on_in_the_other_memory_layout(channels_last, store, tmp_path):
    whole = trained(RUN, Store(tmp_path / "whole", tell=print))
    before, after = Execution(channels_last=not channels_last), Execution(channels_last=channels_last)
    attempt = store.claim(RUN, before)
    with pytest.raises(StoppedError), attempt:
        train(RUN, attempt, before, None, lambda steps, of, metrics: attempt.stop.set() if steps == 5 else None)
    rest = trained(RUN, store, execution=after)
    losses = [[entry["train_loss"] for entry in one.curve] for one in (rest, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_refuses_to_go_on_with_other_data(store, monkeypatch):
    pictures, content = materials.load(RUN, Execution())
    other = replace(content, fingerprint="feedface")
    attempt = store.claim(RUN, Execution())
    train(RUN, attempt, Execution(), None, ignore)
    monkeypatch.setattr(materials, "load", lambda run, execution: (pictures, other))
    with pytest.raises(OtherDataError, match=f"begun on data with fingerprint {content.fingerprint}.*feedface"):
        train(RUN, attempt, Execution(), None, ignore)


def test_training_that_diverges_with_its_very_last_step_fails_too(store):
    run = changed(epochs=1, batch_size=100, lr=1e30)
    with pytest.raises(DivergedError, match="with the last step of epoch 1"):
        trained(run, store)


def test_training_remembers_all_who_computed_it(store):
    attempt = store.claim(RUN, Execution(threads=2))

    def stop(steps, of, metrics):
        if steps == 5:
            attempt.stop.set()

    with pytest.raises(StoppedError), attempt:
        train(RUN, attempt, Execution(threads=2), None, stop)
    made_by = trained(RUN, store).made_by
    assert made_by["execution"] == {"device": "cpu", "threads": "2, 1", "channels_last": True}


def test_training_in_bfloat16_differs_in_little_and_learns(store, tmp_path):
    run = changed(epochs=30, method="simple", precision="bfloat16")
    result = trained(run, store)
    assert result.evaluation.metrics["top1"] > 40
    assert math.isfinite(result.evaluation.metrics["test_loss"])
    state = torch.load(io.BytesIO(result.weights))
    assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float32}


def test_training_draws_what_a_seed_draws_whatever_ran_before(store, tmp_path):
    first = trained(RUN, store)
    torch.rand(17)
    trained(changed(seed=5), store)
    again = trained(RUN, Store(tmp_path / "again", tell=print))
    assert first.weights == again.weights


def test_methods_of_one_seed_share_first_weights_subset_and_order():
    made = {name: tasks.Classify(changed(method=name), Streams(0), Execution(), None) for name in ("simple", "cutmix")}
    simple, cutmix = made["simple"], made["cutmix"]
    for name, tensor in simple.net.state_dict().items():
        assert torch.equal(tensor, cutmix.net.state_dict()[name])
    for one, other in zip(simple.batches(1, 0), cutmix.batches(1, 0), strict=True):
        assert torch.equal(one.view, other.view)
        assert torch.equal(one.x, other.x)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_goes_on_from_its_checkpoint(store):
    on_gpu = Execution(device="cuda")
    attempt = store.claim(RUN, on_gpu)

    def stop(steps, of, metrics):
        if steps == 5:
            attempt.stop.set()

    with pytest.raises(StoppedError, match="at step 5"), attempt:
        train(RUN, attempt, on_gpu, None, stop)
    seen = []
    rest = trained(RUN, store, execution=on_gpu, steps=lambda steps, of, metrics: seen.append(steps))
    assert seen == [6, 7, 8, 9]
    assert [entry["epoch"] for entry in rest.curve] == [1, 2, 3]
