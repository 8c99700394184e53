"""Settings of the process that a run is in."""

import ctypes
import os
import pathlib
import sys

import jax


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/segjax."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "segjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Has glibc's malloc keep freed memory instead of returning every large block to the system,
    where the CPU is what JAX computes on.

    There a step's arrays are allocated anew each time, and the kernel's clearing of fresh pages
    costs more than writing them (2x240x320x64 floats: 10 ms fresh, 2 ms kept). Does nothing where
    there is no glibc. To be called once the processes of a run have found each other: it has JAX
    look for devices.
    """
    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 64 * 2**20)
