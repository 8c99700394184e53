"""Calls ahead of their use: order, errors, and a call that hangs."""

import os
import subprocess
import sys
import threading
import time

import pytest

from segjax.data.read_ahead import DaemonThreads, read_ahead


def run(calls, *, threads=2, ahead=4, timeout_s=10.0):
    return read_ahead(
        calls, threads=threads, ahead=ahead, timeout_s=timeout_s, reading=lambda: "a.png"
    )


def late(number):
    time.sleep(0.02 * (number % 3 == 0))
    return number


@pytest.mark.parametrize("threads, ahead", [(1, 1), (1, 3), (4, 2), (4, 8)])
def test_results_come_in_order_whichever_thread_is_slow(threads, ahead):
    calls = ((late, number) for number in range(12))
    assert list(run(calls, threads=threads, ahead=ahead)) == list(range(12))


def test_no_calls_no_results():
    assert list(run(())) == []


def test_no_more_than_ahead_is_called():
    called = []
    results = run(((called.append, number) for number in range(100)), ahead=3)
    for taken in range(1, 6):
        next(results)
        time.sleep(0.02)
        assert len(called) <= taken + 2
    results.close()
    time.sleep(0.02)
    assert len(called) <= 7


def test_an_error_comes_at_its_place_and_ends_it():
    def inverse(number):
        if number == 6:
            raise TimeoutError("the file server's own")
        return 1 / (number - 3)

    results = run((inverse, number) for number in range(10))
    assert [next(results) for _ in range(3)] == [1 / -3, 1 / -2, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="the file server's own"):  # at once, and as it is
        list(run(((inverse, 6),)))
    assert time.monotonic() - began < 5


def test_a_call_that_hangs_ends_in_an_error_that_says_what_it_reads():
    released = threading.Event()
    results = run(((late, 1), (released.wait, None)), timeout_s=0.3)
    assert next(results) == 1
    began = time.monotonic()
    message = r"no data for 0\.3 s \(data\.timeout_s\) while reading a\.png; see whether .* larger"
    with pytest.raises(TimeoutError, match=message):
        next(results)
    assert 0.3 <= time.monotonic() - began < 5
    released.set()


def test_threads_end_with_what_they_serve():
    before = set(threading.enumerate())
    threads = [DaemonThreads(3), DaemonThreads(2)]
    own = set(threading.enumerate()) - before
    assert len(own) == 5
    assert threads[0].submit(late, 5).result(5) == 5
    threads[0].close()
    del threads[1]  # nobody closed these
    for thread in own:
        thread.join(5)
    assert not any(thread.is_alive() for thread in own)


def test_a_thread_that_hangs_does_not_keep_the_interpreter():
    program = """
import threading
from segjax.data.read_ahead import DaemonThreads, read_ahead
never = threading.Event()
pool = DaemonThreads(1)
pool.submit(lambda: (never.wait(0.5), print("ended", flush=True)))
results = read_ahead(
    [(never.wait, None)], threads=1, ahead=1, timeout_s=0.1, reading=lambda: "a.png"
)
next(results)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("TimeoutError: no data for 0.1 s")
    assert done.stdout == "ended\n"  # of a call that does end, the end is awaited
