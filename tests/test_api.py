"""The front door: what `import segjax` offers, and what it loads."""

import functools
import inspect
import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segjax
from configs import base
from segjax import config as configs
from segjax import weights
from segjax.data.classes import from_names
from segjax.models import MODELS, PSPNet, model_options
from segjax.training.checkpoint import CheckpointStore

K = 5
THIN = {"encoder": "resnet18", "width": 1 / 32}
leaves = jax.tree_util.tree_leaves_with_path


def create(name="pspnet", num_classes=K, **options):
    return segjax.create_model(name, num_classes=num_classes, **THIN | options)


def small(num_classes=K, **options):
    """A network that compiles quickly."""
    return segjax.create_model("segnet_basic", num_classes=num_classes, features=2, **options)


def saved(path, model, variables, **options):
    weights.save(path, model, variables, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), **options)
    return path


def equal(ours, theirs) -> list[str]:
    """Paths of the leaves that are equal."""
    pairs = zip(leaves(ours), leaves(theirs), strict=True)
    return [jax.tree_util.keystr(p) for (p, a), (_, b) in pairs if np.array_equal(a, b)]


def test_importing_segjax_loads_no_jax():
    code = (
        "import sys, segjax; assert dir(segjax) and segjax.__version__; "
        "print([m for m in sys.modules if m.split('.')[0] in ('jax', 'flax', 'numpy', 'orbax')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_name_is_there_and_listed():
    assert dir(segjax) == sorted([*segjax.__all__, "__version__"])
    for name in segjax.__all__:
        assert getattr(segjax, name) is not None
    assert segjax.models.PSPNet is PSPNet
    with pytest.raises(AttributeError, match="'segjax' has no attribute 'unet'"):
        segjax.unet  # noqa: B018


def test_models_are_importable_by_name():
    assert {kind.__name__ for kind in MODELS.values()} <= set(segjax.models.__all__)


def test_the_readmes_example():
    model, variables = segjax.create_model("pspnet", encoder="resnet18", num_classes=7, width=0.1)
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits = apply(variables, jnp.zeros((1, 33, 40, 3)))["logits"]
    assert (logits.shape, logits.dtype) == ((1, 33, 40, 7), jnp.float32)
    labels = jnp.full((1, 33, 40), 255).at[0, 0, 0].set(3)
    loss = segjax.losses.cross_entropy(logits, labels)
    np.testing.assert_allclose(loss, -jax.nn.log_softmax(logits[0, 0, 0])[3], rtol=1e-6)
    assert segjax.metrics.mean_iou(np.eye(3, dtype=int))[0] == 1


@pytest.mark.parametrize("name", MODELS)
def test_named_options_are_those_of_models(name):
    """What an editor completes exists, and the defaults are the model's."""
    parameters = inspect.signature(segjax.create_model).parameters
    own = {"name", "num_classes", "weights", "parts", "dtype", "in_channels", "seed", "options"}
    everywhere = {option for model in MODELS for option in model_options(model)}
    assert set(parameters) - own <= everywhere
    assert all(p.default is None for option, p in parameters.items() if option in everywhere)


def test_options_reach_the_model():
    model, variables = create(bins=(1, 2), aux=False, dtype="bfloat16", in_channels=4)
    assert (model.bins, model.aux, model.dtype) == ((1, 2), False, jnp.bfloat16)
    assert "aux_head" not in variables["params"]
    assert variables["params"]["encoder"]["stem1"]["conv"]["kernel"].shape[2] == 4


def test_the_seed_decides_what_is_drawn():
    (_, first), (_, same), (_, other) = (small(seed=seed) for seed in (1, 1, 2))
    assert len(equal(first, same)) == len(leaves(first))
    assert not any("kernel" in path for path in equal(first, other))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "linknet"}, r"'linknet' is unknown; known models: segnet, .*pspnet"),
        ({"bin": (1, 2)}, r"model\.bin: pspnet has no such option; it has encoder, .*bins"),
        ({"encoder": "vgg"}, r"model\.encoder='vgg' is unknown; known: resnet18, "),
        ({"num_classes": 0}, r"num_classes=0; a model needs at least 1 class"),
        ({"dtype": "float16"}, r"dtype='float16' is unknown; known: float32, bfloat16"),
        ({"in_channels": 0}, r"in_channels=0; images have 1 channel or more"),
        ({"weights": "imagnet"}, r"'imagnet' is no known name, .*; did you mean imagenet\b"),
        ({"weights": "imagenet/torchvision_v2"}, "there are imagenet/torchvision_v1, imagenet/ti"),
        ({"weights": "missing.pth"}, r"weight file missing\.pth does not exist; give a \.pth"),
        ({"weights": "no/such"}, r"'no/such' is no known name, no file and no folder\. For .*res"),
        ({"parts": "head", "weights": "missing.pth"}, "missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        create(**arguments)


def test_an_option_of_another_model():
    with pytest.raises(
        ValueError, match=r"model\.encoder: segnet has no such option; it has width"
    ):
        segjax.create_model("segnet", encoder="resnet18", num_classes=K)


def test_weights_of_a_file(tmp_path, caplog):
    model, variables = small(seed=1)
    path = saved(tmp_path / "m.safetensors", model, variables)
    with caplog.at_level(logging.INFO):
        _, all_of_it = small(weights=path, seed=2)
    assert len(equal(all_of_it, variables)) == len(leaves(variables))
    assert caplog.records[-1].levelname == "INFO"
    _, fewer = small(num_classes=3, weights=str(path), seed=2)
    assert "5 classes in the file, 3 here" in caplog.records[-1].getMessage()
    assert caplog.records[-1].levelname == "WARNING"
    _, drawn = small(num_classes=3, seed=2)
    same = equal(*(tree["params"] | {"classifier": {}} for tree in (fewer, variables)))
    assert len(same) == 8 * 4
    assert len(equal(fewer["params"]["classifier"], drawn["params"]["classifier"])) == 2


def test_an_encoder_of_another_model(tmp_path):
    model, variables = create(seed=1)
    path = saved(tmp_path / "m.safetensors", model, variables)
    _, encoder = create("fcn", stem="3x3", weights=path, parts="encoder")
    assert len(equal(encoder["params"]["encoder"], variables["params"]["encoder"])) > 50
    with pytest.raises(ValueError, match=r"looks like semseg PSPNet.*encoder=resnet18"):
        create(encoder="resnet34", weights=path)


def test_a_network_of_a_file(tmp_path):
    model, variables = small()
    classes = ("road", "sky", "tree", "car", "person")
    path = saved(tmp_path / "m.safetensors", model, variables, classes=classes)
    net = segjax.load_pretrained(path)
    assert (net.model, net.classes) == (model, classes)
    np.testing.assert_array_equal(net.mean, np.float32([0.5, 0.4, 0.3]))
    images = jnp.full((1, 16, 24, 3), 0.5)
    apply = jax.jit(functools.partial(net.model.apply, train=False))
    logits = apply(net.variables, (images - net.mean) / net.std)["logits"]
    assert logits.shape == (1, 16, 24, K)
    with pytest.raises(ValueError, match="did you mean coco_voc/torchvision/deeplabv3_resnet50"):
        segjax.load_pretrained("deeplabv3_resnet50_coco")


def test_a_runs_best_checkpoint(tmp_path):
    config = base.get_config("segnet_basic")
    config.model.features = 2
    config.data.mean, config.data.std = (0.5,) * 3, (0.25,) * 3
    configs.save(config, tmp_path)
    configs.save_classes(from_names(["road", "sky"]), tmp_path)
    model, variables = segjax.create_model("segnet_basic", num_classes=2, features=2)
    with CheckpointStore(tmp_path) as store:
        store.save_best(1, dict(variables), 0.5)
    net = segjax.load_pretrained(tmp_path)
    assert (net.model, net.classes, list(net.mean)) == (model, ("road", "sky"), [0.5] * 3)
    assert len(equal(net.variables, variables)) == len(leaves(variables))
    _, loaded = segjax.create_model("segnet_basic", num_classes=2, features=2, weights=tmp_path)
    assert len(equal(loaded, variables)) == len(leaves(variables))
