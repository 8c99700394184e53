"""The losses of 20 training steps, beside those of a CPU in losses.json.

    JAX_PLATFORMS=cpu python -m benchmarks.gpu.agreement [NETWORK ...]    records them there

Every network of segjax, at its full width but for `LIGHTER`, trains on scenes of 65x129, four a
step. Float32 means float32 here: products on a GPU would be TF32's by default. Rounding grows from
step to step, so losses.json has too how far the CPU's own losses go where its first parameters are
changed by a millionth, which is about the rounding of a sum in another order. bfloat16 rounds
65,000 times as coarsely; its losses may be `BFLOAT16` away on average, and as far again as these.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

from segjax.models import MODELS

LOSSES = pathlib.Path(__file__).with_name("losses.json")
# The three that matter most first.
MAIN = ("segnet", "pspnet", "deeplabv3")
NETWORKS = (*MAIN, *(name for name in MODELS if name not in MAIN))
STEPS, IMAGES, SIZE = 20, 4, (65, 129)
# A tenth of the default: steps ten times as long take what differs by rounding a hundred times as
# far, and comparing says little.
RATE = 0.001
# A CPU needs most of a minute for a step with 4096, as it pads each image by 100.
LIGHTER = {"fcn_vgg": {"fc_features": 256}}
NUDGE = 1e-6  # of each parameter, relative
# How far losses may be from the CPU's: a share of the loss, and times what the nudge made of them.
FLOAT32, SPREADS = 1e-4, 10
# A share of the loss, the mean over the steps. On a CPU most are 0.1 to 1.7 % away, and those of
# the notebook's PSPNet, whose pyramid normalises over four values, 5 %.
BFLOAT16 = 0.03


def config_of(network: str, dtype: str, mode: str) -> Any:
    from configs import base, recipes

    config = base.get_config(network).lock()
    recipes.nothing(config)
    config.model.update(LIGHTER.get(network, {}))
    config.dtype = dtype
    config.data.update(name="streets", image_size=SIZE, train_images=STEPS * IMAGES)
    config.optim.update(learning_rate=RATE, schedule="constant")
    config.train.update(steps=STEPS, batch_size=IMAGES)
    config.parallel.update(mode=mode, data=1)
    return config


def losses(
    network: str, dtype: str, mode: str, steps: int = STEPS, nudges: Sequence[float] = (0,)
) -> list[list[float]]:
    """The losses of the first steps; once for each share that the first parameters are moved by."""
    import jax
    import numpy as np

    from segjax.training.setup import setup_programs

    jax.config.update("jax_default_matmul_precision", "highest")
    setup = setup_programs(config_of(network, dtype, mode))
    init, step, images = setup.init_program(), setup.train_step(), setup.data.training()
    found = []
    for nudge in nudges:
        state, values = setup.init_state(init), []
        if nudge:
            state = state.replace(params=_nudged(state.params, nudge))
        for first in range(0, steps * IMAGES, IMAGES):
            index = np.arange(first, first + IMAGES, dtype=np.int32)
            batch = images.stack([images[int(k)] for k in index])
            state, metrics = step(state, setup.devices.put({**batch, "index": index}))
            values.append(float(metrics["loss"]))
        found.append(values)
    return found


def _nudged(params: Any, share: float) -> Any:
    import jax

    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        jax.device_put(x * (1 + share * jax.random.normal(key, x.shape)), x.sharding)
        for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def run(
    folder: pathlib.Path, seconds: float, network: str, dtype: str, mode: str, steps: int
) -> dict[str, Any]:
    known = json.loads(LOSSES.read_text()).get(network)
    if known is None:
        raise ValueError(f"{LOSSES.name} has no losses of {network}; record them on a CPU")
    began = time.monotonic()
    (ours,) = losses(network, dtype, mode, steps)
    found = compare(ours, known["losses"], known["spread"], dtype)
    return {**found, "losses": ours, "all_seconds": time.monotonic() - began}


def compare(
    ours: Sequence[float], cpu: Sequence[float], spread: Sequence[float], dtype: str
) -> dict[str, Any]:
    """Whether losses are near enough to the CPU's in float32."""
    away = [abs(a - b) for a, b in zip(ours, cpu, strict=False)]  # of as many as were run
    shares = [a / b for a, b in zip(away, cpu, strict=False)]
    if dtype == "float32":
        limits = [FLOAT32 * b + SPREADS * s for b, s in zip(cpu, spread, strict=True)]
        # NaN is the worst.
        worst = max(range(len(away)), key=lambda t: (math.isnan(away[t]), away[t] / limits[t]))
        good = away[worst] <= limits[worst]
        text = (
            f"first loss {shares[0]:.1e} away; the worst, of step {worst + 1}, {away[worst]:.1e} "
            f"of {cpu[worst]:.3f}, allowed {limits[worst]:.1e}"
        )
    else:
        mean = sum(shares) / len(shares)
        moved = [s / b for s, b, _ in zip(spread, cpu, ours, strict=False)]
        limit = BFLOAT16 + sum(moved) / len(moved)
        good = mean <= limit
        text = f"on average {mean:.2%} of the loss away, allowed {limit:.2%}"
    return {"good": bool(good), "text": text}


def main() -> None:
    known = json.loads(LOSSES.read_text()) if LOSSES.exists() else {}
    for network in sys.argv[1:] or NETWORKS:
        began = time.monotonic()
        plain, moved = losses(network, "float32", "jit", nudges=(0, NUDGE))
        away = [abs(a - b) for a, b in zip(plain, moved, strict=True)]
        spread = [max(away[: t + 1]) for t in range(STEPS)]
        known[network] = {
            "losses": [round(x, 7) for x in plain],
            "spread": [float(f"{x:.1e}") for x in spread],
        }
        lines = (f'"{name}": {json.dumps(known[name])}' for name in NETWORKS if name in known)
        LOSSES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(
            f"{network}: {plain[0]:.4f} to {plain[-1]:.4f}, spread {spread[0]:.0e} to "
            f"{spread[-1]:.0e}, {time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
