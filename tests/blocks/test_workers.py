"""Threads that nothing waits for at the end."""

import subprocess
import sys
import threading
import time

import pytest

from blocks.workers import Workers


def test_results_are_in_order() -> None:
    with Workers(3, "test") as pool:
        assert list(pool.map(lambda n: n * n, range(20))) == [n * n for n in range(20)]


def test_no_more_at_once_than_asked_for() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    with Workers(2, "test") as pool:
        list(pool.map(work, range(10)))
    assert most <= 2


def test_an_error_reaches_the_caller() -> None:
    with Workers(2, "test") as pool, pytest.raises(ZeroDivisionError):
        list(pool.map(lambda n: 1 // n, (1, 0)))


def test_a_call_that_hangs_delays_neither_its_caller_nor_the_end_of_the_process() -> None:
    program = """
import threading, time
from blocks.workers import Workers
began = time.monotonic()
try:
    with Workers(2, "test") as pool:
        hanging = pool.submit(threading.Event().wait)
        pool.submit(lambda: 1 // 0).result(10)
except ZeroDivisionError:
    print("left")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "left\n", done.stderr
