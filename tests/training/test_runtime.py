"""Settings of the process, each in its own process: XLA reads its flags once."""

import platform
import resource

import pytest

from tests.training.processes import assert_end_well, start

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
        script = SCRIPT.replace("\nuse_det", f"\n{call} #")
        flags = {"XLA_FLAGS": f"--xla_dump_to={dump / call}"}
        outputs += assert_end_well([start("-c", script, tmp_path / "cache", environment=flags)])
        options = [file.read_text() for file in (dump / call).glob("*.debug_options")]
        assert options
        expected = "xla_gpu_deterministic_ops: true"
        assert all((expected in text) == (call != "pass") for text in options)
        # XLA's cache of the fastest kernels is off.
        cached = "xla_gpu_per_fusion_autotune_cache_dir"
        assert all((cached in text) == (call == "pass") for text in options)
    assert outputs[0] == outputs[1]


FAULTS = """
import resource
from segjax.training.runtime import keep_freed_memory
keep_freed_memory()
import jax, jax.numpy as jnp, numpy as np
from segjax.training.mesh import make_devices
put = make_devices({"mode": "jit", "data": 1, "space": 1, "shard_optimizer": False}).put
step = jax.jit(lambda x, batch: (x + batch["image"]) * 0.5)
x, images = jnp.ones((64, 512, 512)), np.ones((64, 512, 512), np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    x = step(x, put({"image": images}))  # nobody waits for x, as in the loop
x.block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_a_step_gets_its_memory_back():
    """Each of 40 runs writes 64 MiB. Small arrays of other threads fall into the hole that a run
    leaves, so the first few runs may take fresh pages, until the heap has room for both."""
    pages_of_a_run = 64 * 2**20 // resource.getpagesize()
    [output] = assert_end_well([start("-c", FAULTS)])
    assert int(output.splitlines()[-1]) < 20 * pages_of_a_run
