"""Kernels of a small compiled step land in the category of the layer that they come from."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from benchmarks.profiles import __main__, categories, necessary, page, profile, trace
from benchmarks.profiles.networks import Network
from benchmarks.scaling.model import Layer
from configs import segnet_basic
from segjax.layers import ConvNormAct, max_pool_2x2, resize_bilinear
from segjax.losses.pixelwise import cross_entropy_sum


class _Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = ConvNormAct(16, name="first")(x, train=True)
        x, _ = max_pool_2x2(x)
        x = ConvNormAct(8, name="second")(x, train=True)
        x = ConvNormAct(5, kernel_size=1, name="pointwise")(x, train=True)
        return resize_bilinear(x, (24, 40))


@functools.cache
def _step():
    """A compiled step, and its arguments."""
    net, optimizer = _Net(), optax.sgd(0.1, 0.9)
    images = jax.random.normal(jax.random.key(0), (2, 24, 40, 3))
    labels = jax.random.randint(jax.random.key(1), (2, 24, 40), 0, 5)
    variables = net.init(jax.random.key(2), images)
    state = variables["params"], optimizer.init(variables["params"])

    def loss(params, images, labels):
        logits, _ = net.apply({**variables, "params": params}, images, mutable=["batch_stats"])
        return cross_entropy_sum(logits, labels)[0]

    @jax.jit
    def step(state, images, labels):
        gradients = jax.grad(loss)(state[0], images, labels)
        updates, opt_state = optimizer.update(gradients, state[1])
        return optax.apply_updates(state[0], updates), opt_state

    arguments = state, images, labels
    return _compiled(step, *arguments), arguments


def _compiled(function, *arguments):
    """Compiled with the source lines, which the other tests do without."""
    names = "jax_traceback_in_locations_limit", "jax_enable_compilation_cache"
    before = [getattr(jax.config, name) for name in names]
    try:
        for name, value in zip(names, (10, False), strict=True):
            jax.config.update(name, value)
        return function.lower(*arguments).compile()
    finally:
        for name, value in zip(names, before, strict=True):
            jax.config.update(name, value)


@functools.cache
def _kernels():
    return categories.read(_step()[0].as_text()).values()


def _layers(category):
    return {kernel.layer for kernel in _kernels() if kernel.category == category}


@pytest.mark.parametrize("layer", ["second", "pointwise"])
@pytest.mark.parametrize("category", categories.CONVOLUTIONS)
def test_three_convolutions_of_a_layer(category, layer):
    found = [k for k in _kernels() if k.category == category and k.layer == f"{layer}/conv"]
    assert len(found) == 1
    cells, taps = 2 * 12 * 20, {"second": 16 * 8 * 9, "pointwise": 8 * 5}[layer]
    assert found[0].flops <= 2 * cells * taps
    assert found[0].flops >= 0.8 * 2 * cells * taps  # without the padding's zeros


def test_first_convolution_has_no_input_gradient():
    assert "first/conv" in _layers(categories.FORWARD)
    assert "first/conv" in _layers(categories.KERNEL)
    assert "first/conv" not in _layers(categories.INPUT)


@pytest.mark.parametrize("layer", ["first", "second", "pointwise"])
def test_statistics_of_each_normalisation(layer):
    sums = [k for k in _kernels() if k.category == "statistics" and k.layer == f"{layer}/norm"]
    assert sums
    assert all(kernel.flops == 0 and kernel.bytes > 0 for kernel in sums)


@pytest.mark.parametrize("category", ["pooling", "resize", "loss", "optimiser", "elementwise"])
def test_other_work_is_found(category):
    assert any(kernel.category == category for kernel in _kernels())


def test_a_forward_pass_has_no_gradient_and_no_optimiser():
    net, images = _Net(), jnp.zeros((2, 24, 40, 3))
    variables = net.init(jax.random.key(0), images)
    apply = jax.jit(lambda *a: net.apply(*a, mutable=["batch_stats"])[0])
    text = _compiled(apply, variables, images).as_text()
    found = {kernel.category for kernel in categories.read(text).values()}
    assert {"convolution forward", "resize"} <= found
    assert not found & {"input gradient", "kernel gradient", "optimiser", "loss"}


def test_times_add_up_to_the_wall():
    program, arguments = _step()
    times = trace.traced(lambda: jax.block_until_ready(program(*arguments)), 2, "jit_step")
    assert sum(times.operations.values()) + times.idle == pytest.approx(times.wall)
    assert {*times.operations} & {kernel.name for kernel in _kernels()}
    assert set(times.calls.values()) == {1.0}
    with pytest.raises(ValueError, match="no operation of jit_other"):
        trace.traced(lambda: jax.block_until_ready(program(*arguments)), 1, "jit_other")


def test_a_moment_is_divided_among_the_threads_that_compute():
    a, b = trace._Call("a", 0), trace._Call("b", 1)
    spans = [trace._Span(0, 10, a), trace._Span(4, 8, b), trace._Span(12, 14, b)]
    shares, busy, total = trace._shared(spans)
    assert shares == {"a": 8, "b": 4}
    assert (busy, total) == (12, 16)


def test_innermost_span_of_a_thread():
    loop, body, task = trace._Call("while", 0), trace._Call("body", 1), trace._Task(7)
    spans = [trace._Span(0, 10, loop), trace._Span(2, 5, body), trace._Span(11, 13, task)]
    pieces = [(p.start, p.end, p.of) for p in trace._innermost(spans)]
    assert pieces == [(0, 2, loop), (2, 5, body), (5, 10, loop), (11, 13, task)]
    origins = {task: trace._Task(6), trace._Task(6): body}
    assert trace._owner(task, origins) == body
    assert trace._owner(trace._Task(1), origins) is None


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("jit(step)/transpose(jvp(Net))/encoder/first/conv/dot_general", "encoder/first/conv"),
        ("jit(step)/jvp(Net)/first/norm/cond/branch_0_fun/reduce_sum", "first/norm"),
        ("state.params['first']['conv']['kernel']", "first/conv"),
        ("jit(predict)/SegNet/encoder/first/conv/add", "encoder/first/conv"),
        ("jit(step)/mul", ""),
    ],
)  # fmt: skip
def test_layer_of_an_operation(name, layer):
    assert categories.layer_of(name) == layer


def _small(work="infer", ms=2.0):
    operations = (
        profile.Operation("fusion.1", categories.FORWARD, "first/conv", "f32[2, 8]", 1.5, 4e6, 3e8),
        profile.Operation("copy.1", categories.COPIES, "", "f32[8, 2]", 0.25, 1e6, 0.0),
    )
    times = dict.fromkeys(categories.CATEGORIES, 0.0)
    times |= {each.category: each.ms for each in operations}
    return profile.Profile(
        "net",
        work,
        "h200",
        "2 x 4x4",
        ms,
        {"kernels": 2.0, "by_bytes": 1.0, "by_flops": 1.5},
        times,
        times,
        {categories.FORWARD: 1.0},
        operations,
    )


def test_page_holds_shares_rates_and_what_was_before():
    text = page.page([_small()], [_small(ms=3.0), _small("train")])
    assert "| 75.0 |" in text  # 1.5 of 2 ms
    assert "| 200 GFLOP/s |" in text  # 3e8 in 1.5 ms
    assert "| 4.0 GB/s |" in text  # 1e6 in 0.25 ms
    assert "3.0, **2.0**" in text


def test_a_file_of_profiles_is_added_to_and_written_between_markers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(profile, "on_accelerator", lambda name, network, work, target: _small(work))
    json_file, markdown = tmp_path / "profiles.json", tmp_path / "page.md"
    markdown.write_text("head\n<!-- h200: begin -->\nold\n<!-- h200: end -->\ntail\n")
    for work in ("infer", "train", "train"):
        arguments = ["segnet", f"--work={work}", "--target=h200", f"--json={json_file}"]
        monkeypatch.setattr("sys.argv", ["profiles", *arguments, f"--markdown={markdown}"])
        __main__.main()
    text = markdown.read_text()
    assert text.startswith("head\n<!-- h200: begin -->\n| network ")
    assert text.endswith("|\n<!-- h200: end -->\ntail\n")
    assert text.count("| net | train |") == 2  # in the tables of shares and of bytes
    assert __main__._load(json_file) == [_small(), _small("train")]


def test_names_that_are_unknown(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["profiles", "vgg", "--work=test"])
    with pytest.raises(SystemExit):
        __main__.main()
    assert "test, vgg unknown; networks: segnet, notebook_segnet" in capsys.readouterr().err


def test_necessary_bytes_of_two_layers():
    first, second = Layer((4, 4, 3), (4, 4, 8), 3), Layer((4, 4, 8), (2, 2, 5), 3)
    one, two, three = 2 * 48, 2 * 128, 2 * 20  # bytes in bfloat16: image, first map, second map
    found = necessary.training([first, second], parameters=7, images=3)
    assert found == {
        "convolution forward": 3 * (one + 2 * two + three),
        "input gradient": 3 * (two + three),
        "kernel gradient": 3 * (one + 2 * two + three),
        "statistics": 3 * 3 * (two + three),
        "elementwise": 3 * 5 * (two + three),
        "optimiser": 20 * 7,
    }
    assert necessary.inference([first, second], 3) == {
        "convolution forward": found["convolution forward"]
    }


def test_profile_of_a_small_network():
    def preset():
        config = segnet_basic.get_config("streets")
        config.model.features = 4
        return config

    found = profile.on_cpu("small", Network(preset, 1, (16, 32)), "infer", 1)
    assert found.batch == "1 x 16x32, 7 classes, float32"
    assert sum(found.times.values()) + found.notes["idle"] == pytest.approx(found.notes["traced"])
    assert found.times[categories.FORWARD] > 0
    assert found.times[categories.KERNEL] == found.times[categories.OPTIMISER] == 0
