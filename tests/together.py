"""Trains a run in as many processes as it asks for, without a launcher: forked, so that torch is imported already."""

import multiprocessing
from dataclasses import dataclass

import torch

from mixbench import team, train
from mixbench.execution import Execution
from mixbench.store import Store

FORK = multiprocessing.get_context("fork")

AT_EACH_EPOCH = Execution(checkpoint_seconds=0)


@dataclass(frozen=True)
class Ended:
    """How it ended for one process.

    Attributes:
        how: done, or what was raised.
        learned: all parameters that learn, in order.
        moved: the buffers of what is trained, by name.
        curve: an entry an epoch, of the first process.
    """

    how: str
    learned: list
    moved: dict
    curve: list


def together(run, results, *, stop_after=None, weights=None, doing=None, execution=AT_EACH_EPOCH):
    """Train, or go on; how that ended for each process, in order.

    Args:
        run: with its ``gpus``.
        results: the folder.
        stop_after: so many steps, a stop is asked for.
        weights: fetches what other runs learned.
        doing: called in each process before it begins, with its rank.
        execution: of each process.
    """

    def take_part(rank, meeting, where):
        tasks = _remembered_tasks()
        how, curve = "done", []
        try:
            if doing:
                doing(rank)
            if rank == 0:
                curve = _lead(run, results, meeting, stop_after, weights, execution)
            else:
                _follow(run, where, rank, weights, execution)
        except Exception as error:
            how = f"{type(error).__name__}: {error}"
        learned = [parameter.detach().numpy() for task in tasks for _, group in task.groups for parameter in group]
        moved = {name: value.numpy() for task in tasks for name, value in task.trainable.named_buffers()}
        return Ended(how, learned, moved, curve)

    return forked(run.gpus, take_part)


def forked(count, take_part):
    """What so many processes return of ``take_part(rank, meeting, where)``, in order; the first has the meeting."""
    places, endings = FORK.SimpleQueue(), [FORK.Pipe() for _ in range(count)]

    def work(rank, ending):
        for other, (_, theirs) in enumerate(endings):
            if other != rank:
                theirs.close()  # else nobody would see that other's end
        torch.set_num_threads(1)
        meeting = None
        if rank == 0:
            meeting, where = team.opened("127.0.0.1")
            for _ in range(1, count):
                places.put(where)
        else:
            where = places.get()
        ending.send(take_part(rank, meeting, where))

    processes = [FORK.Process(target=work, args=(rank, ending)) for rank, (_, ending) in enumerate(endings)]
    for process in processes:
        process.start()
    for _, ending in endings:
        ending.close()
    ended = [_received(receiving) for receiving, _ in endings]
    for process in processes:
        process.join(timeout=10)
        process.kill()
    return ended


def _received(receiving):
    """What a process sent; None where it ended, or is still at it after a minute."""
    try:
        return receiving.recv() if receiving.poll(60) else None
    except EOFError:
        return None


def _lead(run, results, meeting, stop_after, weights, execution):
    attempt = Store(results, tell=print).claim(run, execution)
    done = []

    def progress(steps, of, metrics):
        done.append(steps)
        if len(done) == stop_after:
            attempt.stop.set()

    with attempt, team.led(meeting, attempt, run.gpus, execution) as leading:
        return train.train(run, leading, execution, weights, progress).curve


def _follow(run, where, rank, weights, execution):
    with team.followed(team.found(*where), rank, run.gpus, execution) as following:
        train.train(run, following, execution, weights, lambda *_: None)


def _remembered_tasks():
    """A list that will hold the task which this process makes."""
    tasks, for_rank = [], train.for_rank
    train.for_rank = lambda rank, task: tasks.append(task) or for_rank(rank, task)
    return tasks
