"""Torch's files without torch: what they hold, and that nothing they name is run."""

import contextlib
import os
import pathlib
import pickle
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest

from segjax.weights import pth
from segjax.weights.pth import read_pth
from tests.weights.torch_files import (
    STORAGES,
    Call,
    Global,
    Storage,
    dumps,
    state_dict,
    tensor,
    write_stream,
    write_zip,
)

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
WRITERS = {"zip": write_zip, "stream": write_stream}


@pytest.mark.parametrize("form", WRITERS)
def test_a_checkpoint_that_torch_wrote(form):
    """benchmarks/goldens/make_weight_files.py says what is in it."""
    arrays, unread = read_pth(GOLDENS / f"torch_{form}.pth")
    assert len(arrays) == 24
    for name, dtype in (
        *((t, t) for t in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8")),
        ("bfloat16", ml_dtypes.bfloat16),
    ):
        assert arrays[f"types.{name}"].dtype == dtype
        np.testing.assert_array_equal(arrays[f"types.{name}"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(arrays["types.bool"], np.arange(6).reshape(2, 3) > 2)
    np.testing.assert_array_equal(arrays["0.weight"], np.arange(54).reshape(3, 2, 3, 3))
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(arrays["transposed"], whole.T)
    np.testing.assert_array_equal(arrays["rows"], whole[1:3])
    np.testing.assert_array_equal(arrays["columns"], whole[:, 1:4:2])
    np.testing.assert_array_equal(arrays["channels_last"], np.arange(12).reshape(1, 2, 3, 2))
    np.testing.assert_array_equal(arrays["parameter"], np.arange(4).reshape(2, 2))
    assert arrays["scalar"] == 7
    assert arrays["empty"].shape == (0, 3)
    assert arrays["1.num_batches_tracked"] == 1
    assert unread == ("argparse.Namespace", "numpy._core.multiarray.scalar")


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("dtype", STORAGES)
def test_every_type_of_number(tmp_path, form, dtype):
    dtype = np.dtype(ml_dtypes.bfloat16) if "V" in dtype else np.dtype(dtype)
    values = (np.arange(-4, 8) % 5).astype(dtype).reshape(3, 4)
    WRITERS[form](tmp_path / "x.pth", *state_dict({"a": values}))
    arrays, unread = read_pth(tmp_path / "x.pth")
    assert arrays["a"].dtype == dtype
    np.testing.assert_array_equal(arrays["a"], values)
    assert unread == ()


@pytest.mark.parametrize("form", WRITERS)
def test_strides_offsets_and_shared_storages(tmp_path, form):
    storage = Storage("0", KERNEL.ravel())
    tensors = {
        "whole": tensor(storage, 0, (2, 3, 2, 2)),
        "last": tensor(storage, 12, (3, 2, 2)),
        "transposed": tensor(storage, 0, (4, 6), (1, 4)),
        "channels_last": tensor(storage, 0, (2, 2, 3, 2), (12, 1, 4, 2)),
        "nothing": tensor(storage, 0, (0, 3)),
        "scalar": tensor(storage, 5, ()),
    }
    WRITERS[form](tmp_path / "x.pth", tensors, [storage])
    arrays, _ = read_pth(tmp_path / "x.pth")
    assert list(arrays) == list(tensors)
    np.testing.assert_array_equal(arrays["whole"], KERNEL)
    np.testing.assert_array_equal(arrays["last"], KERNEL[1])
    np.testing.assert_array_equal(arrays["transposed"], KERNEL.reshape(6, 4).T)
    by_hand = np.lib.stride_tricks.as_strided(KERNEL, (2, 2, 3, 2), (48, 4, 16, 8))
    np.testing.assert_array_equal(arrays["channels_last"], by_hand)
    assert arrays["nothing"].shape == (0, 3)
    assert arrays["scalar"] == 5


def test_a_file_of_a_big_endian_machine(tmp_path):
    values = np.array([1.5, -2.25], np.float32)
    write_zip(tmp_path / "x.pth", *state_dict({"a": values}), byteorder="big")
    np.testing.assert_array_equal(read_pth(tmp_path / "x.pth")[0]["a"], values)
    write_zip(tmp_path / "y.pth", *state_dict({"a": values}), byteorder=None)
    np.testing.assert_array_equal(read_pth(tmp_path / "y.pth")[0]["a"], values)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("key", pth.STATE_DICT_KEYS)
def test_a_checkpoint_with_other_entries(tmp_path, form, key):
    """The optimiser's tensors, arguments and a logger's objects lie beside the state dict."""
    tensors, storages = state_dict({"a.weight": KERNEL, "momentum": KERNEL + 1})
    scalar = Call(
        Global("numpy.core.multiarray", "scalar"), (Global("numpy", "dtype"), "\x00\x00\x00?")
    )
    checkpoint = {
        "epoch": 3,
        "best": scalar,
        "args": Call(Global("argparse", "Namespace"), ()),
        "message_hub": Call(Global("mmengine.logging", "HistoryBuffer"), ([0.5], [1])),
        key: {"a.weight": tensors["a.weight"], "version": 2},
        "optimizer": {"state": {0: {"momentum": tensors["momentum"]}}},
    }
    WRITERS[form](tmp_path / "x.pth", checkpoint, storages)
    arrays, unread = read_pth(tmp_path / "x.pth")
    assert list(arrays) == ["a.weight"]
    np.testing.assert_array_equal(arrays["a.weight"], KERNEL)
    assert unread == (
        "argparse.Namespace",
        "mmengine.logging.HistoryBuffer",
        "numpy.core.multiarray.scalar",
    )


def test_parameters_and_ordered_dicts(tmp_path):
    storage = Storage("0", KERNEL)
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (tensor(storage), True, ()))
    pairs = Call(Global("collections", "OrderedDict"), ([["a", parameter]],))
    write_zip(tmp_path / "x.pth", pairs, [storage])
    np.testing.assert_array_equal(read_pth(tmp_path / "x.pth")[0]["a"], KERNEL)


@pytest.mark.parametrize(
    "stored",
    [
        Call(Global("os", "system"), ("touch was_run",)),
        Call(Global("builtins", "eval"), ("open('was_run', 'w')",)),
        Call(Global("__builtin__", "exec"), ("open('was_run', 'w')",)),
        Call(Global("subprocess", "Popen"), (["touch", "was_run"],)),
        Call(Global("os.path", "join"), ("a", "b")),
        {"a": Call(Global("posix", "system"), ("touch was_run",))},
        {"state_dict": {}, "optimizer": [{"x": (Call(Global("nt", "system"), ("x",)),)}]},
        {"a": Call(Global("torch.nn.modules.conv", "Conv2d"), ())},
        Call(Global("mypackage.models", "Network"), ()),
        Call(Global("builtins", "getattr"), (Global("os", "system"), "__call__")),
    ],
    ids=str,
)
@pytest.mark.parametrize("form", WRITERS)
def test_code_is_not_run(tmp_path, monkeypatch, form, stored):
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    WRITERS[form](tmp_path / "x.pth", stored, [])
    with pytest.raises(
        ValueError, match=r"x\.pth cannot be read: it holds pickled objects or code"
    ):
        read_pth(tmp_path / "x.pth")
    assert not (tmp_path / "was_run").exists()
    assert not {"mypackage", "torch"} & (set(sys.modules) - before)


class _Payload:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_every_protocol_of_pickle(tmp_path, protocol):
    target = str(tmp_path / "was_run")
    for payload in (_Payload(open, (target, "w")), _Payload(os.mkdir, (target,))):
        content = pickle.dumps({"a": {"b": [payload]}}, protocol)
        write_zip(tmp_path / "x.pth", content, [])
        with pytest.raises(ValueError, match="which are not run"):
            read_pth(tmp_path / "x.pth")
        (tmp_path / "y.pth").write_bytes(content)  # no torch file at all
        with pytest.raises(ValueError, match=r"y\.pth cannot be read"):
            read_pth(tmp_path / "y.pth")
    assert not (tmp_path / "was_run").exists()


def test_old_instructions_that_call(tmp_path):
    """INST and OBJ construct, BUILD sets attributes."""
    for content in (
        b"(S'x'\nios\nsystem\n.",
        b"(cos\nsystem\nS'x'\no.",
        b"\x80\x02cposix\nsystem\nq\x00X\x01\x00\x00\x00x\x85R.",
    ):
        write_zip(tmp_path / "x.pth", content, [])
        with pytest.raises(ValueError, match="objects or code"):
            read_pth(tmp_path / "x.pth")
    # A state for a dict is left out, whatever it says.
    storage = Storage("0", KERNEL)
    content = dumps({"a": tensor(storage)})[:-1] + dumps({"update": "x"})[2:-1] + b"b."
    write_zip(tmp_path / "y.pth", content, [storage])
    assert list(read_pth(tmp_path / "y.pth")[0]) == ["a"]


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(offset=1, shape=(24,)), "reaches past its storage of 24 values"),
        (dict(shape=(2, 3), strides=(20, 2)), "reaches past its storage"),
        (dict(shape=(10**12,), strides=(1,)), "reaches past its storage"),
        (dict(shape=(10**12,), strides=(0,)), "1,000,000,000,000 values, its file 24"),
        (dict(shape=(2,), strides=(-1,)), "strides"),
        (dict(offset=-1, shape=(2,)), "offset"),
        (dict(shape=(1,) * 40), "40 dimensions"),
        (dict(shape=(2,), strides=(1, 1)), "1 dimensions and 2 strides"),
        (dict(shape=("a",), strides=(1,)), "shape"),
        (dict(size=10**15, shape=(10**15,)), "would take 4,000,000,000,000,000 bytes|not the one"),
    ],
)
def test_tensors_that_their_numbers_do_not_fill(tmp_path, form, changes, message):
    storage = Storage("0", KERNEL.ravel())
    WRITERS[form](tmp_path / "x.pth", {"a": tensor(storage, **changes)}, [storage])
    with pytest.raises(ValueError, match=rf"x\.pth cannot be read: .*({message})"):
        read_pth(tmp_path / "x.pth")


def test_many_views_of_a_few_numbers(tmp_path):
    storage = Storage("0", np.zeros(1000, np.float32))
    tensors = {f"a{i}": tensor(storage) for i in range(20)}
    write_zip(tmp_path / "x.pth", tensors, [storage])
    with pytest.raises(ValueError, match="its tensors have 20,000 values, its file 1,000"):
        read_pth(tmp_path / "x.pth")
    write_zip(tmp_path / "y.pth", dict(list(tensors.items())[:2]), [storage])  # tied weights
    assert len(read_pth(tmp_path / "y.pth")[0]) == 2


def test_zip_bombs(tmp_path):
    storage = Storage("0", np.zeros(10**6, np.float32))
    tensors = {"a": tensor(storage)}
    write_zip(tmp_path / "x.pth", tensors, [storage], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="its zip is compressed"):
        read_pth(tmp_path / "x.pth")
    # Entries that all claim the same bytes.
    write_zip(tmp_path / "y.pth", tensors, [storage])
    content = (tmp_path / "y.pth").read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = next(
        content[i : content.index(b"PK\x01\x02", i + 4)]
        for i in range(start, end)
        if content[i : i + 4] == b"PK\x01\x02" and b"archive/data/0" in content[i : i + 80]
    )
    copies = b"".join(entry.replace(b"data/0", f"data/{i}".encode()) for i in range(1, 9))
    tail = bytearray(content[end:])
    tail[8:12] = (12).to_bytes(2, "little") * 2
    tail[12:16] = (end - start + len(copies)).to_bytes(4, "little")
    (tmp_path / "y.pth").write_bytes(content[:end] + copies + bytes(tail))
    with pytest.raises(ValueError, match="entries are larger than the file"):
        read_pth(tmp_path / "y.pth")


def test_keys_that_take_forever_to_hash_are_left_out(tmp_path):
    """Each tuple holds the one before it twice: 2**60 items under one key."""
    content = b"\x80\x02}K\x01\x85q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"K\x01s."
    write_zip(tmp_path / "x.pth", content, [])
    assert read_pth(tmp_path / "x.pth") == ({}, ())


@pytest.mark.parametrize("form", WRITERS)
def test_truncated_anywhere(tmp_path, form):
    WRITERS[form](tmp_path / "x.pth", *state_dict({"a": KERNEL, "b": KERNEL}))
    content = (tmp_path / "x.pth").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "x.pth").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"x\.pth cannot be read: it"):
            read_pth(tmp_path / "x.pth")


@pytest.mark.parametrize("form", WRITERS)
def test_changed_bytes_raise_nothing_else(tmp_path, form):
    """A changed byte gives arrays or the message, whatever it does to the pickle."""
    WRITERS[form](tmp_path / "x.pth", *state_dict({"a": KERNEL, "b": KERNEL[:1]}))
    content = (tmp_path / "x.pth").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(content)
        for place in generator.integers(len(content), size=2):
            changed[place] = generator.integers(256)
        (tmp_path / "x.pth").write_bytes(changed)
        with contextlib.suppress(ValueError):
            read_pth(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it is empty"),
        (b"<html>not found</html>", "neither a zip nor a pickle"),
        (b"x" * 257 + b"ustar" + b"x" * 100, "a tar, the form of torch before 0.1.10"),
        (dumps({"a": 1}), "torch.save did not write"),
    ],
)
def test_other_files(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.pth cannot be read: .*{message}"):
        read_pth(tmp_path / "x.pth")


def test_other_zips(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("model.weights.h5", "x")
    with pytest.raises(ValueError, match=r"holds 0 data\.pkl"):
        read_pth(tmp_path / "x.pth")
    write_zip(tmp_path / "x.pth", *state_dict({"a": KERNEL}))
    with zipfile.ZipFile(tmp_path / "x.pth", "a") as archive:
        archive.writestr("archive/code/__torch__.py", "x")
    with pytest.raises(ValueError, match="a TorchScript archive"):
        read_pth(tmp_path / "x.pth")


def test_numbers_that_a_state_dict_has_not(tmp_path):
    kind = Global("torch", "ComplexFloatStorage")
    stored = tensor(Storage("0", KERNEL))
    arguments = list(stored.arguments)
    arguments[0] = arguments[0]._replace(identity=("storage", kind, "0", "cpu", 24))
    stored = stored._replace(arguments=tuple(arguments))
    write_zip(tmp_path / "x.pth", {"a": stored}, [])
    with pytest.raises(ValueError, match=r"type torch\.ComplexFloatStorage; known are Float"):
        read_pth(tmp_path / "x.pth")
    write_zip(tmp_path / "y.pth", [tensor(Storage("0", KERNEL))], [Storage("0", KERNEL)])
    with pytest.raises(ValueError, match="holds a list; a state dict was expected"):
        read_pth(tmp_path / "y.pth")


def test_a_wrong_checksum(tmp_path):
    write_zip(tmp_path / "x.pth", *state_dict({"a": KERNEL}))
    content = (tmp_path / "x.pth").read_bytes()
    place = content.index(KERNEL.tobytes())
    changed = content[:place] + b"\xff" + content[place + 1 :]
    (tmp_path / "x.pth").write_bytes(changed)
    with pytest.raises(ValueError, match=r"cut short, damaged, or no torch file .*CRC"):
        read_pth(tmp_path / "x.pth")
