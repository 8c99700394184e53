"""How far runs diverge that differ by rounding alone: `python -m tests.training.rounding`.

A run on eight devices, and three on one device whose parameters start one unit in the last place
higher or lower at random, each against the run on one device: the largest difference of their 20
losses and of their last parameters. Minutes long; prints a Markdown table.
"""

import jax
import numpy as np

from tests import conftest
from tests.training.test_mesh import Run, run


def departure(ours: Run, alone: Run) -> str:
    """The largest differences of the losses and of the parameters."""
    params = jax.tree.map(lambda a, b: np.abs(a - b).max(), ours.state.params, alone.state.params)
    losses = np.abs(np.subtract(ours.losses, alone.losses)).max()
    return f"{losses:.0e}, {max(jax.tree.leaves(params)):.0e}"


def main() -> None:
    jax.config.update("jax_num_cpu_devices", conftest.DEVICES)
    print("| network | numbers | 8 devices | 1 device, nudged three times | | |")
    print("|---|---|---:|---:|---:|---:|")
    for model in ("segnet_basic", "pspnet", "deeplabv3"):
        for dtype in ("float64", "float32"):
            options = {"dtype": dtype, "rate": 0.01}
            alone = run(model, **options)
            others = [{"data": 8}, *({"nudge": seed} for seed in range(3))]
            cells = [departure(run(model, **other, **options), alone) for other in others]
            print("|", " | ".join([model, dtype, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
