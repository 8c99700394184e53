"""Operations that move cells: shapes, slices, padding, reading at indices."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from segjax.export.onnx.graph import Graph
from segjax.export.onnx.rule import Rule
from segjax.export.onnx.values import NotConvertible, Value, constant


def transpose(value: Value, permutation: Sequence[int]) -> Value:
    """The array's dimensions in another order; the tensor is the same."""
    places = list(permutation)
    return dataclasses.replace(
        value,
        shape=tuple(value.shape[d] for d in places),
        array=None if value.array is None else np.transpose(value.array, places),
        order=tuple(range(len(places)))
        if value.array is not None
        else tuple(places.index(d) for d in value.order),
        sizes=tuple(value.sizes[d] for d in places),
    )


def _transpose(graph, values, out, params):
    return transpose(values[0], params["permutation"])


def broadcast(graph: Graph, value: Value, shape: tuple[int, ...], dims: Sequence[int]) -> Value:
    """Dimension i becomes dimension `dims[i]` of `shape`; it is repeated in the others."""
    sizes = [1] * len(shape)
    for d, n in zip(dims, value.sizes, strict=True):
        sizes[d] = n
    if value.array is not None:
        return constant(value.array.reshape(sizes), shape)
    order = [dims[d] for d in value.order]
    new = [d for d in range(len(shape)) if d not in dims]
    for d in new:  # beside the dimension before, so that the two can be joined
        order.insert(order.index(d - 1) + 1 if d else 0, d)
    name = value.name
    if new:
        name = graph.emit("Unsqueeze", name, graph.integers(sorted(order.index(d) for d in new)))
    return Value(shape, value.dtype, None, name, tuple(order), tuple(sizes))


def _broadcast_in_dim(graph, values, out, params):
    return broadcast(graph, values[0], out.shape, params["broadcast_dimensions"])


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs of neighbouring dimensions, before and after a reshaping, that hold the same cells."""
    i = j = 0
    groups = []
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
        elif i < len(old) and old[i] == 1:
            groups.append(([i], []))
            i += 1
        elif j < len(new) and new[j] == 1:
            groups.append(([], [j]))
            j += 1
        else:
            left, right = [i], [j]
            before, after = old[i], new[j]
            i, j = i + 1, j + 1
            while before != after:
                if before < after:
                    before *= old[i]
                    left.append(i)
                    i += 1
                else:
                    after *= new[j]
                    right.append(j)
                    j += 1
            groups.append((left, right))
    return groups


def reshape(graph: Graph, value: Value, shape: tuple[int, ...]) -> Value:
    """The same cells in another shape; transposed only where neighbours that are joined or split
    do not lie together in the tensor."""
    groups = _groups(value.shape, shape)
    joined = [d for old, new in groups if (len(old), len(new)) not in ((1, 1), (1, 0)) for d in old]
    value = graph.expanded(value, joined)
    kept = sorted((g for g in groups if g[0]), key=lambda g: value.order.index(g[0][0]))
    name = graph.tensor(value, [d for old, _ in kept for d in old])
    sizes, order = list(shape), []
    for old, new in kept:
        order += new
        if (len(old), len(new)) == (1, 1):
            sizes[new[0]] = value.sizes[old[0]]
    for d in sorted(d for old, new in groups if not old for d in new):
        order.insert(order.index(d - 1) + 1 if d else 0, d)
    before = [value.sizes[d] for old, _ in kept for d in old]
    after = [sizes[d] for d in order]
    if after != before:
        name = graph.reshaped(name, after)
    return Value(shape, value.dtype, None, name, tuple(order), tuple(sizes))


def _reshape(graph, values, out, params):
    if params.get("dimensions") is not None:
        raise NotConvertible("a reshaping in another order of dimensions")
    return reshape(graph, values[0], out.shape)


Steps = Mapping[int, tuple[int, int, int]]


def slice_dims(graph: Graph, value: Value, steps: Steps) -> Value:
    """Cells `start, start + step, ...` before `stop`, by dimension."""
    shape, sizes, axes = list(value.shape), list(value.sizes), []
    for d, (start, stop, step) in steps.items():
        if (start, stop, step) == (0, value.shape[d], 1):
            continue
        shape[d] = len(range(start, stop, step))
        if value.sizes[d] == value.shape[d]:
            sizes[d] = shape[d]
            axes.append(d)
    name = value.name
    if axes:
        columns = zip(*((*steps[d], value.order.index(d)) for d in axes), strict=True)
        starts, stops, strides, places = map(graph.integers, columns)
        name = graph.emit("Slice", name, starts, stops, places, strides)
    return dataclasses.replace(value, shape=tuple(shape), name=name, sizes=tuple(sizes))


def _slice(graph, values, out, params):
    strides = params["strides"] or [1] * len(out.shape)
    starts, stops = params["start_indices"], params["limit_indices"]
    steps = {
        d: step
        for d, step in enumerate(zip(starts, stops, strides, strict=True))
        if out.shape[d] != values[0].shape[d]
    }
    return slice_dims(graph, values[0], steps)


def _split(graph, values, out, params):
    """All parts; the only rule with several results."""
    (x,), axis, start, parts = values, params["axis"], 0, []
    for size in params["sizes"]:
        parts.append(slice_dims(graph, x, {axis: (start, start + size, 1)}))
        start += size
    return parts


def _pad(graph, values, out, params):
    x, filling = values
    config = params["padding_config"]
    if any(interior for _, _, interior in config):
        raise NotConvertible("padding between cells")
    if filling.array is None:
        raise NotConvertible("padding with a computed number")
    cut = {
        d: (max(0, -low), x.shape[d] - max(0, -high), 1)
        for d, (low, high, _) in enumerate(config)
        if min(low, high) < 0
    }
    x = slice_dims(graph, x, cut)
    pads = {d: (max(0, low), max(0, high)) for d, (low, high, _) in enumerate(config)}
    grown = [d for d, pair in pads.items() if any(pair)]
    if not grown:
        return x
    x = graph.expanded(x, grown)
    amounts = [pads[d][side] for side in (0, 1) for d in x.order]
    value = graph.constant(filling.array.reshape(()))
    name = graph.emit("Pad", x.name, graph.integers(amounts), value, mode="constant")
    sizes = tuple(out.shape[d] if d in grown else n for d, n in enumerate(x.sizes))
    return Value(out.shape, out.dtype, None, name, x.order, sizes)


def _concatenate(graph, values, out, params):
    axis = params["dimension"]
    order = next(v for v in values if v.array is None).order
    names = [graph.tensor(graph.expanded(v), order) for v in values]
    name = graph.emit("Concat", *names, axis=order.index(axis))
    return Value(out.shape, out.dtype, None, name, order, out.shape)


def _rev(graph, values, out, params):
    x, axes = values[0], params["dimensions"]
    x = graph.expanded(x, axes)
    columns = ([-1] * len(axes), [-(2**31)] * len(axes), [x.order.index(d) for d in axes])
    starts, stops, places = map(graph.integers, columns)
    name = graph.emit("Slice", x.name, starts, stops, places, graph.integers([-1] * len(axes)))
    return dataclasses.replace(x, name=name)


def _gather(graph, values, out, params):
    """Reading at constant indices, each along one dimension: strided slices, and `take`."""
    x, indices = values
    dims, sizes = params["dimension_numbers"], params["slice_sizes"]
    if indices.array is None or dims.operand_batching_dims or dims.start_indices_batching_dims:
        raise NotConvertible("reading at computed indices")
    table = np.broadcast_to(indices.array, indices.shape)
    batch_dims = [d for d in range(len(out.shape)) if d not in dims.offset_dims]
    read_whole = [d for d in range(len(x.shape)) if d not in dims.collapsed_slice_dims]
    place = dict(zip(read_whole, dims.offset_dims, strict=True))  # in the result, by dimension of x
    gone = []  # dimensions of which one cell is read
    for k, d in enumerate(dims.start_index_map):
        column = table[..., k]
        size = 1 if d in dims.collapsed_slice_dims else int(sizes[d])
        if column.size == 0 or column.min() < 0 or column.max() + size > x.shape[d]:
            raise NotConvertible("reading at indices outside the array")
        axes = [a for a, n in enumerate(column.shape) if n > 1 and np.ptp(column, a).any()]
        if not axes:
            start = int(column.flat[0])
            x = slice_dims(graph, x, {d: (start, start + size, 1)})
            if d in dims.collapsed_slice_dims:
                gone.append(d)
            continue
        if len(axes) > 1 or size > 1 or d in place or batch_dims[axes[0]] in place.values():
            raise NotConvertible("reading at indices of several dimensions")
        vector = np.moveaxis(column, axes[0], 0).reshape(column.shape[axes[0]], -1)[:, 0]
        place[d] = batch_dims[axes[0]]
        x = _take(graph, x, d, vector)
    kept = [d for d in range(len(x.shape)) if d not in gone]
    x = reshape(graph, x, tuple(x.shape[d] for d in kept))
    # Into the order of the result, then repeated where no index varies.
    by_place = sorted(range(len(kept)), key=lambda i: place[kept[i]])
    x = transpose(x, by_place)
    return broadcast(graph, x, out.shape, [place[kept[i]] for i in by_place])


def _take(graph: Graph, x: Value, d: int, indices: np.ndarray) -> Value:
    """The cells of one dimension at constant indices."""
    steps = np.diff(indices)
    if steps.min() == steps.max() > 0:
        return slice_dims(graph, x, {d: (int(indices[0]), int(indices[-1]) + 1, int(steps[0]))})
    x = graph.expanded(x, [d])
    name = graph.emit("Gather", x.name, graph.integers(indices.tolist()), axis=x.order.index(d))
    shape, sizes = (
        tuple(len(indices) if i == d else n for i, n in enumerate(old))
        for old in (x.shape, x.sizes)
    )
    return dataclasses.replace(x, shape=shape, name=name, sizes=sizes)


def _tile(graph, values, out, params):
    times = params["reps"]
    x = graph.expanded(values[0], [d for d, n in enumerate(times) if n > 1])
    name = graph.emit("Tile", x.name, graph.integers([times[d] for d in x.order]))
    sizes = tuple(n * x.sizes[d] for d, n in enumerate(times))
    return dataclasses.replace(x, shape=out.shape, name=name, sizes=sizes)


def _to_shape(graph, values, out, params):
    return reshape(graph, values[0], out.shape)


CELLS: dict[str, Rule] = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _to_shape,
    "expand_dims": _to_shape,
    "slice": _slice,
    "split": _split,
    "pad": _pad,
    "concatenate": _concatenate,
    "rev": _rev,
    "gather": _gather,
    "tile": _tile,
}
