"""Traces of a window of steps, read back with JAX's reader."""

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from segjax.training.profiling import Profile

FAST = jax.jit(lambda x: jnp.sum(x) + 1)


def events_of(file):
    planes = ProfileData.from_file(str(file)).planes
    return [event for plane in planes for line in plane.lines for event in line.events]


def traced_steps(file):
    """Numbers of the steps that are annotated in a trace."""
    steps = [dict(event.stats) for event in events_of(file) if event.name == "train"]
    # "_r" marks what XProf takes as the root of a step.
    return [step["step_num"] for step in steps if step["_r"] == 1]


def run(workdir, window, steps, fail_at=None):
    """Runs the steps of a loop; returns the profile's messages."""
    messages = []
    with Profile(workdir, window, messages.append) as profile:
        for step in steps:
            with profile.step(step) as done:
                if step == fail_at:
                    raise ArithmeticError
                done({"loss": FAST(jnp.ones(8))})
    return messages


def traces(workdir):
    return sorted((workdir / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    "window, steps, expected",
    [
        ((3, 2), range(1, 8), [3, 4]),
        ((1, 1), range(1, 3), [1]),
        ((3, 4), range(5, 9), [5, 6]),
        ((2, 1), [1, 2, 3, 1, 2, 3], [2]),
    ],
    ids=["within", "first", "resumed in it", "repeated"],
)
def test_a_window_of_steps_is_traced(tmp_path, window, steps, expected):
    messages = run(tmp_path, window, steps)
    (file,) = traces(tmp_path)
    assert traced_steps(file) == expected
    folder = tmp_path / "profile" / "plugins" / "profile"
    assert file.parent.parent == folder  # where TensorBoard and XProf look
    assert file.parent.name == f"steps_{window[0]}_to_{sum(window) - 1}"
    assert [str(file.parent) in line for line in messages] == [True]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.versions
def test_the_trace_holds_the_programs_that_ran(tmp_path):
    """The profile waits for the device at both ends of the window: the trace contains the last
    step's program, and not the one before the window."""

    @jax.jit
    def slow_before_the_window(x):
        return jax.lax.fori_loop(0, 300, lambda _, x: jnp.sin(x) @ x, x)

    @jax.jit
    def slow_in_the_window(x):
        return jax.lax.fori_loop(0, 300, lambda _, x: jnp.cos(x) @ x, x)

    x = jnp.ones((128, 128))
    programs = {1: slow_before_the_window, 2: slow_in_the_window}
    for program in programs.values():
        program.lower(x).compile()
    with Profile(tmp_path, (2, 1), lambda _: None) as profile:
        for step in (1, 2):
            with profile.step(step) as done:
                done(programs[step](x))
    ran = [dict(event.stats).get("hlo_module", "") for event in events_of(traces(tmp_path)[0])]
    products = sum(module == "jit_slow_in_the_window" for module in ran)
    assert products >= 300
    assert "jit_slow_before_the_window" not in ran


def test_a_run_that_fails_in_the_window_keeps_its_trace(tmp_path):
    with pytest.raises(ArithmeticError):
        run(tmp_path, (2, 5), range(1, 9), fail_at=4)
    assert traced_steps(traces(tmp_path)[0]) == [2, 3, 4]
    run(tmp_path / "again", (1, 1), range(1, 3))  # the tracer is free
    assert traces(tmp_path / "again")


def test_a_window_that_never_comes_is_reported(tmp_path):
    (line,) = run(tmp_path, (2, 3), range(5, 9))
    assert line.startswith("--profile: no trace")
    assert "steps 2 to 4" in line
    assert run(tmp_path, None, range(1, 4)) == []  # without a window nothing is
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "profile").touch()
    (line,) = run(tmp_path, (1, 1), range(1, 4))
    assert "could not be written" in line


def test_each_of_many_processes_has_its_file(tmp_path, monkeypatch):
    """Two processes of one host, here one after the other."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        run(tmp_path, (1, 1 + process), range(1, 3 + process))
    files = [file.name.split("_process")[1] for file in traces(tmp_path)]
    assert files == ["0.xplane.pb", "1.xplane.pb"]
