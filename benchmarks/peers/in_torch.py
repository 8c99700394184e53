"""torch's side: SegNet written out, torchvision's networks and segmentation_models.pytorch's.

Convolutions get channels-last images, their fastest on CPUs and GPUs. bfloat16 is autocast's. With
`compiled`, torch.compile takes network and loss.
"""

import importlib.metadata
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers import work
from benchmarks.peers.rows import AUX_WEIGHT, Row
from benchmarks.peers.work import Request, Work

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class SegNet(nn.Module):
    """`segjax.models.SegNet`: VGG16's convolutions with bias, normalisation and ReLU, mirrored."""

    def __init__(self, classes: int):
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = 3
        for stage in STAGES:
            self.encoder.append(self._stage(channels, stage))
            channels = stage[-1]
        for s in range(len(STAGES) - 1, -1, -1):
            last = STAGES[s - 1][-1] if s else STAGES[0][0]
            outputs = (*STAGES[s][1:], last) if s else STAGES[0][1:]
            self.decoder.append(self._stage(channels, outputs))
            channels = outputs[-1]
        self.classifier = nn.Conv2d(channels, classes, 3, padding=1)

    @staticmethod
    def _stage(channels: int, outputs: tuple[int, ...]) -> nn.Sequential:
        layers = []
        for features in outputs:
            layers += [nn.Conv2d(channels, features, 3, padding=1), nn.BatchNorm2d(features)]
            layers.append(nn.ReLU(inplace=True))
            channels = features
        return nn.Sequential(*layers)

    def forward(self, x):
        pools = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, places = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pools.append((places, size))
        for stage in self.decoder:
            places, size = pools.pop()
            x = stage(F.max_unpool2d(x, places, 2, output_size=size))
        return self.classifier(x)


def _torchvision(name: str) -> Callable[[Row], nn.Module]:
    def build(row: Row) -> nn.Module:
        from torchvision.models import segmentation

        builder = getattr(segmentation, name)
        return builder(
            weights=None, weights_backbone=None, num_classes=row.classes, aux_loss=row.aux
        )

    return build


def _smp(kind: str) -> Callable[[Row], nn.Module]:
    def build(row: Row) -> nn.Module:
        import segmentation_models_pytorch as smp

        return getattr(smp, kind)("resnet34", encoder_weights=None, classes=row.classes)

    return build


# The distributions that a network comes from, and how it is built.
NETWORKS: dict[str, tuple[tuple[str, ...], Callable[[Row], nn.Module]]] = {
    "segnet": ((), lambda row: SegNet(row.classes)),
    "deeplabv3_resnet50": (("torchvision",), _torchvision("deeplabv3_resnet50")),
    "fcn_resnet50": (("torchvision",), _torchvision("fcn_resnet50")),
    "smp_unet": (("segmentation_models_pytorch",), _smp("Unet")),
    "smp_deeplabv3plus": (("segmentation_models_pytorch",), _smp("DeepLabV3Plus")),
    "smp_pspnet": (("segmentation_models_pytorch",), _smp("PSPNet")),
}


def make(request: Request) -> Work:
    """The row's network of torch."""
    row, device = request.row, "cuda" if request.device == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU")
    torch.set_num_threads(request.cores)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX's default has it
    torch.manual_seed(0)
    distributions, build = NETWORKS[row.peers["torch"]]
    model = build(row).to(device=device, memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in model.parameters())
    images, labels = work.batch(row)
    x = torch.from_numpy(work.normalised(images)).permute(0, 3, 1, 2)
    x = x.to(device=device, memory_format=torch.channels_last)
    y = torch.from_numpy(labels).long().to(device)
    make_run = _training if request.work == "train" else _inference
    with torch.no_grad():
        n, k, h, w = _main(model.eval()(x)).shape
    return Work(
        make_run(model, x, y, request),
        parameters,
        (n, h, w, k),
        about={
            "versions": {
                name: importlib.metadata.version(name) for name in ("torch", *distributions)
            },
            "threads": f"torch: {torch.get_num_threads()}",
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        },
        peak=torch.cuda.max_memory_allocated if device == "cuda" else None,
    )


def _main(outputs):
    """The main head's scores; torchvision returns a dict."""
    return outputs["out"] if isinstance(outputs, dict) else outputs


def _autocast(request: Request) -> torch.autocast:
    device = "cuda" if request.device == "gpu" else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=request.dtype == "bfloat16")


def _synchronise(request: Request) -> None:
    if request.device == "gpu":
        torch.cuda.synchronize()


def _training(model: nn.Module, x, y, request: Request) -> Callable[[int], float]:
    model.train()
    if request.row.optimizer == "sgd":
        rate = work.SGD["learning_rate"]
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=work.SGD["momentum"])
    else:
        rate = work.ADAM["learning_rate"]
        optimizer = torch.optim.Adam(model.parameters(), rate, eps=work.ADAM["epsilon"])

    def loss_of(x, y):
        with _autocast(request):
            outputs = model(x)
        loss = F.cross_entropy(_main(outputs).float(), y)
        if request.row.aux:
            loss = loss + AUX_WEIGHT * F.cross_entropy(outputs["aux"].float(), y)
        return loss

    if request.compiled:
        loss_of = torch.compile(loss_of)

    def run(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(x, y)
            loss.backward()
            optimizer.step()
        _synchronise(request)
        return loss.item()

    return run


def _inference(model: nn.Module, x, y, request: Request) -> Callable[[int], float]:
    model.eval()
    if request.row.aux:
        model.aux_classifier = None  # whose scores nobody asks for

    def predict(x):
        with _autocast(request):
            return _main(model(x)).argmax(1)

    if request.compiled:
        predict = torch.compile(predict)

    def run(steps: int) -> float:
        with torch.inference_mode():
            for _ in range(steps):
                labels = predict(x)
            _synchronise(request)
            return (labels == 0).sum().item()

    return run
