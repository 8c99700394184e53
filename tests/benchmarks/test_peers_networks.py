"""The peers' own networks, where torch or TensorFlow is installed."""

import numpy as np
import pytest

from segjax.layers import max_pool_2x2, max_unpool_2x2


def test_torchs_segnet_has_our_parameters_and_ends_at_the_images_size():
    torch = pytest.importorskip("torch")
    from benchmarks.peers.in_torch import SegNet

    network = SegNet(11).eval()
    assert sum(p.numel() for p in network.parameters()) == 29_449_355
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 40, 56)).shape == (1, 11, 40, 56)


@pytest.mark.slow
def test_tensorflows_unpooling_is_ours(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend in this process")
    from benchmarks.goldens.keras_argmax import max_pool_with_argmax, max_unpool

    x = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    pooled, positions = max_pool_2x2(x)
    theirs, places = max_pool_with_argmax(x)
    np.testing.assert_array_equal(theirs, pooled)
    np.testing.assert_array_equal(
        max_unpool(theirs, places), max_unpool_2x2(pooled, positions, (6, 8))
    )
