"""What each form that a layer takes for accelerators is worth: training steps with one taken back.

    python -m benchmarks.forms [--target=h200] [segnet] [pspnet] [deeplabv3]

compiles the step of each network's paper preset, 8 images in bfloat16, as it is, and then with one
layer written as JAX would have it; prints kernels and the bytes that they read and write. One to
two minutes a program on two cores, and no accelerator.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from configs import deeplabv3, pspnet, segnet
from segjax.accelerators import parse
from segjax.layers import adaptive, banded
from segjax.layers.dilated import dilated_conv
from segjax.training import planning
from segjax.training.setup import setup_programs

CONFIGS = {"segnet": segnet, "pspnet": pspnet, "deeplabv3": deeplabv3}
IMAGES = 8


class _Linen(nn.BatchNorm):
    """Linen's batch normalisation, then the activation."""

    @nn.compact
    def __call__(self, x, use_running_average=None, *, mask=None, activation=None):
        y = super().__call__(x, use_running_average, mask=mask)
        return activation(y) if activation else y


def _max_pool_3x3(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def _cross_entropy_sum(logits, labels, class_weights=None):
    labelled = (labels >= 0) & (labels < logits.shape[-1])
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if class_weights is not None:
        one_hot = one_hot * class_weights
    return -jnp.sum(one_hot * jax.nn.log_softmax(logits)), jnp.sum(labelled)


def _product_of_pixels(x, kernel, strides):
    return jnp.dot(x[:, ::strides, ::strides], kernel[0, 0])


def _banded_matmul(matrix, x, axis):
    return banded._product(matrix, x, axis)


def _one_by_one(x, output_sizes):
    return [_pool_alone(x, size) for size in output_sizes]


def _pool_alone(x, size):
    rows, columns = (
        adaptive._bin_means(n, bins) for n, bins in zip(x.shape[1:3], size, strict=True)
    )
    columns = jnp.broadcast_to(columns, (*x.shape[:2], *columns.shape))
    pooled = jnp.matmul(columns, x.astype(jnp.float32), precision="highest")
    return jnp.einsum("ah,nhbc->nabc", rows, pooled, precision="highest").astype(x.dtype)


def _plainly_convolved(x, kernel, rate, padding, strides=1):
    return dilated_conv(x, kernel, rate, padding, strides)


def _scattered(labels, predictions, num_classes):
    pairs = jnp.where(labels < num_classes, labels * num_classes + predictions, num_classes**2)
    counts = jnp.zeros(num_classes**2 + 1, jnp.int32).at[pairs].add(1)
    return counts[:-1].reshape(num_classes, num_classes)


# What is taken back: where it is looked up, and what stands there instead.
FORMS: dict[str, tuple[tuple[str, Callable], ...]] = {
    "batch normalisation and activation: two derivatives": (
        ("segjax.layers.conv.BatchNorm", _Linen),
    ),
    "the bias before a normalisation: its gradient": (
        ("segjax.layers.conv.lax.stop_gradient", lambda x: x),
    ),
    "a residual block's ReLU: derivative from its input": (
        ("segjax.models.resnet.relu", jax.nn.relu),
    ),
    "3x3 pooling: XLA's window and scatter": (
        ("segjax.models.resnet.max_pool_3x3", _max_pool_3x3),
    ),
    "1x1 convolution: a product": (("segjax.layers.conv._pointwise", _product_of_pixels),),
    "atrous kernel's gradient: XLA's": (("segjax.layers.conv._convolved", _plainly_convolved),),
    "resizing: matrix products": (("segjax.layers.resize.banded_matmul", _banded_matmul),),
    "pyramid: each level by itself": (("segjax.layers.context.adaptive_avg_pools", _one_by_one),),
    "loss: one-hot times log-softmax": (
        ("segjax.training.step.cross_entropy_sum", _cross_entropy_sum),
    ),
    "confusion counts: scatter": (("segjax.training.step.confusion_matrix", _scattered),),
}
# What a network has not, it need not be compiled without.
ONLY = {
    "a residual block's ReLU: derivative from its input": ("pspnet", "deeplabv3"),
    "3x3 pooling: XLA's window and scatter": ("pspnet", "deeplabv3"),
    "1x1 convolution: a product": ("pspnet", "deeplabv3"),
    "atrous kernel's gradient: XLA's": ("pspnet", "deeplabv3"),
    "resizing: matrix products": ("pspnet", "deeplabv3"),
    "pyramid: each level by itself": ("pspnet",),
    "the bias before a normalisation: its gradient": ("segnet",),
}


@contextlib.contextmanager
def taken_back(form: str | None) -> Iterator[None]:
    """Inside, layers are traced without that form."""
    with contextlib.ExitStack() as stack:
        for name, other in FORMS[form] if form else ():
            stack.enter_context(mock.patch(name, other))
        yield


def program(name: str, target: str, form: str | None):
    """The compiled training step."""
    config = CONFIGS[name].get_config("paper")
    config.dtype = "bfloat16"
    config.train.batch_size = IMAGES
    setup = setup_programs(config, parse(target).devices())
    with taken_back(form):
        return planning.compiled(setup, "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="h200")
    parser.add_argument("networks", nargs="*", default=list(CONFIGS))
    options = parser.parse_args()
    for name in options.networks:
        for form in (None, *FORMS):
            if name not in ONLY.get(form, CONFIGS):
                continue
            found = program(name, options.target, form)
            words = f"| {name} | {form or 'as it is'} |"
            print(
                words, f"{found.kernels:,} | {found.moved / 2**30:.2f} |"
                f" {found.temporaries / 2**30:.2f} |", flush=True
            )  # fmt: skip


if __name__ == "__main__":
    main()
