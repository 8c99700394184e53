"""Our variables as files for elsewhere."""

import json

import flax
import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from segjax import weights
from segjax.models import build
from segjax.weights.export import twin
from tests.weights.test_transfer import drawn, flatten

pytestmark = pytest.mark.versions

K = 5
CLASSES = ("road", "sky", "tree", "car", "person")
THIN = {"encoder": "resnet18", "width": 1 / 32}
TORCHVISION = THIN | {"output_stride": 8, "stem": "7x7", "contract_dilation": True}
DEEPLAB = TORCHVISION | {"multi_grid": (1, 1, 1), "head_conv": True, "dropout_rate": 0.5}
SMP_PLUS = {"head_conv": True, "decoder_convs": 1, "norm_between": False}
CASES = [
    ({"name": "fcn", **TORCHVISION}, "torchvision fcn_resnet50/101"),
    pytest.param(
        {"name": "deeplabv3", **DEEPLAB},
        "torchvision deeplabv3_resnet50/101",
        marks=pytest.mark.slow,
    ),
    pytest.param({"name": "pspnet", **THIN}, "semseg PSPNet50/101/152", marks=pytest.mark.slow),
    (
        {"name": "unet", **THIN},
        "segmentation_models.pytorch Unet with resnet18/34/50/101/152 or mobilenet_v2",
    ),
    pytest.param(
        {"name": "deeplabv3plus", **THIN, **SMP_PLUS},
        "segmentation_models.pytorch DeepLabV3Plus with resnet18/34/50/101/152 or mobilenet_v2",
        marks=pytest.mark.slow,
    ),
    ({"name": "deeplabv3", **THIN}, None),  # torchvision's has one more convolution
    ({"name": "segnet_basic", "features": 2}, None),
    pytest.param({"name": "notebook_pspnet", "width": 1 / 16}, None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("options, title", CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_written_is_read_back(tmp_path, options, title):
    model = build(options, K)
    variables = drawn(model)
    path = tmp_path / "folder" / "model.safetensors"
    text = weights.save(
        path, model, variables, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), classes=CLASSES
    )
    assert f"under {'the names of ' + title if title else 'segjax'}" in text
    layout = twin(model)
    assert (layout.title if layout else None) == title
    loaded = weights.from_file(path)
    assert loaded.model == model
    np.testing.assert_array_equal([loaded.mean, loaded.std], np.float32([[0.5] * 3, [0.2] * 3]))
    assert loaded.classes == CLASSES
    for leaf, value in flatten(variables).items():
        np.testing.assert_array_equal(flatten(loaded.variables)[leaf], value, err_msg=leaf)


def test_torchvision_names_and_axes(tmp_path):
    model = build({"name": "fcn", **TORCHVISION}, K)
    variables = drawn(model)
    weights.save(tmp_path / "m.safetensors", model, variables)
    (tmp_path / "plain").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("m.safetensors", "plain")]
    assert modes[0] == modes[1]  # whoever may read files that are made here may read this one
    arrays = load_file(tmp_path / "m.safetensors")
    kernel = variables["params"]["encoder"]["stem"]["conv"]["kernel"]
    np.testing.assert_array_equal(arrays["backbone.conv1.weight"], kernel.transpose(3, 2, 0, 1))
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        assert f"backbone.layer4.1.bn2.{name}" in arrays
    assert arrays["backbone.bn1.num_batches_tracked"].shape == ()
    assert arrays["classifier.4.weight"].shape == (K, 4, 1, 1)
    with safetensors.safe_open(tmp_path / "m.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["segjax_model"])["encoder"] == "resnet18"


def test_options_that_torch_must_be_told_are_noted(tmp_path):
    model = build({"name": "fcn", **TORCHVISION, "output_stride": 16}, K)
    text = weights.save(tmp_path / "m.safetensors", model, drawn(model))
    assert "note: model.output_stride is 16 here and 8 in the torch network" in text


def test_another_suffix_is_refused(tmp_path):
    model = build({"name": "segnet_basic", "features": 2}, K)
    with pytest.raises(ValueError, match=r"m\.pth should end in \.safetensors"):
        weights.save(tmp_path / "m.pth", model, {})


def test_half_of_the_size(tmp_path):
    model = build({"name": "segnet_basic", "features": 2}, K)
    variables = drawn(model)
    weights.save(tmp_path / "m.safetensors", model, variables, half=True)
    loaded = flatten(weights.from_file(tmp_path / "m.safetensors").variables)
    for leaf, value in flatten(variables).items():
        stored = value.astype(np.float16) if value.ndim > 1 else value
        assert loaded[leaf].dtype == np.float32
        np.testing.assert_array_equal(loaded[leaf], stored, err_msg=leaf)
    kernels = {k: np.full_like(v, 1e5) if v.ndim > 1 else v for k, v in flatten(variables).items()}
    large = flax.traverse_util.unflatten_dict(kernels, sep="/")
    with pytest.raises(ValueError, match=r"kernel holds 1e\+05, beyond the range of float16"):
        weights.save(tmp_path / "l.safetensors", model, large, half=True)
    assert not (tmp_path / "l.safetensors").exists()
