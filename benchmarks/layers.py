"""Times the layers against what they replace, side by side in one process.

    python -m benchmarks.layers [pool] [atrous] [winograd] [depthwise] [grouped] [transpose]
        [resize] [sort]

The repeats of the compared programs alternate, so that a busy machine slows both; read the
ratios, not the milliseconds. Each program is one jitted call that returns its output and, in
"forward + backward", its gradients for a given cotangent; compiled with the options of a training
step.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from segjax.layers import (
    atrous_conv,
    conv_transpose,
    max_pool_2x2,
    max_pool_argmax,
    max_unpool,
    max_unpool_2x2,
    resize_bilinear,
)
from segjax.layers.conv import _row_convolved, _row_of_taps, _share_inside, _sum_of_rows
from segjax.layers.winograd import winograd_conv
from segjax.losses.sorting import by_descending
from segjax.training.compiler_options import for_training
from segjax.training.runtime import keep_freed_memory


def time_interleaved(
    programs: dict[str, Callable[[], jax.Array]], repeats: int = 7
) -> dict[str, list[float]]:
    """Seconds per run of each program, the programs taking turns; the first turn is not kept."""
    times = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            if repeat:
                times[name].append(time.perf_counter() - start)
    return times


def _normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def _compiled(function, **options) -> Callable:
    return jax.jit(function, compiler_options=for_training(jax.default_backend()), **options)


def _forward(function, *inputs) -> Callable[[], jax.Array]:
    program = _compiled(function)
    return lambda: program(*inputs)


def _with_gradients(function, cotangent, *inputs, reuse=True) -> Callable[[], jax.Array]:
    """The output, and the gradient of every input for the cotangent.

    With `reuse` the results go where those of the run before were: a fresh buffer costs a page
    fault every 4 KiB, which for a cheap program is most of its time (two copies of 39 MB took as
    long as the 2x2 form's whole forward and backward pass).
    """

    def run(cotangent, inputs, results):
        del results
        out, vjp = jax.vjp(function, *inputs)
        return out, vjp(cotangent)

    if not reuse:
        program = _compiled(run)
        return lambda: program(cotangent, inputs, None)
    program = _compiled(run, donate_argnums=2, keep_unused=True)
    results = [jax.tree.map(jnp.zeros_like, (cotangent, inputs))]

    def again():
        results[0] = program(cotangent, inputs, results[0])
        return results[0]

    return again


def _programs(functions, cotangent, *inputs, backward) -> dict[str, Callable[[], jax.Array]]:
    arguments = (cotangent, *inputs) if backward else inputs
    make = _with_gradients if backward else _forward
    return {name: make(function, *arguments) for name, function in functions.items()}


def pooling_programs(shape=(2, 240, 320, 64), reuse=True) -> dict[str, Callable[[], jax.Array]]:
    """Pool and unpool, forward and backward."""
    make = partial(_with_gradients, reuse=reuse)
    x, cotangent, size = _normal(0, *shape), _normal(1, *shape), shape[1:3]
    return {
        "scatter": make(
            lambda x: max_unpool(*max_pool_argmax(x, padding="CEIL"), size), cotangent, x
        ),
        "2x2": make(lambda x: max_unpool_2x2(*max_pool_2x2(x), size), cotangent, x),
    }


def _xla_conv(x, kernel, rate):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((rate, rate),) * 2,
        rhs_dilation=(rate, rate),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def atrous_programs(
    size=(33, 33), rate=12, channels=(256, 64), backward=True
) -> dict[str, Callable[[], jax.Array]]:
    """A 3x3 atrous convolution: XLA's, by taps, by rows, and the one that `atrous_conv` picks."""
    functions = {
        "xla": partial(_xla_conv, rate=rate),
        "taps": lambda x, kernel: _sum_of_rows(x, kernel, rate, _row_of_taps),
        "rows": lambda x, kernel: _sum_of_rows(x, kernel, rate, _row_convolved),
        "atrous_conv": partial(atrous_conv, rate=rate),
    }
    return _programs_3x3(functions, (1, *size), channels, backward)


def winograd_programs(
    size=(4, 24, 32), rate=1, channels=(256, 256), backward=True
) -> dict[str, Callable[[], jax.Array]]:
    """A 3x3 convolution: XLA's, the form of few products, and the one that `atrous_conv` picks."""
    functions = {
        "xla": partial(_xla_conv, rate=rate),
        "winograd_conv": lambda x, kernel: winograd_conv(x, kernel, rate),
        "atrous_conv": partial(atrous_conv, rate=rate),
    }
    return _programs_3x3(functions, size, channels, backward)


def _programs_3x3(functions, size, channels, backward) -> dict[str, Callable[[], jax.Array]]:
    x, kernel = _normal(0, *size, channels[0]), _normal(1, 3, 3, *channels)
    return _programs(functions, _normal(2, *size, channels[1]), x, kernel, backward=backward)


def groups_programs(
    size, channels, side, rate=1, strides=1, groups=None, backward=True
) -> dict[str, Callable[[], jax.Array]]:
    """A depthwise or grouped convolution of two images: XLA's, and the one of `segjax.layers`."""
    groups = groups or channels
    x, kernel = _normal(0, 2, *size, channels), _normal(1, side, side, channels // groups, channels)
    pads, rates = ((rate * (side // 2),) * 2,) * 2, (rate, rate)

    def xla(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (strides, strides),
            pads,
            rhs_dilation=rates,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def ours(x, kernel):
        return atrous_conv(x, kernel, rate=rate, strides=strides, groups=groups)

    cotangent = _normal(2, *jax.eval_shape(ours, x, kernel).shape)
    functions = {"xla": xla, "atrous_conv": ours}
    return _programs(functions, cotangent, x, kernel, backward=backward)


# Side, rate, step, and with which map and channels: MobileNetV2 and V3's, ConvNeXt's, ResNeXt's.
_DEPTHWISE = (
    (3, 1, 1, (64, 64), 96),
    (3, 1, 2, (64, 64), 96),
    (3, 2, 1, (32, 32), 256),
    (5, 1, 1, (32, 32), 256),
    (5, 2, 1, (16, 16), 672),
    (7, 1, 1, (64, 64), 96),
)
_GROUPED = ((3, 1, 1, (64, 64), 128), (3, 1, 2, (32, 32), 512), (3, 2, 1, (16, 16), 1024))


# Images, rows and columns; rate; channels.
_WINOGRAD = (
    ((4, 96, 128), 1, (64, 64)),
    ((4, 48, 64), 1, (128, 128)),
    ((4, 24, 32), 1, (256, 256)),
    ((4, 12, 16), 1, (512, 512)),
    ((4, 6, 8), 1, (512, 512)),
    ((2, 120, 240), 1, (128, 128)),
    ((2, 60, 120), 1, (256, 256)),
    ((2, 30, 60), 4, (512, 512)),
    ((2, 30, 60), 1, (2048, 512)),
)


def resize_programs(
    size=(60, 80), channels=16, factor=8, backward=True
) -> dict[str, Callable[[], jax.Array]]:
    """Bilinear enlargement by a factor."""
    out = (factor * size[0], factor * size[1])
    x, cotangent = _normal(0, 2, *size, channels), _normal(1, 2, *out, channels)
    functions = {
        "jax.image.resize": lambda x: jax.image.resize(x, cotangent.shape, "bilinear"),
        "resize_bilinear": lambda x: resize_bilinear(x, out),
    }
    return _programs(functions, cotangent, x, backward=backward)


def transpose_programs(
    size, channels, side, strides, padding, backward=True
) -> dict[str, Callable[[], jax.Array]]:
    """A transposed convolution of four images: JAX's, of the map with zeros between its cells, and
    the one of `segjax.layers`."""
    x, kernel = _normal(0, 4, *size, channels), _normal(1, side, side, channels, channels)
    pads = ((side - 1 - padding,) * 2,) * 2

    def of_jax(x, kernel):
        return lax.conv_transpose(x, kernel[::-1, ::-1], (strides, strides), pads)

    def ours(x, kernel):
        return conv_transpose(x, kernel, strides=strides, padding=padding)

    cotangent = _normal(2, *jax.eval_shape(ours, x, kernel).shape)
    functions = {"lax.conv_transpose": of_jax, "conv_transpose": ours}
    return _programs(functions, cotangent, x, kernel, backward=backward)


# Map, channels; side, step and padding of the kernel: SegNet's table 1, FCN-8s, DeconvNet.
_TRANSPOSED = (
    ((45, 60), 11, 8, 2, 3),
    ((22, 30), 32, 8, 2, 3),
    ((24, 48), 7, 16, 8, 4),
    ((14, 14), 128, 5, 1, 2),
)


def sort_programs() -> dict[str, Callable[[], jax.Array]]:
    """The order of a class's pixels that Lovasz' loss needs, of eight images of 128x256."""
    errors = jax.random.uniform(jax.random.key(0), (8 * 128 * 256,))
    pixels = jnp.arange(len(errors), dtype=jnp.uint32)

    def of_jax(errors, pixels):
        return lax.sort((-errors, pixels), num_keys=1)[1]

    return {
        "lax.sort": _forward(of_jax, errors, pixels),
        "by_descending": _forward(by_descending, errors, pixels),
    }


def benchmarks(wanted: set[str]) -> Iterator[tuple[str, dict]]:
    if "pool" in wanted:
        title = "pool + unpool, forward + backward, 2x240x320x64"
        yield f"{title}, buffers reused", pooling_programs()
        yield f"{title}, fresh buffers", pooling_programs(reuse=False)
    if "sort" in wanted:
        yield "order of 262,144 errors", sort_programs()
    for direction, backward in (("forward", False), ("forward + backward", True)):
        if "atrous" in wanted:
            for size, rates in (((33, 33), (6, 12, 18, 24, 36)), ((12, 24), (6, 12, 18))):
                for rate in rates:
                    share = _share_inside(size, (3, 3), rate)
                    title = f"3x3 rate {rate} at {size[0]}x{size[1]}, 256 to 64, taps inside"
                    yield (
                        f"{title} {share:.0%}, {direction}",
                        atrous_programs(size, rate, backward=backward),
                    )
        for size, rate, channels in _WINOGRAD if "winograd" in wanted else ():
            title = f"3x3 rate {rate} on {size}, {channels[0]} to {channels[1]}, {direction}"
            yield title, winograd_programs(size, rate, channels, backward)
        for kind, groups, cases in (("depthwise", None, _DEPTHWISE), ("grouped", 32, _GROUPED)):
            for side, rate, step, size, channels in cases if kind in wanted else ():
                title = f"{kind} {side}x{side} rate {rate} stride {step} at {size}, {channels}"
                yield (
                    f"{title}, {direction}",
                    groups_programs(size, channels, side, rate, step, groups, backward),
                )
        for size, channels, side, step, padding in _TRANSPOSED if "transpose" in wanted else ():
            title = f"transposed {side}x{side} stride {step} of 4x{size[0]}x{size[1]}x{channels}"
            yield (
                f"{title}, {direction}",
                transpose_programs(size, channels, side, step, padding, backward),
            )
        if "resize" in wanted:
            yield f"bilinear x8 from 2x60x80x16, {direction}", resize_programs(backward=backward)


def main(wanted: set[str]) -> None:
    if "pool" not in wanted:  # which compares with fresh buffers
        keep_freed_memory()
    for title, programs in benchmarks(wanted):
        times = {name: np.array(t) * 1e3 for name, t in time_interleaved(programs).items()}
        print(title)
        reference = next(iter(times))
        for name, t in times.items():
            print(
                f"  {name:17s} median {np.median(t):8.1f} ms   min {t.min():8.1f} ms   "
                f"ratio to {reference} {np.median(t) / np.median(times[reference]):.2f}"
            )


if __name__ == "__main__":
    everything = {
        "pool",
        "atrous",
        "winograd",
        "depthwise",
        "grouped",
        "transpose",
        "resize",
        "sort",
    }
    main(set(sys.argv[1:]) or everything)
