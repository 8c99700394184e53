"""What a program costs, on programs small enough to count by hand."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax.accelerators import DEVICES, bound, products, program, read
from segjax.accelerators.hlo import Array, arrays, parse, parse_instruction


def read_program(body: str, rest: str = "") -> program.Program:
    """Of a program whose ENTRY has this body."""
    return program.read_text(
        f"HloModule m\n\n{rest}\n\nENTRY %main (p: f32[1]) -> f32[1] {{\n{body}\n}}"
    )


def test_reads_an_instruction():
    line = (
        "  ROOT %f.1 = (bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/u8[0]{0}) fusion(%a, %b.2), "
        'kind=kLoop, calls=%fused, metadata={op_name="jit(f)/mul"}'
    )
    found = parse_instruction(line)
    assert (found.name, found.opcode, found.is_root) == ("f.1", "fusion", True)
    assert found.results == (Array("bf16", (2, 3)), Array("u8", (0,)))
    assert (found.results[0].layout, found.results[0].tile, found.results[0].space) == (
        (1, 0),
        (8, 128),
        1,
    )
    assert found.operands == ("a", "b.2")
    assert (found.called, found.source) == (("fused",), "jit(f)/mul")
    assert parse_instruction("}") is None


def test_what_is_no_program():
    with pytest.raises(ValueError, match="it has no ENTRY"):
        parse("")


@pytest.mark.parametrize(
    "text, bytes_",
    [
        ("f32[3,5]{1,0}", 60),
        ("pred[7]", 7),
        ("f32[]", 4),
        ("bf16[2,9,130]{2,1,0:T(8,128)(2,1)}", 2 * 16 * 256 * 2),  # two whole tiles each way
        ("f32[9,2]{0,1:T(8,128)}", 8 * 128 * 4),  # the second axis is major
        ("f32[9]{0:T(8,128)S(1)}", 0),  # on the chip
    ],
)
def test_memory_of_an_array(text, bytes_):
    assert arrays(text)[0].memory_bytes == bytes_


def convolution(target: str, operands: str, result: str) -> str:
    return f"""
  %x = bf16[2,9,8,4]{{3,2,1,0}} parameter(0)
  %w = bf16[6,3,3,4]{{3,2,1,0}} parameter(1)
  %dy = bf16[2,9,8,6]{{3,2,1,0}} parameter(2)
  %c = ({result}, u8[64]{{0}}) custom-call({operands}), window={{size=3x3 pad=1_1x1_1}}, \
dim_labels=b01f_o01i->b01f, custom_call_target="{target}", metadata={{op_name="f/conv"}}
"""


# Taps inside of 9 rows are 3 * 9 - 2, of 8 columns 3 * 8 - 2.
CONV_FLOPS = 2 * 2 * 4 * 6 * (3 * 9 - 2) * (3 * 8 - 2)


@pytest.mark.parametrize(
    "kind, target, operands, result",
    [
        ("forward", "__cudnn$convForward", "%x, %w", "bf16[2,9,8,6]{3,2,1,0}"),
        ("input gradient", "__cudnn$convBackwardInput", "%dy, %w", "bf16[2,9,8,4]{3,2,1,0}"),
        ("filter gradient", "__cudnn$convBackwardFilter", "%x, %dy", "bf16[6,3,3,4]{3,2,1,0}"),
    ],
)
def test_cudnn_convolutions(kind, target, operands, result):
    found = read_program(convolution(target, operands, result))
    assert found.convolutions == (
        program.Convolutions(kind, "bfloat16", "NHWC", 1, CONV_FLOPS, ("f/conv",)),
    )
    assert found.custom_calls == {target: 1}
    x, w, y = 2 * 9 * 8 * 4 * 2, 6 * 9 * 4 * 2, 2 * 9 * 8 * 6 * 2
    assert found.moved == x + w + y  # without the library's scratch
    assert (found.kernels, found.flops) == (1, {"bfloat16": CONV_FLOPS})


def test_a_convolution_laid_out_otherwise():
    body = convolution("__cudnn$convForward", "%x, %w", "bf16[2,9,8,6]{2,1,3,0}")
    assert read_program(body).convolutions[0].layout == "NHWC->NCHW"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("rate", [1, 2])
@pytest.mark.parametrize("spread", [1, 2])
@pytest.mark.parametrize("low", [0, 1, 3])
def test_pairs_inside_a_map(stride, rate, spread, low):
    """Against the same count by looking at each product."""
    image, size = np.zeros((5 - 1) * spread + 1), 3
    image[::spread] = 1
    padded = np.pad(image, low)
    outs = (len(padded) - (size - 1) * rate - 1) // stride + 1
    pairs = sum(padded[o * stride + k * rate] for o in range(outs) for k in range(size))
    assert products._inside_pairs(5, outs, size, stride, low, spread, rate) == pairs


def test_matrix_products():
    body = """
  %a = f32[4,8,16]{2,1,0} parameter(0)
  %b = f32[4,16,32]{2,1,0} parameter(1)
  %d = f32[4,8,32]{2,1,0} dot(%a, %b), lhs_batch_dims={0}, lhs_contracting_dims={2}, \
rhs_batch_dims={0}, rhs_contracting_dims={1}
  %g = (f32[4,8,32]{2,1,0}, s8[1024]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":\
{"lhs_contracting_dimensions":["2"]}}}
  %t = bf16[8,32]{1,0} convolution(%p, %q), dim_labels=bf_io->bf
  %p = bf16[8,16]{1,0} parameter(2)
  %q = bf16[16,32]{1,0} parameter(3)
"""
    found = read_program(body)
    assert found.products == {"float32": 2, "bfloat16": 1}
    assert found.flops == {"float32": 2 * 2 * 4 * 8 * 16 * 32, "bfloat16": 2 * 8 * 16 * 32}
    assert found.convolutions == ()


def test_a_fusion_reads_its_slices_only():
    fused = """
%fused (a: f32[100,10], b: f32[100,10], c: f32[7]) -> f32[5,10] {
  %a = f32[100,10]{1,0} parameter(0)
  %b = f32[100,10]{1,0} parameter(1)
  %c = f32[7]{0} parameter(2)
  %flat = f32[1000]{0} bitcast(%b)
  %s = f32[5,10]{1,0} slice(%a), slice={[0:5], [0:10]}
  %t = f32[50]{0} slice(%flat), slice={[0:50]}
  %u = f32[5,10]{1,0} bitcast(%t)
  ROOT %r = f32[5,10]{1,0} add(%s, %u)
}"""
    body = """
  %x = f32[100,10]{1,0} parameter(0)
  %y = f32[100,10]{1,0} parameter(1)
  %z = f32[7]{0} parameter(2)
  ROOT %f = f32[5,10]{1,0} fusion(%x, %y, %z), kind=kLoop, calls=%fused
"""
    # Two slices of 50 and a result of 50; what nobody uses is not read.
    assert read_program(body, fused).moved == 4 * (50 + 50 + 50)


def test_a_fusion_writes_its_update_only():
    fused = """
%fused (a: f32[100], b: f32[5]) -> f32[100] {
  %a = f32[100]{0} parameter(0)
  %b = f32[5]{0} parameter(1)
  %at = s32[] constant(3)
  ROOT %r = f32[100]{0} dynamic-update-slice(%a, %b, %at)
}"""
    body = """
  %x = f32[100]{0} parameter(0)
  %y = f32[5]{0} parameter(1)
  ROOT %f = f32[100]{0} fusion(%x, %y), kind=kLoop, calls=%fused
"""
    assert read_program(body, fused).moved == 4 * (5 + 5)


def test_loops_run_as_often_as_is_known():
    loop = """
%body (s: f32[10]) -> f32[10] {
  %s = f32[10]{0} parameter(0)
  ROOT %n = f32[10]{0} negate(%s)
}

%cond (s: f32[10]) -> pred[] {
  ROOT %s.1 = f32[10]{0} parameter(0)
}"""
    body = """
  %x = f32[10]{0} parameter(0)
  %w = f32[10]{0} while(%x), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"6"}}
  ROOT %v = f32[10]{0} while(%w), condition=%cond, body=%body
"""
    found = read_program(body, loop)
    assert (found.kernels, found.open_loops) == (2, 1)
    assert found.moved == (6 + 1) * 80


def test_maps_that_are_moved():
    """Weights, what is small, and what only changes its names do not count."""
    n = program.MAP_BYTES // 4
    body = f"""
  %w = f32[{n},2]{{1,0}} parameter(0)
  %w2 = f32[{n},2]{{0,1}} copy(%w)
  %m = bf16[4,{n},3]{{2,1,0}} convert(%w)
  %t = bf16[4,3,{n}]{{2,1,0}} transpose(%m), dimensions={{0,2,1}}, metadata={{op_name="f/there"}}
  %n = bf16[4,3,{n}]{{1,2,0}} transpose(%m), dimensions={{0,2,1}}
  %c = bf16[4,{n},3]{{2,1,0}} copy(%m)
  %s = bf16[4,3]{{0,1}} copy(%k)
  %k = bf16[4,3]{{1,0}} parameter(1)
  %g = bf16[4,{n},3]{{2,1,0}} gather(%m, %i), metadata={{op_name="f/taken"}}
  %i = s32[4]{{0}} parameter(2)
"""
    found = read_program(body)
    size = 4 * n * 3 * 2
    assert found.moves == (
        program.Moves("copy", "bfloat16", 1, size, ("",)),
        program.Moves("transpose", "bfloat16", 1, size, ("f/there",)),
    )
    assert (found.gathers, found.scatters) == (("f/taken",), ())


def test_the_least_time():
    """1e12 FLOPs in bfloat16 and 1e9 bytes, and a second kernel that only moves as much."""
    found = read_program("  %x = f32[1]{0} parameter(0)")
    work_ = ((1e9, {"bfloat16": 1e12}, 1), (0.5e9, {}, 2))
    found = program.dataclasses.replace(
        found, moved=2e9, flops={"bfloat16": 1e12}, kernel_work=work_
    )
    device = DEVICES["h200"]
    least = bound(found, device)
    assert least.compute == pytest.approx(1e12 / 989.4e12)
    assert least.memory == pytest.approx(2e9 / 4.8e12)
    assert least.seconds == least.compute
    assert least.in_turn == pytest.approx(least.compute + 1e9 / 4.8e12)
    slow = bound(program.dataclasses.replace(found, moved=48e9), device)
    assert slow.seconds == pytest.approx(0.01)
    # One of a TPU v4's two devices has half of it.
    assert bound(found, DEVICES["v4"]).compute == pytest.approx(2 * 1e12 / 275e12)


def test_a_program_of_this_machine():
    """XLA's own, for a CPU: what is counted by hand, and it can be written as JSON."""
    compiled = (
        jax.jit(lambda x, w: jnp.tanh(x @ w) + 1).lower(jnp.ones((64, 32)), jnp.ones((32, 16)))
    ).compile()
    found = read(compiled)
    assert found.flops == {"float32": 2 * 64 * 32 * 16}
    assert found.arguments == 4 * (64 * 32 + 32 * 16)
    assert found.outputs == 4 * 64 * 16
    assert found.moved >= found.arguments + found.outputs
    assert json.loads(json.dumps(found.as_dict()))["kernels"] == found.kernels


@pytest.mark.usefixtures("unchecked")
def test_a_program_that_the_compiler_refuses():
    class Refused:
        def compile(self):
            raise jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
                "space hbm. Used 20.5G of 15.75G hbm. Exceeded hbm capacity by 4.75G."
            )

    with pytest.raises(program.TooLargeError) as error:
        program.compile_and_read(Refused())
    assert (error.value.needed, error.value.limit) == (20.5 * 2**30, 15.75 * 2**30)
