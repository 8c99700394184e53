"""What torch's networks compute with drawn weights, and what ours do: outputs, layers, and a step
of training.

The references are in tests/goldens; see tests/weights/torch_goldens.py.
"""

import functools

import flax
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from segjax.losses.pixelwise import cross_entropy_sum
from segjax.models import build
from segjax.models.resnet import ResNet
from segjax.models.vgg import VGGEncoder
from segjax.weights import departures, from_file, layer_outputs, load, transfer
from segjax.weights.layout import role_of
from tests.goldens.draw import digest, images
from tests.goldens.training_step import gradient_sums, labels
from tests.weights.torch_goldens import CLASSES, COMPUTED, filled, golden, listed, torch_file

TOLERANCE = 1e-4  # of the largest value of what is compared
EXACT = 1e-6  # the same in float64, with results that are kept in float32
slow = pytest.mark.slow
NETWORKS = [name for name in COMPUTED if not name.startswith(("vgg", "resnet"))]


def block_path(path: str, ours: dict) -> str:
    """The convolution's path: within its block, or the block itself where it is bare."""
    return f"{path}/conv" if f"{path}/conv" in ours else path


def compared_layers(name: str, arrays, ours: dict, encoder_only: bool = False):
    """Our layers against the golden's digests, under our paths."""
    reference = golden(name)
    theirs = dict(zip(listed(reference, "layers"), reference["digests"], strict=True))
    layout = transfer.layout_of(torch_file(arrays))
    wanted = {}
    for block, names in layout.blocks(layout.describe(arrays), arrays).items():
        path = block.removeprefix("encoder/") if encoder_only else block
        if names.conv in theirs:
            wanted[block_path(path, ours)] = theirs[names.conv]
        if names.norm:
            wanted[f"{path}/norm"] = theirs[names.norm]
    assert len(wanted) == len(theirs)
    return departures({p: digest(ours[p]) for p in ours if p in wanted}, wanted, TOLERANCE)


@functools.lru_cache(maxsize=1)
def encoder_run(name: str, disturbed: str = ""):
    """Every layer of an encoder with a classifier's weights."""
    arrays = filled(name, "features." if "vgg" in name else "")
    if disturbed:
        arrays[disturbed] = 1.1 * arrays[disturbed]
    options = {"name": "segnet"} if "vgg" in name else {"name": "fcn", "encoder": name}
    model = build(options, CLASSES)
    variables, _ = load(torch_file(arrays), model, transfer.abstract_variables(model), "encoder")
    variables = {kind: tree["encoder"] for kind, tree in variables.items()}
    encoder = VGGEncoder() if "vgg" in name else ResNet(name)
    if name == "vgg16":  # what is fresh is made to do nothing: (x - 0) / sqrt(var + epsilon)
        neutral = {"scale": 1, "bias": 0, "mean": 0, "var": 1 - 1e-5}
        variables = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                np.full(leaf.shape, neutral[path[-1].key], np.float32)
                if path[-2].key == "norm"
                else leaf
            ),
            variables,
        )
    x = images(*listed(golden(name), "size"))
    return arrays, layer_outputs(encoder, variables, x)


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(n, marks=slow) for n in ("resnet50", "vgg16", "vgg16_bn"))]
)
def test_classifiers_maps(name):
    arrays, ours = encoder_run(name)
    found = compared_layers(name, arrays, ours, encoder_only=True)
    assert found.first is None, str(found)
    reference = golden(name)
    blocks = [path for path in ours if path.startswith(("conv", "stage")) and "/" not in path]
    stages = list({path.split("_")[0]: path for path in blocks}.values())  # the last of each
    wanted = dict(zip(stages, reference["stage_digests"], strict=True))
    found = departures({path: digest(ours[path]) for path in stages}, wanted, TOLERANCE)
    assert found.first is None, str(found)


def test_the_first_wrong_layer_is_named():
    arrays, ours = encoder_run("resnet18", disturbed="layer2.1.bn1.weight")
    found = compared_layers("resnet18", arrays, ours, encoder_only=True)
    assert found.first == "stage3_block2/conv1/norm", str(found)


@functools.lru_cache(maxsize=1)
def loaded(name: str, folder):
    """The file's own network, its variables and its arrays, by way of a file with the names of
    data-parallel training."""
    arrays = filled(name)
    path = folder / f"{name}.safetensors"
    save_file({f"module.{array}": value for array, value in arrays.items()}, path)
    try:
        network = from_file(path)
        return network.model, network.variables, arrays
    finally:
        path.unlink()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def error(ours, theirs) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
    "name",
    [
        n if n in ("fcn_resnet50", "smp_unet_resnet18") else pytest.param(n, marks=slow)
        for n in NETWORKS
    ],
)
def test_networks_outputs(name, folder):
    model, variables, arrays = loaded(name, folder)
    reference = golden(name)
    x = images(*listed(reference, "size"))
    outputs = jax.jit(functools.partial(model.apply, train=False))(variables, x)
    assert {f"output_{key}" for key in outputs} == {k for k in reference if k[:7] == "output_"}
    kept = int(reference.get("kept", 2))
    errors = {k: error(v[:, ::kept, ::kept], reference[f"output_{k}"]) for k, v in outputs.items()}
    print(name, errors)  # shown by `pytest -rP`
    if max(errors.values()) > TOLERANCE:
        ours = layer_outputs(model, variables, x)
        pytest.fail(f"{errors}; {compared_layers(name, arrays, ours)}")


@slow
def test_every_layer_of_a_whole_network(folder):
    """fcn_resnet50's outputs come from equal layers, in both heads."""
    model, variables, arrays = loaded("fcn_resnet50", folder)
    x = images(*listed(golden("fcn_resnet50"), "size"))
    ours = layer_outputs(model, variables, x)
    found = compared_layers("fcn_resnet50", arrays, ours)
    assert found.first is None, str(found)
    assert "aux_head/classifier" in found.errors


@slow
def test_a_step_of_training(folder):
    """Batch normalisation of the batch, its running statistics, and every parameter's gradient.

    In float64: in float32 some activations are on the other side of zero, and gradients, torch's
    own too, are up to a hundredth of their norm away.
    """
    with jax.enable_x64(True):
        check_step(folder)


def check_step(folder):
    name = "fcn_resnet50"
    model, variables, arrays = loaded(name, folder)
    model = model.clone(dropout_rate=0.0, dtype=np.float64)
    reference = golden(name)
    size = listed(reference, "size")
    x, wanted = images(*size).astype(np.float64), labels(*size, CLASSES)

    def loss(params):
        outputs, updates = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        means = {}
        for key, logits in outputs.items():
            total, count = cross_entropy_sum(logits, wanted)
            means[key] = total / count
        return means["logits"] + 0.5 * means["aux"], (outputs, updates["batch_stats"])

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, (outputs, statistics)), gradient = step(variables["params"])
    assert value == pytest.approx(float(reference["trained_loss"]), rel=1e-6)
    for key, logits in outputs.items():
        found = error(logits[:, ::2, ::2], reference[f"trained_output_{key}"])
        print("training", key, found)
        assert found < EXACT
    layout = transfer.layout_of(torch_file(arrays))
    blocks = layout.blocks(layout.describe(arrays), arrays)
    check_statistics(reference, blocks, arrays, statistics)
    check_gradients(reference, blocks, gradient)


def check_statistics(reference, blocks, arrays, statistics):
    """torch moves its running variance by the unbiased variance of n values, ours is biased."""
    ours = {
        role_of(f"batch_stats/{path}"): np.asarray(value)
        for path, value in flax.traverse_util.flatten_dict(statistics, sep="/").items()
    }
    norms = listed(reference, "trained_norms")
    theirs = dict(zip(norms, reference["trained_statistics"], strict=True))
    counts = dict(zip(norms, reference["trained_counts"], strict=True))
    assert {names.norm for names in blocks.values() if names.norm} == set(norms)
    worst = 0.0
    for block, names in blocks.items():
        if names.norm:
            mean, var = ours[block, "mean"], ours[block, "var"]
            before, n = 0.9 * arrays[f"{names.norm}.running_var"], counts[names.norm]
            var = before + (var - before) * n / (n - 1)
            for found, wanted in zip((mean, var), theirs[names.norm], strict=True):
                worst = max(worst, error(digest(found), wanted))
                assert error(digest(found), wanted) < EXACT, names.norm
    print("running statistics", worst)


def check_gradients(reference, blocks, gradient):
    """Each one's norm, and its share in a drawn direction, against the norm."""
    parameters = listed(reference, "trained_parameters")
    theirs = dict(zip(parameters, reference["trained_gradients"], strict=True))
    worst = 0.0
    for path, value in flax.traverse_util.flatten_dict(gradient, sep="/").items():
        block, role = role_of(f"params/{path}")
        names = blocks[block]
        name = names.conv if role in ("kernel", "bias") else names.norm
        wanted = theirs.pop(name + (".bias" if role in ("bias", "shift") else ".weight"))
        found = np.abs(gradient_sums(np.asarray(value, np.float64)) - wanted).max() / wanted[0]
        worst = max(worst, found)
        assert found < EXACT, (name, found)
    print("gradients", worst)
    assert not theirs
