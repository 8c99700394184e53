"""Options of XLA's compiler, for `jax.jit(..., compiler_options=...)`. Only CPUs have any."""

import functools
from typing import Any

import jax

# The level at which LLVM optimises; XLA's default is 3. Training steps take the same time at 2, and
# compile in 3/4 of it (docs/speed_loop.md).
_LEVEL = "xla_backend_optimization_level"

# XLA hands convolutions and products on CPUs to YNNPACK, whose convolution is slow where the window
# is a map, as in a kernel's gradient: it took 3 to 6 times as long as Eigen's, and a step of SegNet
# half as long again (`python -m benchmarks.peers segnet`). Reductions gain by YNNPACK.
_BY_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

Options = dict[str, Any]


def for_training(platform: str) -> Options:
    """For a training step on devices of a platform ("cpu", "gpu", "tpu")."""
    return {_LEVEL: 2, **_by_eigen()} if platform == "cpu" else {}


def for_one_run(platform: str) -> Options:
    """For a program that runs once: the time to compile it counts, not its own."""
    return {_LEVEL: 1} if platform == "cpu" else {}


@functools.cache
def _by_eigen() -> Options:
    """`_BY_EIGEN`, or nothing where the compiler refuses it: experimental options come and go."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    identity = jax.jit(lambda x: x, in_shardings=device, compiler_options=dict(_BY_EIGEN))
    try:
        identity.lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _BY_EIGEN
