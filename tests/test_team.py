"""Several processes train one run: they end with the same weights, save and stop together, and leave nobody behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from imagenet_files import write_imagenet
from test_imagenet import decoded
from test_pool import Heard
from test_resident import pictures, resident
from test_resume import children
from together import forked, together
from torch import nn

from methods.mixup import Mixup
from mixbench import devices, files, launch, materials, recipes, team
from mixbench.data import imagenet
from mixbench.data.resident import Cropped
from mixbench.endings import StoppedError
from mixbench.execution import Execution
from mixbench.pool import Pool
from mixbench.process import others
from mixbench.replay import step_of
from mixbench.resolve import load_sweep
from mixbench.shares import Share
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.store import Store
from mixbench.streams import Streams
from mixbench.train import train

RUN = Run(method="mixup", dataset="digits", model="tiny", epochs=2, batch_size=48, gpus=2, pad=1, train_images=203)
LONG = Run.from_dict(RUN.to_dict() | {"epochs": 100_000})


def changed(**changes):
    return Run.from_dict(RUN.to_dict() | changes)


def untrained(run):
    return materials.as_bytes(materials.network(run, Execution()).state_dict())


def same(ours, theirs):
    return len(ours) == len(theirs) and all(map(np.array_equal, ours, theirs))


def alike(ours, theirs):
    """Whether two trainings ended alike, in each process."""
    return all(
        same(one.learned, other.learned) and same(one.moved.values(), other.moved.values()) and one.curve == other.curve
        for one, other in zip(ours, theirs, strict=True)
    )


# ---- whose part is what


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("kind", ["resident", "cropped", "decoded"])
@pytest.mark.parametrize("images", [12, 11, 10, 9, 7])
def test_parts_of_a_step_are_together_the_batch_of_a_process_alone(kind, images, skip, tmp_path):
    data = images_of(kind, images, tmp_path)
    whole = list(data.epoch(Streams(0), 1, 6, skip=skip))
    parts = [list(data.epoch(Streams(0, rank), 1, 6, skip=skip, share=Share(rank, 2))) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == data.steps(6, share=Share(0, 2)) - skip
    assert len(whole) - len(parts[0]) == (images == 9)  # of a rest of three, one of two processes would have one
    for batch, *shared in zip(whole, *parts, strict=False):
        assert torch.equal(batch.x, torch.cat([one.x for one in shared]))
        assert torch.equal(batch.y, torch.cat([one.y for one in shared]))


def images_of(kind, count, folder):
    if kind == "decoded":
        write_imagenet(folder)
        return decoded(imagenet.list_files(folder).train, subset=torch.arange(count))
    x, y = pictures(count)
    if kind == "resident":
        return resident(x, y)
    plain = {"classes": 3, "flip": True, "interpolation": "bilinear", "device": torch.device("cpu")}
    return Cropped(x, y, channels_last=False, **plain)


@pytest.mark.parametrize("of", [1, 2, 3])
def test_shares_are_each_image_once_and_differ_by_one_at_most(of):
    for images in range(6 * of, 12 * of + 1):
        shares = [Share(rank, of) for rank in range(of)]
        for step in range(shares[0].steps(images, 6 * of)):
            parts = [range(images)[share.part(step, images, 6 * of)] for share in shares]
            sizes = [len(part) for part in parts]
            assert [number for part in parts for number in part] == list(
                range(parts[0].start, parts[0].start + sum(sizes))
            )
            assert max(sizes) - min(sizes) <= 1
            assert min(sizes) >= max(2, shares[0].smallest(images, 6 * of))
            assert sum(share.weight(step, images, 6 * of) for share in shares) == pytest.approx(of)


def test_streams_of_a_process_are_its_own_where_it_mixes_and_common_where_all_must_agree():
    first, second = Streams(3), Streams(3, 1)
    assert torch.equal(first.mix.get_state(), Streams(3, 0).mix.get_state())
    assert not torch.equal(first.mix.get_state(), second.mix.get_state())
    assert torch.equal(first.generator("order", 1).get_state(), second.generator("order", 1).get_state())
    with first.initialising():
        ours = torch.rand(3)
    with second.initialising():
        assert torch.equal(torch.rand(3), ours)


# ---- what is learned


@pytest.mark.parametrize("images", [8, 7])
def test_gradient_of_two_processes_is_that_of_the_whole_batch(images):
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(images, 5, generator=draw), torch.randn(images, 3, generator=draw)

    def learner(share):
        torch.manual_seed(1)
        net = nn.Linear(5, 3)
        part = share.part(0, images, 8)
        return net, SimpleNamespace(
            groups=[(RUN, list(net.parameters()))],
            steps=1,
            loss=lambda batch: (net(batch[0]) - batch[1]).square().mean(),
            weight=lambda step: share.weight(step, images, 8),
            batch=(x[part], y[part]),
        )

    def take_part(rank, meeting, where):
        net, task = learner(Share(rank, 2))
        company = team.Team(meeting or team.found(*where), rank, 2, Execution())
        loss = step_of(RUN, task, Execution(), print)(task.batch, 0.0)
        (mean,) = company.mean([float(loss)])
        company.part()
        return mean, *(parameter.grad.tolist() for parameter in net.parameters())

    net, task = learner(Share())
    loss = Step(RUN, task)(task.batch, 0.0)
    for mean, *gradients in forked(2, take_part):
        assert mean == pytest.approx(float(loss))
        for gradient, parameter in zip(gradients, net.parameters(), strict=True):
            assert torch.allclose(torch.tensor(gradient), parameter.grad, atol=1e-6)


def test_two_processes_end_with_the_same_weights_which_are_not_those_of_one(tmp_path):
    ended = together(RUN, tmp_path / "a")
    assert [one.how for one in ended] == ["done", "done"]
    assert same(ended[0].learned, ended[1].learned)
    assert not same(ended[0].moved.values(), ended[1].moved.values())  # batch statistics are each one's own
    alone = changed(gpus=1)
    trained = train(alone, Store(tmp_path / "b", tell=print).claim(alone, Execution()), Execution(), None, ignore)
    assert alone.id != RUN.id
    assert trained.curve != ended[0].curve
    assert alike(ended, together(RUN, tmp_path / "c"))


def ignore(steps, of, metrics):
    pass


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gpus": 3},
        {"method": "puzzlemix", "options": {"block_num": [4]}},
        {"method": "automix", "ema": 0.9},
    ],
    ids=["mixup", "three processes", "puzzlemix", "automix"],
)
def test_resume_of_several_processes_is_bit_identical(changes, tmp_path):
    run = changed(**changes)
    undisturbed = together(run, tmp_path / "undisturbed")
    assert {one.how for one in undisturbed} == {"done"}
    stopped = together(run, tmp_path / "stopped", stop_after=7)  # in the middle of the second epoch
    assert {one.how for one in stopped} == {"StoppedError: at step 7, saved; the next run goes on there"}
    assert alike(undisturbed, together(run, tmp_path / "stopped"))


@pytest.mark.parametrize("method", ["automix", "manifold_mixup", "augmix"])
def test_method_runs_in_two_processes_and_ends_equal_in_both(method, tmp_path):
    ended = together(changed(method=method, epochs=1), tmp_path)
    assert [one.how for one in ended] == ["done", "done"]
    assert same(ended[0].learned, ended[1].learned)


def test_search_runs_in_two_processes_and_ends_equal_in_both(tmp_path):
    teacher = changed(method="simple", gpus=1)
    search = changed(task="search", method="transformmix", teacher=teacher.to_dict(), lr=5e-4, test_images=100)
    bytes_of = untrained(teacher)
    ended = together(search, tmp_path, weights=lambda run: bytes_of)
    assert [one.how for one in ended] == ["done", "done"]
    assert same(ended[0].learned, ended[1].learned)
    assert ended[0].curve[-1]["excess"] > 0
    assert alike(ended, together(search, tmp_path / "again", weights=lambda run: bytes_of))


def test_images_that_workers_decode_are_shared_too(tmp_path):
    write_imagenet(tmp_path)
    options = {"train_images": 9, "test_images": 4, "batch_size": 4, "augment": "resized_crop"}
    run = Run(method="mixup", dataset="imagenet", model="tiny", epochs=2, gpus=2, **options)
    execution = Execution(data=str(tmp_path), workers=1, checkpoint_seconds=0)
    undisturbed = together(run, tmp_path / "a", execution=execution)
    assert [one.how for one in undisturbed] == ["done", "done"]
    assert same(undisturbed[0].learned, undisturbed[1].learned)
    together(run, tmp_path / "b", execution=execution, stop_after=3)
    assert alike(undisturbed, together(run, tmp_path / "b", execution=execution))


# ---- what goes wrong


def failing_in_the_third_step(error, *, rank=1):
    def doing(of_this_process):
        forward, calls = Mixup.forward, []

        def mixing(self, *given):
            calls.append(given)
            if len(calls) == 3:
                raise error
            return forward(self, *given)

        if of_this_process == rank:
            Mixup.forward = mixing

    return doing


def test_failure_of_another_process_is_the_run_s_with_its_own_words(tmp_path):
    ended = together(RUN, tmp_path, doing=failing_in_the_third_step(FloatingPointError("a saliency is NaN")))
    assert ended[0].how == "TeamError: process 1 of 2: DivergedError: in epoch 1, step 3, a saliency is NaN"
    end = Store(tmp_path, tell=print).ending(RUN)
    assert (end["state"], end["retryable"]) == ("failed", False)
    assert "mixing" in end["traceback"]


def test_failure_of_another_process_by_its_disk_may_be_tried_again(tmp_path):
    together(RUN, tmp_path, doing=failing_in_the_third_step(OSError(28, "No space left on device")))
    assert Store(tmp_path, tell=print).ending(RUN)["retryable"]


def test_process_with_other_data_is_refused(tmp_path):
    def doing(rank):
        load = materials.load
        if rank == 1:
            materials.load = lambda *about: (load(*about)[0], replace(load(*about)[1], fingerprint="other"))

    assert "have the fingerprint other" in together(RUN, tmp_path, doing=doing)[0].how


def test_failure_of_the_first_process_is_its_own_and_the_others_end(tmp_path):
    ended = together(RUN, tmp_path, doing=failing_in_the_third_step(FloatingPointError("a saliency is NaN"), rank=0))
    assert ended[0].how == "DivergedError: in epoch 1, step 3, a saliency is NaN"
    assert ended[1].how.startswith("RuntimeError")


def test_run_that_is_stopped_while_it_waits_for_its_others_stops(tmp_path):
    attempt = Store(tmp_path, tell=print).claim(RUN, Execution())
    attempt.stop.set()
    meeting, _ = team.opened("127.0.0.1")
    with pytest.raises(StoppedError), team.led(meeting, attempt, 2, Execution()):
        pass


def test_process_ends_with_the_first_one_whatever_it_is_at():
    def take_part(rank, meeting, where):
        if rank == 0:
            team.Team(meeting, 0, 2, Execution())
            os._exit(3)
        with team.followed(team.found(*where), 1, 2, Execution()):
            time.sleep(1000)  # as one would that waits for gradients on a GPU

    begun = time.monotonic()
    assert forked(2, take_part) == [None, None]
    assert time.monotonic() - begun < 30


def test_meeting_is_where_the_machine_is_known_or_where_it_is_told(monkeypatch):
    assert team.opened("127.0.0.1")[1][0] == "127.0.0.1"
    monkeypatch.setattr("socket.gethostname", lambda: "no-such-machine.invalid")
    assert team.opened(None)[1][0] == "127.0.0.1"


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 50, "gpus": 3}, "batch_size is 50, which 3 GPUs cannot share evenly; write a multiple of gpus"),
        ({"batch_size": 4, "gpus": 4}, "batch_size is 4, but each of 4 GPUs needs 2 images or more; make it larger, "),
        ({"gpus": 0}, "gpus must be 1 or more, not 0"),
    ],
)
def test_run_whose_batches_cannot_be_shared_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        changed(**changes)


@pytest.mark.parametrize("task", ["bank", "time"])
def test_task_that_trains_no_network_is_the_same_run_on_any_number_of_gpus(task):
    more = {"subjects": [changed(gpus=1).to_dict()]} if task == "time" else {}
    assert changed(task=task, **more).gpus == 1


def test_mixer_is_measured_by_the_smallest_part():
    mixer = SimpleNamespace(least=3)
    materials.check_batches(mixer, changed(gpus=1), 203)
    materials.check_batches(mixer, changed(train_images=198), 198)
    with pytest.raises(ValueError, match="leave each of 2 GPUs a part of 2; choose another batch_size"):
        materials.check_batches(mixer, changed(), 197)


def test_trial_is_of_one_gpu(tmp_path):
    recipe = {"digits/tiny": {"gpus": 4, "mini": {"epochs": 1}}}
    assert recipes.Recipes(tmp_path / "s.yaml", recipe).find("digits/tiny").mini.values == {"gpus": 1, "epochs": 1}


def test_slots_have_as_many_gpus_as_the_largest_run_needs(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-a,7,9")
    slots = devices.environments("cuda", None, 1, gpus=2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["4,5", "GPU-a,7"]
    assert [devices.own(slots[1], rank)["CUDA_VISIBLE_DEVICES"] for rank in (0, 1)] == ["GPU-a", "7"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in devices.environments("cuda", 3, 1, 2)][2] == "9,4"


def test_slots_on_the_cpu_have_cores_for_all_processes_of_a_run(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 8)
    assert len(devices.environments("cpu", None, 2, gpus=2)) == 2
    assert len(devices.environments("cpu", None, 2, gpus=16)) == 1


def test_run_that_needs_more_gpus_than_are_visible_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (tmp_path / "s.yaml").write_text(SWEEP.replace("gpus: 2", "gpus: 4"))
    sweep = load_sweep(tmp_path / "s.yaml", data=tmp_path, results=tmp_path)
    store = Store(tmp_path / "r", tell=print)
    planned = launch.plan(sweep, store)
    with pytest.raises(ValueError, match=r"^mixup-digits-tiny-s0-\w+ needs 4 GPUs, 2 are visible; change gpus"):
        launch.launch(planned, store, Execution(device="cuda"), None, Heard())
    assert not store.folder(planned.todo[0]).exists()


# ---- processes

PATIENCE = 180.0
"""Seconds; four processes import torch before anything happens, and others may be at work on the machine."""

SWEEP = """
settings: [digits/tiny]
methods: [mixup]
seeds: [0]
recipes:
  digits/tiny: {gpus: 2, epochs: 1000000, batch_size: 48, pad: 1, train_images: 203, checkpoint_seconds: 0}
"""


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results", tell=print)


def pool(store, heard, **seam):
    return Pool(store, lambda run: Execution(), heard, [{"OMP_NUM_THREADS": "1"}], **seam)


class Killing(Heard):
    """Kills a process of the run once that goes on: the first, or another one."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def moved(self, run, at):
        if not self.moving:
            os.kill(sorted(children(os.getpid()))[self.number], signal.SIGKILL)
        super().moved(run, at)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_run_is_lost_at_once_when_any_of_its_processes_is_killed_and_nobody_is_left(number, store):
    heard = Killing(number)
    pool(store, heard).work([LONG])
    ((_, state, text),) = heard.endings
    assert (state, text) == ("lost", "its process died (SIGKILL); the next run goes on from its last checkpoint")
    assert children(os.getpid()) == []
    assert store.ending(LONG) is None  # it did not fail, and is taken up again
    assert not store.alive(LONG)


@pytest.mark.slow
def test_pool_trains_runs_of_several_processes_and_of_one_after_each_other(store):
    heard, asked = Heard(), []

    def seen(environment, count):
        asked.append((environment, count))
        return others(environment, count)

    pool(store, heard, others=seen).work([RUN, changed(gpus=1)])
    assert [state for _, state, _ in heard.endings] == ["done", "done"]
    assert asked == [({"OMP_NUM_THREADS": "1"}, 2)]
    assert {path.name for path in (store.folder(RUN) / "attempts" / "1").iterdir()} >= {"out.txt", "out-1.txt"}
    assert children(os.getpid()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_run_of_several_processes_saves_and_ends_when_the_launcher_is_asked_to_or_dies(number, tmp_path):
    (tmp_path / "s.yaml").write_text(SWEEP)
    command = [sys.executable, "-m", "mixbench", "run", str(tmp_path / "s.yaml"), "--results", str(tmp_path / "r")]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(tmp_path.glob("r/runs/*/ckpt/*.pt")))
        workers = children(launcher.pid)
        assert len(workers) == 2
        launcher.send_signal(number)
        launcher.wait(timeout=PATIENCE)
        wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    finally:
        launcher.kill()
        launcher.wait()
    (end,) = tmp_path.glob("r/runs/*/attempts/1/end.json")
    assert files.read(end)["state"] == "stopped"


def wait_for(there):
    deadline = time.monotonic() + PATIENCE
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)
