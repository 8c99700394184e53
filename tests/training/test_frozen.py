"""What a training step leaves as it is, and what it does not compute for it."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from segjax.layers import Conv, ConvNormAct
from segjax.training.frozen import Frozen, joined
from segjax.training.parts import read_parts
from segjax.training.state import create_state
from segjax.training.step import make_train_step
from tests.training.test_shared_batch import assert_close
from tests.training.toys import KEY, MOVING, RATE, SIZE, K, make_batch

CONFIG = base.get_config()
CONFIG.optim.update(learning_rate=RATE, weight_decay=0.01, decay_scale="")


class Network(nn.Module):
    """Two 3x3 convolutions in the encoder, one in the head, each with its norm; a classifier."""

    num_classes: int = K

    @nn.compact
    def __call__(self, images, *, train):
        class Encoder(nn.Module):
            @nn.compact
            def __call__(self, x):
                x = ConvNormAct(4, use_bias=True, name="conv1_1")(x, train=train)
                return ConvNormAct(4, use_bias=True, name="conv2_1")(x, train=train)

        x = ConvNormAct(4, name="head")(Encoder(name="encoder")(images), train=train)
        return {"logits": Conv(K, 3, use_bias=True, name="classifier")(x)}


MODEL = Network()


def state_and_step(freeze=(), **objective):
    """A state whose scales, biases and statistics are not the initial ones, and the step."""
    variables = MODEL.init(jax.random.key(1), jnp.zeros((1, *SIZE, 3)), train=False)
    variables = jax.tree.map(lambda x: x + 0.1 * jnp.arange(1, x.shape[-1] + 1), variables)
    parts = read_parts({**CONFIG, "train": {"freeze": freeze}}, MODEL, variables)
    optimizer = parts.make_optimizer(CONFIG["optim"], optax.constant_schedule(RATE))
    objective = dataclasses.replace(MOVING, frozen=parts.frozen, **objective)
    step = make_train_step(MODEL, optimizer, lambda _: RATE, objective, KEY)
    state = create_state(MODEL, optimizer, (*SIZE, 3), jax.random.key(1), ema=True)
    state = state.replace(**variables, ema=jax.tree.map(jnp.copy, variables))
    return state, jax.jit(step)


def taken(freeze=(), steps=3, **objective):
    """The state before and after some steps, and the last step's metrics."""
    before, step = state_and_step(freeze, **objective)
    state = before
    for n in range(steps):
        state, metrics = step(state, make_batch(n))
    return before, state, metrics


def flat(tree):
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in paths}


@pytest.mark.parametrize(
    "freeze, kept, still, objective",
    [
        (("encoder",), ("encoder",), ("encoder",), {}),
        (
            ("encoder", "norm"),
            ("encoder", "head/norm"),
            ("encoder", "head/norm"),
            {"accumulate": 2, "remat": "convs"},
        ),
        (("encoder/.*kernel",), ("encoder/conv1_1/conv/k", "encoder/conv2_1/conv/k"), (), {}),
    ],
    ids=str,
)
def test_frozen_arrays_stay_bit_for_bit_and_the_others_move(freeze, kept, still, objective):
    """Parameters, statistics, and the running averages of both."""
    before, after, _ = taken(freeze, ema_decay=0.9, **objective)
    for name, start in (("params", kept), ("batch_stats", still)):
        old, new = flat(getattr(before, name)), flat(getattr(after, name))
        average = flat(after.ema[name])
        for path in old:
            if path.startswith(start):
                np.testing.assert_array_equal(new[path], old[path], err_msg=path)
                np.testing.assert_array_equal(average[path], old[path], err_msg=path)
            else:
                assert np.any(new[path] != old[path]), path
                assert np.any(average[path] != old[path]), path


def test_micro_batches_and_remat_change_no_number():
    """The norms are frozen, so that a micro-batch is normalised as the batch is."""
    plain = taken(("encoder", "norm"))
    for objective in ({"accumulate": 2, "remat": "blocks"}, {"remat": "convs"}):
        other = taken(("encoder", "norm"), **objective)
        assert_close(other[1].params, plain[1].params)
        assert float(other[2]["grad_norm"]) == pytest.approx(float(plain[2]["grad_norm"]), rel=1e-4)


def test_the_gradient_is_that_of_the_trained_part():
    """One step of SGD: what moves of a frozen encoder's network moves as in the whole network, if
    its norms are frozen in both; the norm of the gradient leaves the encoder out."""
    (start, frozen, metrics), (_, whole, _) = taken(("encoder", "norm"), 1), taken(("norm",), 1)
    start, frozen, whole = flat(start.params), flat(frozen.params), flat(whole.params)
    squares = 0.0
    for path in ("head/conv/kernel", "classifier/kernel", "classifier/bias"):
        np.testing.assert_allclose(frozen[path], whole[path], rtol=1e-5, atol=1e-6)
        gradient = (start[path] - frozen[path]) / RATE - 0.01 * start[path]
        squares += np.sum(np.square(gradient))
    assert float(metrics["grad_norm"]) == pytest.approx(np.sqrt(squares), rel=1e-3)
    assert np.any(whole["encoder/conv1_1/conv/kernel"] != start["encoder/conv1_1/conv/kernel"])


def test_a_bias_before_a_frozen_norm_learns():
    """A norm that takes the batch's mean away leaves it no gradient; running statistics do not."""
    before, after, _ = taken(("norm",), 1)
    bias = flat(after.params)["encoder/conv1_1/conv/bias"]
    assert np.all(bias != flat(before.params)["encoder/conv1_1/conv/bias"])
    before, after, _ = taken((), 1)
    old, new = (flat(s.params)["encoder/conv1_1/conv/bias"] for s in (before, after))
    np.testing.assert_allclose(new, old * (1 - RATE * 0.01), rtol=1e-6)  # decay alone


def test_a_frozen_encoder_has_no_backward_pass():
    """In the program as it is traced, before any compiler removes what is not read."""
    batch = make_batch()

    def convolutions(freeze):
        state, step = state_and_step(freeze)
        return step.lower(state, batch).as_text().count("stablehlo.convolution")

    # 4 forward, 4 by kernels, 3 by inputs: none by the image.
    assert convolutions(()) == 11
    # 4 forward, 2 by kernels, 1 by the classifier's input.
    assert convolutions(("encoder",)) == 7
    assert convolutions(("encoder", "head/.*")) == 5  # the classifier's kernel alone
    assert convolutions(("encoder/conv1_1",)) == 9


def test_split_and_join():
    params = {"a": {"kernel": 1.0, "bias": 2.0}, "b": {"kernel": 3.0}}
    trained, rest = Frozen(frozenset({"a/bias", "b/kernel"})).split(params)
    assert trained == {"a": {"kernel": 1.0, "bias": None}, "b": {"kernel": None}}
    assert rest == {"a": {"kernel": None, "bias": 2.0}, "b": {"kernel": 3.0}}
    assert joined(trained, rest) == params
    assert joined(*Frozen().split(params)) == params
