"""Writes layers.npz: what torch computes for the operations that segjax.layers must equal.

Only this script needs torch; the tests read the file it leaves behind.

    pip install torch
    python -m benchmarks.goldens.make_layers

Every case is a set of arrays `<case>/<array>` and one line of JSON in `cases` with its options.
Arrays are channels-last, float32 (bfloat16 results are widened). Gradients are of the sum of
`cotangent * output`. The convolutions' inputs are small multiples of 1/8: all their sums are exact
in float32, so results do not depend on the order of summation.
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

RNG = np.random.default_rng(0)
CASES: list[str] = []
ARRAYS: dict[str, np.ndarray] = {}

BOTH_WAYS = (("half_pixel", False), ("align_corners", True))
# (window, strides, padding, ceil mode)
POOLINGS = (
    ((2, 2), (2, 2), (0, 0), True),
    ((3, 3), (2, 2), (1, 1), False),
    ((3, 3), (2, 2), (0, 0), True),
    ((2, 2), (2, 2), (0, 0), False),
    ((3, 3), (2, 2), (1, 1), True),
    ((3, 2), (2, 3), (0, 0), True),
    ((3, 2), (1, 2), (1, 1), False),
    ((2, 2), (3, 3), (1, 0), True),
)
RESIZES = (
    ((5, 7), (10, 21)),
    ((5, 7), (3, 4)),
    ((4, 6), (9, 5)),
    ((9, 4), (2, 4)),
    ((1, 1), (4, 3)),
    ((6, 5), (1, 1)),
    ((1, 5), (3, 1)),
    ((3, 4), (24, 31)),
)


def add(kind: str, options: dict, **arrays: np.ndarray) -> None:
    name = f"{kind}{len(CASES)}"
    CASES.append(json.dumps({"name": name, "kind": kind, **options}))
    ARRAYS.update({f"{name}/{key}": value for key, value in arrays.items()})


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def eighths(*shape: int) -> np.ndarray:
    return RNG.integers(-16, 17, shape).astype(np.float32) / 8


def channels_first(x: np.ndarray, dtype=torch.float32) -> torch.Tensor:
    """A leaf [n, c, h, w] tensor that keeps its gradient."""
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().to(dtype)
    return x.requires_grad_()


def channels_last(x: torch.Tensor) -> np.ndarray:
    x = x.detach().permute(0, 2, 3, 1).contiguous()
    return (x.float() if x.is_floating_point() else x.int()).numpy()


def pooling_inputs() -> dict[str, tuple[np.ndarray, torch.dtype]]:
    bf16 = torch.from_numpy(normal(1, 7, 6, 2)).to(torch.bfloat16).float().numpy()
    return {
        "random": (normal(2, 5, 7, 3), torch.float32),
        "tied": (RNG.integers(0, 3, (1, 6, 8, 2)).astype(np.float32), torch.float32),
        "negative": (-1 - np.abs(normal(1, 5, 5, 2)), torch.float32),
        "bfloat16": (bf16, torch.bfloat16),
        "pixel": (-np.abs(normal(2, 1, 1, 2)), torch.float32),
        "row": (normal(1, 1, 9, 2), torch.float32),
        "rows45": (normal(1, 45, 4, 1), torch.float32),
    }


def make_pooling() -> None:
    for kind, (x, dtype) in pooling_inputs().items():
        for window, strides, padding, ceil_mode in POOLINGS:
            geometry = (window, strides, padding, ceil_mode)
            if geometry not in POOLINGS[:3] and kind not in ("random", "bfloat16"):
                continue  # the tests compile each of these; three show what the rest would
            if any(
                n + 2 * p < k for n, p, k in zip(x.shape[1:3], padding, window, strict=True)
            ) and not (ceil_mode and strides == window):
                continue  # torch has no output here
            leaf = channels_first(x, dtype)
            values, indices = F.max_pool2d(
                leaf, window, strides, padding, ceil_mode=ceil_mode, return_indices=True
            )
            cotangent = eighths(*channels_last(values).shape)
            values.backward(channels_first(cotangent, dtype).detach())
            arrays = {
                "x": x,
                "values": channels_last(values),
                "indices": channels_last(indices),
                "cotangent": cotangent,
                "gradient": channels_last(leaf.grad),
            }
            if strides[0] >= window[0] and strides[1] >= window[1] and padding == (0, 0):
                # No index twice: unpooling and its gradient are well defined.
                pooled = values.detach().clone().requires_grad_()
                unpooled = F.max_unpool2d(
                    pooled, indices, window, strides, padding, output_size=x.shape[1:3]
                )
                back = eighths(*x.shape)
                unpooled.backward(channels_first(back, dtype).detach())
                arrays |= {
                    "unpooled": channels_last(unpooled),
                    "unpool_cotangent": back,
                    "unpool_gradient": channels_last(pooled.grad),
                }
            options = dict(
                input=kind, window=window, strides=strides, padding=padding, ceil_mode=ceil_mode
            )
            add("pool", options, **arrays)


def make_resize() -> None:
    for size, out in RESIZES:
        x, cotangent = normal(1, *size, 2), normal(1, *out, 2)
        for convention, align_corners in BOTH_WAYS:
            leaf = channels_first(x)
            y = F.interpolate(leaf, out, mode="bilinear", align_corners=align_corners)
            y.backward(channels_first(cotangent).detach())
            add(
                "bilinear",
                dict(size=out, convention=convention, align_corners=align_corners),
                x=x,
                y=channels_last(y),
                cotangent=cotangent,
                gradient=channels_last(leaf.grad),
            )
        y = F.interpolate(channels_first(x), out, mode="nearest-exact")
        add("nearest", dict(size=out), x=x, y=channels_last(y))


def make_adaptive() -> None:
    sizes = {(7, 10): (1, 2, 3, 6), (13, 9): (2, 6), (4, 5): (3, 6), (1, 1): (2, 6)}
    for size, levels in sizes.items():
        x = normal(1, *size, 2)
        for bins in [(b, b) for b in levels] + [(2, 5)] * (size == (7, 10)):
            leaf = channels_first(x)
            y = F.adaptive_avg_pool2d(leaf, bins)
            cotangent = normal(1, *bins, 2)
            y.backward(channels_first(cotangent).detach())
            add(
                "adaptive",
                dict(size=bins),
                x=x,
                y=channels_last(y),
                cotangent=cotangent,
                gradient=channels_last(leaf.grad),
            )


def make_conv() -> None:
    for k in (1, 3, 7):
        for rate in (1, 2, 4, 12, 24, 36):
            for strides in (1, 2):
                if (k == 1 and rate not in (1, 12)) or (strides == 2 and rate > 12):
                    continue  # nothing new: a single tap, or all taps but one in the padding
                x, kernel = eighths(1, 13, 9, 2), eighths(k, k, 2, 3)
                leaf = channels_first(x)
                weight = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous().requires_grad_()
                padding = rate * (k // 2)
                y = F.conv2d(leaf, weight, stride=strides, padding=padding, dilation=rate)
                cotangent = eighths(*channels_last(y).shape)
                y.backward(channels_first(cotangent).detach())
                add(
                    "conv",
                    dict(kernel_size=k, rate=rate, strides=strides),
                    x=x,
                    kernel=kernel,
                    y=channels_last(y),
                    cotangent=cotangent,
                    x_gradient=channels_last(leaf.grad),
                    kernel_gradient=weight.grad.permute(2, 3, 1, 0).contiguous().numpy(),
                )


def make_lrn() -> None:
    for channels, scale in ((7, 1), (3, 100)):
        x = scale * normal(1, 3, 4, channels)
        y = F.local_response_norm(channels_first(x), 5, alpha=1e-4, beta=0.75, k=1.0)
        add("lrn", dict(channels=channels), x=x, y=channels_last(y))


if __name__ == "__main__":
    make_pooling()
    make_resize()
    make_adaptive()
    make_conv()
    make_lrn()
    path = Path(__file__).parents[2] / "tests" / "goldens" / "layers.npz"
    np.savez_compressed(path, cases=np.array(CASES), **ARRAYS)
    print(
        f"{path.name}: {len(CASES)} cases, {path.stat().st_size} bytes, torch {torch.__version__}"
    )
