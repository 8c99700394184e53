"""What the tests of single networks share: their modules and shapes without computing anything, and
the weights that tests/goldens/draw.py draws for them."""

import functools
import importlib.util
import pathlib

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
# On the drawn scales of normalisation, as in make_comparison.py.
GAIN = 2


@functools.cache
def draw():
    """The module that draws what script and test share."""
    spec = importlib.util.spec_from_file_location("draw", GOLDENS / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def abstract_variables(model, size=(64, 64)):
    """Shapes and dtypes of a model's variables."""
    init = lambda key: model.init(key, jnp.zeros((1, *size, 3)), train=False)  # noqa: E731
    return jax.eval_shape(init, jax.random.key(0))


def drawn_variables(model):
    """A model's variables, each drawn by its path as make_comparison.py draws it."""

    def leaf(path, abstract):
        path = path.split("/", 1)[1]  # without the collection
        if path.endswith("/scale"):
            path = path.removesuffix("scale") + "gamma"
            return GAIN * draw().draw(path, abstract.shape, channels_last=True)
        return draw().draw(path, abstract.shape, channels_last=True)

    flat = flax.traverse_util.flatten_dict(abstract_variables(model), sep="/")
    drawn = {path: leaf(path, abstract) for path, abstract in flat.items()}
    return flax.traverse_util.unflatten_dict(drawn, sep="/")


def modules(model, size, kind) -> dict[str, tuple]:
    """{path: (module, input's shape, output's shape)} of an abstract forward pass, in its order."""
    seen = {}

    def record(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        if isinstance(context.module, kind) and context.method_name == "__call__":
            shape = out.shape if isinstance(out, jax.Array) else None
            seen["/".join(context.module.path)] = (context.module, args[0].shape, shape)
        return out

    with nn.intercept_methods(record):
        abstract_variables(model, size)
    return seen


def count(model) -> int:
    """Parameters of a model."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_variables(model)["params"]))
