"""Writes comparison.npz: what torch computes for transposed convolutions and for thin copies of
the SegNet paper's comparison networks, which are written here a second time with torch's functions.

Only this script needs torch; the tests read the file it leaves behind.

    pip install torch
    python -m benchmarks.goldens.make_comparison

`transpose<i>/...` are the cases of `TRANSPOSES`; the input and kernel are small multiples of 1/8,
so that all sums are exact in float32. `<network>` are logits [1, H, W, 3], whose weights and image
are drawn by draw.py.
"""

import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tests.goldens.draw import draw, images

# (rows, columns) of the map, (rows, columns) of the kernel, strides, padding
TRANSPOSES = (
    ((4, 5), (3, 3), 1, 1),
    ((4, 5), (4, 4), 2, 0),
    ((4, 5), (4, 4), 2, 1),
    ((3, 2), (16, 16), 8, 4),
    ((5, 3), (8, 8), 2, 3),
    ((3, 4), (5, 2), 3, 0),
    ((2, 3), (2, 3), 4, 0),
    ((1, 1), (3, 4), 1, 0),
    ((1, 1), (4, 4), 2, 1),
    ((1, 6), (2, 5), 1, 0),
)
CLASSES = 3
CHANNELS = ((4, 4), (8, 8), (16, 16, 16), (32, 32, 32), (32, 32, 32))
FC, FEATURES = 8, 6
# On the drawn scales of normalisation: unpooling leaves zeros in three of four cells, and without
# it the bottom of a decoder would not show in the logits.
GAIN = 2


def make_transposes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    eighths = lambda *shape: rng.integers(-16, 17, shape).astype(np.float32) / 8  # noqa: E731
    arrays = {}
    for i, (size, kernel_size, strides, padding) in enumerate(TRANSPOSES):
        x, kernel = eighths(2, *size, 2), eighths(*kernel_size, 2, 3)
        leaf = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous().requires_grad_()
        weight = torch.from_numpy(kernel).permute(2, 3, 0, 1).contiguous().requires_grad_()
        y = F.conv_transpose2d(leaf, weight, stride=strides, padding=padding)
        cotangent = eighths(*y.permute(0, 2, 3, 1).shape)
        y.backward(torch.from_numpy(cotangent).permute(0, 3, 1, 2))
        arrays |= {
            f"transpose{i}/geometry": np.array([strides, padding]),
            f"transpose{i}/x": x,
            f"transpose{i}/kernel": kernel,
            f"transpose{i}/y": y.detach().permute(0, 2, 3, 1).numpy(),
            f"transpose{i}/cotangent": cotangent,
            f"transpose{i}/x_gradient": leaf.grad.permute(0, 2, 3, 1).numpy(),
            f"transpose{i}/kernel_gradient": weight.grad.permute(2, 3, 0, 1).numpy(),
        }
    return arrays


def array(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(draw(name, shape, channels_last=True))


def conv(x, name, features, k=3, **options):
    """A convolution with a bias; kernel drawn as [k, k, i, o]."""
    k = (k, k) if isinstance(k, int) else k
    kernel = array(f"{name}/kernel", *k, x.shape[1] // options.get("groups", 1), features)
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), array(f"{name}/bias", features), **options)


def deconv(x, name, features, k, **options):
    """A transposed convolution; kernel drawn as [k, k, i, o]."""
    k = (k, k) if isinstance(k, int) else k
    kernel = array(f"{name}/kernel", *k, x.shape[1], features)
    return F.conv_transpose2d(x, kernel.permute(2, 3, 0, 1), **options)


def norm(x, name):
    c = x.shape[1]
    mean, var = array(f"{name}/mean", c), array(f"{name}/var", c)
    return F.batch_norm(x, mean, var, GAIN * array(f"{name}/gamma", c), array(f"{name}/bias", c))


def block(x, name, features, k=3, **options):
    return norm(conv(x, f"{name}/conv", features, k, padding=k // 2, **options), f"{name}/norm")


def fcn(x, stride: int, learnt: bool = True):
    size, maps = x.shape[2:], []
    for s, stage in enumerate(CHANNELS, 1):
        for i, features in enumerate(stage, 1):
            padding = 100 if s == i == 1 else 1
            x = F.relu(conv(x, f"encoder/conv{s}_{i}", features, padding=padding))
        x = F.max_pool2d(x, 2, ceil_mode=True)
        maps.append(x)
    x = F.relu(conv(F.relu(conv(x, "fc6", FC, 7)), "fc7", FC, 1))
    score = conv(x, "score", CLASSES, 1)

    def up(x, name, factor):
        if learnt:
            return deconv(x, name, CLASSES, 2 * factor, stride=factor)
        ramp = (torch.arange(factor) + 0.5) / factor
        tent = torch.cat([ramp, ramp.flip(0)])
        kernel = torch.outer(tent, tent).expand(CLASSES, 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=factor, groups=CLASSES)

    def crop(x, offset, size):
        return x[:, :, offset : offset + size[0], offset : offset + size[1]]

    if stride == 32:
        return crop(up(score, "upscore32", 32), 19, size)
    score = up(score, "upscore2", 2)
    score = score + crop(conv(maps[3], "score_pool4", CLASSES, 1), 5, score.shape[2:])
    if stride == 16:
        return crop(up(score, "upscore16", 16), 27, size)
    score = up(score, "upscore_pool4", 2)
    score = score + crop(conv(maps[2], "score_pool3", CLASSES, 1), 9, score.shape[2:])
    return crop(up(score, "upscore8", 8), 31, size)


def largefov(x):
    size = x.shape[2:]
    for s, stage in enumerate(CHANNELS, 1):
        rate = 2 if s == 5 else 1
        for i, features in enumerate(stage, 1):
            x = F.relu(conv(x, f"encoder/conv{s}_{i}", features, padding=rate, dilation=rate))
        x = F.max_pool2d(x, 3, 2 if s <= 3 else 1, 1, ceil_mode=True)
    x = F.avg_pool2d(x, 3, 1, 1)
    x = F.relu(conv(x, "fc6", FC, 3, padding=12, dilation=12))
    x = conv(F.relu(conv(x, "fc7", FC, 1)), "fc8", CLASSES, 1)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def deconvnet(x, fc_kernel):
    pools = []
    for s, stage in enumerate(CHANNELS, 1):
        for i, features in enumerate(stage, 1):
            x = F.relu(block(x, f"encoder/conv{s}_{i}", features))
        size = x.shape[2:]
        x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        pools.append((indices, size))
    height, width = x.shape[2:]
    rows, columns = (max(0, k - n) for k, n in zip(fc_kernel, (height, width), strict=True))
    top, left = rows // 2, columns // 2
    x = F.pad(x, (left, columns - left, top, rows - top))
    x = F.relu(norm(conv(x, "fc6/conv", FC, fc_kernel), "fc6/norm"))
    x = F.relu(block(x, "fc7", FC, 1))
    x = deconv(x, "deconv_fc6/conv", CHANNELS[-1][-1], fc_kernel)
    x = x + array("deconv_fc6/conv/bias", CHANNELS[-1][-1])[:, None, None]
    x = F.relu(norm(x, "deconv_fc6/norm"))[:, :, top : top + height, left : left + width]
    decoder = ((4, 4), (8, 4), (16, 16, 8), (32, 32, 16), (32, 32, 32))
    for s in range(5, 0, -1):
        indices, size = pools[s - 1]
        x = F.max_unpool2d(x, indices, 2, output_size=size)
        for i, features in zip(range(len(decoder[s - 1]), 0, -1), decoder[s - 1], strict=True):
            name = f"decoder{s}_{i}"
            # The authors' layer is a transposed convolution; ours stores its kernel turned.
            kernel = array(f"{name}/conv/kernel", 3, 3, x.shape[1], features).flip(0, 1)
            x = F.conv_transpose2d(
                x, kernel.permute(2, 3, 0, 1), array(f"{name}/conv/bias", features), padding=1
            )
            x = F.relu(norm(x, f"{name}/norm"))
    return conv(x, "classifier", CLASSES, 1)


def basic(x, row: str):
    """A row of the SegNet paper's table 1, by its name in `segjax.models.segnet_basic.TABLE1`."""
    reduced = row in ("bilinear_interpolation", "fcn_basic", "fcn_basic_no_addition")
    adds = row in ("encoder_addition", "fcn_basic", "fcn_basic_no_dim_reduction")
    pools, maps = [], []
    for s in range(1, 5):
        x = F.relu(block(x, f"encoder{s}", FEATURES, 7))
        size = x.shape[2:]
        x, indices = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
        pools.append((indices, size))
        maps.append(x)
    if reduced:
        x = conv(x, "reduce4", CLASSES, 1)
    for s in range(4, 0, -1):
        indices, size = pools[s - 1]
        if row in ("segnet_basic", "encoder_addition"):
            x = block(F.max_unpool2d(x, indices, 2, output_size=size), f"decoder{s}", FEATURES, 7)
        elif row == "single_channel_decoder":
            x = F.max_unpool2d(x, indices, 2, output_size=size)
            x = block(x, f"decoder{s}", FEATURES, 7, groups=FEATURES)
        elif row == "bilinear_interpolation":
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        else:
            x = deconv(x, f"decoder{s}", x.shape[1], 8, stride=2, padding=3)
        x = x[:, :, : size[0], : size[1]]
        if adds and s > 1:
            x = x + (conv(maps[s - 2], f"reduce{s - 1}", CLASSES, 1) if reduced else maps[s - 2])
    return x if reduced else conv(x, "classifier", CLASSES, 1)


NETWORKS = {
    **{f"fcn{stride}": functools.partial(fcn, stride=stride) for stride in (32, 16, 8)},
    "fcn8_fixed": functools.partial(fcn, stride=8, learnt=False),
    "largefov": largefov,
    "deconvnet_framed": functools.partial(deconvnet, fc_kernel=(3, 4)),
    "deconvnet_sliding": functools.partial(deconvnet, fc_kernel=(1, 2)),
    **{
        row: functools.partial(basic, row=row)
        for row in (
            "bilinear_interpolation",
            "segnet_basic",
            "encoder_addition",
            "single_channel_decoder",
            "fcn_basic",
            "fcn_basic_no_addition",
            "fcn_basic_no_dim_reduction",
            "fcn_basic_no_addition_no_dim_reduction",
        )
    },
}


@torch.no_grad()
def make_networks() -> dict[str, np.ndarray]:
    x = torch.from_numpy(images(1, 37, 50)).permute(0, 3, 1, 2)
    return {name: network(x).permute(0, 2, 3, 1).numpy() for name, network in NETWORKS.items()}


if __name__ == "__main__":
    arrays = make_transposes() | make_networks()
    path = Path(__file__).parents[2] / "tests" / "goldens" / "comparison.npz"
    np.savez_compressed(path, **arrays)
    size = path.stat().st_size
    print(f"{path.name}: {len(arrays)} arrays, {size} bytes, torch {torch.__version__}")
