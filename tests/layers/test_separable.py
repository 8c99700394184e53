"""The depthwise separable block: its parameters, and what it computes."""

import flax
import jax
import numpy as np
import pytest

from segjax.layers import SeparableConvNormAct, atrous_conv

pytestmark = pytest.mark.versions


@pytest.mark.parametrize(("between", "norms"), [(True, 2), (False, 1)])
def test_separable_block(between, norms):
    """One kernel a channel, then 1x1; normalisation and ReLU twice or once."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 7, 3)).astype(np.float32)
    block = SeparableConvNormAct(5, rate=2, norm_between=between)
    y, variables = jax.jit(lambda key, x: block.init_with_output(key, x, train=False))(
        jax.random.key(0), x
    )
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    assert sum(path.endswith("norm/scale") for path in flat) == norms
    depthwise = flat["depthwise/conv/kernel" if between else "depthwise/kernel"]
    pointwise = flat["pointwise/conv/kernel"]
    assert (depthwise.shape, pointwise.shape) == ((3, 3, 1, 3), (1, 1, 3, 5))
    # As a dense kernel that is zero between different channels; fresh norms divide by 1.000005.
    wanted = atrous_conv(x, depthwise * np.eye(3, dtype=np.float32), rate=2)
    wanted = np.maximum(wanted, 0) if between else wanted
    wanted = np.maximum(wanted @ pointwise[0, 0], 0)
    np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=1e-5)
