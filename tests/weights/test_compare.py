"""The report of where two runs part ways."""

from functools import partial

import jax
import numpy as np
import pytest

from segjax.models import build
from segjax.weights import departures, layer_outputs
from tests.weights.test_transfer import drawn

IMAGES = np.random.default_rng(0).standard_normal((2, 32, 48, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return build({"name": "segnet_basic", "features": 2}, 3)


@pytest.fixture(scope="module")
def outputs(model):
    return layer_outputs(model, drawn(model), IMAGES)


def test_layers_come_in_the_order_of_computation(outputs):
    blocks = [path for path in outputs if "/" not in path]
    assert blocks == [
        *(f"encoder{s}" for s in (1, 2, 3, 4)),
        *(f"decoder{s}" for s in (4, 3, 2, 1)),
        "classifier",
    ]
    assert outputs["encoder2/conv"].shape == (2, 16, 24, 2)
    at = list(outputs).index
    assert at("encoder2/conv") < at("encoder2/norm") < at("encoder2") < at("encoder3/conv")


def test_outputs_are_the_models(model, outputs):
    logits = jax.jit(partial(model.apply, train=False))(drawn(model), IMAGES)["logits"]
    np.testing.assert_allclose(outputs["classifier"], logits, rtol=1e-4, atol=1e-5)


def test_training_mode_uses_the_batch_statistics(model, outputs):
    training = layer_outputs(model, drawn(model), IMAGES, train=True)
    np.testing.assert_allclose(training["encoder1/conv"], outputs["encoder1/conv"], atol=1e-5)
    assert np.abs(training["encoder1/norm"] - outputs["encoder1/norm"]).max() > 0.1


def test_the_first_departing_layer_is_named(model, outputs):
    assert departures(outputs, outputs).first is None
    assert str(departures(outputs, outputs)).startswith("25 layers agree")
    variables = drawn(model)
    variables["params"]["decoder4"]["conv"]["kernel"][:] *= 30
    changed = layer_outputs(model, variables, IMAGES)
    found = departures(changed, outputs)
    assert found.first == "decoder4/conv"
    assert found.errors["encoder4"] < 1e-5 < found.errors["classifier"]
    assert "decoder4/conv is the first of 25 layers to depart" in str(found)
    assert "> " in str(found)


def test_only_shared_layers_count_and_shapes_matter(outputs):
    some = {"encoder1": outputs["encoder1"], "unknown": np.zeros(3)}
    assert list(departures(outputs, some).errors) == ["encoder1"]
    assert departures(outputs, {"encoder1": np.zeros((1, 2))}).first == "encoder1"
    bad = {"encoder1": np.full_like(outputs["encoder1"], np.nan)}
    assert departures(bad, outputs).first == "encoder1"
    with pytest.raises(ValueError, match=r"no layer in common: encoder1/conv, .* and unknown"):
        departures(outputs, {"unknown": np.zeros(3)})
