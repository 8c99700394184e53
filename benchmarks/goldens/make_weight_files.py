"""Writes tests/goldens/torch_zip.pth, torch_stream.pth and onnx_types.onnx, with torch and onnx.

    pip install torch onnx
    python benchmarks/goldens/make_weight_files.py

The first two hold one checkpoint: every type of number that weights have, strides, offsets, shared
storages, a parameter, a batch normalisation's buffers, and an optimiser's state beside them. The
third holds an initialiser of every type, as raw bytes and in the field of its type. The values are
those of `value` below; the tests compute them again.
"""

import argparse
import pathlib

import numpy as np
import onnx
import torch

GOLDENS = pathlib.Path(__file__).parents[2] / "tests" / "goldens"
TYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")


def value(shape: tuple[int, ...]) -> torch.Tensor:
    """0, 1, 2, ... in float32."""
    return torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape)


def checkpoint() -> dict:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    with torch.no_grad():
        network[0].weight.copy_(value((3, 2, 3, 3)))
        network[0].bias.copy_(value((3,)))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2, 4, 4)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        network[0].weight.copy_(value((3, 2, 3, 3)))
    state = network.state_dict()
    whole = value((4, 6))
    state |= {f"types.{name}": value((2, 3)).to(getattr(torch, name)) for name in TYPES}
    state["types.bool"] = value((2, 3)) > 2
    state["transposed"] = whole.t()
    state["rows"] = whole[1:3]
    state["columns"] = whole[:, 1:4:2]
    state["channels_last"] = value((1, 2, 3, 2)).to(memory_format=torch.channels_last)
    state["scalar"] = torch.tensor(7.0)
    state["empty"] = torch.zeros(0, 3)
    state["parameter"] = torch.nn.Parameter(value((2, 2)))
    return {
        "epoch": 3,
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, classes=["road", "sky"]),
        "best": np.float64(0.5),
    }


def onnx_model() -> onnx.ModelProto:
    tensors = []
    for name in TYPES:
        kind = getattr(
            onnx.TensorProto, {"float64": "DOUBLE", "float32": "FLOAT"}.get(name, name.upper())
        )
        numbers = value((2, 3)).numpy()
        for raw in (True, False):
            typed = numbers.astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            values = typed.tobytes() if raw else typed.ravel().tolist()
            full_name = f"{'raw' if raw else 'typed'}.{name}"
            tensors.append(onnx.helper.make_tensor(full_name, kind, (2, 3), values, raw=raw))
    node = onnx.helper.make_node("Identity", ["raw.float32"], ["out"])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, (2, 3))
    graph = onnx.helper.make_graph([node], "types", [], [out], tensors)
    return onnx.helper.make_model(graph)


if __name__ == "__main__":
    model = onnx_model()
    onnx.checker.check_model(model)
    onnx.save(model, GOLDENS / "onnx_types.onnx")
    for name, zipped in (("torch_zip.pth", True), ("torch_stream.pth", False)):
        path = GOLDENS / name
        torch.save(checkpoint(), path, _use_new_zipfile_serialization=zipped)
        print(f"{path}: {path.stat().st_size} bytes, torch {torch.__version__}")
