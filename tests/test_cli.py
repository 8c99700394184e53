"""The flags of launch.py, those that need no process of their own."""

import pytest

from segjax.cli import NEEDS, check_processes, parse_profile


def test_a_window_of_steps():
    assert parse_profile("10:5") == (10, 5)
    assert parse_profile("1:1") == (1, 1)
    assert parse_profile(None) is None


@pytest.mark.parametrize("text", ["", "10", "10:", ":5", "0:5", "10:0", "-1:5", "1:2:3", "a:b"])
def test_a_window_that_will_not_do(text):
    with pytest.raises(ValueError, match=rf"--profile={text}; use START:STEPS"):
        parse_profile(text)


def test_modes_that_several_processes_can_share():
    for mode in NEEDS:
        check_processes(mode, 1)
        if mode in ("train", "evaluate"):
            check_processes(mode, 64)
        else:
            message = rf"--mode={mode} in 2 processes; only train and evaluate can be shared"
            with pytest.raises(ValueError, match=message):
                check_processes(mode, 2)
