"""Between two epochs nothing waits for the device.

Tensors on torch's ``meta`` device have shapes and no values: whatever asks for a value, or makes a shape depend on one,
raises. So a step that runs there never waits on a GPU. On a real one, CUDA's own watch says the same. Mixers that have
to ask do so through a `Poll`, which counts.
"""

import copy
import dataclasses
from unittest import mock

import pytest
import torch
from cifar_files import write_cifar10

import methods
from methods import Batch
from methods.bank import empty
from methods.contract import SmallNetwork
from methods.ops import Poll
from methods.views import ViewCache
from mixbench import catalog, criteria, tasks
from mixbench.execution import Execution
from mixbench.fields import LINKS
from mixbench.spec import Run
from mixbench.step import Step
from mixbench.streams import Streams
from mixbench.train import State, steps

RUN = Run(method="simple", dataset="digits", model="tiny", epochs=2, batch_size=30, pad=1, train_images=100)


def built(name, device, **options):
    harness = {"teacher": SmallNetwork().to(device), "policy": None, "image_size": 32}
    harness["net"] = SmallNetwork().to(device)
    harness["bank"] = empty(3, 2, channels=3, side=32)._asdict()
    given = {what: harness[what] for what in catalog.declaration(name).given}
    return methods.build(name, options, given).to(device)


POLLS = [name for name in catalog.names() if built(name, "cpu").poll is not None]
NEVER_POLLS = sorted(set(catalog.names()) - set(POLLS))


OTHERWISE = [
    ("mixup", {"draw": "sample"}),
    ("cutmix", {"draw": "sample", "prob": 0.5}),
    ("saliencymix", {"saliency": "official"}),
    ("resizemix", {"draw": "sample"}),
    ("resizemix", {"definition": "mmpretrain", "draw": "sample"}),
    ("manifold_mixup", {"draw": "sample", "layers": (2,)}),
    ("supermix_offline", {"label_from": "lam"}),
    ("automix", {"lam_concat": True, "mask_loss_decay": True}),
    ("softmax_cam", {"label_from": "lam"}),
]


@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NEVER_POLLS), *OTHERWISE], ids=str)
def test_a_mixer_asks_the_device_for_no_value(name, options, kept):
    x = torch.rand(9, 3, 32, 32).to("meta")
    y = torch.eye(10)[torch.arange(9)].to("meta")
    net = SmallNetwork().to("meta")
    mixer = built(name, "meta", **options)
    mixer.views = ViewCache(9) if kept else None
    for _ in range(2):  # the second time, what it keeps is there
        mixed = mixer(Batch(x, y, torch.arange(9)), net)
        loss = mixed.loss(mixed.logits(net), criteria.cross_entropy)
        assert loss.device.type == "meta"


class Told(Poll):
    """Gives answers that nothing was computed for: first that all is well, then that all is done; and any values."""

    def __call__(self, value):
        self.count += 1
        return 1.0 if value.is_floating_point() else self.count == 1

    def values(self, of):
        self.count += 1
        return torch.rand(of.shape).to(of.dtype)


@pytest.mark.parametrize("name", POLLS)
def test_a_mixer_that_has_to_ask_asks_for_nothing_but_what_it_counts(name):
    x, y = torch.rand(8, 3, 16, 16).to("meta"), torch.eye(10)[:8].to("meta")
    net, mixer = SmallNetwork().to("meta"), built(name, "meta")
    mixer.poll = Told()
    with torch.no_grad():
        mixed = mixer(Batch(x, y), net)
    assert mixed.logits(net).device.type == "meta"
    assert mixer.poll.count > 0


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"method": "automix"}], ids=str)
def test_the_loop_asks_the_device_for_no_value_within_an_epoch(changes):
    run = Run.from_dict(RUN.to_dict() | changes)
    sgd = torch.optim.SGD
    plain = mock.patch.object(torch.optim, "SGD", lambda *args, fused, **kwargs: sgd(*args, foreach=False, **kwargs))
    with plain:
        task = tasks.Classify(run, Streams(0), Execution(device="meta"), None)
        step = Step(run, task)
    state = State(torch.zeros(task.steps, device="meta"))
    assert sum(1 for _ in steps(run, 0, task, step, state)) == task.steps == 4
    with pytest.raises(Exception, match=r"meta|Meta"):  # the one wait, once the epoch is over
        state.read_losses()


def test_the_meta_device_notices_a_value_that_is_asked_for():
    with pytest.raises(RuntimeError):
        torch.rand(3, device="meta").sum().item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in NEVER_POLLS if not {*catalog.declaration(name).given} & {*LINKS}])
def test_an_epoch_on_a_gpu_never_waits(name, precision, tmp_path):
    write_cifar10(tmp_path, per_batch=10)  # digits are too small for some
    run = dataclasses.replace(RUN, method=name, precision=precision, dataset="cifar10", train_images=None, ema=0.9)
    task = tasks.Classify(run, Streams(0), Execution(device="cuda", data=str(tmp_path)), None)
    step = Step(run, task)
    state = State(torch.zeros(task.steps, device="cuda"))
    for _ in steps(run, 0, task, step, copy.copy(state)):  # the first epoch chooses algorithms and allocates
        pass
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in steps(run, 1, task, step, state):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert min(state.read_losses()) > 0
