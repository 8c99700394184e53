"""The memory that a training step was predicted to need, and its measured peak.

Prediction and measurement are two processes: the first one compiles, where XLA tries kernels in
memory of its own; the second one takes the program from the cache.
"""

import json
import pathlib
import sys
from typing import Any

from benchmarks.gpu.launch import call

STEPS = 3


def run(
    folder: pathlib.Path, seconds: float, network: str, images: int, small: bool
) -> dict[str, Any]:
    found = {}
    for work in ("predict", "measure"):
        file = folder / f"{work}.json"
        order = {"network": network, "images": images, "small": small, "work": work}
        call([sys.executable, "-m", "benchmarks.gpu.memory", json.dumps(order), str(file)])
        found |= json.loads(file.read_text())
    return summary(found)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Both in GiB, and their ratio."""
    predicted, measured = found["predicted"], found["measured"]
    text = f"predicted {predicted / 2**30:.2f} GiB"
    if measured is None:
        return {**found, "good": None, "text": f"{text}; this device does not say its peak"}
    text += f", measured {measured / 2**30:.2f} GiB, {measured / predicted:.3f} of that"
    return {**found, "good": None, "text": text}


def _config(network: str, images: int, small: bool) -> Any:
    from benchmarks.profiles.networks import ON_ACCELERATORS

    config = ON_ACCELERATORS[network].config("bfloat16")
    config.train.batch_size = images
    if small:
        config.data.image_size = (96, 128)
        config.augment.crop_size = (0, 0)
    config.parallel.data = 1
    return config


def _program(order: dict[str, Any]) -> tuple[Any, Any]:
    """The setup, and the compiled training step."""
    from segjax.training import planning, runtime
    from segjax.training.setup import setup_programs

    runtime.use_compilation_cache()
    setup = setup_programs(_config(order["network"], order["images"], order["small"]))
    return setup, planning.lowered(setup, "train").compile()


def predict(order: dict[str, Any]) -> dict[str, Any]:
    from segjax import accelerators

    _, compiled = _program(order)
    program = accelerators.read(compiled)
    return {
        "predicted": program.peak,
        "arguments": program.arguments,
        "temporaries": program.temporaries,
        "outputs": program.outputs,
    }


def measure(order: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np

    setup, compiled = _program(order)
    device = setup.devices.mesh.devices.flat[0]
    after_compiling = _peak(device)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, setup.abstract_batch()["image"].shape, np.uint8),
        "label": rng.integers(0, len(setup.classes), setup.abstract_batch()["label"].shape),
        "index": np.arange(order["images"], dtype=np.int32),
    }
    batch = setup.devices.put(batch | {"label": batch["label"].astype(np.uint8)})
    state = setup.init_state()
    before_steps = _peak(device)
    for _ in range(STEPS):
        state, metrics = compiled(state, batch)
    jax.block_until_ready((state, metrics))
    return {
        "measured": _peak(device),
        "after_compiling": after_compiling,
        "before_steps": before_steps,
        "loss": float(metrics["loss"]),
    }


def _peak(device: Any) -> int | None:
    """Bytes; None of a device that does not count them, as a CPU."""
    statistics = device.memory_stats()
    return statistics["peak_bytes_in_use"] if statistics else None


def main() -> None:
    order, file = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])
    work = predict if order["work"] == "predict" else measure
    file.write_text(json.dumps(work(order)))


if __name__ == "__main__":
    main()
