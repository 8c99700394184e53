"""Settings of the process: deterministic kernels, the compilation cache, malloc."""

import ctypes
import os
import pathlib
import sys

import jax

from segjax.destinations import check_folder


def use_deterministic_kernels() -> None:
    """Makes programs on GPUs give the same bits in every run.

    This holds on the same kind of GPU with the same versions. CPU and TPU programs repeat anyway.
    Call it before JAX's backend starts.

    Reference: openxla.org/xla/determinism.
    """
    # No kernel whose result depends on the order in which threads add, and no choice of kernels by
    # their measured speed.
    flag = "--xla_gpu_deterministic_ops=true"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    # XLA caches the kernels that were fastest in earlier runs; these runs may lack the flag.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in $JAX_COMPILATION_CACHE_DIR or ~/.cache/segjax.

    Without a folder that can be written, none are kept.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = pathlib.Path(home) / "segjax" / "xla"
        if home.startswith("~"):  # of a user without a home
            return
        try:
            check_folder(cache, "the cache of programs")
        except ValueError:
            return
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Makes glibc's malloc keep freed memory where JAX computes on the CPU.

    Every step allocates its arrays anew. By default malloc returns each large block to the kernel,
    which then clears fresh pages; that costs more than writing them (256 MiB of floats: 65 ms
    fresh, 23 ms kept). Only the main thread's arena can keep large blocks, so programs on CPUs run
    in the thread that calls them. Without glibc nothing changes.

    The function starts JAX's backend, so the processes of a run must be connected before; and
    nothing may have started it before.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if jax.default_backend() != "cpu":
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)  # never
    mallopt(top_pad, 64 * 2**20)
