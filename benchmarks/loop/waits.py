"""The share of the time in which the device waits for data."""

import argparse
import pathlib
import queue
import threading
import time
from typing import Any

import jax

from benchmarks.loop.files import FORMS, config_of, write
from segjax.training.batches import DeviceIterator
from segjax.training.runtime import keep_freed_memory
from segjax.training.setup import Setup, setup_run

_WARM_UP = 3  # steps before those that are timed


def measure(folder: pathlib.Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each form of data and number of workers."""
    keep_freed_memory()
    step, rows = None, []
    for form in FORMS:
        config = config_of(options.tiny)
        config.data.update(write(folder, form, options.images, options.tiny))
        for workers in map(int, options.workers.split(",")):
            config.data.workers = workers
            setup = setup_run(config)
            step = step or setup.train_step()  # one program for all: the shapes are the same
            rows.append({"data": form, "workers": workers, **_steps(setup, step, options.steps)})
    return rows


def _steps(setup: Setup, step, count: int) -> dict[str, float]:
    """Seconds a step, images a second, and the share in which no step was on the device."""
    state, handed, results = setup.init_state(), [], []
    ended: list[float] = []
    done: queue.SimpleQueue = queue.SimpleQueue()

    def watch() -> None:
        while (loss := done.get()) is not None:
            loss.block_until_ready()
            ended.append(time.perf_counter())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with DeviceIterator(setup) as batches:
        for _ in range(_WARM_UP + count):
            batch = next(batches)
            handed.append(time.perf_counter())
            state, metrics = step(state, batch)
            done.put(metrics["loss"])
            results.append(metrics["loss"])
            if len(results) > 2:  # as `MetricsLogger`, which reads the numbers two steps late
                jax.device_get(results[-3])
    done.put(None)
    watcher.join()
    first = _WARM_UP - 1
    pairs = zip(handed[_WARM_UP:], ended[first:], strict=False)
    seconds = ended[-1] - ended[first]
    return {
        "seconds a step": seconds / count,
        "images/s": count * setup.config["train"]["batch_size"] / seconds,
        "device waits": sum(max(0.0, begun - last) for begun, last in pairs) / seconds,
    }
