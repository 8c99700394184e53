"""What all tests share: exact products, quick compilation, and the golden arrays."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

# Golden arrays are float32; accelerators multiply in less unless told.
jax.config.update("jax_default_matmul_precision", "highest")

GOLDENS = Path(__file__).parent / "goldens"


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


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` without the compiler's expensive passes: tests run each program once or twice."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return functools.partial(jax.jit, compiler_options=options)
