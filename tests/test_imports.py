"""The architecture, read from the source: who imports whom, and what no file may hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import VERSIONS_WARNINGS

ROOT = Path(__file__).parents[1]
# Imports go from a later line to an earlier one, or stay within one package.
RANKS = (
    {"terminal", "failures", "ranges", "destinations", "config_files"},
    {"console"},
    {"layers", "accelerators"},
    {"models"},
    {"losses", "data"},
    {"weights"},
    {"metrics", "transforms"},
    {"config"},
    {"training"},
    {"inference", "api"},
    {"export"},
    {"published"},
    {"report"},
    {"commands"},
    {"flags", "arguments"},
    {"cli"},
    {"launch"},
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
SOURCES = sorted([*ROOT.glob("segjax/**/*.py"), *ROOT.glob("configs/**/*.py"), *ROOT.glob("*.py")])
LONGEST = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(source: str) -> set[str]:
    """Full names of all that a source imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def is_for_type_checkers(node: ast.AST) -> bool:
    """Whether a node is `if TYPE_CHECKING:` with imports alone."""
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "TYPE_CHECKING"
        and all(map(is_import, node.body))
        and not node.orelse
    )


def part_of(path: Path) -> str:
    """The package or module of segjax that a file belongs to, "launch" outside."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "segjax" else "launch"


def upward_edges(part: str, source: str) -> list[str]:
    """The imports of a source that its part may not make."""
    edges = []
    for name in sorted(imported_modules(source)):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package != "segjax" or target in ("", "__version__", part):
            continue
        assert target in RANK, f"segjax.{target} has no rank in {Path(__file__).name}"
        if RANK[target] >= RANK[part]:
            edges.append(f"{part} imports {target}: {name}")
    return edges


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_run_one_way(path):
    part = part_of(path)
    if part == "__init__":
        body = [n for n in ast.parse(path.read_text()).body if not is_for_type_checkers(n)]
        loaded = imported_modules(ast.unparse(ast.Module(body, [])))
        assert loaded <= {"importlib", "typing.TYPE_CHECKING"}, "importing segjax loads nothing"
        return
    assert part in RANK, f"segjax.{part} has no rank in {Path(__file__).name}"
    assert upward_edges(part, path.read_text()) == []


def test_upward_edges_are_found():
    assert upward_edges("layers", "def f():\n    import segjax.models.vgg")
    assert upward_edges("data", "from segjax.metrics.confusion import mean_iou")
    assert upward_edges("training", "from segjax import inference")
    assert not upward_edges("training", "import segjax\nfrom segjax.training import state")
    assert not upward_edges("inference", "from segjax import config, layers as l")


@pytest.mark.versions
def test_modules_import(request):
    """All in one fresh process, where `make versions` has errors of warnings of deprecation."""
    names = [
        path.relative_to(ROOT).with_suffix("")
        for path in SOURCES
        if path.stem not in ("launch", "setup")
    ]
    names = [".".join(name.parts).removesuffix(".__init__") for name in names]
    versions = request.config.option.markexpr == "versions"
    options = [f"-W{line}" for line in VERSIONS_WARNINGS if versions]
    code = f"import importlib\nfor name in {names}:\n    importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_runs_without_tensorflow(path):
    for name in imported_modules(path.read_text()):
        assert name.split(".")[0] not in ("tensorflow", "tf_keras", "keras", "torch"), name
        # These two import TensorFlow; the rest of clu does not.
        assert not name.startswith(("clu.metric_writers", "clu.periodic_actions")), name


def test_modules_are_named_after_what_they_do():
    assert not [
        name_of(path) for path in SOURCES if path.stem in ("utils", "util", "common", "helpers")
    ]


def test_no_file_is_long():
    files = [*SOURCES, *ROOT.glob("tests/**/*.py")]
    lines = {name_of(path): len(path.read_text().splitlines()) for path in files}
    assert not {name: n for name, n in lines.items() if n > LONGEST}


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name == "__init__.py"], ids=name_of
)
def test_init_files_hold_exports_only(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            assert {target.id for target in node.targets} <= {"__all__", "__version__", "_MODULES"}
        elif isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), "only a docstring stands by itself"
        elif isinstance(node, ast.FunctionDef):
            assert node.name in ("__getattr__", "__dir__"), "exports only"
        else:
            assert is_import(node) or is_for_type_checkers(node)
