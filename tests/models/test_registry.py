"""From a config to a model: what `build` refuses, and what it says then."""

import math

import pytest

from segjax.models import build

K = 5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("config", "dtype", "message"),
    [
        ({}, "float32", "model.name is missing; known models: segnet, "),
        ({"name": "linknet"}, "float32", "model.name='linknet' is unknown; known models: segnet, "),
        ({"name": "segnet", "widht": 1}, "float32", r"model\.widht: segnet has no such option; "),
        ({"name": "segnet", "dtype": 1}, "float32", r"model\.dtype: segnet has no such option"),
        ({"name": "segnet"}, "float16", "dtype='float16' is unknown; known: float32, bfloat16"),
        ({"name": "segnet", "width": 0}, "float32", "model.width=0; use a number above 0"),
        ({"name": "segnet", "width": math.nan}, "float32", "model.width=nan; use a number above 0"),
        (
            {"name": "segnet", "momentum": 2.0},
            "float32",
            "model.momentum=2.0; use a number in",
        ),
        ({"name": "fcn", "momentum": math.nan}, "float32", "model.momentum=nan; use a number in"),
        ({"name": "deeplabv3", "aspp_features": -1}, "float32", "aspp_features=-1; use 0 or more"),
        ({"name": "fcn", "width": -1.0}, "float32", "model.width=-1.0; use a number above 0"),
        ({"name": "fcn", "output_stride": 4}, "float32", "output_stride=4; use 8, 16 or 32"),
        ({"name": "pspnet", "stem": "5x5"}, "float32", 'model.stem=\'5x5\'; use "7x7", "3x3" or'),
        ({"name": "fcn", "encoder": "vgg"}, "float32", "model.encoder='vgg' is unknown; known: r"),
        ({"name": "pspnet", "bins": []}, "float32", r"model.bins=\(\); use one or more diff"),
        ({"name": "pspnet", "bins": [0, 2]}, "float32", r"model.bins=\(0, 2\); use one or more"),
        ({"name": "pspnet", "bins": [2, 2]}, "float32", r"model.bins=\(2, 2\); .* different"),
        ({"name": "deeplabv3", "rates": []}, "float32", r"model.rates=\(\); use one or more"),
        ({"name": "deeplabv3", "multi_grid": [0]}, "float32", r"multi_grid=\(0,\); use one or"),
        (
            {"name": "deeplabv3", "rates": [1, 6], "output_stride": 32},
            "float32",
            r"model.rates=\(1, 6\) .* are \(0, 3\) at output stride 32",
        ),
        ({"name": "deeplabv3", "rates": [6, 6]}, "float32", r"model.rates=\(6, 6\) .* different"),
        (
            {"name": "segnet", "dropout_rate": 1},
            "float32",
            "dropout_rate=1; use a number from 0 to",
        ),
        ({"name": "fcn", "dropout_rate": -0.1}, "float32", "model.dropout_rate=-0.1; use a number"),
        ({"name": "segnet_basic", "features": 0}, "float32", "model.features=0; use 1 or more"),
        ({"name": "fcn_vgg", "fc_features": 0}, "float32", "model.fc_features=0; use 1 or more"),
        ({"name": "fcn_vgg", "stride": 4}, "float32", "model.stride=4; use 32, 16 or 8"),
        ({"name": "deeplab_largefov", "rate": 0}, "float32", "model.rate=0; use 1 or more"),
        ({"name": "deconvnet", "fc_kernel": [7]}, "float32", r"fc_kernel=\(7,\); use \(rows, colu"),
        ({"name": "deconvnet", "fc_kernel": [0, 7]}, "float32", r"fc_kernel=\(0, 7\); use \(rows"),
        (
            {"name": "segnet_basic", "upsampling": "nearest"},
            "float32",
            "model.upsampling='nearest'; use indices, bilinear, deconv",
        ),
        (
            {"name": "segnet_basic", "upsampling": "deconv", "single_channel": True},
            "float32",
            "model.single_channel=True; .*, use it with 'indices'",
        ),
        (
            {"name": "segnet_basic", "reduction": True},
            "float32",
            "model.reduction=True; .*, use it with 'deconv' or 'bilinear'",
        ),
    ],
)
def test_build_errors(config, dtype, message):
    with pytest.raises(ValueError, match=message):
        build(config, K, dtype)


def test_build_needs_a_class():
    with pytest.raises(ValueError, match="num_classes=0; a model needs at least 1 class"):
        build({"name": "segnet"}, 0)


def test_lists_become_tuples():
    assert build({"name": "pspnet", "bins": [1, 4]}, K).bins == (1, 4)
