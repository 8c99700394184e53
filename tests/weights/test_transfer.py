"""Loading into a model: what is taken, adapted, left and refused; on thin networks."""

import re

import flax
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from segjax import weights
from segjax.models import build
from segjax.weights.transfer import abstract_variables
from tests.goldens.draw import draw

K = 5
# torchvision's vgg16: places of the convolutions in `features`, by stage.
VGG16_PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG16_BN_PLACES = ((0, 3), (7, 10), (14, 17, 20), (24, 27, 30), (34, 37, 40))
WIDTH = 1 / 32  # 2 channels where VGG16 has 64


def drawn(model):
    """Variables whose every leaf is drawn by its name."""
    flat = flax.traverse_util.flatten_dict(abstract_variables(model), sep="/")
    flat = {leaf: draw(leaf, value.shape, channels_last=True) for leaf, value in flat.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def flatten(variables):
    return flax.traverse_util.flatten_dict(variables, sep="/")


def vgg16(norm: bool = False, channels: int = 3) -> dict[str, np.ndarray]:
    """A thin vgg16(_bn) of torchvision's names, with its fully connected layers."""
    shapes, inputs = {}, channels
    features = (2, 4, 8, 16, 16)
    for places, outputs in zip(VGG16_BN_PLACES if norm else VGG16_PLACES, features, strict=True):
        for place in places:
            shapes[f"features.{place}.weight"] = (outputs, inputs, 3, 3)
            shapes[f"features.{place}.bias"] = (outputs,)
            if norm:
                for name in ("weight", "bias", "running_mean", "running_var"):
                    shapes[f"features.{place + 1}.{name}"] = (outputs,)
            inputs = outputs
    for layer, shape in ((0, (128, 16 * 49)), (3, (128, 128)), (6, (1000, 128))):
        shapes[f"classifier.{layer}.weight"] = shape
        shapes[f"classifier.{layer}.bias"] = shape[:1]
    arrays = {name: draw(name, shape) for name, shape in shapes.items()}
    return arrays | {"features.1.num_batches_tracked": np.array(7, np.int64)}


@pytest.fixture
def file(tmp_path):
    """Writes arrays and returns the path."""

    def write(arrays, name="weights.safetensors"):
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="module")
def segnet():
    model = build({"name": "segnet", "width": WIDTH}, K)
    return model, drawn(model)


@pytest.mark.versions
def test_vgg16_with_normalisation_fills_segnets_encoder(file, segnet):
    model, before = segnet
    arrays = vgg16(norm=True)
    after, report = weights.load(file(arrays), model, before)
    found, was = flatten(after), flatten(before)
    conv = found["params/encoder/conv3_2/conv/kernel"]
    np.testing.assert_array_equal(conv, arrays["features.17.weight"].transpose(2, 3, 1, 0))
    for leaf, name in (
        ("params/encoder/conv5_3/conv/bias", "features.40.bias"),
        ("params/encoder/conv5_3/norm/scale", "features.41.weight"),
        ("params/encoder/conv5_3/norm/bias", "features.41.bias"),
        ("batch_stats/encoder/conv5_3/norm/mean", "features.41.running_mean"),
        ("batch_stats/encoder/conv5_3/norm/var", "features.41.running_var"),
    ):
        np.testing.assert_array_equal(found[leaf], arrays[name], err_msg=leaf)
    encoder = {leaf for leaf in found if leaf.split("/")[1] == "encoder"}
    assert set(report.loaded) == encoder
    assert set(report.fresh) == set(found) - encoder
    for leaf in report.fresh:
        assert found[leaf] is was[leaf]
    assert set(report.left_over) == {
        f"classifier.{n}.{w}" for n in (0, 3, 6) for w in ("weight", "bias")
    }


def test_vgg16_leaves_normalisation_fresh(file, segnet):
    model, before = segnet
    _, report = weights.load(file(vgg16()), model, before)
    fresh = {leaf for leaf in report.fresh if "/encoder/" in leaf}
    assert fresh == {leaf for leaf in flatten(before) if "/encoder/" in leaf and "/norm/" in leaf}
    assert report.fresh["params/encoder/conv1_1/norm/scale"] == (
        "torchvision vgg16 has no normalisation there"
    )
    assert "params/encoder/conv1_1/conv/bias" in report.loaded


def test_a_bias_without_a_place_moves_into_the_running_mean(file):
    """Convolutions without bias under normalisation make the same function."""
    arrays = vgg16(norm=True)
    path = file(arrays)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    outputs = []
    for use_bias in (True, False):
        model = build({"name": "segnet", "width": WIDTH, "use_bias": use_bias}, K)
        variables, report = weights.load(path, model, drawn(model))
        assert not [name for name in report.left_over if name.startswith("features")]
        layers = weights.layer_outputs(model, variables, images)
        outputs.append(layers["encoder/conv5_3"])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)


def test_a_bias_under_fresh_normalisation_is_left_over(file):
    model = build({"name": "segnet", "width": WIDTH, "use_bias": False}, K)
    _, report = weights.load(file(vgg16()), model, drawn(model))
    assert report.left_over["features.0.bias"] == (
        "batch normalisation, which is fresh, takes it away"
    )


def test_fully_connected_layers_become_convolutions(file):
    """VGG16's first one reads 512 channels of 7x7, channels first."""
    model = build({"name": "fcn_vgg", "width": WIDTH, "fc_features": 128}, K)
    arrays = vgg16()
    loaded, report = weights.load(file(arrays), model, abstract_variables(model))
    matrix = arrays["classifier.0.weight"]
    kernel = flatten(loaded)["params/fc6/kernel"]
    x = np.random.default_rng(0).standard_normal((16, 7, 7)).astype(np.float32)
    wanted = matrix @ x.reshape(-1)
    np.testing.assert_allclose(
        np.einsum("hwio,ihw->o", kernel, x, optimize=True), wanted, rtol=1e-4, atol=1e-3
    )
    assert {"classifier.6.weight", "classifier.6.bias"} == set(report.left_over)


def test_normalisation_of_the_file_that_the_model_lacks_is_refused(file):
    model = build({"name": "fcn_vgg", "width": WIDTH}, K)
    with pytest.raises(
        ValueError, match=r"no place in the model: encoder/conv1_1: features\.1\.bias, fea"
    ):
        weights.load(file(vgg16(norm=True)), model, abstract_variables(model))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_image_channels(file, channels):
    model = build({"name": "segnet", "width": WIDTH}, K)
    init = lambda key: model.init(  # noqa: E731
        key, np.zeros((1, 32, 32, channels), np.float32), train=False
    )
    arrays = vgg16()
    variables, report = weights.load(file(arrays), model, jax.eval_shape(init, jax.random.key(0)))
    kernel = flatten(variables)["params/encoder/conv1_1/conv/kernel"]
    theirs = arrays["features.0.weight"].transpose(2, 3, 1, 0)
    # Equal channels give what an RGB image of three equal channels gives.
    assert kernel.shape[2] == channels
    if channels in (1, 6):
        np.testing.assert_allclose(kernel.sum(2), theirs.sum(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        kernel[:, :, 0], theirs.sum(2) if channels == 1 else theirs[:, :, 0] * 3 / channels
    )
    assert f"reads {channels} channels here, 3 in the file" in report.notes[0]


class TestOwnFiles:
    """What `save` wrote; every model of the table goes through there."""

    @pytest.fixture
    def saved(self, tmp_path, segnet):
        path = tmp_path / "own.safetensors"
        weights.save(path, *segnet, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
        return path

    @pytest.mark.versions
    def test_the_same_network_comes_back(self, saved, segnet):
        loaded = weights.from_file(saved)
        assert loaded.model == segnet[0]
        np.testing.assert_array_equal(loaded.mean, np.float32([0.1, 0.2, 0.3]))
        np.testing.assert_array_equal(loaded.std, np.float32([1.0, 2.0, 3.0]))
        assert weights.preprocessing(saved) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
        for leaf, value in flatten(segnet[1]).items():
            np.testing.assert_array_equal(flatten(loaded.variables)[leaf], value, err_msg=leaf)

    def test_another_class_count_keeps_the_classifier_fresh(self, saved):
        model = build({"name": "segnet", "width": WIDTH}, K + 2)
        before = drawn(model)
        after, report = weights.load(saved, model, before)
        assert set(report.fresh) == {"params/classifier/kernel", "params/classifier/bias"}
        assert report.fresh["params/classifier/bias"] == "5 classes in the file, 7 here"
        assert after["params"]["classifier"]["bias"] is before["params"]["classifier"]["bias"]
        assert "kept fresh: classifier/bias, classifier/kernel: 5 classes in" in str(report)

    def test_encoder_only(self, saved, segnet):
        model, before = segnet
        _, report = weights.load(saved, model, before, parts="encoder")
        assert all("/encoder/" in leaf for leaf in report.loaded)
        assert len(report.loaded) == 13 * 6
        assert set(report.fresh.values()) == {"only the encoder was asked for"}
        assert set(report.left_over.values()) == {"only the encoder was asked for"}
        with pytest.raises(ValueError, match="init_parts='head'; use all or encoder"):
            weights.load(saved, model, before, parts="head")

    def test_another_network_is_refused_by_name(self, saved):
        model = build({"name": "segnet_basic", "features": 2}, K)
        with pytest.raises(ValueError, match=r"looks like .* model is segnet_basic\. Use model"):
            weights.load(saved, model, drawn(model))

    def test_every_misfit_is_listed_at_once(self, saved):
        model = build({"name": "segnet", "width": 2 * WIDTH}, K)
        with pytest.raises(ValueError) as error:
            weights.load(saved, model, abstract_variables(model))
        text = str(error.value)
        shapes = flatten(abstract_variables(model))
        # All but the classifier's bias, whose size is the class count.
        for leaf in shapes.keys() - {"params/classifier/bias"}:
            assert f"{leaf}: " in text, leaf
        assert "params/encoder/conv1_1/conv/kernel: [3, 3, 3, 4]," in text
        assert "model.width is 0.0625; the file's network has 0.03125" in text

    def test_missing_and_surplus_arrays(self, saved, segnet):
        arrays = load_file(saved)
        model, before = segnet
        config = weights.files.read(saved).config
        missing = ["params/decoder3_1/conv/kernel", "batch_stats/encoder/conv1_1/norm/mean"]
        for name in missing:
            del arrays[name]
        arrays["params/decoder9/conv/kernel"] = np.zeros((3, 3, 2, 2), np.float32)
        broken = weights.files.WeightFile("x", "segjax", arrays, config)
        with pytest.raises(ValueError) as error:
            weights.load(broken, model, before)
        assert "no place in the file's network: decoder3_1: kernel" in str(error.value)
        assert "no place in the file's network: encoder/conv1_1: mean" in str(error.value)
        assert "no place in the model: decoder9: params/decoder9/conv/kernel" in str(error.value)

    def test_values_that_are_not_finite(self, saved, segnet):
        good = weights.files.read(saved)
        arrays = dict(good.arrays)
        kernel = arrays["params/encoder/conv2_1/conv/kernel"].copy()
        kernel.flat[:3] = np.nan
        arrays["params/encoder/conv2_1/conv/kernel"] = kernel
        arrays["batch_stats/decoder1_2/norm/var"] = np.full(2, np.inf, np.float32)
        broken = weights.files.WeightFile("x", "segjax", arrays, good.config)
        with pytest.raises(ValueError) as error:
            weights.load(broken, *segnet)
        assert "conv2_1/conv/kernel: 3 NaN or infinite values" in str(error.value)
        assert "decoder1_2/norm/var: 2 NaN or infinite values" in str(error.value)

    def test_options_of_another_function_are_noted(self, tmp_path):
        path = tmp_path / "own.safetensors"
        options = {"name": "deeplabv3", "encoder": "resnet18", "width": 1 / 32, "aux": False}
        model = build(options, K)
        weights.save(path, model, drawn(model))
        other = build({**options, "rates": (1, 2, 3), "dropout_rate": 0.5}, K)
        _, report = weights.load(path, other, drawn(other))
        assert [re.match(r"model\.\w+", note).group() for note in report.notes] == ["model.rates"]


def test_a_classifier_of_another_architecture_is_refused_shortly(file):
    model = build({"name": "fcn", "encoder": "resnet18", "width": WIDTH}, K)
    with pytest.raises(ValueError, match=r"torchvision vgg16; .*another architecture") as error:
        weights.load(file(vgg16()), model, abstract_variables(model))
    assert "(fcn: encoder/stage2_block1/conv1, ...; the file: encoder/conv1_1" in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_arrays(file):
    path = file({"conv9.weight": np.ones((2, 2), np.float32)})
    model = build({"name": "segnet", "width": WIDTH}, K)
    with pytest.raises(ValueError, match=r"1 arrays \(conv9\.weight, \.\.\.\) of no network"):
        weights.load(path, model, {})


def test_a_classifier_is_no_network_of_its_own(file):
    with pytest.raises(ValueError, match="looks like torchvision vgg16, a classifier; load"):
        weights.from_file(file(vgg16()))
