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
        aspect=(1.0, 1.0),
        antialias=True,
        rotate=0.0,
        rotate_probability=1.0,
        padding="around",
        max_class_share=1.0,
        flip=False,
        flip_probability=0.5,
        flip_vertical=0.0,
        quarter_turns=0.0,
        blur=0.0,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
        brightness_probability=1.0,
        contrast_probability=1.0,
        saturation_probability=1.0,
        hue_probability=1.0,
        colour_model="yiq",
        noise=0.0,
        noise_probability=1.0,
        cutout=0,
        cutout_size=0.25,
        cutout_probability=1.0,
        cutout_labels="kept",
        cutmix=0.0,
        classmix=0.0,
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
    """Zhao et al., CVPR 2017, section 5.1, as hszhao/semseg has it (tool/train.py; the numbers from
    config/ade20k/ade20k_pspnet50.yaml, the changes from util/transform.py):

    - scale 0.5 to 2, uniform (`RandScale`; OpenCV's bilinear, which does not smooth first; its
      aspect_ratio, off there, is `augment.aspect`)
    - half of the images turned, by -10 to 10 degrees (`RandRotate`, p=0.5), cut to their frame
    - half of them blurred, 5x5 (`RandomGaussianBlur`)
    - half of them mirrored (`RandomHorizontalFlip`)
    - crop 473 (713 on Cityscapes), small images in the centre of it, the rest the mean colour and
      label 255 (`Crop`)

    Different: sizes and places in the scaled image are not rounded to whole pixels; labels are
    those at the centre of each pixel (OpenCV's INTER_NEAREST takes a corner, up to half a pixel off
    the image); the blur comes after the crop, so it mirrors two pixels at the crop's border; images
    are scaled from the canvas (`data.image_size`), semseg's from the file's size.
    """
    deeplab(config)
    config.augment.update(
        antialias=False, rotate=10.0, rotate_probability=0.5, padding="centre", blur=0.5
    )
    crop(config, 473, 473)


def torchvision(config):
    """torchvision's references/segmentation (presets.py, transforms.py):

    - shorter side 0.5 to 2 times 520, uniform (`RandomResize`; PIL's bilinear, which smooths first)
    - half of the images mirrored (`RandomHorizontalFlip`)
    - crop 480, small images at the top left of it, label 255 elsewhere (`RandomCrop`)

    Different: beside a small image the colour is the mean (there it is black).
    """
    deeplab(config)
    config.augment.update(padding="end")
    crop(config, 480, 480)


def mmseg(config):
    """mmsegmentation 1.2 (configs/_base_/datasets/*.py; transforms.py):

    - ratio 0.5 to 2, uniform (`RandomResize`; OpenCV's bilinear, which does not smooth first)
    - crop 512x1024 on Cityscapes (512x512 on ADE20K and VOC) of which no class has more than 0.75
      (`RandomCrop`, cat_max_ratio; of 10 tries, as there), small images at the top left of it
    - half of the images mirrored (`RandomFlip`, prob=0.5)
    - `PhotoMetricDistortion`, each of four changes half of the time: brightness by adding up to 32
      of 255, contrast by a factor of 0.5 to 1.5, before or after saturation by a factor of 0.5 to
      1.5 and hue by up to 18 of OpenCV's 180 steps a turn; in HSV, on 8 bits

    Different: sizes, places and labels as in `pspnet`. After ten tries the last of them is kept
    (there an eleventh).
    """
    deeplab(config)
    crop(config, 512, 1024)
    config.augment.update(
        antialias=False,
        padding="end",
        max_class_share=0.75,
        colour_model="hsv",
        brightness=32 / 255,
        contrast=0.5,
        saturation=0.5,
        hue=18 / 180,
        brightness_probability=0.5,
        contrast_probability=0.5,
        saturation_probability=0.5,
        hue_probability=0.5,
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
