"""torch's encoders and torchvision's mobile networks with drawn weights: every array has its place
in ours, and the maps of all stages and the outputs are the same.

The reference is tests/goldens/encoders_torch.npz, by benchmarks/goldens/make_torch_encoders.py.
"""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import build
from segjax.models.encoders import ENCODERS, make_encoder
from segjax.weights import from_file, load, torch_networks, transfer
from segjax.weights.export import torch_arrays, twin
from segjax.weights.files import WeightFile
from segjax.weights.layout import array_names
from tests.goldens.draw import digest, draw, images

GOLDEN = Path(__file__).parents[1] / "goldens" / "encoders_torch.npz"
TOLERANCE = 1e-4  # of the largest value of what is compared


@functools.cache
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return dict(file)


def about(row: str) -> dict:
    return json.loads(str(golden()[f"{row}/about"]))


ROWS = sorted({name.partition("/")[0] for name in golden()})
NETWORKS = [row for row in ROWS if f"{row}/logits" in golden()]
CLASSIFIERS = [row for row in ROWS if row not in NETWORKS]
# What is computed in the default run; the others compile for long or have large weights.
FAST = ("lraspp_mobilenet_v3_large", "mobilenet_v2_counted")


def some(rows):
    return [row if row in FAST else pytest.param(row, marks=pytest.mark.slow) for row in rows]


def torch_file(row: str, filled: bool = True) -> WeightFile:
    arrays = {}
    for name, shape in about(row)["names"]:
        zero = np.broadcast_to(np.float32(0), shape) if shape else np.zeros((), np.int64)
        arrays[name] = draw(name, tuple(shape)) if filled and shape else zero
    return WeightFile(f"{row}.pth", "torch", arrays)


def encoder_options(row: str, file: WeightFile) -> dict:
    """The options that the file tells and those that it cannot tell."""
    options = transfer.layout_of(file).describe(file.arrays) | about(row)["options"]
    own = ("encoder", "output_stride", *ENCODERS[options["encoder"]].options)
    return {name: value for name, value in options.items() if name in own}


@pytest.mark.parametrize("row", ROWS)
def test_every_array_has_its_place(row):
    """All but the classifiers, and the convolution before EfficientNet-Lite's."""
    file = torch_file(row, filled=False)
    layout = transfer.layout_of(file)
    assert layout in torch_networks.LAYOUTS
    config = layout.describe(file.arrays)
    names = [array_names(n, "torch") for n in layout.blocks(config, file.arrays).values()]
    named = [n[role] for n in names for role in n if role != "bias" or n["bias"] in file.arrays]
    assert len(named) == len(set(named))
    assert set(named) <= file.arrays.keys()
    left = {n for n in file.arrays.keys() - set(named) if not n.endswith("num_batches_tracked")}
    classifiers = ("classifier.", "fc.", "_fc.", "head.")
    head = ("conv_head.", "bn2.", "_conv_head.", "_bn1.") if "lite" in row else ()
    assert all(n.startswith((*classifiers, *head)) for n in left), left
    assert row in NETWORKS or config["encoder"] in row.replace("timm", "")


@pytest.mark.parametrize("row", some(CLASSIFIERS))
def test_maps(row):
    file = torch_file(row)
    options = encoder_options(row, file)
    model = build({"name": "fcn", "aux": False, **options}, 2)
    variables, report = load(file, model, transfer.abstract_variables(model), "encoder")
    assert not report.notes
    variables = {kind: tree["encoder"] for kind, tree in variables.items() if "encoder" in tree}
    encoder = make_encoder(options.pop("encoder"), **options, dtype=jnp.float32)
    apply = jax.jit(functools.partial(encoder.apply, train=False))
    maps = apply(variables, images(*about(row)["size"]))
    compared = 0
    for ours, theirs in zip(maps, golden()[f"{row}/maps"], strict=True):
        if np.isfinite(theirs).all():
            np.testing.assert_allclose(digest(ours), theirs, rtol=0, atol=TOLERANCE * theirs[-1])
            compared += 1
        else:
            assert ours is None or row.startswith(("resnext", "wide"))
    assert compared >= 4


@pytest.mark.slow
def test_tensorflows_padding_and_epsilon_matter():
    """The two EfficientNet-Lite0 of timm have one set of names; the option tells them apart."""
    row = "efficientnet_lite0_tf"
    file = torch_file(row)
    model = build({"name": "fcn", "aux": False, "encoder": "efficientnet_lite0"}, 2)
    variables, _ = load(file, model, transfer.abstract_variables(model), "encoder")
    variables = {kind: tree["encoder"] for kind, tree in variables.items()}
    encoder = make_encoder("efficientnet_lite0", dtype=jnp.float32)
    x = images(*about(row)["size"])
    first, *_ = jax.jit(functools.partial(encoder.apply, train=False))(variables, x)
    theirs = golden()[f"{row}/maps"][0]
    assert np.abs(digest(first) - theirs).max() > 0.01 * theirs[-1]


@pytest.mark.parametrize("row", some(NETWORKS))
def test_networks_outputs(row):
    file = torch_file(row)
    network = from_file(file)
    assert not network.report.notes
    assert not network.report.left_over
    apply = jax.jit(functools.partial(network.model.apply, train=False))
    outputs = apply(network.variables, images(*about(row)["size"]))
    assert {f"{row}/{key}" for key in outputs} == {
        name for name in golden() if name.startswith(f"{row}/") and not name.endswith("about")
    }
    for key, ours in outputs.items():
        theirs = golden()[f"{row}/{key}"]
        error = np.abs(ours[:, ::4, ::4] - theirs).max() / np.abs(theirs).max()
        assert error < TOLERANCE, (key, error)


@pytest.mark.parametrize("row", NETWORKS)
def test_networks_are_written_under_torchvisions_names(row):
    file = torch_file(row, filled=False)
    config = transfer.layout_of(file).describe(file.arrays)
    model = build(config, config.pop("num_classes"))
    layout = twin(model)
    assert layout is transfer.layout_of(file)
    flat = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(transfer.abstract_variables(model)):
        flat["/".join(key.key for key in path)] = np.broadcast_to(np.float32(0), leaf.shape)
    written = torch_arrays(layout.blocks(config, {}), flat)
    assert {n: a.shape for n, a in written.items()} == {n: a.shape for n, a in file.arrays.items()}


def test_a_mobile_network_that_torchvision_has_not_is_written_under_our_names():
    assert twin(build({"name": "deeplabv3", "encoder": "efficientnet_lite0"}, 3)) is None
    assert twin(build({"name": "lraspp", "encoder": "mobilenet_v2"}, 3)) is None


def test_options_of_the_file_that_the_model_lacks_are_noted():
    file = torch_file("efficientnet_lite0_counted", filled=False)
    model = build({"name": "fcn", "encoder": "efficientnet_lite0", "width": 1.0}, 2)
    _, report = load(file, model, transfer.abstract_variables(model), "encoder")
    assert report.notes == [
        "model.tensorflow is False here and True in the file's network: its outputs are not "
        "reproduced"
    ]


def test_another_encoders_file_says_what_it_looks_like():
    model = build({"name": "fcn", "encoder": "mobilenet_v3_large"}, 2)
    file = torch_file("mobilenet_v2", filled=False)
    with pytest.raises(ValueError, match=r"looks like|model\.encoder is mobilenet_v3_large; the"):
        load(file, model, transfer.abstract_variables(model))
