"""Image rows shared between devices: the messages, the numbers, and the memory.

A compiled program may exchange rows with neighbours (collective-permutes) and sum what is small:
statistics, pooled maps, gradients. No device ever holds more of a map than its rows and what
borders on them.
"""

import dataclasses

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from segjax.accelerators.collectives import Collective, collectives
from segjax.accelerators.hlo import Array
from segjax.layers import Conv
from segjax.losses.pixelwise import cross_entropy_sum
from segjax.metrics.confusion import confusion_matrix
from segjax.models import build, convnext, mobilenet, resnet, vgg
from tests.models.probing import abstract_variables, modules
from tests.training.space import compiled_steps, devices_for

K = 5
SIZE = (256, 64)
MODELS = {
    "segnet": dict(name="segnet", width=1 / 16),
    "pspnet": dict(name="pspnet", encoder="resnet18", width=1 / 8),
    "deeplabv3": dict(name="deeplabv3", encoder="resnet18", width=1 / 8, aspp_features=8),
    "lraspp": dict(name="lraspp", width=1 / 4, features=8),
    "convnext": dict(name="fcn", encoder="convnext_tiny", width=1 / 12),
    # Without image pooling, which normalises over one value an image: the gradient through these
    # is rounding (1 % of the encoder's; 3e-6 without). DeepLabV3 has it.
    "deeplabv3plus": dict(
        name="deeplabv3plus", encoder="resnet18", width=1 / 8, image_pooling=False
    ),
    "unet": dict(name="unet", encoder="resnet18", width=1 / 8),
}
# The cells of a pyramid. Sums of maps this small are allowed; every map of the tests has more.
POOLED = 1 + 4 + 9 + 36


@pytest.fixture
def shallow(monkeypatch):
    """Half of the convolutions but all kinds of layers, to compile in half the time."""
    monkeypatch.setitem(resnet.VARIANTS, "resnet18", (resnet.BasicBlock, (1, 1, 1, 1)))
    monkeypatch.setitem(convnext.VARIANTS, "convnext_tiny", (1, 1, 1, 1))
    network = mobilenet.VARIANTS["mobilenet_v3_large"]
    stages = tuple(stage[:1] for stage in network.stages)
    monkeypatch.setitem(mobilenet.VARIANTS, "mobilenet_v3_large", network._replace(stages=stages))
    monkeypatch.setattr(vgg, "VGG16_STAGES", ((64, 64), (128,), (256,), (512,), (512,)))


@dataclasses.dataclass
class Case:
    """A model, its variables, and a batch."""

    model: nn.Module
    variables: dict
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def drawn(cls, options, size=SIZE, n=2, dtype=jnp.float32):
        model = build(options, K).clone(dtype=dtype)
        rng = np.random.default_rng(0)

        def draw(path, shape):
            x = rng.standard_normal(shape).astype(np.float32)
            scales = {"kernel": np.sqrt(2 / max(1, np.prod(shape[:-1]))), "var": 0, "scale": 0.2}
            return x * scales.get(path[-1], 0.1) + (path[-1] in ("var", "scale"))

        shapes = flax.traverse_util.flatten_dict(abstract_variables(model, size))
        variables = {path: draw(path, leaf.shape) for path, leaf in shapes.items()}
        images = rng.standard_normal((n, *size, 3)).astype(np.float32)
        labels = rng.integers(0, K + 1, (n, *size)).astype(np.int32)
        labels[labels == K] = 255
        return cls(model, flax.traverse_util.unflatten_dict(variables), images, labels)

    def program(self, variables, images, labels):
        """Logits and counts of inference; loss, statistics and gradients of training."""
        logits = self.model.apply(variables, images, train=False)["logits"]
        confusion = confusion_matrix(labels, jnp.argmax(logits, -1), K)

        def loss(params):
            outputs, updated = self.model.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            total, _ = cross_entropy_sum(outputs["logits"], labels)
            if "aux" in outputs:
                total += 0.4 * cross_entropy_sum(outputs["aux"], labels)[0]
            return total / labels.size, updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return logits, confusion, value, updated["batch_stats"], gradients

    def on(self, space):
        """The program compiled for `space` devices, and its results."""
        devices = devices_for(space)
        mesh = devices.mesh
        put = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))  # noqa: E731
        args = (put(self.variables), *(put(x, "data", "space") for x in (self.images, self.labels)))
        compiled = jax.jit(devices.within_mesh(self.program)).lower(*args).compile()
        return compiled, jax.device_get(compiled(*args))


def check_exchanges(found: list[Collective], variables, images: int, more=lambda array: False):
    """Asserts that devices exchange maps with their neighbours only, or where `more` allows it."""
    kinds = {collective.kind for collective in found}
    assert "collective-permute" in kinds
    parameters = jax.tree.leaves(variables["params"])
    gradients = gradient_sizes(parameters)
    channels = max(leaf.shape[-1] for leaf in parameters)
    for collective in found:
        if collective.kind == "collective-permute":
            continue
        for array in collective.arrays:
            pooled = array.elements <= images * POOLED * channels
            small = collective.kind == "all-reduce" and (pooled or sizes(array) in gradients)
            assert small or more(array), collective


def gradient_sizes(parameters) -> set[tuple[int, ...]]:
    """The sizes of the gradients of parameters, of one row of their taps, and of a single tap."""
    return {sizes(leaf, start) for leaf in parameters for start in range(max(1, leaf.ndim - 1))}


def sizes(array: Array | np.ndarray, start=0) -> tuple[int, ...]:
    """The sizes above 1 in rising order, as layouts differ."""
    return tuple(sorted(n for n in array.shape[start:] if n > 1))


def relative_error(result, expected) -> float:
    """The relative error of all leaves together."""
    result, expected = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]).astype("f8")
        for tree in (result, expected)
    )
    return np.linalg.norm(result - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "name",
    ["segnet", *(pytest.param(n, marks=pytest.mark.slow) for n in MODELS if n != "segnet")],
)
def test_rows_on_four_devices(name, shallow):
    # Four images: the pyramid's bin 1 normalises over one value an image, and over two values the
    # gradient is rounding.
    case = Case.drawn(MODELS[name], n=4)
    (alone, wanted), (shared, found) = case.on(1), case.on(4)
    check_exchanges(collectives(shared.as_text()), case.variables, len(case.images))

    logits, confusion, loss, statistics, gradients = zip(found, wanted, strict=True)
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-5 * np.abs(logits[1]).max())
    np.testing.assert_array_equal(*confusion)
    assert confusion[0].sum() == np.sum(case.labels < K)
    np.testing.assert_allclose(*loss, rtol=1e-6)
    assert relative_error(*statistics) < 1e-5
    # In float32 values near the edges of ReLU and pooling differ; see the test in float64.
    assert relative_error(*gradients) < 2e-3

    memory = [program.memory_analysis().temp_size_in_bytes for program in (alone, shared)]
    # On CPUs each of a depthwise kernel's 7 rows of taps is a map of its own between exchanges.
    more = 1.6 if name == "convnext" else 1.15
    assert memory[1] < more * memory[0] / 4


def test_segnet_sends_two_rows_per_convolution(shallow):
    """Pooling and unpooling send nothing."""
    model = build(MODELS["segnet"], K)
    devices = devices_for(4)
    whole, rows = devices.replicated(), NamedSharding(devices.mesh, PartitionSpec("data", "space"))
    put = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
    variables = jax.tree.map(lambda x: put(x, whole), abstract_variables(model, SIZE))
    images = put(np.zeros((1, *SIZE, 3), np.float32), rows)
    forward = jax.jit(lambda v, x: model.apply(v, x, train=False)["logits"])
    found = collectives(forward.lower(variables, images).compile().as_text())
    assert {c.kind for c in found} == {"collective-permute"}
    inputs = [shape for _, shape, _ in modules(model, SIZE, Conv).values()]
    assert len(found) == 2 * len(inputs)
    assert sum(c.bytes for c in found) == sum(2 * 4 * w * c for _, _, w, c in inputs)


def test_a_gathered_map_fails():
    """`check_exchanges` on a plain matrix product over shared rows."""
    devices = devices_for(4)
    rows = NamedSharding(devices.mesh, PartitionSpec("data", "space"))
    mix = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    def mixed(x):
        y = jnp.einsum("oh,nhwc->nowc", mix, x)
        return y + jnp.pad(y, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1]

    x = jax.ShapeDtypeStruct((2, 64, 32, 8), jnp.float32, sharding=rows)
    compiled = jax.jit(mixed, out_shardings=rows).lower(x).compile()
    with pytest.raises(AssertionError, match=r"Collective\(kind='all-(gather|reduce)'.*64"):
        check_exchanges(collectives(compiled.as_text()), {"params": np.zeros((3, 3, 8, 8))}, 2)


@pytest.mark.slow
@pytest.mark.parametrize("space", [4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_in_float64(name, space):
    """Results differ by rounding only. (In float64 XLA gathers the gradient of 3x3 max pooling.)"""
    with jax.enable_x64(True):
        case = Case.drawn(MODELS[name], dtype=jnp.float64)
        (_, wanted), (_, found) = case.on(1), case.on(space)
    np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=1e-6 * np.abs(wanted[0]).max())
    total = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted[4]))
    for a, b in zip(*(jax.tree.leaves(tree) for tree in (found[3:], wanted[3:])), strict=True):
        # A bias before batch normalisation has the gradient 0.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max() + 1e-8 * total)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "blocks"])
@pytest.mark.parametrize(
    ("options", "size"),
    [
        (dict(name="segnet"), (512, 256)),
        (dict(name="segnet", dropout_rate=0.5), (256, 192)),
        (dict(name="pspnet", encoder="resnet50"), (512, 256)),
        (dict(name="pspnet", encoder="resnet50", align_corners=False), (512, 512)),
        (dict(name="deeplabv3", encoder="resnet50"), (512, 256)),
        (dict(name="deeplabv3", encoder="resnet50", output_stride=8, head_conv=True), (512, 512)),
        (dict(name="deeplabv3plus", encoder="resnet50"), (512, 256)),
        (dict(name="unet", encoder="resnet34"), (512, 256)),
    ],
    ids=str,
)
def test_whole_steps_of_published_networks(options, size, remat):
    """Augmentation gathers the input of the training step; evaluation adds no exchanges."""
    model, n = build(options, 19), 2
    variables = abstract_variables(model, size)

    def is_input(array):
        return array.shape in ((n, *size, 3), (n, *size))

    train, evaluate = compiled_steps(model, size, 8, n=n, remat=remat)
    check_exchanges(collectives(train.as_text()), variables, n, is_input)
    check_exchanges(collectives(evaluate.as_text()), variables, n)
