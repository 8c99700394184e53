"""Runs that repeat bit for bit on GPUs."""

import os

import jax

# "Guarantees run-to-run determinism on GPU": no kernel whose result depends on the order in which
# threads add, and no choice among kernels by how fast they were this time.
_FLAG = "--xla_gpu_deterministic_ops=true"


def use_deterministic_kernels() -> None:
    """Has XLA compile programs for GPUs that give the same bits on each run, on the same kind of
    GPU with the same versions. To be called before JAX's backend starts.

    Elsewhere it changes nothing: CPU and TPU programs repeat by themselves.

    Reference: openxla.org/xla/determinism.
    """
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
    # Kept beside the compilation cache: kernels that were the fastest in runs without this flag.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
