"""What benchmarks/gpu_pack.sh makes smaller before it is carried to a GPU.

python -m benchmarks.gpu.pack jpeg FROM TO     a folder with its pictures as JPEG
python -m benchmarks.gpu.pack vgg16 FILE       VGG16's convolutions of ImageNet in half precision
"""

import pathlib
import shutil
import sys

import numpy as np
from PIL import Image

QUALITY = 85
# torchvision's number of each convolution of VGG16, by stage.
FEATURES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def jpeg(source: pathlib.Path, target: pathlib.Path) -> int:
    """Copies a data set's folder with its RGB pictures as JPEG; masks and lists stay as they are.

    Lists of files (.txt) are left out, as the names change.

    Returns:
      The number of pictures.
    """
    count = 0
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if not path.is_file() or path.suffix == ".txt":
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            is_picture = image.mode == "RGB"
            if is_picture:
                image.save(place.with_suffix(".jpg"), quality=QUALITY)
        if is_picture:
            count += 1
        else:
            shutil.copy(path, place)
    return count


def vgg16(file: pathlib.Path) -> None:
    """Writes VGG16's convolutions under torchvision's names, float16, with their mean and std."""
    from safetensors.numpy import save_file

    import segjax
    from segjax.weights import hub
    from segjax.weights.files import MEAN_KEY, STD_KEY

    name = "imagenet/keras_pip"
    _, variables = segjax.create_model("segnet", num_classes=2, weights=name)
    known = hub.open_weights(f"{name}/vgg16")
    arrays = {}
    for stage, numbers in enumerate(FEATURES, 1):
        for k, number in enumerate(numbers, 1):
            conv = variables["params"]["encoder"][f"conv{stage}_{k}"]["conv"]
            kernel = np.asarray(conv["kernel"]).transpose(3, 2, 0, 1)
            arrays[f"features.{number}.weight"] = np.array(kernel, np.float16, order="C")
            arrays[f"features.{number}.bias"] = np.array(conv["bias"], np.float16)
    save_file(arrays, file, {MEAN_KEY: str([*known.mean]), STD_KEY: str([*known.std])})


def main() -> None:
    what, *paths = sys.argv[1:]
    made = {"jpeg": jpeg, "vgg16": vgg16}[what](*map(pathlib.Path, paths))
    print(f"{what}: {made if made is not None else paths[0]}")


if __name__ == "__main__":
    main()
