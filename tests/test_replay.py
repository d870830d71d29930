"""Replayed steps: the same numbers as the eager loop, to the last bit with a recorder that stands in for CUDA's."""

import io
import math
import re
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from tape import Tape

from methods import Batch, Mixed
from mixbench import replay, tasks
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.graph import form_of, obstacle
from mixbench.makers import merged
from mixbench.replay import MOST_FORMS, WARM_UP, ReplayedStep, away, step_of
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import State, steps, train

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
EPOCHS = WARM_UP + 2  # so that the shorter batch, which comes once an epoch, is replayed too
RUN = Run(
    method="simple",
    dataset="digits",
    model="tiny",
    epochs=EPOCHS,
    batch_size=25,
    schedule="cosine",
    warmup=1,
    pad=1,
    flip=False,
    train_images=110,  # four batches, and one of ten images
)


class Wrong(Tape):
    """Replays every step twice."""

    def capture(self, work):
        replay = super().capture(work)

        def twice():
            replay()
            return replay()

        return twice


class Full(Tape):
    """Has no room for a graph, and notices half-way."""

    def capture(self, work):
        work()
        raise torch.OutOfMemoryError("CUDA out of memory\nwith a second line")


@dataclass(frozen=True)
class Asking(Mixed):
    """Asks for a value in its loss."""

    replayable = True

    def loss(self, logits, criterion):
        return super().loss(logits, criterion) * (1 if float(self.y.sum()) > 0 else 2)


@dataclass(frozen=True)
class Silent(Mixed):
    """Changes nothing, and says nothing."""


def changed(**changes):
    return Run.from_dict(RUN.to_dict() | changes)


def trained(run, folder, recorder=None, *, stop_at=None):
    """What training gave, and what the user was told; replayed with a recorder."""
    told = []
    attempt = Store(folder, tell=print).claim(run, Execution())
    attempt.tell = told.append

    def made(run, task, execution, tell):
        return ReplayedStep(run, task, recorder, tell) if recorder else Step(run, task)

    def progress(done, of, metrics):
        if done == stop_at:
            attempt.stop.set()

    with mock.patch("mixbench.train.step_of", made), attempt:
        return train(run, attempt, Execution(), None, progress), told


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["cutmix", "manifold_mixup", "augmix", "puzzlemix"])
def test_replayed_steps_end_in_the_same_bits(method, precision, tmp_path):
    options = {"puzzlemix": {"block_num": (4,)}}.get(method, {})
    run, tape = changed(method=method, precision=precision, options=options), Tape()
    eager, _ = trained(run, tmp_path / "eager")
    replayed, told = trained(run, tmp_path / "replayed", tape)
    assert tape.replays > EPOCHS
    assert told == []
    assert replayed.curve == eager.curve
    assert replayed.weights == eager.weights


@pytest.mark.parametrize("changes", [{"ema": 0.9}, {"momentum": 0.0, "nesterov": False}, {"criterion": "bce"}], ids=str)
def test_replayed_steps_do_what_a_run_asks_for(changes, tmp_path):
    tape = Tape()
    eager, _ = trained(changed(**changes), tmp_path / "eager")
    replayed, _ = trained(changed(**changes), tmp_path / "replayed", tape)
    assert tape.replays > 0
    assert replayed.curve == eager.curve
    assert replayed.weights == eager.weights


def test_a_form_is_captured_once_and_replayed_from_then_on(tmp_path):
    tape = Tape()
    trained(RUN, tmp_path, tape)
    assert tape.captures == 2  # of whole batches, and of those of ten images
    assert tape.replays == 5 * EPOCHS - 2 * WARM_UP


@pytest.mark.parametrize("recorders", [(Tape(), None), (None, Tape()), (Tape(), Tape())], ids=["off", "on", "both"])
def test_a_checkpoint_goes_on_with_and_without_graphs(recorders, tmp_path):
    whole, _ = trained(RUN, tmp_path / "whole")
    first, second = recorders
    with pytest.raises(StoppedError):
        trained(RUN, tmp_path / "stopped", first, stop_at=7)
    rest, _ = trained(RUN, tmp_path / "stopped", second)
    assert rest.curve == whole.curve
    assert rest.weights == whole.weights
    assert all(tape.replays > 0 for tape in recorders if tape)


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Wrong(), r"a replayed step came out 1(\.\d)? of its change away from the same one not replayed"),
        (Full(), "capturing a step failed: CUDA out of memory"),
    ],
    ids=["wrong", "full"],
)
def test_a_graph_that_cannot_be_trusted_costs_no_bit_and_one_line(recorder, reason, tmp_path):
    run = changed(method="manifold_mixup")
    eager, _ = trained(run, tmp_path / "eager")
    replayed, told = trained(run, tmp_path / "replayed", recorder)
    (line,) = told
    assert re.fullmatch(f"{run.folder}: CUDA graph: not used, since {reason}", line), line
    assert replayed.curve == eager.curve
    assert replayed.weights == eager.weights


def test_a_method_that_learns_runs_as_ever_and_one_line_says_why(tmp_path):
    run, tape = changed(method="automix", epochs=2), Tape()
    eager, _ = trained(run, tmp_path / "eager")
    replayed, told = trained(run, tmp_path / "replayed", tape)
    assert told == [f"{run.folder}: CUDA graph: not used, since a Taught does not declare that it can be replayed"]
    assert tape.captures == 0
    assert replayed.files == eager.files
    assert replayed.weights == eager.weights


def stepped(kind, *, sizes=(25,) * 6):
    """What is said of steps with batches of this kind."""
    told = []
    with mock.patch.object(replay, "WARM_UP", 1):
        task = tasks.Classify(RUN, Streams(0), Execution(), None)
        step = ReplayedStep(RUN, task, Tape(), told.append)
        for size in sizes:
            step(kind(torch.rand(size, 1, 8, 8), torch.eye(10)[torch.arange(size) % 10]), 1.0)
    return told


def test_a_step_that_asks_for_a_value_is_not_replayed():
    assert stepped(Asking) == [
        "CUDA graph: not used, since capturing a step failed: operation not permitted while capturing"
    ]


def test_batches_of_ever_new_sizes_are_not_captured_without_end():
    sizes = [size for size in range(10, 12 + MOST_FORMS) for _ in range(2)]
    assert stepped(Mixed, sizes=sizes) == [f"CUDA graph: not used, since batches come in more than {MOST_FORMS} forms"]


def test_a_kind_of_batch_has_to_say_itself_that_it_can_be_replayed():
    x, y, cpu = torch.rand(2, 1, 8, 8), torch.eye(10)[:2], torch.device("cpu")
    assert obstacle(Mixed(x, y), cpu) == ""
    assert obstacle(Silent(x, y), cpu) == "a Silent does not declare that it can be replayed"
    assert obstacle(Batch(x, y), cpu) == "a Batch does not declare that it can be replayed"
    assert obstacle(Mixed(x.requires_grad_(), y), cpu) == "a Mixed carries gradients back to what mixed it"
    assert obstacle(Mixed(x.detach().to("meta"), y), cpu) == "a Mixed holds tensors that are not on the device"


def test_batches_of_one_form_differ_in_nothing_but_values():
    x, y = torch.rand(2, 3, 8, 8), torch.eye(10)[:2]
    assert form_of(Mixed(x, y)) == form_of(Mixed(x + 1, y))
    others = [Mixed(x[:1], y[:1]), Mixed(x.contiguous(memory_format=torch.channels_last), y), Mixed(x.double(), y)]
    assert len({form_of(one) for one in (Mixed(x, y), Silent(x, y), *others)}) == 5


def test_results_are_apart_by_a_share_of_what_the_step_changed():
    before, after = [torch.ones(4), torch.zeros(2)], [torch.full((4,), 1.1), torch.ones(2)]
    assert away([torch.full((4,), 1.11), torch.ones(2)], after, before) == pytest.approx(0.1, rel=1e-3)
    assert away([after[0], torch.zeros(2)], after, before) == pytest.approx(1.0)
    assert away([before[0] * (1 + 1e-7), before[1]], before, before) == 0.0  # what did not change may be rounded
    assert away([before[0] + 1, before[1]], before, before) == math.inf
    assert math.isnan(away([before[0] * math.nan, before[1]], after, before))


def test_steps_are_replayed_on_a_gpu_only_and_where_something_is_learned():
    task = tasks.Classify(RUN, Streams(0), Execution(), None)
    nothing = mock.Mock(groups=[(RUN, [])])
    with mock.patch.object(replay, "CudaRecorder"):
        made = [
            type(step_of(RUN, what, execution, print))
            for what, execution in (
                (task, Execution(device="cuda")),
                (task, Execution(device="cuda", cuda_graph=False)),
                (task, Execution()),
                (nothing, Execution(device="cuda")),
            )
        ]
    assert made == [ReplayedStep, Step, Step, Step]


def test_whether_steps_are_replayed_is_recorded_where_it_can_change_a_bit():
    assert "cuda_graph" not in Execution().bits()
    assert Execution(device="cuda").bits()["cuda_graph"] is True
    makers = [
        {"commit": "a", "device": "b", "execution": execution.bits()}
        for execution in (Execution(), Execution(device="cuda"), Execution(device="cuda", cuda_graph=False))
    ]
    assert merged(makers)["execution"]["cuda_graph"] == "True, False"


class OnGpu:
    """Two trainings on a GPU, one with graphs."""

    def __init__(self, run, folder):
        self.told = []
        self.results = {}
        for graphs in (False, True):
            execution = Execution(device="cuda", cuda_graph=graphs)
            attempt = Store(folder / str(graphs), tell=print).claim(run, execution)
            attempt.tell = self.told.append
            with attempt:
                self.results[graphs] = train(run, attempt, execution, None, lambda *about: None)

    def weights(self, graphs):
        state = torch.load(io.BytesIO(self.results[graphs].weights), map_location="cpu")
        return torch.cat([value.double().flatten() for value in state.values()])

    def losses(self, graphs):
        return [entry["train_loss"] for entry in self.results[graphs].curve]


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("method", ["cutmix", "manifold_mixup", "augmix"])
def test_a_gpu_comes_to_the_same_with_and_without_graphs(method, precision, tolerance, tmp_path):
    found = OnGpu(changed(method=method, precision=precision, lr=0.01), tmp_path)
    assert found.told == []
    assert found.losses(True) == pytest.approx(found.losses(False), rel=tolerance)
    assert (found.weights(True) - found.weights(False)).norm() <= tolerance * found.weights(False).norm()


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_epoch_of_replayed_steps_never_waits(precision):
    execution, run = Execution(device="cuda"), changed(precision=precision, ema=0.9)
    task = tasks.Classify(run, Streams(0), execution, None)
    step = step_of(run, task, execution, pytest.fail)
    for epoch in range(WARM_UP + 1):
        list(steps(run, epoch, task, step, State(torch.zeros(task.steps, device="cuda"))))
    state = State(torch.zeros(task.steps, device="cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(steps(run, WARM_UP + 1, task, step, state))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert min(state.read_losses()) > 0


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("first", [False, True])
def test_a_checkpoint_of_a_gpu_goes_on_with_and_without_graphs(first, tmp_path):
    run = changed(lr=0.01)
    whole = OnGpu(run, tmp_path / "whole").losses(not first)
    store, executions = (
        Store(tmp_path, tell=print),
        [Execution(device="cuda", cuda_graph=one) for one in (first, not first)],
    )
    attempt = store.claim(run, executions[0])
    with pytest.raises(StoppedError), attempt:
        train(run, attempt, executions[0], None, lambda done, of, metrics: attempt.stop.set() if done == 7 else None)
    rest = train(run, store.claim(run, executions[1]), executions[1], None, lambda *about: None)
    assert [entry["train_loss"] for entry in rest.curve] == pytest.approx(whole, rel=1e-3)
