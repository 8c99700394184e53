"""Steps whose image rows are shared between devices, for a test and a benchmark."""

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh

from segjax.data.batches import batch_shapes
from segjax.training.mesh import Devices
from segjax.training.state import create_state
from segjax.training.step import Objective, make_eval_step, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization


def devices_for(space: int) -> Devices:
    """The first `space` devices, which share the rows of an image."""
    grid = np.array(jax.devices()[:space]).reshape(1, space)
    return Devices(Mesh(grid, ("data", "space"), axis_types=(AxisType.Auto,) * 2))


def abstract_batch(devices: Devices, size, n: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and shardings of a batch on the devices."""
    return devices.abstract(batch_shapes(n, size, size, 3))


def compiled_steps(model, size, space: int, *, n=1, remat="none"):
    """The training and the evaluation step for images of `size`, with augmentation and momentum,
    compiled for `space` devices."""
    devices = devices_for(space)
    optimizer = optax.sgd(0.1, momentum=0.9)
    normalization = Normalization((0.5,) * 3, (0.2,) * 3)
    objective = Objective(Augmentation(size), normalization, remat=remat)
    placement = devices.batch_placement(n)
    key = jax.random.key(0)
    step = make_train_step(model, optimizer, lambda step: 0.1, objective, key, placement)
    state = jax.eval_shape(
        lambda key: create_state(model, optimizer, (*size, 3), key), jax.random.key(0)
    )
    copied = devices.replicated()
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=copied), state)
    batch = abstract_batch(devices, size, n)
    train = devices.compile_train(step, state).lower(state, batch).compile()
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    evaluate = devices.compile_eval(make_eval_step(model, normalization))
    return train, evaluate.lower(variables, batch).compile()
