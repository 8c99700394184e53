"""What the tests of exports share."""

import pytest

from segjax.models.encoders import ENCODERS
from segjax.models.resnet import VARIANTS, BasicBlock


@pytest.fixture(autouse=True)
def shallow_encoder(monkeypatch):
    """An encoder of four blocks, by the name "shallow"."""
    monkeypatch.setitem(VARIANTS, "shallow", (BasicBlock, (1, 1, 1, 1)))
    monkeypatch.setitem(ENCODERS, "shallow", ENCODERS["resnet18"])
