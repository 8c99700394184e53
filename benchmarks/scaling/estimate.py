"""Writes docs/scaling.md: step time and efficiency on 1 to 256 accelerators, estimated.

    python -m benchmarks.scaling.estimate > docs/scaling.md

It counts what the three networks compute and send (a minute; nothing is compiled or run), reads
what they move and hold from compiled.json, and does the arithmetic of `model`.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.scaling import page
from benchmarks.scaling.model import Layer, Network, load_compiled
from configs import deeplabv3, fcn, pspnet, segnet
from segjax.layers import Conv
from segjax.models import build
from segjax.models.resnet import ResNet
from segjax.training import planning
from segjax.training.setup import Setup, setup_programs

ROOT = pathlib.Path(__file__).parents[2]
# Billions of multiplications ("GFLOPS") in https://docs.pytorch.org/vision/stable/models.html.
TORCHVISION = {
    "fcn_resnet50": (fcn, "resnet50", 152.717),
    "fcn_resnet101": (fcn, "resnet101", 232.738),
    "deeplabv3_resnet50": (deeplabv3, "resnet50", 178.722),
    "deeplabv3_resnet101": (deeplabv3, "resnet101", 258.743),
}
IMAGES = 8  # per accelerator, where the number of accelerators is what grows


@dataclasses.dataclass(frozen=True)
class Check:
    """A network whose cost others have published: billions of multiplications of one forward pass,
    by our layers, by XLA, and as published."""

    name: str
    layers: float
    xla: float
    published: float


def configs() -> dict:
    """The three networks as their papers train them, `IMAGES` images a step, in bfloat16."""
    psp = pspnet.get_config("paper")
    psp.model.encoder = "resnet101"
    networks = {
        "SegNet": segnet.get_config("paper"),
        "PSPNet-101": psp,
        "DeepLabV3-101": deeplabv3.get_config("paper"),
    }
    for config in networks.values():
        config.dtype = "bfloat16"
        config.train.batch_size = IMAGES
    return networks


def convolutions(function: Callable, *arguments) -> tuple[Layer, ...]:
    """The convolutions of `segjax.layers.Conv` in a function of one image, in order. Only the
    shapes of the maps are computed."""
    layers = []

    def note(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        conv = context.module
        if isinstance(conv, Conv) and context.method_name == "__call__":
            layers.append(Layer(args[0].shape[1:], out.shape[1:], conv.kernel_size, conv.rate))
        return out

    with nn.intercept_methods(note):
        # JAX does not trace the same function twice, so it gets a new one.
        jax.eval_shape(lambda *inputs: function(*inputs), *arguments)
    return tuple(layers)


def count(name: str, config) -> Network:
    """Counts a config's training step, augmentation and update included. FLOPs are XLA's, of the
    program before it is compiled."""
    setup: Setup = setup_programs(config, jax.devices()[:1])
    flops = planning.lowered(setup, "train").cost_analysis()["flops"]
    state = setup.abstract_state()
    layers = convolutions(
        lambda variables, image: setup.model.apply(
            variables,
            image,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        ),
        {"params": state.params, "batch_stats": state.batch_stats},
        jnp.zeros((1, *setup.crop_size, 3)),
    )
    statistics = jax.tree.leaves(state.batch_stats)
    return Network(
        name=name,
        size=setup.crop_size,
        classes=len(setup.classes),
        heads=2 if config["model"].get("aux") else 1,
        parameters=sum(p.size for p in jax.tree.leaves(state.params)),
        statistics=sum(s.size for s in statistics),
        norms=len(statistics) // 2,
        flops=flops / config["train"]["batch_size"],
        layers=layers,
    )


def forward(model: nn.Module, size: int) -> tuple[Callable, object, jax.ShapeDtypeStruct]:
    """The forward pass of one square image, as a function and its arguments' shapes."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(lambda x: model.init(key, x, train=False), image)
    return lambda v, x: model.apply(v, x, train=False), variables, image


def torchvision_layers(name: str) -> tuple[tuple[Layer, ...], tuple]:
    """The convolutions of one of torchvision's networks, auxiliary head included, at 520x520; and
    its `forward`."""
    preset, encoder, _ = TORCHVISION[name]
    config = preset.get_config("torchvision")
    config.model.encoder = encoder
    function_and_shapes = forward(build(config["model"], 21, "float32"), 520)
    return convolutions(*function_and_shapes), function_and_shapes


def check(name: str) -> Check:
    """Counts one of torchvision's networks."""
    layers, (apply, *arguments) = torchvision_layers(name)
    flops = jax.jit(apply).lower(*arguments).cost_analysis()["flops"]
    products = sum(layer.products for layer in layers)
    return Check(name, products / 1e9, flops / 2e9, TORCHVISION[name][2])


def resnet50() -> Network:
    """The classifier ResNet-50 at 224x224 without its last layer; its training speed is published.
    FLOPs are three times those of the forward pass."""
    layers = convolutions(*forward(ResNet("resnet50", dtype=jnp.bfloat16), 224))
    parameters = 25_557_032  # torchvision's
    flops = 6 * sum(layer.products for layer in layers)
    return Network("ResNet-50", (224, 224), 0, 0, parameters, 0, 0, flops, layers)


def loader_rates(readme: str) -> dict[str, float]:
    """Images of 360x480 a second and core, from the README's table of two cores: the best number
    of worker processes of each row."""
    rates = {}
    for kind in ("decoded", "encoded"):
        row = re.search(rf"^\| prepared, {kind} \| ([\d /]+) \|", readme, re.MULTILINE)
        if row is None:
            raise ValueError(f"the README has no row 'prepared, {kind}' in its table of the loader")
        rates[kind] = max(map(float, row[1].split("/"))) / 2
    return rates


def write(names: Sequence[str] = tuple(TORCHVISION)) -> str:
    """The page, in Markdown.

    Args:
      names: the networks of `TORCHVISION` to check.
    """
    compiled = load_compiled()
    networks = [
        dataclasses.replace(count(name, config), compiled=compiled[name])
        for name, config in configs().items()
    ]
    loader = loader_rates((ROOT / "README.md").read_text())
    return page.render(networks, IMAGES, [check(name) for name in names], resnet50(), loader)


if __name__ == "__main__":
    print(write(), end="")
