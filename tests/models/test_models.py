"""One class of tests over the whole model table; what is special to a model follows it."""

import functools
from types import SimpleNamespace

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.models import MODELS, build, model_options, notebooks
from segjax.models.encoders import ENCODERS
from segjax.models.notebook_resnet import NotebookResNet
from segjax.models.resnet import VARIANTS, Bottleneck

K = 5
SIZE = (61, 83)
TORCHVISION = dict(stem="7x7", output_stride=8, contract_dilation=True)

# Parameters at full size: (options, classes, count, source).
PINNED = {
    "segnet": ({}, 11, 29_449_355, "the authors' segnet prototxt: 29,433,483 + 15,872 of BN"),
    "segnet_basic": ({}, 11, 1_416_587, "the authors' basic prototxt: 1,415,563 + 1,024 of BN"),
    "fcn": (TORCHVISION, 21, 35_322_218, "torchvision 0.29 fcn_resnet50, with aux"),
    "pspnet": ({}, 21, None, "layer by layer: pspnet_parameters"),
    "deeplabv3": (
        dict(TORCHVISION, head_conv=True, multi_grid=(1, 1, 1)),
        21,
        42_004_074,
        "torchvision 0.29 deeplabv3_resnet50, with aux",
    ),
    "fcn_vgg": ({}, 11, 134_348_929, "by hand: test_comparison.py; 537 MB, the paper prints 539"),
    "deeplab_largefov": ({}, 11, 20_495_179, "by hand: test_comparison.py; 82 MB, in print 83"),
    "deconvnet": ({}, 11, 251_805_003, "by hand: test_comparison.py"),
    # Without the running statistics, which Keras counts too.
    "notebook_segnet": ({}, 7, 29_500_103 - 16_000, "Keras's count of the document's network"),
    "notebook_pspnet": ({}, 7, 3_419_495 - 14_528, "Keras's count of the document's network"),
    "notebook_deeplabv3": ({}, 7, 39_144_327 - 56_192, "Keras's count of the document's network"),
    "ncsu_segnet": ({}, 101, 11_605_925 - 1_920, "the report's 11,604,365; see test_notebooks.py"),
    "smp_pspnet": ({}, 7, 1_528_871, "segmentation_models_pytorch 0.6: three stages, no layer3, 4"),
    "deeplabv3plus": (
        dict(head_conv=True, decoder_convs=1, norm_between=False),
        1,
        26_677_585,
        "segmentation_models_pytorch 0.6's count of its DeepLabV3Plus on resnet50",
    ),
    "unet": ({}, 1, 24_436_369, "segmentation_models_pytorch 0.6's count of its Unet on resnet34"),
    "lraspp": ({}, 21, 3_221_538, "torchvision 0.29 lraspp_mobilenet_v3_large"),
    "deeplabv3_cascade": (
        {},
        21,
        # Three copies of three bottlenecks of 2048 channels, a classifier, an auxiliary head.
        23_508_032 + 3 * 3 * (17 * 512**2 + 12 * 512) + 2049 * 21 + 2_365_205,
        "torchvision 0.29 resnet50's body, and by hand from the paper's figure 3",
    ),
    "pspnet_max": ({}, 21, None, "layer by layer: pspnet_parameters"),
}
# Other networks that options make of a model; they are tested as the models are.
VARIANTS_OF = {
    "deeplabv3_cascade": dict(name="deeplabv3", cascade=3, with_aspp=False, output_stride=64),
    "pspnet_max": dict(name="pspnet", pooling="max", reduce=False),
}


def named(name: str) -> dict:
    """The model of the table that a name means, and the options of a variant."""
    return VARIANTS_OF.get(name, {"name": name})


def options_of(name: str) -> dict:
    return model_options(named(name)["name"])


@pytest.fixture(scope="module", autouse=True)
def shallow_encoder():
    """A ResNet of 7 blocks instead of 16: what repeats need not compile each time. The notebooks'
    has no option for that; a thin one gets two blocks a stage."""

    def shallow(stem, *, rates, **options):
        rates = rates if stem == 64 else tuple(stage[-2:] for stage in rates)
        return NotebookResNet(stem, rates=rates, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "shallow", (Bottleneck, (1, 1, 2, 3)))
        patch.setitem(ENCODERS, "shallow", ENCODERS["resnet50"])
        patch.setattr(notebooks, "NotebookResNet", shallow)
        yield


def small(name: str, dtype: str = "float32", **options):
    """A model of the table, thin and shallow enough to compile and run in seconds."""
    model, known = named(name), options_of(name)
    thin = {"width": 0.125, "features": 8, "encoder": "shallow", "fc_features": 16}
    thin = {option: value for option, value in thin.items() if option in known}
    return build({**model, **thin, **options}, K, dtype)


@functools.cache
def abstract_variables(model):
    """Shapes and dtypes of a model's variables, without computing anything."""
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 64, 64, 3)), train=False), jax.random.key(0)
    )


def abstract_pass(model, size):
    """Shapes and dtypes of the outputs for two images, and of the variables."""
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    init = functools.partial(model.init_with_output, train=False)
    return jax.eval_shape(init, jax.random.key(0), images)


def he_variables(model):
    """Initial values as the model's own (He normal kernels), drawn without compiling it."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return std * rng.standard_normal(leaf.shape).astype(np.float32)
        return np.full(leaf.shape, kind in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(draw, abstract_variables(model))


def paths(tree) -> dict[str, jax.Array]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def count(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


# They compile for long, and share their encoders with others that are here.
SLOW = ("fcn", "deeplabv3", "lraspp", "deconvnet", "notebook_pspnet", "notebook_deeplabv3")
SLOW += tuple(VARIANTS_OF)
# These have the blocks of others here, and numbers and sizes of their own in test_comparison.py,
# test_notebooks.py and test_smp.py.
ALIKE = ("deeplab_largefov", "notebook_segnet", "ncsu_segnet", "smp_pspnet")


def all_models(*slow):
    names = [*MODELS, *VARIANTS_OF]
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


@pytest.fixture(scope="module", params=all_models(*SLOW, *ALIKE))
def run(request):
    """One model's variables, and what its compiled forward and training passes return."""
    name = request.param
    model = small(name)
    variables = he_variables(model)
    images = np.random.default_rng(1).standard_normal((4, *SIZE, 3)).astype(np.float32)
    cotangent = np.random.default_rng(2).standard_normal((4, *SIZE, K)).astype(np.float32)

    @jax.jit
    def forward(variables, images):
        return model.apply(variables, images, train=False, mutable=["batch_stats"])

    @functools.partial(jax.jit, static_argnames="dtype")
    def forward_as(variables, images, dtype):
        return small(name, dtype).apply(variables, images, train=False)

    def loss(params, batch_stats, images, cotangent):
        outputs, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        total = sum(jnp.mean(logits * cotangent) for logits in outputs.values())
        return total, (outputs, updates)

    batch_stats = variables.get("batch_stats", {})  # plain VGG networks have none
    outputs, still = forward(variables, images)
    gradient, (trained, updates) = jax.jit(jax.grad(loss, has_aux=True))(
        variables["params"], batch_stats, images, cotangent
    )
    return SimpleNamespace(
        name=name,
        model=model,
        variables=variables,
        batch_stats=batch_stats,
        outputs=outputs,
        trained=trained,
        still=still.get("batch_stats", {}),
        moved=updates.get("batch_stats", {}),
        gradient=gradient,
        bfloat16=lambda: forward_as(variables, images, "bfloat16"),
    )


class TestEveryModel:
    """What holds for each entry of MODELS and of VARIANTS_OF; a new one needs a line in PINNED."""

    def test_logits_have_the_images_size(self, run):
        """At an odd size in both modes, and at the smallest."""
        keys = {"logits", "aux"} if options_of(run.name).get("aux") else {"logits"}
        smallest, _ = abstract_pass(run.model, (1, 2))
        for outputs, shape in (
            (run.outputs, (4, *SIZE, K)),
            (run.trained, (4, *SIZE, K)),
            (smallest, (2, 1, 2, K)),
        ):
            assert outputs.keys() == keys
            for logits in outputs.values():
                assert logits.shape == shape
                assert logits.dtype == jnp.float32

    @pytest.mark.versions
    def test_logits_are_finite_and_differ_between_images(self, run):
        for logits in run.outputs.values():
            assert np.isfinite(logits).all()
            assert np.abs(logits[0] - logits[1]).max() > 1e-3 * np.abs(logits).max()

    @pytest.mark.parametrize("name", all_models(*SLOW))
    def test_pinned_parameter_count(self, name):
        assert name in PINNED, f"{name} has no pinned parameter count"
        options, classes, pinned, source = PINNED[name]
        model = build({**named(name), **options}, classes)
        found = count(abstract_variables(model)["params"])
        assert found == (pinned or pspnet_parameters(classes, name == "pspnet")), source

    def test_train_is_keyword_only(self, run):
        with pytest.raises(TypeError, match="positional"):
            run.model.apply(run.variables, jnp.zeros((1, 8, 8, 3)), False)

    @pytest.mark.versions
    def test_batch_stats_move_only_in_training(self, run):
        before = paths(run.batch_stats)
        still, moved = paths(run.still), paths(run.moved)
        assert before.keys() == still.keys() == moved.keys()
        for path, value in before.items():
            np.testing.assert_array_equal(still[path], value, err_msg=path)
            assert np.isfinite(moved[path]).all(), path
            assert np.any(moved[path] != value), path

    @pytest.mark.versions
    def test_every_parameter_has_a_gradient(self, run):
        gradient = paths(run.gradient)
        for path, value in gradient.items():
            assert np.isfinite(value).all(), path
            largest = np.abs(value).max()
            block = path.removesuffix("/conv/bias")
            normalised = block != path and f"{block}/norm/scale" in gradient
            if run.name.startswith("notebook"):  # ReLU comes between, but for these blocks
                normalised &= path.startswith("pyramid") or block.endswith(("expand", "shortcut"))
            if normalised:
                # The mean that normalisation takes away holds this bias: rounding is all that
                # is left of its gradient.
                assert largest < 1e-3 * np.abs(gradient[f"{block}/norm/bias"]).max(), path
            elif run.name.startswith("notebook") and path.endswith("/conv/norm/bias"):
                # Between this and the mean that `expand`'s normalisation takes away stands one 1x1
                # convolution, where the block is a bottleneck: rounding again.
                bottleneck = f"{path.removesuffix('conv/norm/bias')}expand/norm/scale" in gradient
                assert largest > 0 or bottleneck, path
            else:
                assert largest > 0, path

    @pytest.mark.parametrize("name", all_models(*SLOW))
    def test_bfloat16_keeps_parameters_and_logits_in_float32(self, name):
        found = abstract_pass(small(name, "bfloat16"), SIZE)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32")}

    @pytest.mark.slow
    def test_bfloat16_gives_logits_near_the_float32_ones(self, run):
        for key, logits in run.bfloat16().items():
            wanted = run.outputs[key]
            error = np.linalg.norm(logits - wanted) / np.linalg.norm(wanted)
            # Unpooling puts a value elsewhere where rounding changes which of four is largest, and
            # random weights average nothing out.
            unpools = "segnet" in run.name or run.name == "deconvnet"
            assert error < (0.3 if unpools else 0.05), (key, error)

    @pytest.mark.parametrize("name", MODELS)
    def test_options_are_the_fields(self, name):
        options = model_options(name)
        assert not options.keys() & {"num_classes", "dtype", "parent", "name"}
        assert build({"name": name, **options}, K) == build({"name": name}, K)


def conv_block(inputs: int, features: int, k: int) -> int:
    """Parameters of a k x k convolution without bias and its batch normalisation."""
    return k * k * inputs * features + 2 * features


def pspnet_parameters(classes: int, reduce: bool) -> int:
    """Counted from the papers: He et al., table 1, ResNet-50; Zhao et al., figure 3."""
    total = conv_block(3, 64, 3) + conv_block(64, 64, 3) + conv_block(64, 128, 3)
    inputs = 128
    for blocks, features in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            total += conv_block(inputs, features, 1) + conv_block(features, features, 3)
            total += conv_block(features, 4 * features, 1)
            total += conv_block(inputs, 4 * features, 1) if block == 0 else 0
            inputs = 4 * features
    total += 4 * conv_block(2048, 512, 1) if reduce else 0  # pyramid levels
    level = 512 if reduce else 2048
    total += conv_block(2048 + 4 * level, 512, 3) + (512 + 1) * classes  # head
    return total + conv_block(1024, 256, 3) + (256 + 1) * classes  # auxiliary head


def test_torchvision_decomposition():
    """Parts of torchvision's two networks, whose sums are the published totals."""
    options, classes, _, _ = PINNED["fcn"]
    parts = abstract_variables(build({"name": "fcn", **options}, classes))["params"]
    assert {name: count(part) for name, part in parts.items()} == {
        "encoder": 23_508_032,
        "head": 9_448_981,
        "aux_head": 2_365_205,
    }
    options, classes, _, _ = PINNED["deeplabv3"]
    parts = abstract_variables(build({"name": "deeplabv3", **options}, classes))["params"]
    head = sum(count(parts[name]) for name in ("aspp", "head_conv", "classifier"))
    assert head == 16_130_837
    assert count(parts["aux_head"]) == 2_365_205


@pytest.mark.parametrize(
    "encoder, parameters", [("resnet18", 11_176_512), ("resnet34", 21_284_672)]
)
def test_basic_block_encoders_are_torchvisions(encoder, parameters):
    """torchvision's resnet18 has 11,689,512 parameters and resnet34 21,797,672, each with a
    classifier of 513,000."""
    model = build({"name": "fcn", "encoder": encoder}, K)
    assert count(abstract_variables(model)["params"]["encoder"]) == parameters


@pytest.mark.parametrize("name", ["fcn", "pspnet", "deeplabv3"])
def test_without_the_auxiliary_head(name):
    model = small(name, aux=False)
    outputs, variables = abstract_pass(model, (33, 64))
    assert outputs.keys() == {"logits"}
    assert "aux_head" not in variables["params"]


def test_initial_kernels_are_he_normal():
    model = small("segnet_basic")
    init = jax.jit(lambda key, x: model.init(key, x, train=False))
    kernel = init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]["decoder2"]["conv"][
        "kernel"
    ]
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (7 * 7 * 8)), rtol=0.05)
