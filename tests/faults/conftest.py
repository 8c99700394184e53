"""Checkpoints for the tests that damage them."""

import shutil

import pytest

from segjax.training.checkpoint import CheckpointStore
from tests.training.test_checkpoint import save


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """Checkpoints 2, the best, and 4 and 6, the latest."""
    folder = tmp_path_factory.mktemp("stored")
    with CheckpointStore(folder) as store:
        for step, miou in ((2, 0.9), (4, 0.1), (6, 0.2)):
            save(store, step, miou)
    return folder


@pytest.fixture
def workdir(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "run")
