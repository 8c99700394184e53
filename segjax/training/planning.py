"""Compiles the programs of a config, reads their costs, and finds changes that make them fit."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from rich.console import Console

from segjax.accelerators import Program, TooLargeError, compile_and_read
from segjax.training.progress import print_line
from segjax.training.setup import Setup, prepare_programs

STEPS = ("train", "evaluate")


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the config whose training step was compiled.

    Attributes:
      options: the new value of each option, by name such as "train.batch_size".
      peak: bytes on one device.
      fits: whether the device has so much memory.
    """

    options: Mapping[str, Any]
    peak: float
    fits: bool

    def __str__(self) -> str:
        return " ".join(f"--config.{name}={value}" for name, value in self.options.items())


def lowered(setup: Setup, step: str) -> jax.stages.Lowered:
    """Lowers the step "train" or "evaluate"."""
    state = setup.abstract_state()
    if step == "train":
        return setup.train_step().lower(state, setup.abstract_batch())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return setup.eval_step().lower(variables, setup.abstract_eval_batch())


def compiled(setup: Setup, step: str) -> Program:
    """Compiles the step "train" or "evaluate" and reads its costs.

    Raises:
      TooLargeError: if the compiler knows the device's memory and the program does not fit.
    """
    return compile_and_read(lowered(setup, step))


def what_fits(
    config: Mapping[str, Any],
    devices: Sequence[jax.Device],
    limit: float,
    peak: float,
    console: Console,
) -> list[Change]:
    """Compiles changes of a config whose training step does not fit: rematerialisation, image rows
    shared by several devices, and the largest batch.

    Args:
      devices: to compile for.
      limit: bytes that a program may use on a device.
      peak: bytes that the config's own step needs.
      console: for a line about each change.
    """

    def compile_with(**options: Any) -> Change:
        options = {name.replace("__", "."): value for name, value in options.items()}
        began = time.monotonic()
        try:
            setup = prepare_programs(_changed(config, options), devices)
            needed = float(compiled(setup, "train").peak)
        except TooLargeError as error:
            needed = error.needed
        change = Change(options, needed, needed <= limit)
        verdict = "fits" if change.fits else "does not fit"
        print_line(
            console,
            f"  {change}: {needed / 2**30:,.2f} GiB, {verdict} "
            f"({time.monotonic() - began:.0f} s to compile)",
        )
        return change

    changes = [compile_with(train__remat=policy) for policy in _policies(config["train"]["remat"])]
    changes += [
        compile_with(parallel__space=space, parallel__data=len(devices) // space)
        for space in _shares(config, len(devices))
    ]
    setup = prepare_programs(config, devices)
    unit = setup.devices.mesh.shape["data"] * config["train"]["accumulate"]
    units = setup.padded_batch_size // unit

    def batch(count: int) -> Change:
        return compile_with(train__batch_size=count * unit)

    return [*changes, *largest(batch, units, peak, limit)]


def largest(batch: Callable[[int], Change], count: int, peak: float, limit: float) -> list[Change]:
    """The largest batch of 1..count-1 that fits, to within 3 %, as a list of one; 1 if none does.

    Memory grows almost linearly with the batch. So the next guess interpolates between the largest
    batch that fits and the smallest that does not.

    Args:
      batch: compiles a batch of so many units.
      count: units that need `peak` bytes, which is more than `limit`.
    """
    if count == 1:
        return []
    low = batch(1)
    at, low_peak, high, high_peak = 1, low.peak, count, peak
    while low.fits and high - at > 1 + at // 32:
        slope = max((high_peak - low_peak) / (high - at), 1.0)
        # Near the limit XLA's GPU compiler rematerialises on its own, which bends the line: a step
        # has a minimum.
        step = max(int((limit - low_peak) / slope), 1 + at // 32)
        guess = min(at + step, high - 1)
        change = batch(guess)
        if change.fits:
            low, at, low_peak = change, guess, change.peak
        else:
            high, high_peak = guess, change.peak
    return [low]


def _policies(current: str) -> tuple[str, ...]:
    policies = ("none", "convs", "blocks")
    return policies[policies.index(current) + 1 :]


def _shares(config: Mapping[str, Any], count: int) -> Iterator[int]:
    """Numbers of devices that could share the rows of an image, if none share them yet."""
    rows, parallel = config["data"]["image_size"][0], config["parallel"]
    if parallel["mode"] == "jit" and parallel["space"] == 1:
        yield from [n for n in (2, 4, 8) if count % n == 0 and rows % n == 0]


def _changed(config: Mapping[str, Any], options: Mapping[str, Any]) -> ml_collections.ConfigDict:
    changed = ml_collections.ConfigDict(config).copy_and_resolve_references()
    changed.update_from_flattened_dict(options)
    return changed
