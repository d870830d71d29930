"""What learns or moves beside a network in training: a toy mixer's parameters and its copy of it, and averages."""

import io
import math
import sys

import pytest
import torch
from torch import nn

from methods import Mixed, Mixer, build
from methods.contract import SmallNetwork, check
from mixbench import catalog, learning, materials, tasks
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.result import MIXER
from mixbench.spec import Run
from mixbench.step import Step, lr_at
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import State, steps, train

TOY = """
import copy
import torch
from torch import nn
from methods import Mixed, Mixer, build

class Toy(Mixer):
    label = "Toy"
    headline = "twin"

    def __init__(self, net, *, lr: float = 0.0) -> None:
        super().__init__()
        self.twin = copy.deepcopy(net).requires_grad_(False)
        self.logit = nn.Parameter(torch.zeros(1))
        self.slope = nn.Linear(1, 1)
        self.learns_by = {"slope": {"lr": lr, "momentum": 0.0, "weight_decay": 0.0}} if lr else {}
        self.register_buffer("mixed", torch.zeros(()))
        self.told = []

    def forward(self, batch, net):
        self.mixed += len(batch.x)
        partners = torch.randperm(len(batch.x), generator=self.generator)
        share = self.slope(self.logit).sigmoid()
        mixed = batch.x[partners].lerp(batch.x, share.to(batch.x.dtype))
        return Mixed(mixed, batch.y[partners].lerp(batch.y, share.detach()))

    def stepped(self, net, done, steps):
        self.told.append((done, steps))
        with torch.no_grad():
            for ours, theirs in zip(self.twin.parameters(), net.parameters()):
                ours.lerp_(theirs, 0.5)

    def scored(self, net):
        return {"twin": self.twin, "net": net}


class Counting(Mixer):
    label = "Counting"

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mixed", torch.zeros(()))

    def forward(self, batch, net):
        self.mixed += 1
        return Mixed(batch.x / self.mixed, batch.y)
"""
DIGITS = {"dataset": "digits", "model": "tiny", "train_images": 100, "test_images": 200, "pad": 1, "flip": False}
RUN = Run(method="toy", epochs=3, batch_size=40, **DIGITS)


def changed(**changes):
    return Run.from_dict(RUN.to_dict() | changes)


@pytest.fixture(autouse=True)
def toys(tmp_path, monkeypatch):
    """Installs a package that offers the mixers ``toy``, which learns, and ``counting``, which only remembers."""
    about = tmp_path / "site" / "toys-1.0.dist-info"
    about.mkdir(parents=True)
    (tmp_path / "site" / "toys.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mixbench.mixers]\ntoy = toys:Toy\ncounting = toys:Counting\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "toys", raising=False)
    catalog.declaration.cache_clear()
    yield
    catalog.declaration.cache_clear()


@pytest.fixture
def trained(tmp_path):
    """Trains runs in results folders of their own; or stops after so many steps, and goes on."""
    folders = iter(range(100))

    def done(run, *, stops=(), execution=None):
        store = Store(tmp_path / str(next(folders)), tell=print)
        execution = execution or Execution()
        for moment in stops:
            attempt = store.claim(run, execution)

            def stop(steps, of, metrics, attempt=attempt, moment=moment):
                if steps == moment:
                    attempt.stop.set()

            with pytest.raises(StoppedError, match=f"at step {moment}"), attempt:
                train(run, attempt, execution, None, stop)
        return train(run, store.claim(run, execution), execution, None, lambda *progress: None)

    return done


def task_of(run):
    return tasks.Classify(run, Streams(run.seed), Execution(), None)


def after(run, count):
    """A task after so many of its steps, and what was updated."""
    task = task_of(run)
    step, state = Step(run, task), State(torch.zeros(task.steps))
    for _, _ in zip(range(count), steps(run, 0, task, step, state), strict=False):
        pass
    return task, step


def state_in(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def test_toy_keeps_the_contract():
    check(build("toy", {}, {"net": SmallNetwork()}))


def test_mixer_learns_with_the_network(trained):
    before = task_of(RUN).mixer.state_dict()
    after = state_in(trained(RUN).files[MIXER])
    assert before.keys() == after.keys()
    assert {"logit", "slope.weight", "slope.bias", "mixed"} <= {
        name for name in after if not torch.equal(before[name], after[name])
    }


@pytest.mark.parametrize("method", ["toy", "automix", "counting"])
@pytest.mark.parametrize("stops", [(1,), (3,), (5, 8)], ids=str)
def test_run_that_was_stopped_ends_as_if_nothing_had_happened(method, stops, trained):
    run = changed(method=method, ema=0.8)
    whole, resumed = trained(run), trained(run, stops=stops)
    assert resumed.curve == whole.curve
    assert resumed.evaluation.metrics == whole.evaluation.metrics
    assert resumed.weights == whole.weights
    assert resumed.files == whole.files


def test_mixer_is_told_of_every_step_how_far_the_training_is():
    task, _ = after(RUN, 3)
    assert task.mixer.told == [(1, 9), (2, 9), (3, 9)]


def test_parts_of_a_mixer_learn_by_what_they_say_and_the_rest_as_the_network():
    run = changed(options={"lr": 0.7}, nesterov=True, schedule="cosine", lr=0.2)
    _, step = after(run, 2)
    network, rest, slope = step.optimiser.param_groups
    assert [len(group["params"]) for group in (rest, slope)] == [1, 2]
    for group in (network, rest):
        assert (group["lr"], group["momentum"], group["nesterov"]) == (lr_at(run, 1 / 3), 0.9, True)
        assert group["weight_decay"] == 1e-4
    own = (slope["lr"], slope["momentum"], slope["nesterov"], slope["weight_decay"])
    assert own == (0.35 * (1 + math.cos(math.pi / 9)), 0.0, False, 0.0)


def test_part_without_momentum_needs_none_for_a_run_with_nesterov():
    mixer = task_of(RUN).mixer
    for changes, nesterov in (({"lr": 0.7}, True), ({"momentum": 0.0}, False)):
        mixer.learns_by = {"slope": changes}
        rest, slope = learning.groups_of(mixer, changed(nesterov=True))
        assert (rest[0].nesterov, slope[0].nesterov) == (True, nesterov)


def test_parameters_are_updated_by_their_own_group(trained):
    still = state_in(trained(changed(options={"lr": 1e-12})).files[MIXER])
    moved = state_in(trained(RUN).files[MIXER])
    first = task_of(RUN).mixer.state_dict()
    torch.testing.assert_close(still["slope.weight"], first["slope.weight"], rtol=0, atol=1e-9)
    assert (moved["slope.weight"] - first["slope.weight"]).abs() > 1e-6


def test_methods_that_learn_nothing_have_one_group_and_nothing_beside():
    task = task_of(changed(method="mixup"))
    assert (len(task.groups), task.beside, task.files()) == (1, {}, {})
    assert not task.prepare(next(task.batches(0, 0))).x.requires_grad


def test_network_that_counts_is_scored_by_the_plain_names_and_given_to_later_runs(trained):
    result = trained(RUN)
    metrics = result.evaluation.metrics
    assert list(metrics)[:3] == ["top1", "top5", "test_loss"]
    for name in ("top1", "top5", "test_loss"):
        assert metrics[name] == metrics[f"twin_{name}"]
    assert metrics["test_loss"] != metrics["net_test_loss"]
    assert result.notes["scored"] == "twin"
    twin = {name.removeprefix("twin."): value for name, value in state_in(result.files[MIXER]).items()}
    assert all(torch.equal(value, twin[name]) for name, value in state_in(result.weights).items())


def test_teacher_is_the_network_that_counts(trained):
    weights = trained(RUN).weights
    asking = Run.from_dict(RUN.to_dict() | {"method": "softmax_cam", "teacher": RUN.to_dict()})
    mixer = materials.mixer_of(asking, Streams(0), Execution(), lambda need: weights)
    assert all(torch.equal(value, mixer._teacher.state_dict()[name]) for name, value in state_in(weights).items())


@pytest.mark.parametrize("method", ["toy", "automix"])
def test_evaluation_disturbs_nothing(method, trained):
    run = changed(method=method, epochs=12, ema=0.9)
    often, seldom = trained(run), trained(run, execution=Execution(evaluate_every=12))
    assert often.evaluation.metrics == seldom.evaluation.metrics
    assert (often.weights, often.files) == (seldom.weights, seldom.files)


def test_first_weights_of_the_network_are_those_of_every_other_method():
    toy, simple = (task_of(changed(method=method)).net.state_dict() for method in ("automix", "simple"))
    assert all(torch.equal(toy[name], simple[name]) for name in simple)


class Naming(Mixer):
    def __init__(self, headline, scored):
        super().__init__()
        self.headline = headline
        self._scored = scored

    def forward(self, batch, net):
        return Mixed(batch.x, batch.y)

    def scored(self, net):
        return self._scored


NAMED = {
    "not there": ("k", {"q": SmallNetwork()}, "has no network 'k' whose accuracies .* one of those it scores: q"),
    "none at all": ("k", {}, "has no network 'k' .* it scores: none"),
    "called as the average is": ("", {"ema": SmallNetwork()}, "scores a network called 'ema'"),
    "of other weights": ("k", {"k": nn.Linear(1, 1)}, "says that its network 'k' counts, but that has other weights"),
}


@pytest.mark.parametrize("case", NAMED)
def test_scored_network_that_could_not_count_is_refused(case):
    headline, there, sentence = NAMED[case]
    with pytest.raises(ValueError, match=f"the mixer 'toy' {sentence}"):
        learning.settled(Naming(headline, there), RUN, SmallNetwork())
    assert learning.settled(Naming("k", {"k": SmallNetwork()}), RUN, SmallNetwork()).headline == "k"


def test_contract_wants_a_headline_that_is_scored():
    with pytest.raises(AssertionError, match=r"headline is 'k', but scored\(\) has q: name one"):
        check(Naming("k", {"q": SmallNetwork()}))


def test_contract_wants_scored_networks_to_give_logits():
    with pytest.raises(AssertionError, match="the scored network 'q' answers with the shape"):
        check(Naming("", {"q": nn.Flatten()}))


def test_contract_wants_the_loss_to_reach_what_learns():
    mixer = Naming("", {})
    mixer.unused = nn.Linear(1, 1)
    with pytest.raises(AssertionError, match="has parameters that require gradients, and the loss reaches none"):
        check(mixer)


def test_contract_watches_the_network_when_a_step_is_over():
    class Pulling(Naming):
        def stepped(self, net, done, steps):
            with torch.no_grad():
                net.fc.weight.mul_(0.9)

    with pytest.raises(AssertionError, match=r"the network's weights changed \(fc.weight\)"):
        check(Pulling("", {}))


def test_average_is_the_moving_average_of_the_weights_after_each_step():
    run, count = changed(method="mixup", ema=0.8), 3
    task = task_of(run)
    step, state = Step(run, task), State(torch.zeros(task.steps))
    expected = {name: value.detach().clone() for name, value in task.net.named_parameters()}
    for _ in steps(run, 0, task, step, state):
        expected = {name: 0.8 * expected[name] + 0.2 * value for name, value in task.net.named_parameters()}
    assert state.step == count
    for name, value in task.average.net.named_parameters():
        torch.testing.assert_close(value, expected[name])
    for name, value in task.net.named_buffers():
        assert torch.equal(dict(task.average.net.named_buffers())[name], value)


def test_average_is_scored_beside_the_network_and_changes_nothing_else(trained):
    plain, averaged = trained(changed(method="mixup")), trained(changed(method="mixup", ema=0.8))
    metrics = averaged.evaluation.metrics
    assert {name: metrics[name] for name in plain.evaluation.metrics} == plain.evaluation.metrics
    assert set(metrics) == {*plain.evaluation.metrics, "ema_top1", "ema_top5", "ema_test_loss"}
    assert metrics["ema_test_loss"] != metrics["test_loss"]
    assert averaged.weights == plain.weights
    assert all("ema_top1" in entry for entry in averaged.curve)


def test_search_gives_no_network_to_begin_as_a_copy_of():
    with pytest.raises(ValueError, match="'toy' learns beside a network in training, and a search has none"):
        materials.mixer_of(changed(task="search"), Streams(0), Execution(), None)


def test_mixer_is_called_with_gradients_only_where_it_learns():
    seen = []
    for run in (RUN, changed(method="counting")):
        task = task_of(run)
        task.mixer.register_forward_hook(lambda *passed: seen.append(torch.is_grad_enabled()))
        task.prepare(next(task.batches(0, 0)))
    assert seen == [True, False]
