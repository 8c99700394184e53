"""Options for XLA's compiler: CPUs only, and none that it refuses."""

import jax
import jax.numpy as jnp
import pytest

from segjax.layers import atrous_conv
from segjax.training import compiler_options
from segjax.training.compiler_options import for_one_run, for_training


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_have_none(platform):
    assert for_training(platform) == for_one_run(platform) == {}


def test_a_kernel_gradient_of_a_training_step_is_not_ynnpacks():
    x, kernel = jnp.ones((2, 8, 9, 32)), jnp.ones((3, 3, 32, 32))
    loss = lambda kernel, x: jnp.sum(atrous_conv(x, kernel) ** 2)  # noqa: E731

    def text(options):
        step = jax.jit(jax.grad(loss), compiler_options=dict(options))
        return step.lower(kernel, x).compile().as_text()

    assert "convolution" in text(for_training("cpu"))
    assert "ynn" not in text(for_training("cpu"))


def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler_options, "_BY_EIGEN", {"xla_cpu_no_such_option": "1"})
    compiler_options._by_eigen.cache_clear()
    try:
        assert list(for_training("cpu")) == ["xla_backend_optimization_level"]
    finally:
        compiler_options._by_eigen.cache_clear()
