"""Reading Keras's HDF5 files: what Keras itself wrote, what older versions wrote, and no files."""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from segjax.weights.hdf5 import read_hdf5
from tests.goldens.draw import draw
from tests.weights.keras_files import write_new, write_old

GOLDENS = Path(__file__).parents[1] / "goldens"
KERNEL = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
SHAPES = (("b/kernel", (2, 3, 4, 5)), ("b/bias", (5,)), ("a/kernel", (1, 1, 5, 2)))


def tiny() -> dict[str, tuple[int, ...]]:
    """The arrays of the network in the keras_tiny files."""
    with np.load(GOLDENS / "weights_keras_tiny.npz") as file:
        return {name: tuple(shape) for name, shape in json.loads(str(file["names"]))}


@pytest.mark.parametrize("name", ["keras_tiny_model.h5", "keras_tiny_weights.h5"])
def test_keras_wrote_an_old_file(name):
    arrays = read_hdf5(GOLDENS / name)
    assert list(arrays) == list(tiny())  # in the order of the model's layers
    for array, shape in tiny().items():
        np.testing.assert_array_equal(arrays[array], draw(array, shape, channels_last=True))


@pytest.mark.parametrize("name", ["keras_tiny.weights.h5", "keras_tiny.keras"])
def test_keras_wrote_a_new_file(name):
    if name.endswith(".keras"):
        with (
            zipfile.ZipFile(GOLDENS / name) as archive,
            archive.open("model.weights.h5") as file,
        ):
            arrays = read_hdf5(file, name)
    else:
        arrays = read_hdf5(GOLDENS / name)
    # The model inside the model is called after its class there.
    wanted = {array: array.replace("inner/", "sequential/") for array in tiny()}
    assert set(arrays) == set(wanted.values())
    for array, shape in tiny().items():
        np.testing.assert_array_equal(arrays[wanted[array]], draw(array, shape, True))
    convs = [array for array in arrays if array.startswith("conv2d")]
    assert convs == [array for array in tiny() if array.startswith("conv2d")]
    assert len(convs) == 10


def test_a_new_file_without_names_is_in_the_order_of_its_numbers(tmp_path):
    shapes = [(f"conv{i}/kernel", (1, 1, 1, i + 1)) for i in range(12)]
    groups = {f"conv{i}": "conv2d" + f"_{i}" * (i > 0) for i in range(12)}
    write_new(tmp_path / "x.h5", shapes, groups, lambda *_: 0, own_names=False)
    arrays = read_hdf5(tmp_path / "x.h5")
    assert list(arrays) == [f"{group}/kernel" for group in groups.values()]
    assert [array.shape[-1] for array in arrays.values()] == list(range(1, 13))


def test_the_first_keras_3_files_and_their_optimizer(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for place in range(4):
            file[f"_layer_checkpoint_dependencies/norm/vars/{place}"] = np.full(3, place)
        file["_layer_checkpoint_dependencies/dropout/seed_generator/vars/0"] = np.zeros(2)
        file["optimizer/vars/0"] = np.zeros((2, 2))
    arrays = read_hdf5(tmp_path / "x.h5")
    names = ["norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance"]
    assert [(name, array[0]) for name, array in arrays.items()] == list(
        zip(names, range(4), strict=True)
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("suffix", [":0", ""])
def test_an_old_file_is_in_the_order_of_its_layers(tmp_path, whole, suffix):
    value = lambda name, shape: KERNEL if shape == KERNEL.shape else 3  # noqa: E731
    write_old(tmp_path / "x.h5", SHAPES, value, whole, suffix, backend=b"tensorflow")
    arrays = read_hdf5(tmp_path / "x.h5")
    assert [(name, array.shape) for name, array in arrays.items()] == list(SHAPES)
    np.testing.assert_array_equal(arrays["b/kernel"], KERNEL)
    np.testing.assert_array_equal(arrays["b/bias"], np.full(5, 3))


def test_theano_kernels_are_turned(tmp_path):
    value = lambda name, shape: KERNEL if shape == KERNEL.shape else 3  # noqa: E731
    write_old(tmp_path / "x.h5", SHAPES, value, backend=b"theano")
    turned = read_hdf5(tmp_path / "x.h5")["b/kernel"]
    for row in range(2):
        for column in range(3):
            np.testing.assert_array_equal(turned[row, column], KERNEL[1 - row, 2 - column])


def test_keras_1_names(tmp_path):
    names = {
        "convolution2d_1": ["convolution2d_1_W", "convolution2d_1_b"],
        "block1_conv1": ["block1_conv1_W_1:0", "block1_conv1_b_1:0"],
        "bn2a_branch2a": [
            f"bn2a_branch2a_{variable}:0"
            for variable in ("gamma", "beta", "running_mean", "running_std")
        ],
    }
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in names]
        for layer, weights in names.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for place, name in enumerate(weights):
                group[name] = np.full(3, place)
    found = {name: array[0] for name, array in read_hdf5(tmp_path / "x.h5").items()}
    assert found == {
        "convolution2d_1/kernel": 0,
        "convolution2d_1/bias": 1,
        "block1_conv1/kernel": 0,
        "block1_conv1/bias": 1,
        "bn2a_branch2a/gamma": 0,
        "bn2a_branch2a/beta": 1,
        "bn2a_branch2a/moving_mean": 2,
        "bn2a_branch2a/moving_variance": 3,
    }


def test_names_that_tensorflow_counted_and_a_model_inside(tmp_path):
    names = {
        "conv": ["model_1/conv_2/kernel_1:0", "model_1/conv_2/bias_1:0"],
        "vgg": ["block1_conv1/kernel:0", "block1_conv1/bias:0", "block1_conv2/kernel:0"],
    }
    with h5py.File(tmp_path / "x.h5", "w") as file:
        # Long lists are split.
        file.attrs["layer_names0"], file.attrs["layer_names1"] = [b"conv"], [b"vgg"]
        for layer, weights in names.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name in weights:
                group[name] = np.zeros(3)
    assert list(read_hdf5(tmp_path / "x.h5")) == [
        "conv/kernel",
        "conv/bias",
        "vgg/block1_conv1/kernel",
        "vgg/block1_conv1/bias",
        "vgg/block1_conv2/kernel",
    ]


def test_bfloat16(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        # 1.0, -2.5 and 0.15625: the upper halves of their float32, as Keras stores them.
        halves = np.array([0x3F80, 0xC020, 0x3E20], np.uint16).view("V2")
        file["layers/dense/vars/0"] = halves.reshape(1, 3)
    array = read_hdf5(tmp_path / "x.h5")["dense/kernel"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[1, -2.5, 0.15625]])


def test_a_text_is_no_file(tmp_path):
    (tmp_path / "x.h5").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"x\.h5 cannot be read: it is cut short, damaged"):
        read_hdf5(tmp_path / "x.h5")


@pytest.mark.parametrize("name", ["keras_tiny_model.h5", "keras_tiny.weights.h5"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_is_cut_short(tmp_path, name, share):
    data = (GOLDENS / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=f"{name} cannot be read: it is cut short"):
        read_hdf5(tmp_path / name)


def test_no_layers(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(
        ValueError, match=r"x\.h5 cannot be read: it holds no Keras layers with weights"
    ):
        read_hdf5(tmp_path / "x.h5")


def test_the_title_is_what_messages_name(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"lost"]
    with (
        open(tmp_path / "x.h5", "rb") as file,
        pytest.raises(ValueError, match=r"weight file a\.whl, b\.h5 cannot be read"),
    ):
        read_hdf5(file, "a.whl, b.h5")
