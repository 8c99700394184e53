"""The accelerators that programs can be compiled for, as data with its sources.

Peaks are the vendors' dense ones, per chip. The peak of float32 is that of JAX's default precision:
NVIDIA's tensor cores multiply TF32 (10 bits of mantissa), a TPU multiplies bfloat16 in one pass;
both add in float32.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The facts that XLA's GPU compiler needs besides the memory.

    Attributes:
      capability: compute capability, (major, minor).
      cores: streaming multiprocessors.
      fpus: float32 units per core.
      shared_memory: bytes per core, and the most that one block may use.
      l2_cache: bytes.
      clock_ghz: highest clock.
    """

    capability: tuple[int, int]
    cores: int
    fpus: int
    shared_memory: tuple[int, int]
    l2_cache: int
    clock_ghz: float


@dataclasses.dataclass(frozen=True)
class Device:
    """One kind of accelerator.

    Attributes:
      name: in a target, see `targets`.
      kind: JAX's `device_kind`.
      memory: bytes of a chip that programs can use, as XLA reports them.
      bandwidth: of the memory, bytes a second.
      peak: FLOP/s by the dtype of the factors, as JAX spells it.
      float32_runs_as: the precision of float32 convolutions.
      sources: addresses.
      gpu: for XLA's GPU compiler; None = a TPU.
      dimensions: of a TPU's topology, 2 or 3; 0 = a GPU.
      per_chip: XLA's devices per chip, which share its memory and its peak. The TPU library
        compiles for each of the two cores of a v4.
    """

    name: str
    kind: str
    memory: int
    bandwidth: float
    peak: Mapping[str, float]
    float32_runs_as: str
    sources: tuple[str, ...]
    gpu: Gpu | None = None
    dimensions: int = 0
    per_chip: int = 1

    @property
    def platform(self) -> str:
        return "cuda" if self.gpu else "tpu"


_SPECS = "https://github.com/openxla/xla/tree/main/xla/backends/gpu/target_config/specs"
_HOPPER = Gpu((9, 0), 132, 128, (233472, 232448), 52428800, 1.98)
# NVIDIA prints most of its numbers with sparsity, which is twice these.
_HOPPER_PEAK = {"bfloat16": 989.4e12, "float32": 494.7e12}
_TPU_BOOK = "https://jax-ml.github.io/scaling-book/tpus"

DEVICES: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(
            "a100",
            "NVIDIA A100-SXM4-80GB",
            memory=85100068864,
            bandwidth=2.039e12,
            peak={"bfloat16": 312e12, "float32": 156e12},
            float32_runs_as="TF32",
            sources=("https://www.nvidia.com/en-us/data-center/a100/", _SPECS),
            gpu=Gpu((8, 0), 108, 64, (167936, 166912), 41943040, 1.41),
        ),
        Device(
            "h100",
            "NVIDIA H100 80GB HBM3",
            memory=84942979072,
            bandwidth=3.35e12,
            peak=_HOPPER_PEAK,
            float32_runs_as="TF32",
            sources=("https://www.nvidia.com/en-us/data-center/h100/", _SPECS),
            gpu=_HOPPER,
        ),
        Device(
            "h200",
            "NVIDIA H200",
            memory=151397597184,
            bandwidth=4.8e12,
            peak=_HOPPER_PEAK,
            float32_runs_as="TF32",
            sources=("https://www.nvidia.com/en-us/data-center/h200/", _SPECS),
            gpu=_HOPPER,
        ),
        Device(
            "b200",
            "NVIDIA B200",
            memory=191514411008,
            bandwidth=7.67e12,  # XLA's; NVIDIA says 7.7 or 8 TB/s
            peak={"bfloat16": 2250e12, "float32": 1100e12},
            float32_runs_as="TF32",
            sources=(
                "https://www.nvidia.com/en-us/data-center/hgx/",
                "https://glennklockwood.com/garden/processors/B200",
                _SPECS,
            ),
            gpu=Gpu((10, 0), 148, 128, (233472, 232448), 132644864, 1.965),
        ),
        Device(
            "v4",
            "TPU v4",
            memory=32 * 2**30,
            bandwidth=1.2e12,
            peak={"bfloat16": 275e12, "float32": 275e12},
            float32_runs_as="one bfloat16 pass",
            sources=("https://cloud.google.com/tpu/docs/v4", _TPU_BOOK),
            dimensions=3,
            per_chip=2,
        ),
        Device(
            "v5e",
            "TPU v5 lite",
            memory=16 * 2**30,
            bandwidth=819e9,
            peak={"bfloat16": 197e12, "float32": 197e12},
            float32_runs_as="one bfloat16 pass",
            sources=("https://cloud.google.com/tpu/docs/v5e", _TPU_BOOK),
            dimensions=2,
        ),
        Device(
            "v5p",
            "TPU v5",
            memory=95 * 2**30,
            bandwidth=2.765e12,
            peak={"bfloat16": 459e12, "float32": 459e12},
            float32_runs_as="one bfloat16 pass",
            sources=("https://cloud.google.com/tpu/docs/v5p", _TPU_BOOK),
            dimensions=3,
        ),
        Device(
            "v6e",
            "TPU v6 lite",
            memory=32 * 2**30,
            bandwidth=1.638e12,
            peak={"bfloat16": 918e12, "float32": 918e12},
            float32_runs_as="one bfloat16 pass",
            sources=("https://cloud.google.com/tpu/docs/v6e", _TPU_BOOK),
            dimensions=2,
        ),
    )
}


def xla_target_config(device: Device) -> str:
    """A GPU's description for XLA's compiler: a GpuTargetConfigProto in text.

    The limits of CUDA and the versions of jaxlib's libraries are the same for all GPUs.
    """
    gpu = device.gpu
    major, minor = gpu.capability
    # Real GPUs from Hopper on report this extension too.
    extension = "feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} {extension} }}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus}
  shared_memory_per_core: {gpu.shared_memory[0]}
  shared_memory_per_block_optin: {gpu.shared_memory[1]}
  shared_memory_per_block: 49152
  l2_cache_size: {gpu.l2_cache}
  clock_rate_ghz: {gpu.clock_ghz}
  memory_bandwidth: {device.bandwidth:.0f}
  device_memory_size: {device.memory}
  threads_per_block_limit: 1024
  threads_per_warp: 32
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 patch: 0 }}
device_description_str: "{device.kind}"
"""
