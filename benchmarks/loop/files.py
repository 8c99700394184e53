"""Scenes of `streets` as files: PNG, JPEG, and prepared data; and the network that reads them."""

import pathlib
from typing import Any

from PIL import Image

from configs import base, pspnet, segnet
from segjax.commands.prepare import prepare
from segjax.console import Console
from segjax.data.datasets import make_source

FORMS = {"PNG": "png", "JPEG": "jpg", "prepared": ""}


def config_of(tiny: bool, full: bool = False) -> Any:
    """The small PSPNet of CamVid; `full`: SegNet in the paper's size; or a toy. Its data are set
    later."""
    if tiny:
        config, size = segnet.get_config(), (32, 48)
    elif full:
        config, size = segnet.get_config("camvid"), (360, 480)
    else:
        config, size = pspnet.get_config("camvid_small"), (180, 240)
    with config.unlocked():
        config.data = base.get_config().data
    config.data.image_size = size
    config.data.cache_mb = 0.0  # each sample is read anew, as of a set that does not fit
    config.loss.class_weights = "none"
    config.train.update(steps=10**6, epochs=0.0, eval_every=10**6)
    if tiny:
        config.model.width = 0.0625
        config.train.batch_size = 2
    return config


def write(folder: pathlib.Path, form: str, images: int, tiny: bool) -> dict[str, Any]:
    """Writes `images` files for each of the splits train and val, where they are not there yet:
    images of CamVid's size with PNG masks, or these prepared at the canvas's.

    Returns:
      The options of `config.data` that read them.
    """
    size, root = (48, 64) if tiny else (360, 480), folder / form
    data = base.get_config().data
    data.update(train_images=images, eval_images=images)
    if form == "prepared":
        config = base.get_config()
        config.data.update(write(folder, "PNG", images, tiny), eval_splits=("val",))
        if not root.exists():
            canvas = tuple(config_of(tiny).data.image_size)
            prepare(config, root, size=canvas, console=Console(quiet=True))
        return {"name": "prepared", "root": str(next(root.glob("*/*")))}
    names = ",".join(make_source(data, "val").classes.names)
    for split in ("train", "val") if not root.exists() else ():
        source = make_source(data, split)
        folders = [root / kind / split for kind in ("images", "masks")]
        for each in folders:
            each.mkdir(parents=True)
        for index in range(images):
            sample = source[index]
            picture, label = (Image.fromarray(sample[name]) for name in ("image", "label"))
            picture = picture.resize(size[::-1], Image.Resampling.BICUBIC)
            picture.save(folders[0] / f"{index:04d}.{FORMS[form]}")
            label.resize(size[::-1], Image.Resampling.NEAREST).save(folders[1] / f"{index:04d}.png")
    return {"name": "folder", "root": str(root), "classes": names}
