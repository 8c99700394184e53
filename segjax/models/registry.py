"""The models by name, and how a config becomes one.

A model's options are its dataclass fields. `config.model` holds `name` and any of them; a name
that is no field is an error, so no option is ignored in silence.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from segjax.models.deconvnet import DeconvNet
from segjax.models.deeplab import DeepLabV3
from segjax.models.deeplab_plus import DeepLabV3Plus
from segjax.models.fcn import FCN
from segjax.models.fcn_vgg import FCNVGG
from segjax.models.largefov import DeepLabLargeFOV
from segjax.models.lraspp import LRASPP
from segjax.models.notebooks import NCSUSegNet, NotebookDeepLabV3, NotebookPSPNet, NotebookSegNet
from segjax.models.pspnet import PSPNet
from segjax.models.segnet import SegNet
from segjax.models.segnet_basic import SegNetBasic
from segjax.models.smp import SMPPSPNet
from segjax.models.unet import UNet
from segjax.ranges import check_type

MODELS: dict[str, type[nn.Module]] = {
    "segnet": SegNet,
    "segnet_basic": SegNetBasic,
    "fcn": FCN,
    "pspnet": PSPNet,
    "deeplabv3": DeepLabV3,
    "fcn_vgg": FCNVGG,
    "deeplab_largefov": DeepLabLargeFOV,
    "deconvnet": DeconvNet,
    "notebook_segnet": NotebookSegNet,
    "notebook_pspnet": NotebookPSPNet,
    "notebook_deeplabv3": NotebookDeepLabV3,
    "ncsu_segnet": NCSUSegNet,
    "smp_pspnet": SMPPSPNet,
    "deeplabv3plus": DeepLabV3Plus,
    "unet": UNet,
    "lraspp": LRASPP,
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# What the logits mean, see `segjax.training.head`: options of every model, of which no network
# depends. `threshold`: of a label's probability for its presence, one number or one per label.
HEAD = {"head": "softmax", "threshold": (0.5,)}
# Fields that `build` sets itself, or that linen adds.
_NOT_OPTIONS = ("num_classes", "dtype", "parent", "name")


def model_options(name: str) -> dict[str, Any]:
    """The options of a model and their defaults, which are those of its source.

    Raises:
      ValueError: listing the models, for an unknown name.
    """
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is unknown; known models: {', '.join(MODELS)}")
    fields = dataclasses.fields(MODELS[name])
    return {f.name: f.default for f in fields if f.name not in _NOT_OPTIONS}


def model_defaults(name: str) -> dict[str, Any]:
    """The `model` section of a config: the name, the head, and every option at its default.

    Raises:
      ValueError: listing the models, for an unknown name.
    """
    return {"name": name, **HEAD, **model_options(name)}


def build(model_config: Mapping[str, Any], num_classes: int, dtype: str = "float32") -> nn.Module:
    """Makes the model that a config names.

    Args:
      model_config: `name`, and options of that model (see `model_options`); the others have their
        defaults. Lists become tuples. The options of `HEAD` change nothing here.
      num_classes: K, channels of the logits.
      dtype: compute dtype, "float32" or "bfloat16"; parameters, statistics and logits stay
        float32.

    Returns:
      A module: `model.apply(variables, images, train=False)` takes normalised images float
      [n, H, W, channels] and returns {"logits": float32 [n, H, W, K]}, with "aux" beside it where
      the model has an auxiliary head.

    Raises:
      ValueError: for an unknown model, option, dtype or value, naming what is known.
    """
    options = {option: value for option, value in model_config.items() if option not in HEAD}
    if "name" not in options:
        raise ValueError(f"model.name is missing; known models: {', '.join(MODELS)}")
    name = options.pop("name")
    known = model_options(name)
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"model.{', model.'.join(unknown)}: {name} has no such option; it has "
            f"{', '.join(known)}"
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is unknown; known: {', '.join(DTYPES)}")
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}; a model needs at least 1 class")
    options = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in options.items()}
    for option, value in options.items():
        check_type(f"model.{option}", value, known[option])
    _check_values(options)
    return MODELS[name](num_classes=num_classes, dtype=DTYPES[dtype], **options)


def _check_values(options: Mapping[str, Any]) -> None:
    """Checks options that several models have; each model checks its own."""
    if not 0 < options.get("width", 1) < math.inf:
        raise ValueError(f"model.width={options['width']}; use a number above 0 (1 is the paper's)")
    for option, low in (("features", 1), ("fc_features", 1), ("aspp_features", 0)):
        if options.get(option, low) < low:
            raise ValueError(f"model.{option}={options[option]}; use {low} or more")
    if not 0 <= options.get("momentum", 0) <= 1:
        raise ValueError(
            f"model.momentum={options['momentum']}; use a number in [0, 1]: the share of the "
            "running statistics that a step keeps (torch's 0.1 is 0.9 here)"
        )
    if not 0 <= options.get("dropout_rate", 0) < 1:
        raise ValueError(
            f"model.dropout_rate={options['dropout_rate']}; use a number from 0 to below 1"
        )
