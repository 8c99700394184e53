"""Setups of runs: options that are refused before anything is built, and class weights."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from configs import base, pspnet
from segjax import config as configs
from segjax.data import checks
from segjax.data.class_lists import IDD_LEVEL1
from segjax.data.classes import from_names
from segjax.data.splits import Splits
from segjax.training.class_weights import class_weights
from segjax.training.options import check_options
from segjax.training.setup import describe_protocol, setup_programs, setup_run


def tiny(**options):
    """configs/pspnet.py:streets on 10 scenes of 33x49; options are "section.name"."""
    config = pspnet.get_config("streets")
    options = {
        "data.image_size": (33, 49),
        "augment.crop_size": (0, 0),
        "augment.scale": (0.75, 1.5),
        "optim.learning_rate": 0.1,
        "train.steps": 720,
        "data.train_images": 10,
        "data.eval_images": 3,
        "train.batch_size": 4,
        "optim.warmup_steps": 0,
        "parallel.data": 1,
        **options,
    }
    with config.unlocked():
        config.update_from_flattened_dict(options)
    return config


# Faults that are seen before any data are.
BAD_NUMBERS = [
    ({"data.image_size": (0, 0)}, r"data\.image_size=\(0, 0\); use \(height, width\), whole"),
    ({"data.image_size": (33, 8)}, r"data\.image_size=\(33, 8\)"),
    ({"data.image_size": (33, 49, 3)}, r"data\.image_size=\(33, 49, 3\)"),
    ({"data.image_size": (33.5, 49.0)}, r"data\.image_size=\(33\.5, 49\.0\); .* whole numbers"),
    ({"data.label_size": (0, 49)}, r"data\.label_size=\(0, 49\)"),
    ({"augment.crop_size": (8, 49)}, r"augment\.crop_size=\(8, 49\)"),
    (
        {"data.label_size": ("their", "own")},
        r"data\.label_size=\('their', 'own'\); use own \(the labels' own size\), \(height, width\)",
    ),
    ({"train.steps": 0}, r"train\.steps=0 and train\.epochs=0; set one of them"),
    ({"train.epochs": 3.0}, r"train\.steps=720 and train\.epochs=3\.0 are both set"),
    ({"train.steps": -5}, r"train\.steps=-5; use 0 or more"),
    ({"train.epochs": -1.0}, r"train\.epochs=-1\.0; use a number in"),
    ({"train.batch_size": 0}, r"train\.batch_size=0; use 1 or more"),
    ({"train.eval_batch_size": -1}, r"train\.eval_batch_size=-1"),
    ({"train.accumulate": 0}, r"train\.accumulate=0; use 1 or more"),
    ({"train.accumulate": 3}, r"train\.accumulate=3 does not divide train\.batch_size=4"),
    ({"train.eval_every": -1}, r"train\.eval_every=-1"),
    ({"train.save_every": -1}, r"train\.save_every=-1"),
    ({"train.early_stop_patience": -1}, r"train\.early_stop_patience=-1"),
    ({"train.log_every": 0}, r"train\.log_every=0; use 1 or more"),
    ({"train.ema_decay": 1.0}, r"train\.ema_decay=1\.0; use a number in \[0, 1\)"),
    ({"train.ema_decay": -0.1}, r"train\.ema_decay=-0\.1"),
    ({"data.workers": -1}, r"data\.workers=-1"),
    ({"loss.aux_weight": -0.4}, r"loss\.aux_weight=-0\.4"),
    ({"loss.aux_weight": float("nan")}, r"loss\.aux_weight=nan; use 0 or more"),
    ({"loss.aux_weight": float("inf")}, r"loss\.aux_weight=inf; use 0 or more"),
    ({"loss.terms": "dyce"}, r"loss\.terms='dyce': 'dyce' is unknown; known losses: cross_ent"),
    ({"loss.terms": "-1 * dice"}, r"loss\.terms='-1 \* dice': the factor -1; use a number above"),
    ({"loss.aux_terms": "focal("}, r"loss\.aux_terms='focal\(' cannot be read"),
    (
        {"loss.terms": "dice", "loss.class_weights": "1,1,1,1,1,1,2"},
        r"loss\.class_weights='1,.*' with loss\.terms='dice', none of which takes class weights; "
        r"use loss\.class_weights=none, or add one of cross_entropy, focal, boundary_cr.*, ohem",
    ),
    ({"report.samples": 0}, r"report\.samples=0"),
    ({"report.measures": ("boundary,ece",)}, r"report\.measures='ece'; use boundary, objects, cal"),
    ({"data.local_contrast": 4}, r"data\.local_contrast=4; use 0 for none, or the odd side"),
    ({"data.local_contrast": 35}, r"data\.local_contrast=35; .* from 3 to 33"),
    ({"data.sampling": "rare"}, r"data\.sampling='rare' is unknown; use uniform, repeat_factor"),
    ({"data.repeat_threshold": 0.0}, r"data\.repeat_threshold=0\.0"),
    ({"data.std": (0.2, 0.0, 0.2)}, r"data\.std=.*numbers above 0"),
    ({"data.mean": (0.5, np.nan, 0.5)}, r"data\.mean=\(0\.5, nan, 0\.5\); use finite numbers"),
    ({"data.mean": (0.5,)}, r"data\.std have 1 and 0 numbers; use 3 each"),
]


@pytest.mark.parametrize("options, message", BAD_NUMBERS, ids=lambda x: str(x)[:40])
def test_numbers_that_no_run_can_have(options, message):
    with pytest.raises(ValueError, match=message):
        check_options(tiny(**options))


NUMBERS = {
    name: value
    for name, value in configs.flatten(base.get_config("pspnet")).items()
    if type(value) in (int, float) and not name.startswith("model.")
}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", NUMBERS)
def test_no_option_takes_a_number_that_is_none_or_below_zero(name):
    bad = [-1] if isinstance(NUMBERS[name], int) else [-1.0, np.nan, np.inf]
    for value in bad:
        config = tiny(**{name: value})
        config.model = {"name": "toy"}
        with pytest.raises(ValueError, match=rf"{re.escape(name)}={value}"):
            setup_programs(config)


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("optim.momentum", 2.0, r"a number in \[0, 1\)"),
        ("optim.beta1", 1.5, r"a number in \[0, 1\)"),
        ("optim.beta2", 1.0, r"a number in \[0, 1\)"),
        ("optim.rho", 1.0, r"a number in \[0, 1\)"),
        ("optim.epsilon", 0.0, "a number above 0"),
        ("optim.poly_power", 0.0, "a number above 0"),
        ("optim.step_factor", 1.0, r"a number in \(0, 1\)"),
        ("optim.plateau_factor", -2.0, r"a number in \(0, 1\)"),
        ("optim.plateau_factor", 1.0, r"a number in \(0, 1\)"),
        ("optim.plateau_min_rate", -1e-5, "0 or more"),
        ("optim.pct_start", 1.0, r"a number in \(0, 1\)"),
        ("optim.cycles", 0, r"a whole number in \[1, 10000\]"),
        ("optim.warmup_start_factor", 2.0, r"a number in \[0, 1\]"),
        ("loss.aux_weight", np.nan, "0 or more"),
        ("data.eval_images", 0, r"a whole number in \[1, 100000000\]"),
        ("seed", 2**32, r"a whole number in \[0, 4294967295\]"),
    ],
)
def test_ranges(name, value, allowed):
    with pytest.raises(ValueError, match=rf"{re.escape(name)}={value}; use {allowed}"):
        check_options(tiny(**{name: value}))


def test_the_ends_that_belong_to_a_range_pass():
    config = {"optim.momentum": 0.0, "optim.end_factor": 1.0, "seed": 2**32 - 1}
    check_options(tiny(**config, **{"data.eval_images": 1, "optim.beta1": 0.0}))


@pytest.mark.parametrize("label_size", [(66, 98), (320, 227), (7, 240), (0, 0), ("own",)])
def test_label_sizes_of_any_shape(label_size):
    check_options(tiny(**{"data.label_size": label_size}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"train.log_every": 0}, r"train\.log_every=0"),  # check_options is called
        ({"dtype": "float16"}, r"dtype='float16' is unknown; known: float32, bfloat16"),
        ({"model.name": "linknet"}, r"model\.name='linknet' is unknown; known models: segnet, "),
        ({"model.depth": 3}, r"model\.depth: pspnet has no such option; it has encoder, "),
        ({"data.name": "kitti"}, r"data\.name='kitti' is unknown; known data sets: streets, "),
        ({"data.num_classes": 5}, r"data\.num_classes=5 but streets has 7 classes"),
        ({"data.val_split": "dev"}, r"split.*dev"),
        ({"data.eval_splits": ("val", "quiz")}, r"split.*quiz"),
        ({"train.batch_size": 12}, r"has 10 images but train\.batch_size=12; use .*<=10"),
        ({"optim.name": "lions"}, r"optim\.name='lions' is unknown"),
        ({"optim.schedule": "exp"}, r"optim\.schedule='exp' is unknown"),
        ({"optim.warmup_steps": 720}, r"optim\.warmup_steps=720; use 0 \.\. 719"),
        ({"augment.scale": (2.0, 1.0)}, r"augment\.scale=\(2\.0, 1\.0\)"),
        ({"parallel.mode": "xmap"}, r"parallel\.mode='xmap'; use jit"),  # make_devices is called
        ({"loss.class_weights": "inverse"}, r"loss\.class_weights='inverse'; use none, pub"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_prepare_names_what_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        setup_run(tiny(**options))


def test_prepare_steps_sizes_and_structure():
    setup = setup_run(tiny(**{"train.steps": 30, "train.eval_every": 7, "train.ema_decay": 0.9}))
    assert (setup.total_steps, setup.eval_every) == (30, 7)
    assert setup.crop_size == (33, 49)
    assert setup.classes is IDD_LEVEL1
    assert len(setup.train) == 10
    assert setup.train[0]["image"].shape == (33, 49, 3)
    assert float(setup.schedule(0)) == pytest.approx(0.1)
    assert float(setup.schedule(30)) == 0
    assert setup.objective.aux_weight == 0.4
    assert setup.objective.class_weights is None
    assert setup.objective.augmentation.scale == (0.75, 1.5)
    state = setup.abstract_state()
    assert state.step.shape == ()
    assert jax.tree.map(np.shape, state.ema["params"]) == jax.tree.map(np.shape, state.params)
    assert {x.sharding.is_fully_replicated for x in jax.tree.leaves(state)} == {True}


def test_terms_of_the_loss():
    options = {"loss.terms": "ohem + 0.5*lovasz", "loss.aux_terms": "dice", "loss.aux_weight": 0.2}
    objective = setup_run(tiny(**options, **{"loss.class_weights": "1,2,1,1,1,1,0"})).objective
    assert [(t.factor, t.name) for t in objective.terms] == [(1, "ohem"), (0.5, "lovasz_softmax")]
    assert [t.name for t in objective.aux_terms] == ["dice"]
    assert objective.aux_weight == 0.2
    assert objective.class_weights == (1, 2, 1, 1, 1, 1, 0)


def test_one_class_needs_a_sigmoid(tmp_path):
    """Softmax of one class is 1 everywhere: a loss of 0 and an IoU of 1 from the start."""
    config = median_folder(tmp_path)
    config.data.classes = "road"
    with pytest.raises(
        ValueError, match=r"'softmax' with one class \(road\).*; use model\.head=sigmoid with"
    ):
        setup_run(config)


def test_epochs_become_steps_and_evaluations_are_once_an_epoch():
    # 10 images in batches of 4: 2.5 steps an epoch.
    options = {"train.steps": 0, "train.epochs": 3.0, "train.eval_every": 0}
    setup = setup_run(tiny(**options, **{"augment.crop_size": (16, 24)}))
    assert (setup.total_steps, setup.eval_every) == (8, 3)
    assert setup.crop_size == (16, 24)
    assert setup.train[0]["image"].shape == (33, 49, 3)


def test_a_saved_config_prepares_alike(tmp_path):
    config = tiny(**{"loss.class_weights": "1,1,1,1,1,1,2", "model.bins": (1, 2)})
    configs.save(config, tmp_path)
    ours, theirs = setup_run(config), setup_run(configs.load(tmp_path))
    assert ours.objective == theirs.objective
    assert ours.model == theirs.model


def test_protocol_says_the_sizes():
    assert "images at 33x49, scored at 33x49, single scale, no flip" in describe_protocol(tiny())
    for size, words in (((66, 98), "66x98, to which predictions"), (("own",), "the labels' own")):
        said = describe_protocol(tiny(**{"data.label_size": size}))
        assert f"images at 33x49, scored at {words}" in said
    assert "classes absent" in describe_protocol(tiny())


@pytest.mark.parametrize(
    "scales, flip, words",
    [
        ([1.0], True, "scale 1, mirrored too"),
        ([0.5], False, "scale 0.5"),
        ([0.75, 1.25], False, "scales 0.75, 1.25"),
    ],
)
def test_protocol_says_the_views(scales, flip, words):
    said = describe_protocol({**tiny().to_dict(), "views": {"scales": scales, "flip": flip}})
    assert said.endswith(f"scored at 33x49, {words}")


def test_classes_of_a_run_are_those_saved_with_it(tmp_path):
    config = tiny()
    assert configs.load_classes(config, tmp_path) is IDD_LEVEL1
    configs.save_classes(from_names(["a", "b"]), tmp_path)
    assert configs.load_classes(config, tmp_path) == from_names(["a", "b"])


ABC = SimpleNamespace(classes=from_names(["a", "b", "c"]))


def weights_for(option):
    return class_weights({"loss": {"class_weights": option}}, ABC, None)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "option, expected",
    [
        ("none", None),
        ((1.0, 0.5, 0), (1.0, 0.5, 0.0)),
        ([1, 2, 3], (1.0, 2.0, 3.0)),
        ("1.0, 0.5,2", (1.0, 0.5, 2.0)),
    ],
)
def test_class_weights_as_given(option, expected):
    assert weights_for(option) == expected


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "option",
    ["median", "", "1,2", (1.0, 2.0), (1, 2, 3, 4), (1, -1, 1), "1,nan,1", "0,0,0", None, 0.5],
)
def test_class_weights_that_will_not_do_name_the_options(option):
    message = rf"loss\.class_weights={re.escape(repr(option))}; use none, published, median_present"
    with pytest.raises(ValueError, match=message + r".* or 3 numbers .*not all 0 \(a, b, c\)"):
        weights_for(option)


def test_published_class_weights():
    config = base.get_config()
    config.loss.class_weights = "published"
    with pytest.raises(ValueError, match=r"no weights were published for streets; use median_p"):
        class_weights(config, Splits(config.data), None)
    config.data.name = "camvid"
    assert class_weights(config, Splits(config.data), None)[:2] == (0.2595, 0.1826)


def median_folder(root):
    """Two 2x4 masks: a fills 4 of 8 and 3 of 8 pixels, b 4 of 8, c 1 of 8; 4 are ignored."""
    for split in ("train", "val"):
        for name, ids in (("x", [[0, 0, 0, 0], [1] * 4]), ("y", [[0, 0, 0, 2], [255] * 4])):
            image = np.add.outer(np.arange(8).reshape(2, 4) * 30, [ord(name), 0, 9])
            for kind, picture in (("images", image), ("masks", np.array(ids))):
                folder = root / kind / split
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(folder / f"{name}.png")
    config = base.get_config()
    config.data.name, config.data.root, config.data.classes = "folder", str(root), "a,b,c"
    config.loss.class_weights = "median_present"
    config.data.image_size, config.data.eval_splits = (16, 32), ("val",)
    config.train.steps, config.train.batch_size = 5, 2
    return config


def test_median_present_is_counted_from_a_checked_split(tmp_path):
    """Frequencies 7/16, 4/8, 1/8, whose median is 7/16; the check at the start has the counts."""
    config = median_folder(tmp_path / "data")
    weights = setup_run(config, tmp_path / "run").objective.class_weights
    assert weights == pytest.approx((1.0, 7 / 8, 3.5))
    assert not (tmp_path / "run").exists()


def test_counts_of_a_large_split_are_kept(tmp_path, monkeypatch):
    """One that is checked in part is counted in full, until the data change."""
    monkeypatch.setattr(checks, "_QUICK_FILES", 1)
    config = median_folder(tmp_path / "data")
    cache = tmp_path / "run" / "class_statistics.json"

    def weights(workdir=tmp_path / "run"):
        return class_weights(config, Splits(config.data), workdir)

    assert weights() == pytest.approx((1.0, 7 / 8, 3.5))
    kept = json.loads(cache.read_text())
    assert kept["statistics"]["class_pixels"] == [7, 4, 1]
    # An edit of the file shows in the weights ...
    kept["statistics"] |= {"class_pixels": [14, 4, 1], "present_pixels": [16, 8, 8]}
    cache.write_text(json.dumps(kept))
    assert weights() == pytest.approx((4 / 7, 1.0, 4.0))
    # ... but not without the folder, nor once the data have changed.
    assert weights(None) == pytest.approx((1.0, 7 / 8, 3.5))
    mask = np.array([[0, 0, 1, 2], [255] * 4], np.uint8)
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "train" / "y.png")
    # 6/16, 5/16, 1/8: the median is 5/16.
    assert weights() == pytest.approx((5 / 6, 1.0, 2.5))


def test_prepare_hands_on_sampling_and_local_contrast():
    assert setup_run(tiny()).order is None
    setup = setup_run(tiny(**{"data.sampling": "balanced", "data.local_contrast": 5}))
    assert {int(setup.order[i]) for i in range(200)} <= set(range(10))
    assert setup.objective.normalization.local_contrast == 5
