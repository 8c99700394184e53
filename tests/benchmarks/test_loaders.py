"""torch's loader, which segjax's is compared with, gives the same samples."""

import pytest

from benchmarks.loaders import torch_batches
from segjax.data.fitted import FittedDataset
from tests.data.drawn import Numbered


def test_torch_loads_the_same_samples():
    pytest.importorskip("torch")
    dataset = FittedDataset(Numbered(6), (4, 6))
    batch = next(torch_batches(dataset, 4, 0))
    assert tuple(batch["image"].shape) == (4, 4, 6, 3)
    assert batch["image"][:, 0, 0, 0].tolist() == batch["index"].tolist()
    with pytest.raises(ValueError, match="a batch of 7 is larger than the split of 6"):
        next(torch_batches(dataset, 7, 0))
