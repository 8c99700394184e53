"""The networks, by class and by name (`MODELS`, `build`)."""

from segjax.models.convnext import ConvNeXt
from segjax.models.deconvnet import DeconvNet
from segjax.models.deeplab import DeepLabV3
from segjax.models.deeplab_plus import DeepLabV3Plus
from segjax.models.fcn import FCN
from segjax.models.fcn_vgg import FCNVGG
from segjax.models.largefov import DeepLabLargeFOV
from segjax.models.lraspp import LRASPP
from segjax.models.mobilenet import MobileNet
from segjax.models.notebooks import NCSUSegNet, NotebookDeepLabV3, NotebookPSPNet, NotebookSegNet
from segjax.models.pspnet import PSPNet
from segjax.models.registry import MODELS, build, model_defaults, model_options
from segjax.models.resnet import ResNet
from segjax.models.segnet import SegNet
from segjax.models.segnet_basic import SegNetBasic
from segjax.models.smp import SMPPSPNet
from segjax.models.unet import UNet
from segjax.models.vgg import VGGEncoder

__all__ = [
    "FCN",
    "FCNVGG",
    "LRASPP",
    "MODELS",
    "ConvNeXt",
    "DeconvNet",
    "DeepLabLargeFOV",
    "DeepLabV3",
    "DeepLabV3Plus",
    "MobileNet",
    "NCSUSegNet",
    "NotebookDeepLabV3",
    "NotebookPSPNet",
    "NotebookSegNet",
    "PSPNet",
    "ResNet",
    "SMPPSPNet",
    "SegNet",
    "SegNetBasic",
    "UNet",
    "VGGEncoder",
    "build",
    "model_defaults",
    "model_options",
]
