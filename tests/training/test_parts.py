"""Parts of networks by name: what belongs to them, their rates, decays and what is frozen."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.console import Console
from segjax.models import MODELS, build, model_defaults
from segjax.models.resnet import VARIANTS
from segjax.report.plan_tables import parts_table
from segjax.training.frozen import Frozen
from segjax.training.optim import OPTIMIZERS, kernels_only, make_optimizer
from segjax.training.parts import Row, factors, parameters_of, read_parts
from segjax.training.schedules import make_schedule
from segjax.weights.transfer import abstract_variables

# A number of classes that no layer has as its channels by chance.
K = 13


@functools.cache
def network(name, **options):
    model = build({**model_defaults(name), **options}, K)
    return model, abstract_variables(model)


def parts_of(name="pspnet", freeze=(), model=None, **options):
    config = base.get_config(name)
    config.optim.update(options)
    config.train.freeze = freeze
    return read_parts(config, *network(name, **(model or {})))


def chosen(parts, **values):
    """The paths of parameters with these values."""
    return {p.path for p in parts.parameters if all(getattr(p, k) == v for k, v in values.items())}


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_of_every_model_has_its_part(name, monkeypatch):
    for variant, (block, _) in VARIANTS.items():  # how often a block repeats does not matter
        monkeypatch.setitem(VARIANTS, variant, (block, (1, 1, 2, 3)))
    model = build(model_defaults(name), K)
    variables = abstract_variables(model)
    parameters = parameters_of(model, variables["params"])
    shapes = {
        "/".join(key.key for key in path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    }
    assert {p.path: p.size for p in parameters} == {k: np.prod(v) for k, v in shapes.items()}
    assert {p.group for p in parameters} <= {"encoder", "head", "aux"}
    stages = {p.stage for p in parameters if p.group == "encoder"}
    stem = {0} if any(p.path.startswith("encoder/stem") for p in parameters) else set()
    first = min(stages - stem)  # 1 in mobile networks, which have a block at the stem's stride
    assert first == 1 or (stem and first == 2)
    assert stages == stem | set(range(first, max(stages) + 1))
    assert all(p.stage is None for p in parameters if p.group != "encoder")
    # Kernels are what decays by default, and norms what has statistics.
    assert all((p.kind == "kernel") == (len(shapes[p.path]) > 1) for p in parameters)
    norms = {p.module for p in parameters if p.kind == "norm"}
    statistics = jax.tree_util.tree_leaves_with_path(variables.get("batch_stats", {}))
    assert norms == {"/".join(key.key for key in path[:-1]) for path, _ in statistics}
    # The layers that make the logits: a channel for each class, without upsampling by transposed
    # convolutions.
    scores = {
        p.path
        for p in parameters
        if shapes[p.path][-1] == K and p.group == "head" and "upscore" not in p.path
    }
    assert {p.path for p in parameters if p.classifier} == scores
    assert scores


def test_factors_of_several_names_multiply():
    """DeepLab-LargeFOV's solver: the last layer ten times as fast, biases twice."""
    parts = parts_of("deeplab_largefov", lr_scale={"classifier": 10, "bias": 2})
    rates = {p.path: p.rate for p in parts.parameters if p.group == "head"}
    assert rates == {
        "fc6/kernel": 1,
        "fc6/bias": 2,
        "fc7/kernel": 1,
        "fc7/bias": 2,
        "fc8/kernel": 10,
        "fc8/bias": 20,
    }


@pytest.mark.parametrize(
    "name, expected",
    [
        ("encoder/stage2_block1/conv2", {"encoder/stage2_block1/conv2/conv/kernel"}),
        ("pyramid/bin[12]/conv", {"pyramid/bin1/conv/kernel", "pyramid/bin2/conv/kernel"}),
        (".*classifier/bias", {"head/classifier/bias", "aux_head/classifier/bias"}),
        ("classifier", {"head/classifier/kernel", "head/classifier/bias"}),
        ("head/(conv/conv|classifier/b).*", {"head/conv/conv/kernel", "head/classifier/bias"}),
        ("bias", {"head/classifier/bias", "aux_head/classifier/bias"}),
    ],
)
def test_names_are_groups_kinds_and_whole_names_of_modules(name, expected):
    parts = parts_of(lr_scale={name: 3}, model={"encoder": "resnet18"})
    assert {p for p in chosen(parts, rate=3) if not p.startswith("encoder") or "norm" not in p} == (
        expected
    )


def test_groups_share_all_parameters():
    parts = parts_of(lr_scale={"encoder": 2, "head": 3, "aux": 5})
    tops = {p.path.partition("/")[0]: p.rate for p in parts.parameters}
    assert tops == {"encoder": 2, "pyramid": 3, "head": 3, "aux_head": 5}


@pytest.mark.parametrize(
    "name, expected",
    [
        # d^1 for the last stage; one more for each one below.
        (
            "pspnet",
            {"stem2": 5, "stage2_block3": 4, "stage3_block1": 3, "stage4_block6": 2, "stage5_b": 1},
        ),
        ("segnet", {"conv1_1": 5, "conv2_2": 4, "conv5_3": 1}),
        ("ncsu_segnet", {"conv1_2": 4, "conv4_1": 1}),
        ("segnet_basic", {"encoder1": 4, "encoder4": 1}),
        ("smp_pspnet", {"stem": 3, "stage2_block1": 2, "stage3_block4": 1}),
    ],
)
def test_layer_decay_falls_stage_by_stage(name, expected):
    parts = parts_of(name, layer_decay=0.5)
    for module, power in expected.items():
        rates = {p.rate for p in parts.parameters if module in p.path and p.group == "encoder"}
        assert rates == {0.5**power}, module
    assert {p.rate for p in parts.parameters if p.group != "encoder"} == {1}
    faster = parts_of(name, layer_decay=0.5, lr_scale={"encoder": 4})
    assert [p.rate / (4 if p.group == "encoder" else 1) for p in faster.parameters] == [
        p.rate for p in parts.parameters
    ]


@pytest.mark.parametrize(
    "value, expected",
    [
        ("", {}),
        ("head=10", {"head": 10}),
        (" head = 10 , aux=1e1,bias=2 ", {"head": 10, "aux": 10, "bias": 2}),
        ("encoder/(?=stem).*=0.5", {"encoder/(?=stem).*": 0.5}),
        ({"head": 10, "fc[67]": 0.5}, {"head": 10, "fc[67]": 0.5}),
    ],
    ids=str,
)
def test_factors_are_read(value, expected):
    assert factors("optim.lr_scale", value) == expected


# How parameters are trained --------------------------------------------------------------------

PARAMS = {
    "encoder": {"conv1": {"kernel": np.array([[2.0, -4.0]]), "bias": np.array([1.0])}},
    "norm": {"scale": np.array([1.0, 0.5]), "bias": np.array([0.25, -0.5])},
    "classifier": {"kernel": np.array([[3.0]]), "bias": np.array([-2.0])},
}
PARAMS = jax.tree.map(lambda x: x.astype(np.float32), PARAMS)
LR_SCALE = {"encoder": 0.5, "classifier": 10, "bias": 2}
DECAY_SCALE = {"bias": 0, "norm": 0.5, "classifier": 3}
# Per parameter, from the two above.
RATES = {
    "encoder": {"conv1": {"kernel": 0.5, "bias": 1.0}},
    "norm": {"scale": 1.0, "bias": 1.0},
    "classifier": {"kernel": 10.0, "bias": 20.0},
}
DECAYS = {
    "encoder": {"conv1": {"kernel": 1.0, "bias": 0.0}},
    "norm": {"scale": 0.5, "bias": 0.5},
    "classifier": {"kernel": 3.0, "bias": 0.0},
}


def optimizer_of(freeze=(), params=PARAMS, **options):
    config = base.get_config()
    config.optim.update({"learning_rate": 0.1, "weight_decay": 0.05, **options})
    config.train.freeze = freeze
    parts = read_parts(config, build({"name": "fcn"}, K), {"params": params})
    schedule = make_schedule(config.optim, 10)
    return parts, parts.make_optimizer(config.optim, schedule), config.optim, schedule


def gradients_of(params, step):
    random = np.random.default_rng(step)
    return jax.tree.map(lambda p: random.normal(size=p.shape).astype(np.float32), params)


def trained(optimizer, params, steps=4):
    """The parameters after some steps, and the last state."""
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(steps):
        params, state = update(params, state, gradients_of(params, step))
    return params, state


def assert_close(ours, theirs, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), ours, theirs)


def test_sgd_is_torchs_rule_with_a_rate_and_a_decay_for_each_group():
    """g += wd_p * p; v = mu * v + g; p -= lr_p(t) * v, as torch.optim.SGD with parameter groups."""
    lr, mu, wd = 0.1, 0.9, 0.05
    _, optimizer, _, schedule = optimizer_of(
        schedule="poly", momentum=mu, lr_scale=LR_SCALE, decay_scale=DECAY_SCALE
    )
    ours, _ = trained(optimizer, PARAMS)
    assert float(schedule(0)) == pytest.approx(lr)
    p, v = PARAMS, jax.tree.map(np.zeros_like, PARAMS)
    for t in range(4):
        rate = lr * (1 - t / 10) ** 0.9
        g = jax.tree.map(lambda g, p, d: g + wd * d * p, gradients_of(PARAMS, t), p, DECAYS)
        v = jax.tree.map(lambda v, g: mu * v + g, v, g)
        p = jax.tree.map(lambda p, v, r, rate=rate: p - rate * r * v, p, v, RATES)
    assert_close(ours, p)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_parameter_moves_as_one_alone_with_its_rate_and_decay(name):
    _, optimizer, config, schedule = optimizer_of(
        name=name, lr_scale=LR_SCALE, decay_scale=DECAY_SCALE
    )
    ours, _ = trained(optimizer, PARAMS)
    for path, p in jax.tree_util.tree_leaves_with_path(PARAMS):
        rate, decay, result = (
            functools.reduce(lambda t, k: t[k.key], path, tree) for tree in (RATES, DECAYS, ours)
        )
        alone = make_optimizer(
            {**config, "weight_decay": 0.05 * decay},
            lambda step, rate=rate: rate * schedule(step),
            None,
        )
        state, expected = alone.init({"a": p}), {"a": p}
        for step in range(4):
            gradient = functools.reduce(lambda t, k: t[k.key], path, gradients_of(PARAMS, step))
            updates, state = alone.update({"a": gradient}, state, expected)
            expected = optax.apply_updates(expected, updates)
        np.testing.assert_allclose(result, expected["a"], rtol=2e-5, atol=1e-6)


def test_the_gradient_is_clipped_by_the_norm_of_all_that_is_trained():
    """Gradients 3 and 4 of the trained part, a large one of the frozen encoder: the norm is 5."""
    params = {
        "encoder": {"conv1": {"kernel": np.ones((1, 1), np.float32)}},
        "head": {"kernel": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)},
    }
    _, optimizer, _, _ = optimizer_of(
        ("encoder",),
        params,
        clip_norm=1.0,
        momentum=0.0,
        weight_decay=0.0,
        learning_rate=1.0,
        schedule="constant",
        lr_scale={"bias": 2},
    )
    zero = jnp.zeros((1, 1))  # what the step makes of no gradient
    gradients = {
        "encoder": {"conv1": {"kernel": zero}},
        "head": {"kernel": zero + 3, "bias": jnp.array([4.0])},
    }
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    assert float(updates["head"]["kernel"][0, 0]) == pytest.approx(-0.6)
    assert float(updates["head"]["bias"][0]) == pytest.approx(-1.6)
    assert float(updates["encoder"]["conv1"]["kernel"][0, 0]) == 0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_have_no_state_and_do_not_move(name):
    parts, optimizer, _, _ = optimizer_of(("encoder", "norm"), name=name)
    ours, state = trained(optimizer, PARAMS)
    for part in ("encoder", "norm"):
        jax.tree.map(np.testing.assert_array_equal, ours[part], PARAMS[part])
    assert all(
        np.all(a != b)
        for a, b in zip(
            jax.tree.leaves(ours["classifier"]), jax.tree.leaves(PARAMS["classifier"]), strict=True
        )
    )
    shapes = {x.shape for x in jax.tree.leaves(state)}
    assert (1, 1) in shapes  # moments of the classifier
    assert not shapes & {(1, 2), (2,)}  # of the encoder and the norm
    assert parts.frozen.params == {
        "encoder/conv1/kernel",
        "encoder/conv1/bias",
        "norm/scale",
        "norm/bias",
    }


@pytest.mark.parametrize("decay_scale, decayed", [("bias=0,norm=0", kernels_only), ("", None)])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_without_options_the_state_is_that_of_the_plain_optimiser(name, decay_scale, decayed):
    """Checkpoints of runs before there were parts have that state."""
    parts, optimizer, config, schedule = optimizer_of(name=name, decay_scale=decay_scale)
    assert parts.plain
    assert parts.frozen == Frozen()
    plain = make_optimizer(config, schedule, decayed)
    ours, theirs = trained(optimizer, PARAMS), trained(plain, PARAMS)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# Frozen batch norms ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "freeze, prefixes",
    [
        (("encoder",), ("encoder",)),
        (("norm",), ("",)),
        (("encoder,norm",), ("",)),  # as the command line has it
        (("pyramid/bin1", "encoder/stem.*"), ("pyramid/bin1", "encoder/stem")),
        # Neither kernels nor one of the two parameters stop the statistics.
        (("encoder/.*kernel", ".*scale"), ()),
    ],
    ids=str,
)
def test_a_norm_is_frozen_with_its_parameters(freeze, prefixes):
    parts = parts_of("pspnet", freeze)
    norms = {p.module for p in parts.parameters if p.kind == "norm"}
    assert parts.frozen.norms == {norm for norm in norms if norm.startswith(prefixes)}


def test_a_norm_without_parameters_is_frozen_with_its_module():
    statistics = {"mean": np.zeros(2), "var": np.ones(2)}
    variables = {
        "params": {
            "encoder": {"conv": {"kernel": np.ones((1, 2))}},
            "head": {"kernel": np.ones((2, 1))},
        },
        "batch_stats": {"encoder": {"norm": statistics}, "head": {"norm": statistics}},
    }
    config = base.get_config()
    config.train.freeze = ("encoder",)
    assert read_parts(config, build({"name": "fcn"}, K), variables).frozen.norms == {"encoder/norm"}


# The table ------------------------------------------------------------------------------------


def test_rows_say_how_each_part_is_trained():
    """semseg's PSPNet: heads ten times as fast; here biases twice on top, and no norm learns."""
    parts = parts_of(
        "pspnet", ("norm",), lr_scale="head=10,aux=10,bias=2", learning_rate=0.01, weight_decay=1e-4
    )
    rows = parts.rows(base.get_config().optim)
    assert sum(row.parameters for row in rows) == sum(p.size for p in parts.parameters)
    features = 4 * 512 * 2048 + 4096 * 512 * 9 + 512 * K
    assert rows == [
        Row("encoder", "kernel", rows[0].parameters, 0.01, 1e-4, False),
        Row("encoder", "norm", rows[1].parameters, 0, 0, True),
        Row("head", "bias", K, 0.2, 0, False),
        Row("head", "kernel", features, 0.1, 1e-4, False),
        Row("head", "norm", 2 * 5 * 512, 0, 0, True),
        Row("aux", "bias", K, 0.2, 0, False),
        Row("aux", "kernel", 1024 * 256 * 9 + 256 * K, 0.1, 1e-4, False),
        Row("aux", "norm", 2 * 256, 0, 0, True),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(parts_table(rows))
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["│", "head", "│", "bias", "│", "13", "│", "0.2", "│", "0", "│"] in lines
    assert ["│", "head", "│", "norm", "│", "5,120", "│", "frozen", "│", "│"] in lines


@pytest.mark.parametrize(
    "model, options, expected",
    [
        ("segnet", {}, ["encoder", "encoder", "head", "head"]),
        (
            "segnet",
            {"lr_scale": "classifier=2", "decay_scale": ""},
            ["encoder", "classifier", "decoder1_2 ... decoder5_3 (12 modules)", "head"],
        ),
        (
            "deeplab_largefov",
            {"lr_scale": "fc8=10", "decay_scale": ""},
            ["encoder", "fc6, fc7", "fc8"],
        ),
        (
            "pspnet",
            {"lr_scale": "pyramid=2", "decay_scale": ""},
            ["encoder", "head", "head/.*", "pyramid", "aux"],
        ),
        (
            "smp_pspnet",
            {"layer_decay": 0.9, "decay_scale": ""},
            [
                "encoder/stem",
                "encoder/stage2_block1, encoder/stage2_block2, encoder/stage2_block3",
                "encoder/stage3_block1 ... encoder/stage3_block4 (4 modules)",
                "head",
            ],
        ),
    ],
    ids=str,
)
def test_rows_name_groups_or_the_outermost_modules(model, options, expected):
    rows = parts_of(model, **options).rows(base.get_config().optim)
    assert [row.part for row in rows] == expected


# Errors ---------------------------------------------------------------------------------------

FROZEN = r"trains what train\.freeze=encoder freezes; remove one of the two"


@pytest.mark.parametrize(
    "freeze, options, message",
    [
        (
            ("backbone",),
            {},
            r"train\.freeze: 'backbone' matches no parameter; the parts of this model are encoder, "
            r"head, aux, classifier, kernel, bias, norm, its modules aux_head, pyramid, and "
            r"regular expressions choose among paths such as aux_head/classifier/bias",
        ),
        ((), {"lr_scale": "encod=2"}, r"optim\.lr_scale: 'encod' matches no parameter"),
        ((), {"decay_scale": "fc6=0"}, r"optim\.decay_scale: 'fc6' matches no parameter"),
        ((), {"lr_scale": "(=2"}, r"'\(' is no name of a part and no regular expression"),
        ((), {"lr_scale": "head"}, r"optim\.lr_scale='head'; use PART=FACTOR,PART=FACTOR"),
        ((), {"lr_scale": "head=1,head=2"}, r"each part once, such as head=10,bias=2"),
        ((), {"lr_scale": "head=-1"}, r"optim\.lr_scale: head=-1; use a number above 0"),
        ((), {"lr_scale": "head=nan"}, r"optim\.lr_scale: head=nan; use a number above 0"),
        ((), {"lr_scale": "head=ten"}, r"optim\.lr_scale: head=ten; use a number above 0"),
        ((), {"lr_scale": "head=inf"}, r"optim\.lr_scale: head=inf; use a number above 0"),
        ((), {"lr_scale": "head=0"}, r"head=0; .* train\.freeze for a part that is not to learn"),
        ((), {"decay_scale": "head=-2"}, r"optim\.decay_scale: head=-2; use a number of 0 or more"),
        (
            ("kernel", "bias", "norm"),
            {},
            r"train\.freeze=kernel,bias,norm freezes all of the model",
        ),
        (("encoder",), {"lr_scale": "encoder=2"}, r"optim\.lr_scale: encoder=2 " + FROZEN),
        (("encoder",), {"lr_scale": "encoder/stem1=2"}, r"encoder/stem1=2 " + FROZEN),
        (("encoder",), {"decay_scale": "encoder=2"}, r"optim\.decay_scale: encoder=2 " + FROZEN),
        (("encoder",), {"layer_decay": 0.9}, r"optim\.layer_decay: 0\.9 " + FROZEN),
    ],
    ids=str,
)
def test_errors_name_the_option(freeze, options, message):
    with pytest.raises(ValueError, match=message):
        parts_of("pspnet", freeze, **options)


def test_what_is_frozen_in_part_may_have_a_rate():
    parts = parts_of("pspnet", ("encoder",), lr_scale="norm=2", decay_scale="encoder=0,norm=0")
    assert {p.rate for p in parts.parameters if p.kind == "norm" and not p.frozen} == {2}
    assert parts_of("fcn_vgg").plain  # has no norm, which the default of decay_scale names
    with pytest.raises(ValueError, match=r"train\.freeze: 'norm' matches no parameter"):
        parts_of("fcn_vgg", ("norm",))
    with pytest.raises(ValueError, match=r"'aux' matches .* encoder, head, classifier, kernel, bi"):
        parts_of("pspnet", model={"aux": False}, lr_scale="aux=10")
