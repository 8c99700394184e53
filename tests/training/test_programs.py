"""Programs that are compiled ahead give what they give without."""

import threading

import jax
import numpy as np
import pytest

from segjax.training import programs
from segjax.training.batches import DeviceIterator
from segjax.training.programs import Programs
from segjax.training.setup import setup_run
from tests.conftest import make_tiny_config

pytestmark = pytest.mark.usefixtures("toy")


@pytest.mark.parametrize("ahead", [True, False])
def test_state_and_step_are_those_of_the_setup(ahead):
    setup = setup_run(make_tiny_config("toy"))
    state = setup.init_state()
    with DeviceIterator(setup) as batches, Programs(setup) as compiled:
        if ahead:
            compiled.begin(from_the_start=True)
            compiled.begin(from_the_start=False)  # without effect
        ours, batch = compiled.first_state(), next(batches)
        jax.tree.map(np.testing.assert_array_equal, ours, state)
        ours, metrics = compiled.train_step(ours, batch)
    theirs, expected = setup.train_step()(state, batch)
    jax.tree.map(np.testing.assert_array_equal, (ours, metrics), (theirs, expected))
    assert int(ours.step) == 1


def test_the_end_waits_for_the_compiler(monkeypatch):
    """A thread inside XLA would crash a process that ends."""
    go_on, finished = threading.Event(), []
    setup = setup_run(make_tiny_config("toy"))

    def in_thread(call):
        future = programs.concurrent.futures.Future()

        def work():
            go_on.wait(5)
            finished.append(call)
            future.set_result(None)

        threading.Thread(target=work).start()
        return future

    monkeypatch.setattr(programs, "in_thread", in_thread)
    with Programs(setup) as compiled:
        compiled.begin(from_the_start=False)
        assert finished == []
        go_on.set()
    assert len(finished) == 1


def test_what_is_compiled_at_its_first_use_alone(monkeypatch):
    config = make_tiny_config("toy")
    config.data.on_device = True  # whose batches a program gathers
    monkeypatch.setattr(programs, "in_thread", lambda call: pytest.fail("compiled ahead"))
    with Programs(setup_run(config)) as compiled:
        compiled.begin(from_the_start=True)
