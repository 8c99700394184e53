"""Compiles and measures the programs of a config, and finds changes of it that fit in memory."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections

from segjax.accelerators import Program, TooLargeError, compile_and_read
from segjax.console import Console
from segjax.training.progress import print_line
from segjax.training.remat import POLICIES
from segjax.training.setup import Setup, setup_programs

STEPS = ("train", "evaluate")


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the config, compiled.

    Attributes:
      options: "train.batch_size" and the like, with their values.
      peak: bytes a device.
      fits: whether that is less than what the device has.
    """

    options: Mapping[str, Any]
    peak: float
    fits: bool

    def __str__(self) -> str:
        return " ".join(f"--config.{name}={value}" for name, value in self.options.items())


def lowered(setup: Setup, step: str) -> jax.stages.Lowered:
    """The step "train" or "evaluate", ready to be compiled."""
    state = setup.abstract_state()
    if step == "train":
        return setup.train_step().lower(state, setup.abstract_batch())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return setup.eval_step().lower(variables, setup.abstract_eval_batch())


def compiled(setup: Setup, step: str) -> Program:
    """Compiles the step "train" or "evaluate", and measures it.

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
    """Changes of a config whose training step does not fit, found by compiling: the largest batch,
    rematerialisation, and image rows shared by several devices.

    Args:
      limit: bytes that a device has for a program.
      peak: bytes that the config's own step needs.
    """

    def compile_changed(options: Mapping[str, Any]) -> Change:
        began = time.monotonic()
        try:
            setup = setup_programs(_changed(config, options), devices)
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

    options = [{"train.remat": policy} for policy in _policies(config["train"]["remat"])]
    options += [
        {"parallel.space": space, "parallel.data": len(devices) // space}
        for space in _shares(config, len(devices))
    ]
    changes = [compile_changed(each) for each in options]
    setup = setup_programs(config, devices)
    unit = setup.devices.mesh.shape["data"] * config["train"]["accumulate"]
    units = setup.padded_batch_size // unit

    def batch(count: int) -> Change:
        return compile_changed({"train.batch_size": count * unit})

    return [*changes, *largest(batch, units, peak, limit)]


def largest(batch: Callable[[int], Change], count: int, peak: float, limit: float) -> list[Change]:
    """The largest batch below `count` that fits, to within 3 %, as a list of one Change. If none
    fits, the list holds the batch of 1; it is empty if `count` is 1.

    The memory grows about linearly with the batch, so the next guess lies on the line between the
    largest batch that fits and the smallest that does not.

    Args:
      batch: compiles a batch of n units.
      count: a batch that needs `peak` bytes, more than `limit`.
    """
    if count == 1:
        return []
    low = batch(1)
    at, low_peak, high, high_peak = 1, low.peak, count, peak
    while low.fits and high - at > 1 + at // 32:
        slope = max((high_peak - low_peak) / (high - at), 1.0)
        # At least 3 % further: near the limit XLA's GPU compiler rematerialises by itself, and the
        # line is a curve.
        step = max(int((limit - low_peak) / slope), 1 + at // 32)
        guess = min(at + step, high - 1)
        change = batch(guess)
        if change.fits:
            low, at, low_peak = change, guess, change.peak
        else:
            high, high_peak = guess, change.peak
    return [low]


def _policies(now: str) -> tuple[str, ...]:
    """The policies of `train.remat` that keep less than the present one."""
    return POLICIES[POLICIES.index(now) + 1 :]


def _shares(config: Mapping[str, Any], count: int) -> Iterator[int]:
    """Numbers of devices that may share the rows of an image; none if they share them already."""
    rows, parallel = config["data"]["image_size"][0], config["parallel"]
    if parallel["mode"] == "jit" and parallel["space"] == 1:
        yield from [n for n in (2, 4, 8) if count % n == 0 and rows % n == 0]


def _changed(config: Mapping[str, Any], options: Mapping[str, Any]) -> ml_collections.ConfigDict:
    changed = ml_collections.ConfigDict(config).copy_and_resolve_references()
    changed.update_from_flattened_dict(options)
    return changed
