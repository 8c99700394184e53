"""Accelerators that need not be present: a table of them, compiling for them, program costs."""

from segjax.accelerators.collectives import Collective, collectives
from segjax.accelerators.devices import DEVICES, Device
from segjax.accelerators.program import (
    Bound,
    Program,
    TooLargeError,
    bound,
    compile_and_read,
    peak_of,
    read,
    usable_memory,
)
from segjax.accelerators.targets import Target, missing_plugin, parse, without_devices

__all__ = [
    "DEVICES",
    "Bound",
    "Collective",
    "Device",
    "Program",
    "Target",
    "TooLargeError",
    "bound",
    "collectives",
    "compile_and_read",
    "missing_plugin",
    "parse",
    "peak_of",
    "read",
    "usable_memory",
    "without_devices",
]
