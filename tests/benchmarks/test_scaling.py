"""The arithmetic of docs/scaling.md by hand, and its counts against published ones."""

import dataclasses
import pathlib
import re

import jax
import numpy as np
import pytest

from benchmarks.scaling import estimate, page
from benchmarks.scaling.links import (
    H100,
    TPU_V4,
    TPU_V5E,
    Accelerator,
    Link,
    all_reduce,
    hierarchical,
    ring,
    torus,
    tree,
)
from benchmarks.scaling.model import (
    SUMS_PER_NORM,
    Layer,
    Network,
    compute_time,
    halo_time,
    split,
    step_time,
    strong_speedup,
)
from segjax.accelerators import Device
from segjax.training.setup import setup_run

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "scaling.md"
# 10 TFLOP/s, 1 TB/s; 100 GB/s and 1 us inside a node of 4, 10 GB/s and 5 us between.
ROUND = Accelerator(
    "round",
    Device("round", "", 10**10, 1e12, {"bfloat16": 1e13}, "float32", ()),
    Link(1e11, 1e-6),
    Link(1e10, 5e-6),
    node=4,
    start=0.0,
)
LAYERS = (Layer((64, 32, 8), (32, 16, 16), kernel=3), Layer((32, 16, 16), (32, 16, 4), kernel=1))
NETWORK = Network("two", (64, 32), 4, 1, 10_000_000, 4000, 10, 1e12, LAYERS)


def test_ring():
    link = Link(100.0, 3.0)
    assert ring(200, 2, link) == 2 + 2 * 3  # half there, half back; two hops
    assert ring(800, 4, link) == pytest.approx(2 * 3 * (2 + 3))  # six steps of a quarter
    assert ring(200, 1, link) == 0


def test_ring_moves_every_part_to_all():
    """The steps that the formula counts are enough to sum: a ring, played."""
    n, rng = 5, np.random.default_rng(0)
    parts = rng.normal(size=(n, n))  # of device, part
    held = parts.copy()
    steps = 0
    for phase in range(2):
        for step in range(n - 1):
            sent = [(d, (d - step + phase) % n) for d in range(n)]
            values = [held[d, p] for d, p in sent]
            for (d, p), value in zip(sent, values, strict=True):
                to = (d + 1) % n
                held[to, p] = held[to, p] + value if phase == 0 else value
            steps += 1
    np.testing.assert_allclose(held, np.tile(parts.sum(0), (n, 1)))
    size, link = 1000.0, Link(10.0, 0.5)
    assert ring(size, n, link) == pytest.approx(steps * (size / n / link.bandwidth + link.latency))


def test_nodes():
    assert hierarchical(4e9, 4, ROUND) == ring(4e9, 4, ROUND.inside)
    # 4 nodes: within, then a quarter of the bytes between.
    assert hierarchical(4e9, 16, ROUND) == pytest.approx(
        (2 * 3 / 4 * 4e9 / 1e11 + 6e-6) + (2 * 3 / 4 * 1e9 / 1e10 + 6 * 5e-6)
    )
    assert tree(0, 16, ROUND) == pytest.approx(2 * 3 * 1e-6 + 2 * 2 * 5e-6)
    # NCCL's model of its tree over two nodes, in microseconds.
    assert all_reduce(0, 16, H100) * 1e6 == pytest.approx(4.4 + 2 * (7 * 1.2 + 8.5))


def test_torus():
    link = TPU_V5E.inside
    assert torus(1e9, 2, TPU_V5E) == pytest.approx(1e9 / link.bandwidth + 2 * link.latency)
    # 4x4: both axes carry, and each is a line of three hops.
    sent = 2 * 15 / 16 * 1e9 / (2 * link.bandwidth)
    assert torus(1e9, 16, TPU_V5E) == pytest.approx(sent + 2 * 6 * link.latency)
    assert torus(0, 8, TPU_V4) == pytest.approx(2 * 3 * TPU_V4.inside.latency)  # 2x2x2
    assert torus(0, 8, TPU_V5E) == pytest.approx(2 * 4 * TPU_V5E.inside.latency)  # 4x2


def test_step_time_by_hand():
    compute = compute_time(NETWORK, ROUND, 2, 0.5)
    maps = 3 * (64 * 32 * 8 + 32 * 16 * 16) + 11 * (32 * 16 * 16 + 32 * 16 * 4)
    traffic = 2 * maps + 4 * 6 * (4 * 64 * 32)
    per_image = 1e12 / 1e13 + traffic / 1e12
    assert compute == pytest.approx((2 * per_image + 20 * 10_000_000 / 1e12) / 0.5)
    gradients = all_reduce(4e7, 16, ROUND)
    statistics = SUMS_PER_NORM * 10 * all_reduce(4 * 400, 16, ROUND)
    worst = step_time(NETWORK, ROUND, 16, 2, 0.5, overlap=False)
    assert worst == pytest.approx(compute + gradients + statistics)
    best = step_time(NETWORK, ROUND, 16, 2, 0.5, overlap=True)
    assert best == pytest.approx(compute + statistics)
    # A backward pass that is too short hides a part.
    large = dataclasses.replace(NETWORK, parameters=100_000_000_000, flops=0.0)
    hidden = [step_time(large, ROUND, 16, 2, 0.5, overlap=overlap) for overlap in (False, True)]
    assert hidden[0] - hidden[1] == pytest.approx(2 / 3 * compute_time(large, ROUND, 2, 0.5))


def test_a_batch_is_divided_and_then_its_rows_are():
    assert [split(16, n) for n in (1, 4, 16, 64)] == [(16, 1), (4, 1), (1, 1), (0.25, 4)]
    assert split(12, 8) == (2, 1)  # filled up
    assert strong_speedup(NETWORK, H100, 1, 16, 0.5, overlap=False) == 1
    assert 1 < strong_speedup(NETWORK, H100, 8, 16, 0.5, overlap=True) < 8


def test_halos():
    layer = Layer((64, 32, 8), (32, 16, 16), kernel=3, rate=2)
    # Two rows from above and two from below, of the input and of the output's gradient.
    assert layer.halo_bytes(4) == 2 * (4 * 32 * 8 + 4 * 16 * 16)
    # No more than the others have: 32 of 64 rows, 16 of 32.
    wide = dataclasses.replace(layer, rate=100)
    assert wide.halo_bytes(2) == 2 * (32 * 32 * 8 + 16 * 16 * 16)
    assert halo_time(NETWORK, ROUND, 1) == 0
    size = 2 * (2 * 32 * 8 + 2 * 16 * 16)
    assert halo_time(NETWORK, ROUND, 4) == pytest.approx(size / 1e11 + 4 * 1e-6)
    assert halo_time(NETWORK, ROUND, 8) == pytest.approx(size / 1e10 + 4 * 5e-6)


def test_the_device_with_most_rows_decides():
    layer = Layer((33, 33, 4), (33, 33, 4), kernel=3)
    network = dataclasses.replace(NETWORK, layers=(layer,))
    assert network.uneven(1) == network.uneven(11) == 1
    assert network.uneven(16) == pytest.approx(3 * 16 / 33)


def test_layers_count_what_torchvision_publishes():
    layers, _ = estimate.torchvision_layers("deeplabv3_resnet50")
    assert sum(layer.products for layer in layers) / 1e9 == pytest.approx(178.722, abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", estimate.TORCHVISION)
def test_all_of_torchvisions_networks(name):
    check = estimate.check(name)
    assert check.layers == pytest.approx(check.published, abs=5e-4)
    assert 0.8 < check.xla / check.layers < 1  # without the padding's zeros


def test_count_of_a_tiny_step(tiny_config):
    network = estimate.count("tiny", tiny_config)
    first, last = network.layers[0], network.layers[-1]
    assert first == Layer((32, 48, 3), (32, 48, 4), kernel=7)
    assert last == Layer((32, 48, 4), (32, 48, 7), kernel=1)
    assert (network.size, network.classes, network.heads) == ((32, 48), 7, 1)
    # Four stages down and four up, 4 channels each: kernels; biases, scales and offsets; the
    # classifier.
    assert network.parameters == 49 * (3 + 7 * 4) * 4 + 8 * 3 * 4 + 4 * 7 + 7
    assert (network.norms, network.statistics) == (8, 8 * 2 * 4)
    assert network.flops > 2.5 * network.forward_flops


@pytest.mark.slow
def test_statistics_are_two_sums_each(tiny_config):
    """No more all-reduces in the compiled step than the page counts: two per normalisation, and
    what sums gradients and metrics."""
    tiny_config.parallel.data = 2
    setup = setup_run(tiny_config)
    size = tiny_config.data.image_size
    batch = setup.devices.put(
        {
            "image": np.zeros((2, *size, 3), np.uint8),
            "label": np.zeros((2, *size), np.uint8),
            "index": np.arange(2, dtype=np.int32),
        }
    )
    state = setup.abstract_state()
    program = setup.train_step().lower(state, batch).compile().as_text()
    sums = len(re.findall(r" all-reduce(?:-start)?\(", program))
    norms = len(jax.tree.leaves(state.batch_stats)) // 2
    assert norms < sums <= SUMS_PER_NORM * norms + 4


def test_loader_rates_are_read_from_the_readme():
    table = "| prepared, decoded | 300 / 100 / 200 | 1 / 2 / 3 |\n| prepared, encoded | 40 / 30 |\n"
    assert estimate.loader_rates(table) == {"decoded": 150, "encoded": 20}
    with pytest.raises(ValueError, match="no row 'prepared, encoded'"):
        estimate.loader_rates(table.splitlines()[0])


def numbers_and_words(text: str) -> tuple[np.ndarray, str]:
    pattern = r"\d[\d,]*(?:\.\d+)?"
    values = [float(n.replace(",", "")) for n in re.findall(pattern, text)]
    return np.array(values), " ".join(re.sub(pattern, "#", text).split())


def test_the_template_is_filled():
    """All tables have cells of one number, and the headings are those of the page."""
    check = estimate.Check("a", 1.0, 0.9, 1.0)
    text = page.render([NETWORK] * 3, 8, [check], NETWORK, {"decoded": 100, "encoded": 10})
    for block in text.split("\n\n"):
        cells = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(cells) <= 1, block
    assert re.findall(r"^#+ .*", text, re.M) == re.findall(r"^#+ .*", PAGE.read_text(), re.M)


@pytest.mark.slow
def test_the_page_is_what_the_script_writes():
    """If not: python -m benchmarks.scaling.estimate > docs/scaling.md"""
    numbers, words = numbers_and_words(PAGE.read_text())
    new_numbers, new_words = numbers_and_words(estimate.write())
    assert words == new_words
    # The counts move a little with every change of the step.
    np.testing.assert_allclose(numbers, new_numbers, rtol=0.05, atol=0.11)
