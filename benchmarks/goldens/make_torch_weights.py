"""Writes weights_torch_*.npz: what torch's networks compute with drawn weights.

Only this script needs torch; the tests read what it leaves behind.

    pip install torch torchvision==0.29.2 segmentation_models_pytorch==0.6.0
    python -m benchmarks.goldens.make_torch_weights [NAME ...]

Every array of a network is `draw(NAME, shape)` with its name in the state dict, so a golden holds
no weights, but:

  names: JSON, [[name, shape], ...] of the state dict.
  size: of `draw.images`, [n, h, w].
  layers, digests: JSON list of convolutions and normalisations, and `draw.digest` of each one's
    output in evaluation mode, channels-last, [layers, 9].
  stages: JSON list, and `stage_digests` likewise, of a classifier's feature maps.
  output_logits, output_aux: of a segmentation network, every second row and column; `kept`: every
    so many (2 where it is not said).
  trained_*: (one network) a step in training mode without dropout: the `loss` (see `step`), both
    outputs, `parameters` (JSON list) and `gradients` [parameters, 2] (`gradient_sums` of each),
    `norms` (JSON list), `statistics` [norms, 2, 9] (digests of the running mean and variance after
    it) and `counts` (how many values a channel they are of).

weights_torch_names.npz has the names alone, of networks that differ in depth only. All is computed
in float64, so that what a test measures is its own rounding.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet

from benchmarks.goldens.torch_networks import (
    CLASSES,
    LARGE,
    NAMES_ONLY,
    NETWORKS,
    smp,
    torchvision,
)
from tests.goldens.draw import digest, draw, images
from tests.goldens.training_step import IGNORE, gradient_sums, labels

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
TRAINED = "fcn_resnet50"


def names_of(network: nn.Module) -> list[tuple[str, list[int]]]:
    return [(name, list(array.shape)) for name, array in network.state_dict().items()]


def fill(network: nn.Module) -> nn.Module:
    state = {
        name: torch.from_numpy(draw(name, tuple(array.shape)))
        for name, array in network.state_dict().items()
        if array.is_floating_point()
    }
    network.load_state_dict(state, strict=False)
    return network.double().eval()


def channels_last(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2).double()


def channels_last_kernel(gradient: np.ndarray) -> np.ndarray:
    """[o, i, h, w] as [h, w, i, o]; what has one axis stays."""
    return gradient.transpose(2, 3, 1, 0) if gradient.ndim == 4 else gradient


def features(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A classifier's maps: what VGG16 pools, and a ResNet's c2 to c5."""
    found = {}
    if isinstance(network, torchvision.models.VGG):
        for layer in network.features:
            if isinstance(layer, nn.MaxPool2d):
                found[f"before_pool{len(found) + 1}"] = x
            x = layer(x)
        return found
    x = network.maxpool(torch.relu(network.bn1(network.conv1(x))))
    for layer in (1, 2, 3, 4):
        x = found[f"layer{layer}"] = getattr(network, f"layer{layer}")(x)
    return found


def outputs_of(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs = network(x)
    if isinstance(outputs, torch.Tensor):
        return {"logits": outputs}
    return {{"out": "logits"}.get(key, key): value for key, value in outputs.items()}


def make(name: str) -> None:
    build, size = NETWORKS[name]
    network = fill(build())
    named = {module: path for path, module in network.named_modules()}
    digests: dict[str, np.ndarray] = {}

    def record(module, _, output):
        digests[named[module]] = digest(channels_last(output))

    kinds = (nn.Conv2d, nn.BatchNorm2d)
    hooks = [m.register_forward_hook(record) for m in network.modules() if isinstance(m, kinds)]
    x = channels_first(images(*size))
    golden = {"names": json.dumps(names_of(network)), "size": json.dumps(size)}
    with torch.no_grad():
        if isinstance(network, torchvision.models.VGG | resnet.ResNet):
            maps = features(network, x)
            golden["stages"] = json.dumps(list(maps))
            golden["stage_digests"] = np.stack([digest(channels_last(m)) for m in maps.values()])
        else:
            maps = outputs_of(network, x)
            kept = 4 if name in LARGE else 2
            golden["kept"] = np.array(kept)
            golden |= {f"output_{key}": thin(value, kept) for key, value in maps.items()}
    for key, value in maps.items():
        print(f"  {key}: {tuple(value.shape)}, largest {value.abs().max():.3g}")
    golden["layers"] = json.dumps(list(digests))
    golden["digests"] = np.stack(list(digests.values()))
    for hook in hooks:
        hook.remove()
    if name == TRAINED:
        golden |= {f"trained_{key}": value for key, value in step(network, x, size).items()}
    write(name, golden)


def thin(x: torch.Tensor, kept: int = 2) -> np.ndarray:
    return channels_last(x)[:, ::kept, ::kept].astype(np.float32)


def step(network: nn.Module, x: torch.Tensor, size: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """Mean cross-entropy over the pixels that count, the auxiliary head's halved, and gradients."""
    network.train()
    counts: dict[str, int] = {}
    norms = {p: m for p, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    for path, module in norms.items():

        def count(_, inputs, __, path=path):
            counts[path] = inputs[0].numel() // inputs[0].shape[1]

        module.register_forward_hook(count)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    outputs = outputs_of(network, x)
    wanted = torch.from_numpy(labels(*size, CLASSES)).long()
    losses = {
        key: F.cross_entropy(value, wanted, ignore_index=IGNORE) for key, value in outputs.items()
    }
    loss = losses["logits"] + 0.5 * losses["aux"]
    loss.backward()
    print(f"  loss {loss.item():.6f}")
    gradients = {
        p: gradient_sums(channels_last_kernel(g.grad.numpy()))
        for p, g in network.named_parameters()
    }
    return {
        "loss": np.array(loss.item()),
        **{f"output_{key}": thin(value) for key, value in outputs.items()},
        "parameters": json.dumps(list(gradients)),
        "gradients": np.array(list(gradients.values())),
        "norms": json.dumps(list(norms)),
        "statistics": np.stack(
            [
                [digest(module.running_mean.numpy()), digest(module.running_var.numpy())]
                for module in norms.values()
            ]
        ),
        "counts": np.array([counts[path] for path in norms]),
    }


def write(name: str, golden: dict) -> None:
    path = GOLDENS / f"weights_torch_{name}.npz"
    np.savez_compressed(path, **golden)
    print(f"{path.name}: {path.stat().st_size} bytes")


def make_names() -> None:
    golden = {}
    for name, build in NAMES_ONLY.items():
        with torch.device("meta"):
            golden[name] = json.dumps(names_of(build()))
    write("names", golden)


if __name__ == "__main__":
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, smp {smp.__version__}"
    )
    for chosen in sys.argv[1:] or ["names", *NETWORKS]:
        make_names() if chosen == "names" else make(chosen)
