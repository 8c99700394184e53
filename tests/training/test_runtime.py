"""Settings of the process, each in its own process: XLA reads its flags once."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import sys
import jax, jax.numpy as jnp
from segjax.training.runtime import use_deterministic_kernels
use_deterministic_kernels()
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
x = jax.random.normal(jax.random.key(0), (4096,))
print(jax.jit(lambda x: jnp.sum(jnp.exp(x)))(x).tobytes().hex())
"""


@pytest.mark.slow
def test_the_flag_reaches_xla_beside_the_users_own(tmp_path):
    """XLA dumps the options that it compiles with. The bits of a CPU program do not change."""
    dump = tmp_path / "dump"
    outputs = []
    for call in ("use_deterministic_kernels()", "pass"):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT.replace("\nuse_det", f"\n{call} #"), tmp_path / "cache"],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_dump_to={dump / call}",
            },
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        outputs.append(process.stdout)
        options = [file.read_text() for file in (dump / call).glob("*.debug_options")]
        assert options
        expected = "xla_gpu_deterministic_ops: true"
        assert all((expected in text) == (call != "pass") for text in options)
        # XLA's cache of the fastest kernels is off.
        cached = "xla_gpu_per_fusion_autotune_cache_dir"
        assert all((cached in text) == (call == "pass") for text in options)
    assert outputs[0] == outputs[1]
