"""JAX's operations by name."""

from segjax.export.onnx.cells import CELLS
from segjax.export.onnx.elementwise import ELEMENTWISE
from segjax.export.onnx.rule import Rule
from segjax.export.onnx.sums import SUMS


def _same(graph, values, out, params):
    return values[0]


RULES: dict[str, Rule] = {
    **ELEMENTWISE,
    **CELLS,
    **SUMS,
    **dict.fromkeys(("name", "copy", "copy_p", "stop_gradient", "sharding_constraint"), _same),
}
