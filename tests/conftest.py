"""What all tests share: exact products, quick compilation, and the golden arrays."""

import functools
import gc
import json
import os
import signal
from pathlib import Path

import jax
import jaxlib
import jaxtyping
import numpy as np
import pytest

from tests import typecheck

# Many tests compile the same small programs: once per checkout is enough. What a program is, the
# flags and the version of XLA are the key.
_COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
jax.config.update("jax_compilation_cache_dir", str(_COMPILED))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Tracing makes many objects that live long, among which the collector looks for garbage again and
# again; and it notes a stack of Python's frames with every operation, which no test reads.
gc.set_threshold(100_000, 20, 100)
jax.config.update("jax_traceback_in_locations_limit", 0)

# Golden arrays are float32; accelerators multiply in less unless told.
jax.config.update("jax_default_matmul_precision", "highest")

GOLDENS = Path(__file__).parent / "goldens"


# These run each program once or twice, so what makes programs fast and compilation slow never pays
# off: the expensive passes, XLA's own emitters of fused loops (2.5 times the compile time), and the
# division of a program into modules for as many threads (a third of it).
# Slow tests are compiled as users' programs are.
QUICK_RUNS = ("not slow", "versions")


def quick_flags(version: str) -> str:
    """XLA's flags for quick compilation that this version of jaxlib knows: it aborts at others."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    # From 0.11.1 on the emitters cannot be left out any more, nor does another flag save as much.
    older = " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    minor = tuple(int(part) for part in version.split(".")[:2])
    return flags + (older if minor < (0, 11) else "")


# What the run of `make versions` makes of warnings: the next break is seen before it comes.
VERSIONS_WARNINGS = (
    "error::DeprecationWarning",
    "error::FutureWarning",
    "error::PendingDeprecationWarning",
    # jaxlib's type for the events of a trace, made by nanobind, says so of itself.
    "ignore:builtin type event_stats has no __module__ attribute:DeprecationWarning",
)


# Devices of the CPU, for meshes of them; what is not told otherwise runs on the first.
DEVICES = 8


def pytest_configure(config):
    """Compiles quickly where slow tests are left out; before the first array makes JAX look."""
    jax.config.update("jax_num_cpu_devices", DEVICES)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells let commands in the background ignore Ctrl-C, and so would all that tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = config.option.markexpr
    if chosen == "versions":
        # Before the first module of segjax is imported. The checks cost a third of the time of all
        # tests, so those that touch every package make them.
        typecheck.install()
    if any(quick in chosen for quick in QUICK_RUNS):
        flags = f"{os.environ.get('XLA_FLAGS', '')} {quick_flags(jaxlib.__version__)}"
        os.environ["XLA_FLAGS"] = flags.strip()
    for line in VERSIONS_WARNINGS if chosen == "versions" else ():
        config.addinivalue_line("filterwarnings", line)
    # Tests that measure memory share a process with those that call commands and benchmarks. Before
    # the first module that takes the function by its name.
    from segjax.training import runtime

    runtime.keep_freed_memory = lambda: None


def pytest_runtest_setup(item):
    """Reports the fault that a test shows, for the table of tests/faults/table.py."""
    if mark := item.get_closest_marker("fault"):
        item.user_properties.append(("fault", mark.args))


@functools.cache
def golden_cases(kind: str) -> list[dict]:
    """The cases of one kind in layers.npz: options and arrays in one dict each."""
    with np.load(GOLDENS / "layers.npz") as file:
        cases = [json.loads(str(case)) for case in file["cases"]]
        cases = [case for case in cases if case["kind"] == kind]
        for case in cases:
            prefix = case["name"] + "/"
            arrays = {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}
            case.update(arrays)
    return cases


def pytest_generate_tests(metafunc):
    """A test with an argument `torch_<kind>` runs over the golden cases of that kind."""
    for fixture in metafunc.fixturenames:
        if fixture.startswith("torch_"):
            cases = golden_cases(fixture.removeprefix("torch_"))
            metafunc.parametrize(fixture, cases, ids=[case["name"] for case in cases])


def make_tiny_config(model="segnet_basic"):
    """SegNet-Basic with 4 channels on 8 streets scenes of 32x48, 6 steps, two evaluations."""
    from configs import base  # after `pytest_configure`

    config = base.get_config()
    config.model.name = model
    config.model.features = 4
    config.data.image_size = (32, 48)
    config.data.train_images = 8
    config.data.eval_images = 3
    config.train.steps = 6
    config.train.batch_size = 2
    config.train.eval_every = 3
    config.train.log_every = 1
    config.optim.learning_rate = 0.05
    config.report.samples = 2
    config.parallel.data = 1
    return config


@pytest.fixture
def tiny_config():
    """A config of the test's own, see `make_tiny_config`."""
    return make_tiny_config()


@pytest.fixture(scope="module")
def toy():
    """A network of the table, "toy", for what a run does with any: see `tests.training.toys.Toy`.

    This process alone knows it.
    """
    from segjax.models import MODELS
    from tests.training.toys import Toy

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "toy", Toy)
        yield


@pytest.fixture(scope="module")
def blank_figures():
    """Figures with nothing on them, for tests that look at none: drawing is most of a command."""
    from matplotlib.figure import Figure

    from segjax.report import figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_figure", lambda panels, columns: Figure((1, 1)))
        yield


@pytest.fixture
def unchecked():
    """Turns checked annotations off, for tests of the errors that users see."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
