"""What a way of measuring a trained network gains over measuring it as it is."""

from collections.abc import Sequence

import numpy as np

from segjax.metrics.paired import PairedTest, paired_test
from segjax.training.evaluation import Evaluation


def gain(plain: Sequence[Evaluation], other: Sequence[Evaluation]) -> PairedTest | None:
    """The paired test over images of their own mIoU, `other` minus `plain`.

    Args:
      plain: of the networks as they are, one for each seed.
      other: of the same networks measured otherwise, one for each seed, or one of all together.

    Returns:
      The test on each image's mean over the seeds; None where images do not match or none is
      labelled.
    """
    if not plain or not other:
        return None
    names = list(plain[0].names)
    if any(list(each.names) != names for each in (*plain, *other)):
        return None
    means = [np.mean([each.image_miou for each in group], axis=0) for group in (plain, other)]
    test = paired_test(means[1] - means[0])
    return test if test.images else None
