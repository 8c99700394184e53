"""A graph of ONNX operations: made node by node, simplified, and written."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segjax.export.onnx.values import BATCH, NARROW, NotConvertible, Value

OPSET, IR_VERSION = 17, 8
# Serialised messages of protobuf end here.
LARGEST_BYTES = 2**31 - 1


@dataclasses.dataclass
class Node:
    """One operation; its output's name is unique in the graph."""

    op: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]
    scope: str


class Graph:
    """Nodes in order of computation, and the constants that they read.

    Attributes:
      scope: the module whose operations are added; names the nodes.
    """

    def __init__(self):
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, str] = {}  # the tensor of each
        self.output_types: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        self.nodes: dict[str, Node] = {}  # by output
        self.constants: dict[str, np.ndarray] = {}
        self.scope = ""
        self._known: dict[Any, str] = {}

    def input(self, name: str, shape: tuple[int, ...], dtype: Any) -> Value:
        """A new input."""
        order = tuple(range(len(shape)))
        value = Value(shape, np.dtype(dtype), None, name, order, shape)
        self.inputs[name] = value
        if dtype in NARROW:
            value = dataclasses.replace(value, name=self.emit("Cast", name, to=np.dtype(np.int32)))
        return value

    def emit(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds an operation, unless the same is there already; returns its output."""
        key = (op, inputs, repr(sorted(attributes.items())))
        if key not in self._known:
            output = f"{op.lower()}_{len(self._known)}"
            self.nodes[output] = Node(op, list(inputs), output, attributes, self.scope)
            self._known[key] = output
        return self._known[key]

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant tensor."""
        array = np.ascontiguousarray(array, np.int32 if array.dtype in NARROW else array.dtype)
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._known:
            name = f"constant_{len(self._known)}"
            self.constants[name] = array
            self._known[key] = name
        return self._known[key]

    def integers(self, numbers: Sequence[int]) -> str:
        """The name of a constant vector, int64, as sizes and axes are given."""
        return self.constant(np.array(numbers, np.int64))

    def as_tensor(self, value: Value) -> Value:
        """A constant as a tensor of the graph."""
        return dataclasses.replace(value, array=None, name=self.tensor(value, value.order))

    def tensor(self, value: Value, order: Sequence[int]) -> str:
        """The tensor of a value in that order of the array's dimensions."""
        if value.array is not None:
            return self.constant(np.transpose(value.array, order))
        if value.order == tuple(order):
            return value.name
        return self.emit("Transpose", value.name, perm=[value.order.index(d) for d in order])

    def expanded(self, value: Value, dims: Sequence[int] | None = None) -> Value:
        """The value with no repeated dimension among those given, or none at all."""
        dims = [d for d in value.repeated if dims is None or d in dims]
        if not dims:
            return value
        sizes = tuple(value.shape[d] if d in dims else n for d, n in enumerate(value.sizes))
        if value.array is not None and all(n % BATCH for n in sizes):
            array = np.broadcast_to(value.array, sizes)
            return dataclasses.replace(value, array=array, sizes=sizes)
        # 1 leaves the tensor's own size.
        wanted = [value.shape[d] if d in dims else 1 for d in value.order]
        name = self.emit("Expand", self.tensor(value, value.order), self._shape(wanted))
        return dataclasses.replace(value, array=None, name=name, sizes=sizes)

    def _shape(self, sizes: Sequence[int]) -> str:
        """A vector of sizes, of which some may depend on the batch size."""
        if all(n % BATCH for n in sizes):
            return self.integers(sizes)
        image = next(iter(self.inputs))
        batch = self.emit("Slice", self.emit("Shape", image), *map(self.integers, ([0], [1])))
        parts = []
        for n in sizes:
            times = self.integers([n if n % BATCH else n // BATCH])
            parts.append(times if n % BATCH else self.emit("Mul", batch, times))
        return self.emit("Concat", *parts, axis=0)

    def reshaped(self, name: str, sizes: Sequence[int]) -> str:
        """A tensor with other sizes, one of which may depend on the batch size."""
        free = [n for n in sizes if n % BATCH == 0]
        if len(free) > 1:
            raise NotConvertible("a reshaping that splits the batch")
        return self.emit("Reshape", name, self.integers([n if n % BATCH else -1 for n in sizes]))

    def producer(self, name: str, op: str) -> Node | None:
        """The node that computes a tensor, if it is such an operation."""
        node = self.nodes.get(name)
        return node if node and node.op == op else None

    def unwidened(self, name: str) -> str:
        """The tensor of a narrow integer type that was widened to this one, if there is one."""
        node = self.producer(name, "Cast")
        if node is None or node.attributes["to"] != np.int32:
            return name
        inner, source = self.nodes.get(node.inputs[0]), self.inputs.get(node.inputs[0])
        dtype = source.dtype if source else inner.attributes.get("to") if inner else None
        return node.inputs[0] if dtype in NARROW else name

    def output(self, name: str, value: Value) -> None:
        """Makes a value an output of that name, in its own dtype."""
        value = self.expanded(value)
        tensor = self.tensor(value, range(len(value.shape)))
        if value.dtype in NARROW:
            narrow = self.unwidened(tensor)
            tensor = self.emit("Cast", tensor, to=value.dtype) if narrow == tensor else narrow
        if tensor in self.inputs or tensor in self.constants or tensor in self.outputs.values():
            tensor = self.emit("Identity", tensor)
        self.outputs[name] = tensor
        self.output_types[name] = value.shape, value.dtype


def remove_unused(graph: Graph) -> None:
    """Removes what no output needs."""
    needed = set(graph.outputs.values())
    for node in reversed(list(graph.nodes.values())):
        if node.output in needed:
            needed.update(node.inputs)
        else:
            del graph.nodes[node.output]
    for name in graph.constants.keys() - needed:
        del graph.constants[name]


def fold_into_convolutions(graph: Graph) -> None:
    """Makes what follows a convolution channel by channel, as batch normalisation, part of it.

    Weights are multiplied in float64 and rounded once.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    for conv in list(graph.nodes.values()):
        if conv.op != "Conv" or conv.inputs[1] not in graph.constants:
            continue
        kernel = graph.constants[conv.inputs[1]].astype(np.float64)
        bias, last = np.zeros(len(kernel)), conv.output
        while len(readers.get(last, ())) == 1 and last not in graph.outputs.values():
            (node,) = readers[last]
            factor_term = _affine(graph, node, last, kernel.ndim, len(kernel))
            if factor_term is None:
                break
            factor, term = factor_term
            kernel *= factor.reshape(-1, *[1] * (kernel.ndim - 1))
            bias = bias * factor + term
            last = node.output
        if last == conv.output:
            continue
        names = (graph.constant(a.astype(np.float32)) for a in (kernel, bias))
        folded = Node("Conv", [conv.inputs[0], *names], last, conv.attributes, conv.scope)
        graph.nodes[last] = folded  # in the place of the last, after all that it reads


def _affine(graph: Graph, node: Node, x: str, rank: int, channels: int):
    """(factor, term) per channel of a node that computes `x * factor + term`, if it does."""
    if node.op not in ("Add", "Sub", "Mul", "Div"):
        return None
    place = node.inputs.index(x)
    other = graph.constants.get(node.inputs[1 - place])
    if other is None or (place == 1 and node.op == "Div"):
        return None
    # Channels are dimension 1.
    per_channel = (1,) * (rank - other.ndim) + other.shape
    if len(per_channel) > rank or np.prod(per_channel) != per_channel[1]:
        return None
    other = np.broadcast_to(other.reshape(-1).astype(np.float64), channels)
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op == "Mul":
        return other, zero
    if node.op == "Div":
        return 1 / other, zero
    if node.op == "Add":
        return one, other
    return (one, -other) if place == 0 else (-one, other)


def serialize(graph: Graph, metadata: Mapping[str, str], version: str) -> bytes:
    """The graph as an ONNX file, checked by onnx.

    Args:
      graph: with inputs and outputs; dimensions are named n where they are the batch size.
      metadata: texts by name.
      version: of segjax.

    Raises:
      ImportError: if onnx is missing.
      NotConvertible: if the weights are too large for one file.
    """
    import onnx
    from onnx import helper, numpy_helper

    total = sum(array.nbytes for array in graph.constants.values())
    if total > LARGEST_BYTES:
        raise NotConvertible(
            f"{total / 1e9:.2f} GB of weights: an ONNX file holds {LARGEST_BYTES / 1e9:.2f} GB"
        )

    def tensor_type(dtype):
        return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def described(name, shape, dtype):
        free = [n if n % BATCH else "n" if n == BATCH else f"{n // BATCH}*n" for n in shape]
        return helper.make_tensor_value_info(name, tensor_type(dtype), free)

    # An output's tensor has the output's name.
    renamed = {tensor: name for name, tensor in graph.outputs.items()}
    nodes = []
    for node in graph.nodes.values():
        attributes: dict[str, Any] = {
            k: tensor_type(v) if isinstance(v, np.dtype) else v for k, v in node.attributes.items()
        }
        names = [renamed.get(n, n) for n in node.inputs]
        output = renamed.get(node.output, node.output)
        label = f"{node.scope}/{output}".lstrip("/")
        nodes.append(helper.make_node(node.op, names, [output], label, **attributes))
    proto = helper.make_graph(
        nodes,
        "segjax",
        [described(name, v.shape, v.dtype) for name, v in graph.inputs.items()],
        [described(name, *graph.output_types[name]) for name in graph.outputs],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="segjax",
        producer_version=version,
    )
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()
