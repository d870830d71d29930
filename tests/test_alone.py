"""Who waits for whom, so that no measurement is disturbed."""

import threading
import time

import pytest

from mixbench.alone import sharing
from mixbench.endings import StoppedError


class Worker(threading.Thread):
    """Shares the machine, or has it alone, until it is let go."""

    def __init__(self, results, *, alone):
        super().__init__(daemon=True)
        self.results, self.alone = results, alone
        self.told, self.stop, self.inside, self.over = [], threading.Event(), threading.Event(), threading.Event()
        self.error = None
        self.start()

    def run(self):
        try:
            with sharing(self.results, alone=self.alone, stop=self.stop, tell=self.told.append):
                self.inside.set()
                self.over.wait()
        except StoppedError as error:
            self.error = error

    def waits(self):
        deadline = time.monotonic() + 20
        while not self.told and time.monotonic() < deadline:
            time.sleep(0.01)
        return bool(self.told) and not self.inside.is_set()


@pytest.fixture
def worker(tmp_path):
    started = []

    def start(*, alone, results=tmp_path):
        started.append(Worker(results, alone=alone))
        return started[-1]

    yield start
    for one in started:
        one.stop.set()
        one.over.set()
        one.join(20)


def test_what_trains_shares_the_machine(worker):
    assert all(worker(alone=False).inside.wait(20) for _ in range(2))


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_nothing_is_at_work_beside_a_measurement(worker, first, second):
    one = worker(alone=first)
    assert one.inside.wait(20)
    other = worker(alone=second)
    assert other.waits()
    one.over.set()
    assert other.inside.wait(20)


def test_other_results_do_not_matter(worker, tmp_path):
    assert worker(alone=True).inside.wait(20)
    assert worker(alone=True, results=tmp_path / "others").inside.wait(20)


def test_a_stop_ends_the_waiting(worker):
    assert worker(alone=True).inside.wait(20)
    other = worker(alone=True)
    assert other.waits()
    other.stop.set()
    other.join(20)
    assert "nothing was begun" in str(other.error)
