"""The reader of compiled programs, on programs whose collectives are known."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from segjax.accelerators.collectives import Collective, collectives
from segjax.accelerators.hlo import Array


def test_reads_what_was_written():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",))

    def exchange(x):
        """Of f32[3, 8] on each device."""
        moved = lax.ppermute(x, "d", [(i, i + 1) for i in range(3)])
        total, most = lax.psum(x[:, 0], "d"), lax.pmax(x.astype(jnp.int8), "d")
        part = lax.psum_scatter(x, "d", scatter_dimension=1, tiled=True)
        whole = lax.all_gather(x.astype(jnp.bfloat16), "d")
        turned = lax.all_to_all(x, "d", 1, 0, tiled=True)
        return moved, total[None], most, part, whole, turned

    program = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=P("d"), out_specs=P("d")))
    text = program.lower(jnp.zeros((12, 8))).compile().as_text()
    found = {}
    for c in collectives(text):
        found.setdefault(c.kind, []).append(c)
    assert {kind: len(cs) for kind, cs in found.items()} == {
        "collective-permute": 1,
        "all-reduce": 2,
        "reduce-scatter": 1,
        "all-gather": 1,
        "all-to-all": 1,
    }
    assert found["collective-permute"][0].bytes == 3 * 8 * 4
    assert found["collective-permute"][0].op_name.endswith("ppermute")
    assert sorted(c.bytes for c in found["all-reduce"]) == [3 * 4, 3 * 8]
    assert found["reduce-scatter"][0].arrays == (Array("f32", (3, 8)),)
    assert sum(array.elements for array in found["all-gather"][0].arrays) == 4 * 3 * 8
    assert found["all-to-all"][0].bytes == 3 * 8 * 4


def test_reads_started_grouped_and_laid_out():
    """Forms that accelerators' compilers write."""
    text = """
  %p.1 = f32[8,4]{1,0:T(8,128)} parameter(0)
  %q = bf16[2]{0} parameter(1)
  %ags = (f32[8,4]{1,0}, f32[32,4]{1,0:T(8,128)}) all-gather-start(%p.1), replica_groups=[1,4]<=[4]
  %agd = f32[32,4]{1,0} all-gather-done(%ags)
  %ars = (f32[8,4]{1,0}, /*index=1*/bf16[2]{0}) all-reduce-start(%p.1, %q), to_apply=%add
  %cps = (bf16[2], bf16[2], u32[], u32[]) collective-permute-start(%q), metadata={op_name="a/b"}
  ROOT %rs = f32[2,4]{1,0} reduce-scatter(%p.1), dimensions={0}, to_apply=%add
  %f = f32[8,4]{1,0} fusion(%p.1), calls=%all-gather_fusion
  %mask = pred[3]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}
"""
    p, q = Array("f32", (8, 4)), Array("bf16", (2,))
    assert collectives(text) == [
        Collective("all-gather", (Array("f32", (32, 4)),), ""),
        Collective("all-reduce", (p, q), ""),
        Collective("collective-permute", (q,), "a/b"),
        Collective("reduce-scatter", (p,), ""),
        Collective("all-reduce", (Array("pred", (3,)),), ""),
    ]
    assert [c.bytes for c in collectives(text)] == [512, 132, 4, 128, 3]


def test_a_program_of_one_device_has_none():
    text = jax.jit(lambda x: jnp.sum(x @ x)).lower(jnp.zeros((4, 4))).compile().as_text()
    assert collectives(text) == []
