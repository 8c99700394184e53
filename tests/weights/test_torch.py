"""The names of torch's networks: every array has its place in our models.

The names are those of the libraries' own networks; see tests/weights/torch_goldens.py.
"""

import functools
import re

import jax
import numpy as np
import pytest

from segjax.models import build
from segjax.weights import from_file, load, torch_networks, transfer
from segjax.weights.layout import array_names
from tests.goldens.draw import draw
from tests.weights.torch_goldens import CLASSES, COMPUTED, NAMED, network, torch_file, unfilled

# Networks that we do not have, whose names are much like some that we have.
STRANGERS = {
    "vgg13",
    "vgg19",
    "smp_unet_vgg16",
    "smp_unet_attention",
    "smp_unetplusplus",
    "smp_deeplabv3_separable",
}
KNOWN = [name for name in COMPUTED + NAMED if name not in STRANGERS]
CLASSIFIERS = ("vgg16", "resnet", "semseg_resnet", "wide_resnet", "resnext")
NETWORKS = [name for name in KNOWN if not name.startswith(CLASSIFIERS)]
# Whose tables are filled in the default run; the others differ in depth.
SHALLOW = [name for name in NETWORKS if "101" not in name and "152" not in name]
# Of the decoders of SMP and mmsegmentation one each.
_ONE_EACH = ("smp_deeplabv3plus_resnet18", "smp_unet_resnet18", "mmseg_deeplabv3plus_resnet50")
SHALLOW = [
    name
    for name in SHALLOW
    if name in _ONE_EACH or not name.startswith(("smp_deeplabv3plus", "smp_unet", "mmseg"))
]


@pytest.mark.versions
@pytest.mark.parametrize("name", KNOWN)
def test_every_array_has_its_place(name):
    """The table names all arrays of the file but what our network does not have."""
    arrays = unfilled(name)
    layout = transfer.layout_of(torch_file(arrays))
    assert layout in torch_networks.LAYOUTS
    found = layout.describe(arrays)
    names = [array_names(n, "torch") for n in layout.blocks(found, arrays).values()]
    named = [n[role] for n in names for role in n if role != "bias" or n["bias"] in arrays]
    assert len(named) == len(set(named))
    left = arrays.keys() - set(named)
    left = {n.rsplit(".", 1)[0] for n in left if not n.endswith("num_batches_tracked")}
    if name.startswith("vgg"):
        assert left == {"classifier.6"}
    elif name.startswith(CLASSIFIERS):
        assert left == {"fc"}
    elif name.startswith("smp_pspnet"):
        unread = {4: ("encoder.layer4.",), 5: ("nothing",)}.get(
            found["encoder_depth"], ("encoder.layer3.", "encoder.layer4.")
        )
        assert all(n.startswith(unread) for n in left)
    else:
        assert left == set()
    assert set(named) <= arrays.keys()
    depth = re.findall(r"(?:resnet|pspnet)(\d+)", name)
    if name.startswith(("wide", "resnext")):
        encoder = name
    elif "mobilenet_v2" in name:
        encoder = "mobilenet_v2"
    else:
        encoder = f"resnet{depth[0]}" if depth else None
    assert found.get("encoder") == encoder


@pytest.mark.parametrize(
    "name",
    [name if name in SHALLOW else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_a_file_becomes_its_own_network(name, monkeypatch):
    """Every leaf of the model is loaded, and of the file only what has no use stays."""
    monkeypatch.setattr(transfer, "read", lambda _: torch_file(unfilled(name)))
    loaded = from_file("NAME.pth")
    leaves = jax.tree.leaves(loaded.variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in leaves)
    assert len(loaded.report.loaded) == len(leaves)
    assert all(n.startswith("encoder.layer") for n in loaded.report.left_over)
    assert not loaded.report.notes
    assert loaded.model.num_classes == CLASSES
    np.testing.assert_array_equal(loaded.mean, np.float32([0.485, 0.456, 0.406]))
    np.testing.assert_array_equal(loaded.std, np.float32([0.229, 0.224, 0.225]))


@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_siblings_with_the_same_names_are_not_mistaken(name):
    """Other VGGs and decoders."""
    looks = f": it looks like {name}" if name.startswith("vgg") else ""
    with pytest.raises(ValueError, match=rf"of no network that is known{looks}; known are: tor"):
        transfer.layout_of(torch_file(unfilled(name)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"encoder": "resnet18", "stem": "7x7"}),
        ("semseg_resnet152", {"encoder": "resnet152", "stem": "3x3"}),
        ("vgg16_bn", {}),
        ("fcn_resnet101", {"contract_dilation": True, "aux": True, "align_corners": False}),
        ("deeplabv3_resnet50_no_aux", {"head_conv": True, "aux": False, "multi_grid": (1, 1, 1)}),
        ("semseg_pspnet50", {"contract_dilation": False, "align_corners": True, "aux": True}),
        ("smp_deeplabv3_resnet34", {"aspp_features": 256, "align_corners": True, "aux": False}),
        ("smp_pspnet_resnet34", {"encoder_depth": 3, "dropout_rate": 0.2}),
        ("smp_deeplabv3plus_resnet50", {"rates": (12, 24, 36), "aspp_separable": True}),
        ("smp_deeplabv3plus_resnet18_dense", {"aspp_features": 64, "aspp_separable": False}),
        ("smp_unet_resnet34", {"encoder": "resnet34", "decoder_channels": (256, 128, 64, 32, 16)}),
        ("mmseg_pspnet_resnet50_7x7", {"stem": "7x7", "align_corners": False, "aux": True}),
        ("mmseg_deeplabv3_resnet50", {"stem": "v1c", "aspp_features": 512, "project_kernel": 3}),
        ("mmseg_deeplabv3plus_resnet101", {"low_level_features": 48, "norm_between": True}),
        ("mmseg_fcn_resnet50", {"head_convs": 2, "concat_input": True}),
    ],
)
def test_a_file_says_which_network_it_is(name, options):
    found = transfer.layout_of(torch_file(unfilled(name))).describe(unfilled(name))
    assert options.items() <= found.items()


def test_smp_deeplabv3_under_its_older_names():
    """The decoder was a sequence once; nothing else differs."""
    new = unfilled("smp_deeplabv3_resnet18")
    renamed = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1."}
    renamed |= {"decoder.bn.": "decoder.2."}
    old = {}
    for name, array in new.items():
        for now, then in renamed.items():
            name = name.replace(now, then)
        old[name] = array
    assert len(old.keys() & new.keys()) < len(new)
    (model, shapes_), (same, _) = network(torch_file(old)), network(torch_file(new))
    assert model == same
    _, report = load(torch_file(old), model, shapes_)
    assert not report.fresh
    assert not report.left_over


def test_the_pspnet_authors_encoder_under_another_head():
    """What else has their stem in one sequence (PSANet, say) is an encoder to us."""
    arrays = unfilled("semseg_pspnet50")
    arrays = {n: a for n, a in arrays.items() if not n.startswith(("ppm.", "cls.", "aux."))}
    assert transfer.layout_of(torch_file(arrays)).title.startswith("torchvision resnet18/34/50")
    model = build({"name": "pspnet"}, CLASSES)
    _, report = load(torch_file(arrays), model, transfer.abstract_variables(model))
    assert not report.left_over
    assert not any("/encoder/" in leaf for leaf in report.fresh)
    assert all("/encoder/" in leaf for leaf in report.loaded)


def test_a_cascade_takes_the_classifiers_stages_and_keeps_its_own_fresh():
    arrays = unfilled("resnet18")
    options = {"name": "deeplabv3", "encoder": "resnet18", "aux": False, "with_aspp": False}
    model = build({**options, "cascade": 2}, CLASSES)
    _, report = load(torch_file(arrays), model, transfer.abstract_variables(model))
    why = "the file has no such copy of the last stage"
    copies = {leaf for leaf, reason in report.fresh.items() if reason == why}
    blocks = {leaf.split("/")[2] for leaf in copies}
    assert blocks == {f"stage{s}_block{b}" for s in (6, 7) for b in (1, 2)}
    assert report.fresh.keys() - copies == {"params/classifier/kernel", "params/classifier/bias"}
    whole = build({**options, "cascade": 0}, CLASSES)
    _, plain = load(torch_file(arrays), whole, transfer.abstract_variables(whole))
    assert report.loaded == plain.loaded


class TestRules:
    """What a model that differs from the file's network gets, under torchvision's names."""

    def test_another_class_count_keeps_the_classifiers_fresh(self):
        file = torch_file(unfilled("fcn_resnet50"))
        _, report = load(file, *network(file, num_classes=11))
        kept = {leaf.removeprefix("params/").rsplit("/", 1)[0] for leaf in report.fresh}
        assert kept == {"head/classifier", "aux_head/classifier"}
        assert set(report.fresh.values()) == {"5 classes in the file, 11 here"}

    def test_another_number_of_image_channels(self):
        name = "backbone.conv1.weight"
        arrays = unfilled("fcn_resnet50") | {name: draw(name, (64, 3, 7, 7))}
        model, _ = network(torch_file(arrays))
        init = functools.partial(model.init, train=False)
        shapes_ = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 64, 64, 1), np.float32))
        variables, report = load(torch_file(arrays), model, shapes_)
        found = variables["params"]["encoder"]["stem"]["conv"]["kernel"]
        wanted = arrays[name].sum(1, keepdims=True).transpose(2, 3, 1, 0)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
        assert "reads 1 channels here, 3 in the file" in report.notes[0]

    def test_only_the_encoder_of_a_whole_network(self):
        file = torch_file(unfilled("deeplabv3_resnet50"))
        model = build({"name": "fcn", "contract_dilation": True}, 3)
        _, report = load(file, model, transfer.abstract_variables(model), parts="encoder")
        assert all("/encoder/" in leaf for leaf in report.loaded)
        assert not any("/encoder/" in leaf for leaf in report.fresh)
        assert not any(name.startswith("backbone") for name in report.left_over)

    def test_auxiliary_head_missing_or_unwanted(self):
        with_aux = torch_file(unfilled("deeplabv3_resnet50"))
        without = torch_file(unfilled("deeplabv3_resnet50_no_aux"))
        _, report = load(without, *network(with_aux))
        assert set(report.fresh.values()) == {"the file has no auxiliary head"}
        assert {leaf.split("/")[1] for leaf in report.fresh} == {"aux_head"}
        _, report = load(with_aux, *network(without))
        assert set(report.left_over.values()) == {"the model has no auxiliary head"}
        assert {name.split(".")[0] for name in report.left_over} == {"aux_classifier"}

    def test_another_architecture(self):
        file = torch_file(unfilled("semseg_pspnet50"))
        model = build({"name": "deeplabv3"}, CLASSES)
        message = r"looks like semseg PSPNet50.*the model is deeplabv3\. Use model\.name=pspnet, or"
        with pytest.raises(ValueError, match=message):
            load(file, model, transfer.abstract_variables(model))

    @pytest.mark.parametrize("parts", ["all", "encoder"])
    def test_another_encoder_is_one_line(self, parts):
        file = torch_file(unfilled("resnet18"))
        model = build({"name": "fcn", "encoder": "resnet34"}, CLASSES)
        message = (
            r"^weight file NAME\.pth looks like torchvision .*\(encoder=resnet18\); the model's "
            r"encoder is resnet34\. Use model\.encoder=resnet18, or weights of resnet34$"
        )
        with pytest.raises(ValueError, match=message):
            load(file, model, transfer.abstract_variables(model), parts)

    def test_another_stem_says_which_option(self):
        file = torch_file(unfilled("resnet18"))
        model = build({"name": "fcn", "encoder": "resnet18", "stem": "3x3"}, CLASSES)
        with pytest.raises(ValueError, match=r"arrays of NAME\.pth: torchvision resnet18") as error:
            load(file, model, transfer.abstract_variables(model))
        assert "model.stem is 3x3; the file's network has 7x7" in str(error.value)

    def test_missing_and_broken_arrays_are_named_together(self):
        arrays = unfilled("fcn_resnet50")
        del arrays["backbone.layer3.4.bn2.running_var"]
        arrays["classifier.1.bias"] = np.full(512, np.nan, np.float32)
        with pytest.raises(ValueError, match="2 arrays") as error:
            load(torch_file(arrays), *network(torch_file(arrays)))
        assert "missing in the file: batch_stats/encoder/stage4_block5/conv/norm/var" in str(
            error.value
        )
        assert "not finite: classifier.1.bias: 512 NaN or infinite values" in str(error.value)

    def test_segnet_takes_vgg16_and_keeps_its_normalisation(self):
        model = build({"name": "segnet"}, CLASSES)
        shapes_ = transfer.abstract_variables(model)
        for name, fresh in (("vgg16", 4 * 13), ("vgg16_bn", 0)):
            _, report = load(torch_file(unfilled(name)), model, shapes_)
            assert sum("/encoder/" in leaf for leaf in report.fresh) == fresh
            assert sum("/encoder/" in leaf for leaf in report.loaded) == 6 * 13 - fresh


class TestPrefixes:
    """Names under a prefix that the training framework put there."""

    @pytest.mark.parametrize("prefix", ["model.", "net.module."])
    def test_lightning(self, prefix):
        """The state dict of a module that holds the network, its loss and its metrics."""
        arrays = {f"{prefix}{name}": array for name, array in unfilled("resnet18").items()}
        arrays["criterion.weight"] = np.ones(CLASSES, np.float32)
        file = torch_file(arrays)
        model = build({"name": "fcn", "encoder": "resnet18"}, CLASSES)
        _, report = load(file, model, transfer.abstract_variables(model), "encoder")
        assert f"names were read without their prefix '{prefix}'" in str(report)
        assert report.left_over["criterion.weight"] == f"not under '{prefix}'"
        assert sum("/encoder/" in leaf for leaf in report.fresh) == 0
        assert transfer.preprocessing(file) is not None

    def test_two_networks_are_none(self):
        """A student and its teacher, say."""
        arrays = unfilled("resnet18")
        both = {f"{part}.{name}": a for part in ("model", "ema") for name, a in arrays.items()}
        with pytest.raises(ValueError, match="of no network that is known"):
            transfer.layout_of(torch_file(both))


def test_mmsegmentations_basic_blocks_are_refused():
    arrays = {
        name.replace("encoder.", "backbone."): array
        for name, array in unfilled("smp_pspnet_resnet18").items()
        if name.startswith("encoder.")
    }
    for name in ("conv_seg", "convs.0.conv"):
        arrays[f"decode_head.{name}.weight"] = np.zeros((CLASSES, 8, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"fcn on resnet18 cannot be used: its blocks dilate"):
        from_file(torch_file(arrays))
