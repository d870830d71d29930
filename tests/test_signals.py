"""Signals that ask to stop: none is lost, and none is heard where it would do harm."""

import os
import signal
import threading
import time

import pytest

from mixbench import signals


def interrupted(done):
    with signals.put_off({signal.SIGINT}):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        done.append("written down")


def test_ctrl_c_that_is_put_off_is_heard_afterwards_whatever_thread_the_system_gives_it_to():
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    done = []
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted(done)
    finally:
        over.set()
        other.join()
    assert done == ["written down"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
