"""The networks that are profiled, as configs."""

import dataclasses
from collections.abc import Callable, Mapping

import ml_collections

from configs import deeplabv3, fcn, notebooks, pspnet, recipes, segnet


@dataclasses.dataclass(frozen=True)
class Network:
    """A preset, at the batch and the image size that it is profiled at.

    Attributes:
      preset: makes the config.
      images: of a batch.
      size: (H, W) of the images and of the crop; None = the preset's.
      augmented: whether the step has the preset's augmentation.
    """

    preset: Callable[[], ml_collections.ConfigDict]
    images: int
    size: tuple[int, int] | None = None
    augmented: bool = False

    def config(self, dtype: str) -> ml_collections.ConfigDict:
        config = self.preset()
        config.dtype = dtype
        config.train.batch_size = config.train.eval_batch_size = self.images
        if not self.augmented:
            recipes.nothing(config)
        if self.size:
            config.data.image_size = self.size
            config.augment.crop_size = (0, 0)
        return config


_CPU_SIZE = (240, 480)

# What a CPU can run in seconds.
ON_CPU: Mapping[str, Network] = {
    "segnet": Network(lambda: segnet.get_config("paper"), 4, (96, 128)),
    "notebook_segnet": Network(lambda: notebooks.get_config("segnet"), 2, _CPU_SIZE),
    "notebook_deeplabv3": Network(lambda: notebooks.get_config("deeplabv3"), 2, _CPU_SIZE),
    "notebook_pspnet": Network(lambda: notebooks.get_config("pspnet"), 2, _CPU_SIZE),
    "deeplabv3_r50": Network(lambda: deeplabv3.get_config("torchvision"), 2, _CPU_SIZE),
    "fcn_r50": Network(lambda: fcn.get_config("torchvision"), 2, _CPU_SIZE),
}
# The papers' presets with their augmentation, 8 images, as benchmarks/forms.py compiles them.
ON_ACCELERATORS: Mapping[str, Network] = {
    "segnet": Network(lambda: segnet.get_config("paper"), 8, augmented=True),
    "pspnet": Network(lambda: pspnet.get_config("paper"), 8, augmented=True),
    "deeplabv3": Network(lambda: deeplabv3.get_config("paper"), 8, augmented=True),
}
