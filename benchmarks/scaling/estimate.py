"""Writes docs/scaling.md: step time and efficiency on 1 to 256 accelerators, estimated.

    python -m benchmarks.scaling.estimate > docs/scaling.md

Counts what the three networks compute and send (a minute; nothing is compiled or run), takes what
they move and hold from `compiled`, and does the arithmetic of `model` on it.
"""

import argparse
import dataclasses
import pathlib
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.scaling import page as scaling_page
from benchmarks.scaling.model import Layer, Network, load_compiled
from configs import deeplabv3, fcn, pspnet, segnet
from segjax.data.datasets import class_table
from segjax.layers import Conv
from segjax.models import build
from segjax.models.resnet import ResNet
from segjax.training import optim
from segjax.training.state import create_state
from segjax.training.step import Objective, make_train_step
from segjax.transforms.augment import Augmentation
from segjax.transforms.normalize import Normalization

ROOT = pathlib.Path(__file__).parents[2]
# Billions of multiplications ("GFLOPS") in https://docs.pytorch.org/vision/stable/models.html.
TORCHVISION = {
    "fcn_resnet50": (fcn, "resnet50", 152.717),
    "fcn_resnet101": (fcn, "resnet101", 232.738),
    "deeplabv3_resnet50": (deeplabv3, "resnet50", 178.722),
    "deeplabv3_resnet101": (deeplabv3, "resnet101", 258.743),
}
IMAGES = 8  # per accelerator, where the number of accelerators is what grows
DTYPE = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Check:
    """A network whose cost others have published: billions of multiplications of one forward pass
    by our layers, by XLA, and theirs."""

    name: str
    layers: float
    xla: float
    published: float


def configs() -> dict:
    """The three networks as their papers train them."""
    psp = pspnet.get_config("paper")
    psp.model.encoder = "resnet101"
    return {
        "SegNet": segnet.get_config("paper"),
        "PSPNet-101": psp,
        "DeepLabV3-101": deeplabv3.get_config("paper"),
    }


def convolutions(function: Callable, *arguments) -> tuple[Layer, ...]:
    """The convolutions of `segjax.layers.Conv` in a function of one image, in order; their maps'
    shapes alone are computed."""
    layers = []

    def note(next_function, args, kwargs, context):
        out = next_function(*args, **kwargs)
        conv = context.module
        if isinstance(conv, Conv) and context.method_name == "__call__":
            layer = Layer(args[0].shape[1:], out.shape[1:], conv.kernel_size, conv.rate)
            layers.append(layer)
        return out

    with nn.intercept_methods(note):
        # A function of its own: one that JAX has traced before would not be called again.
        jax.eval_shape(lambda *inputs: function(*inputs), *arguments)
    return tuple(layers)


def step_flops(model: nn.Module, config, images: int) -> tuple[float, object]:
    """XLA's count of a whole training step, augmentation and update included, per image; and the
    state's shapes. The step is lowered, not compiled."""
    schedule = optim.make_schedule(config["optim"], 1000)
    optimizer = optim.make_optimizer(config["optim"], schedule)
    objective = Objective(
        augmentation=Augmentation.from_config(config),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3, config["data"]["local_contrast"]),
        aux_weight=config["loss"]["aux_weight"],
    )
    key = jax.random.key(0)
    step = make_train_step(model, optimizer, schedule, objective, key)
    crop = objective.augmentation.crop_size
    state = jax.eval_shape(lambda: create_state(model, optimizer, (*crop, 3), key))
    rows = (images, *config["data"]["image_size"])
    batch = {
        "image": jax.ShapeDtypeStruct((*rows, 3), np.uint8),
        "label": jax.ShapeDtypeStruct(rows, np.uint8),
        "index": jax.ShapeDtypeStruct((images,), np.int32),
    }
    lowered = jax.jit(step).lower(state, batch)
    return lowered.cost_analysis()["flops"] / images, state


def count(name: str, config, images: int = IMAGES) -> Network:
    """Counts a config's training step."""
    classes = len(class_table(config["data"]))
    model = build(config["model"], classes, DTYPE)
    flops, state = step_flops(model, config, images)
    size = Augmentation.from_config(config).crop_size
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    rngs = {"dropout": jax.random.key(0)}
    layers = convolutions(
        lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"], rngs=rngs),
        variables,
        jnp.zeros((1, *size, 3)),
    )
    statistics = jax.tree.leaves(state.batch_stats)
    return Network(
        name=name,
        size=size,
        classes=classes,
        heads=2 if config["model"].get("aux") else 1,
        parameters=sum(p.size for p in jax.tree.leaves(state.params)),
        statistics=sum(s.size for s in statistics),
        norms=len(statistics) // 2,
        flops=flops,
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
    passed = forward(build(config["model"], 21, "float32"), 520)
    return convolutions(*passed), passed


def check(name: str) -> Check:
    """Counts one of torchvision's networks."""
    layers, (apply, *arguments) = torchvision_layers(name)
    flops = jax.jit(apply).lower(*arguments).cost_analysis()["flops"]
    products = sum(layer.products for layer in layers)
    return Check(name, products / 1e9, flops / 2e9, TORCHVISION[name][2])


def resnet50() -> Network:
    """The classifier ResNet-50 at 224x224, whose training speed is published; but for its last
    layer. FLOPs are three times those of the forward pass."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, help="file to write; default: print")
    options = parser.parse_args()
    page = scaling_page.write(
        networks=[
            dataclasses.replace(count(name, config), compiled=load_compiled()[name])
            for name, config in configs().items()
        ],
        images=IMAGES,
        checks=[check(name) for name in TORCHVISION],
        resnet=resnet50(),
        loader=loader_rates((ROOT / "README.md").read_text()),
    )
    if options.output:
        options.output.write_text(page)
    else:
        print(page, end="")


if __name__ == "__main__":
    main()
