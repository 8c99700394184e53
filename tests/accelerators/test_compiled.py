"""Every model's steps, compiled for accelerators that are not here: what the programs hold.

    python -m pytest -m slow tests/accelerators/test_compiled.py -s

Each case compiles for one to some minutes. A subset: `-k "h200 and segnet"`.
"""

import functools
import math
import re

import jax
import pytest

from configs import base
from segjax.accelerators import Collective, Program, collectives, missing_plugin, parse, read
from segjax.models import MODELS
from segjax.training.planning import lowered
from segjax.training.setup import setup_programs

# By target: pixels of a side, images. All maps of 97 pixels at stride 8 are above `MAP_BYTES`.
TARGETS = {"h200": (97, 8), "tpu:v5e:2x4": (97, 8)}
# Calls of libraries that a network and its training have no use for.
LAPACK = re.compile("solve|getrf|geqrf|potrf|syevd|gesvd|triangular|lu_pivots|cholesky|qr", re.I)
# Where a map may be gathered: augmentation picks the pixels of its views.
AUGMENTATION = re.compile(r"vmap\(")
# An atrous kernel's gradient is a plain convolution's on every `rate`-th row and column, which are
# put beside each other first; in bfloat16 together with the cast of the normalisation beside it.
PHASES = re.compile(
    r"transpose\(.*(/cond/branch_\d_fun/transpose|/depthwise/norm/convert_element_type)$"
)
# Their fully connected layers are convolutions with kernels nearly as large as the map (FCN's first
# pads more than its kernel), for whose kernels' gradients XLA has no call and turns the maps.
FULLY_CONNECTED = ("fcn_vgg", "deconvnet")
LAYER = "conv_general_dilated"  # as JAX calls a convolution
STATISTICS = 2**16  # bytes of one normalisation's sums, of all devices
ROWS_SHARED = ("segnet", "pspnet", "deeplabv3")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def users_precision():
    """The default, which users have; other tests compare numbers, and want all of float32."""
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", before)


@functools.cache
def devices_of(name: str) -> tuple:
    target = parse(name)
    if missing := missing_plugin(target.device):
        pytest.skip(missing)
    return tuple(target.devices())


def config_of(model: str, side: int, images: int, **options):
    """A model of full width and 11 classes, with the augmentation and the optimiser of all."""
    config = base.get_config()
    config.model.name = model
    config.data.name = "camvid"
    config.data.image_size = (side, side)
    config.train.steps, config.train.batch_size = 10, images
    config.update_from_flattened_dict(options)
    return config


@functools.cache
def program(
    model: str, target: str, step: str, dtype: str, mode: str, space: int = 1
) -> tuple[Program, list[Collective]]:
    side, images = TARGETS.get(target, (97, 8))
    devices = devices_of(target)
    options = {"dtype": dtype, "parallel.mode": mode, "parallel.space": space}
    if space > 1:  # rows that divide at every stride
        side = 128
    config = config_of(model, side, images, **options)
    executable = lowered(setup_programs(config, devices), step).compile()
    found, messages = read(executable), collectives(executable.as_text())
    convolutions = ", ".join(f"{c.count} {c.dtype} {c.layout}" for c in found.convolutions)
    sent = ", ".join(f"{m.count} {m.kind}" for m in found.messages) or "no messages"
    print(
        f"\n{model} {step} {dtype} {mode} for {target}: {found.kernels} kernels, "
        f"{found.moved / 2**20:,.0f} MiB, {found.total_flops / 1e9:,.0f} GFLOP; {convolutions}; "
        f"{sent}"
    )
    return found, messages


CASES = pytest.mark.parametrize(
    "model, target, step, dtype, mode",
    [
        pytest.param(model, target, step, dtype, mode, id=f"{target}-{model}-{step}-{dtype}-{mode}")
        for target in TARGETS
        for model in MODELS
        for dtype in ("float32", "bfloat16")
        for mode in ("jit", "pmap")
        for step in ("train", "evaluate")
    ],
)


@CASES
def test_compiles_to_what_an_accelerator_wants(model, target, step, dtype, mode):
    found, messages = program(model, target, step, dtype, mode)
    on_gpu = not target.startswith("tpu")
    assert found.convolutions
    assert not [name for name in found.custom_calls if LAPACK.search(name)]
    assert not [source for source in found.scatters if not AUGMENTATION.search(source)]
    if model == "segnet":
        assert not [source for source in found.gathers if not AUGMENTATION.search(source)]
    if on_gpu:
        # A TPU's compiler chooses layouts by itself, several in a program, and copies maps where
        # they meet: these say nothing of ours.
        assert {c.layout for c in found.convolutions} == {"NHWC"}
        assert {c.dtype for c in found.convolutions} == {dtype}
        turned = [
            move.sources
            for move in found.moves
            if move.kind == "transpose"
            and not any(AUGMENTATION.search(s) or PHASES.search(s) for s in move.sources)
        ]
        assert not turned or model in FULLY_CONNECTED
    elif dtype == "bfloat16":
        # What is no layer's (augmentation, sums written as convolutions) may be float32. A float32
        # layer may be either: that is how a TPU multiplies.
        layers = [c for c in found.convolutions if any(s.endswith(LAYER) for s in c.sources)]
        assert {c.dtype for c in layers if c.dtype != "pred"} == {dtype}
    check_messages(messages, model, target, step, dtype, mode)


def check_messages(messages, model, target, step, dtype, mode) -> None:
    """Sums alone; in training the gradients once, and of batch normalisation what is small, which
    XLA may gather instead and sum on each device."""
    if parse(target).count == 1:
        assert not messages
        return
    assert {m.kind for m in messages} <= {"all-reduce", "all-gather"}
    assert all(m.bytes <= STATISTICS for m in messages if m.kind == "all-gather")
    sent = sum(m.bytes for m in messages if m.kind == "all-reduce")
    if step == "evaluate":
        assert sent <= 1024
        return
    state = setup_programs(config_of(model, 97, 8), devices_of(target)).abstract_state()
    gradients, statistics = (
        sum(4 * math.prod(x.shape) for x in jax.tree.leaves(tree))
        for tree in (state.params, state.batch_stats)
    )
    # XLA sums each device's share of a bfloat16 convolution's gradient in bfloat16; under pmap the
    # step sums them itself, after they have become float32.
    least = gradients / 2 if (dtype, mode) == ("bfloat16", "jit") else gradients
    # Statistics forwards and backwards, two sums each; the confusion matrix and a few scalars.
    assert least <= sent <= gradients + 6 * statistics + 4 * 11**2 + 4096


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("target", ["h200x4", "tpu:v5e:2x2"])
@pytest.mark.parametrize("model", ROWS_SHARED)
def test_rows_shared_between_devices_are_exchanged_with_neighbours(model, target, dtype):
    """No map is gathered: rows go to the neighbours, and what is small is summed."""
    for step in ("train", "evaluate"):
        _, messages = program(model, target, step, dtype, "jit", space=2)
        kinds = {m.kind for m in messages}
        assert "collective-permute" in kinds
        assert kinds <= {"collective-permute", "all-reduce", "all-gather", "reduce-scatter"}
        # Images and labels, in bytes, come together for augmentation; else only statistics, and of
        # a pyramid what is left of a map when its columns are a few bins.
        for message in messages:
            if message.kind not in ("all-gather", "reduce-scatter") or message.bytes <= STATISTICS:
                continue
            if "/pyramid/" in message.op_name or message.kind == "reduce-scatter":
                assert message.bytes < 2**20 * 8
            else:
                assert step == "train"
                assert {array.dtype for array in message.arrays} == {"u8"}
