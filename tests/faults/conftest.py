"""Checkpoints for the tests that damage them: fixtures of the tests of checkpoints."""

from tests.training.test_checkpoint import stored, workdir

__all__ = ["stored", "workdir"]
