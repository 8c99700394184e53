"""Augmentation as papers and toolkits have it: what is drawn at random for every training image.

Presets call these; any preset takes another recipe with a +, which replaces `config.augment` and
`data.local_contrast` and changes nothing else:
  python launch.py --config=configs/deeplabv3.py:camvid+mmseg
A crop is at most the canvas (`data.image_size`) of the preset that takes it.
"""


def nothing(config):
    """Every image as it is: the seed notebooks, the NCSU report, and SegNet's tables 1 and 3."""
    config.augment.update(
        crop_size=(0, 0),
        scale=(1.0, 1.0),
        rotate=0.0,
        flip=False,
        max_class_share=1.0,
        blur=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
    )
    config.data.local_contrast = 0


def segnet(config):
    """Badrinarayanan et al., PAMI 2017, section 3.3: local contrast normalisation of the image
    (9x9 windows, as in the paper it cites for that), and nothing else."""
    nothing(config)
    config.data.local_contrast = 9


def deeplab(config):
    """Chen et al., arXiv 1706.05587, section 4: zoom 0.5 to 2, flip, crop 513."""
    nothing(config)
    config.augment.update(scale=(0.5, 2.0), flip=True)
    crop(config, 513, 513)


def pspnet(config):
    """Zhao et al., CVPR 2017, section 5.1, as hszhao/semseg has it: zoom 0.5 to 2, rotation by up
    to 10 degrees, 5x5 blur of every other image, flip, crop 473. (semseg turns every other image;
    here all are. Its crop is 713 for Cityscapes.)"""
    deeplab(config)
    config.augment.update(rotate=10.0, blur=0.5)
    crop(config, 473, 473)


def torchvision(config):
    """torchvision's references/segmentation: zoom 0.5 to 2 of 520 pixels, flip, crop 480."""
    deeplab(config)
    crop(config, 480, 480)


def mmseg(config):
    """mmsegmentation 1.2: zoom 0.5 to 2, a crop (512x1024 on Cityscapes, 512x512 on ADE20K and VOC)
    of which no class has more than 0.75, flip, photometric distortion.

    The latter draws each of four changes half of the time (brightness, by adding up to 32 of 255);
    here all are drawn, and brightness is a factor.
    """
    deeplab(config)
    crop(config, 512, 1024)
    config.augment.update(
        max_class_share=0.75,
        brightness=32 / 255,
        contrast=0.5,
        saturation=0.5,
        hue=0.1,  # 18 of OpenCV's 180 steps a turn
    )


def crop(config, height: int, width: int):
    """Crops of that size, at most the canvas."""
    sides = zip((height, width), config.data.image_size, strict=True)
    config.augment.crop_size = tuple(min(side) for side in sides)


RECIPES = {
    "nothing": nothing,
    "segnet": segnet,
    "deeplab": deeplab,
    "pspnet": pspnet,
    "torchvision": torchvision,
    "mmseg": mmseg,
}
