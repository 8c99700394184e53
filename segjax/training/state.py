"""What a training step reads and writes."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """The whole state of a run on the device: one pytree, saved and restored whole.

    Attributes (Any: trees of shapes or shardings have the same structure):
      step: finished updates, an int32 scalar.
      params, batch_stats: the model's variables.
      opt_state: the optimiser's.
      ema: running average of {"params", "batch_stats"}, or None.
      lr_scale: factor on the learning rate, a float32 scalar (reduce-on-plateau lowers it; 1
        otherwise).
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    lr_scale: Any

    def eval_variables(self) -> dict[str, Any]:
        """The variables to evaluate with: the running average if there is one."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    key: jax.Array,
    *,
    ema: bool = False,
) -> TrainState:
    """Draws the parameters from `key`. Jittable; `jax.eval_shape` of it gives the structure."""
    variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        ema={"params": params, "batch_stats": batch_stats} if ema else None,
        lr_scale=jnp.ones((), jnp.float32),
    )
