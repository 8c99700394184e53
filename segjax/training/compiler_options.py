"""Options of XLA's compiler for training steps."""

import functools
from collections.abc import Mapping

import jax

# XLA hands convolutions and products on CPUs to YNNPACK, whose convolution is slow where the window
# is a map, as in a kernel's gradient: it took 3 to 6 times as long as Eigen's, and a step of SegNet
# half as long again (`python -m benchmarks.peers segnet`). Reductions gain by YNNPACK.
_ON_CPU = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def for_training(platform: str) -> Mapping[str, str]:
    """What `jax.jit(..., compiler_options=...)` should be given for a training step; nothing where
    the platform or the installed XLA has no such option."""
    return _known_on_cpu() if platform == "cpu" else {}


@functools.cache
def _known_on_cpu() -> Mapping[str, str]:
    """The options for CPUs if the compiler takes them; XLA's experimental ones come and go."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    identity = jax.jit(lambda x: x, in_shardings=device, compiler_options=_ON_CPU)
    try:
        identity.lower(0.0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _ON_CPU
