"""What a machine is: `python -m benchmarks.gpu.facts` prints it as JSON."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess

PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "flax", "optax", "numpy"),
    *("orbax-checkpoint", "grain", "tensorflow-datasets", "torch", "torchvision", "triton"),
    *("nvidia-cudnn-cu13", "nvidia-cublas", "segmentation_models_pytorch"),
)
_QUERY = "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit"
_VARIABLES = ("XLA_", "JAX_", "CUDA_", "NVIDIA_")


def facts() -> dict[str, str]:
    """By name, in words: GPU, devices of JAX, versions, processor, variables."""
    import jax

    from benchmarks.peers import machine

    host = machine.describe()
    variables = {k: v for k, v in sorted(os.environ.items()) if k.startswith(_VARIABLES)}
    return {
        "GPU": gpu(),
        "JAX": f"{jax.default_backend()}: {', '.join(d.device_kind for d in jax.devices())}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "machine": f"{host['processor']}, {host['cores']} cores, "
        f"{host['memory'] / 2**30:.0f} GiB, {host['system']}, Python {platform.python_version()}",
        "environment": " ".join(f"{k}={v}" for k, v in variables.items()),
    }


def gpu() -> str:
    """What nvidia-smi says, or that there is none."""
    if not shutil.which("nvidia-smi"):
        return "no nvidia-smi"
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    values = (done.stdout or done.stderr).strip().splitlines()
    return f"{_QUERY}: {'; '.join(values)}"


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    print(json.dumps(facts()))
