"""Every config and preset is loaded, and its model and schedule built without computing them."""

import functools
import importlib
import pathlib
import re

import jax
import numpy as np
import pytest

from configs import base, presets, recipes
from segjax import models
from segjax.data.datasets import class_table
from segjax.models.segnet_basic import TABLE1
from segjax.training import mesh, optim, schedules
from segjax.training.options import check_options
from segjax.transforms.augment import Augmentation

FOLDER = pathlib.Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("base", "presets", "recipes"))
# The seed documents' own networks have the documents' presets: test_notebooks.py.
RECIPES = [name for name in NAMES if name != "notebooks"]


def load(name):
    return importlib.import_module(f"configs.{name}")


def presets_of(name):
    """From the error that lists them."""
    with pytest.raises(ValueError, match="preset 'none such' is unknown") as error:
        load(name).get_config("none such")
    return re.search(r" has (.*)$", str(error.value)).group(1).split(", ")


CASES = [(name, preset) for name in NAMES for preset in presets_of(name)]
FIRST = {(name, presets_of(name)[0]) for name in NAMES}
slow = pytest.mark.slow


def test_the_configs_cover_the_model_table():
    named = {load(name).get_config(preset).model.name for name, preset in CASES}
    assert named == set(models.MODELS)


@pytest.mark.parametrize("name", RECIPES)
def test_unknown_preset_lists_the_presets(name):
    assert {"streets", "camvid", "camvid_small", "idd"} <= set(presets_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_docstring_names_the_command_of_every_preset(name):
    commands = re.findall(rf"--config=configs/{name}\.py(?::(\w+))?\s", load(name).__doc__)
    assert sorted(c or "streets" for c in commands) == sorted(presets_of(name))
    assert load(name).get_config() == load(name).get_config("streets")


@pytest.mark.parametrize("name", NAMES)
def test_configs_hold_every_option_a_run_might_set(name):
    config = load(name).get_config()
    assert set(config.model) == set(models.model_defaults(config.model.name))
    # Sections and options are those of base.py; only the model's differ.
    plain = base.get_config(config.model.name)
    assert set(config) == set(plain)
    for section in set(plain) - {"model", "seed", "dtype"}:
        assert set(config[section]) == set(plain[section])


@pytest.mark.parametrize("name, preset", CASES)
def test_preset_builds(name, preset):
    config = load(name).get_config(preset)
    check_options(config)
    num_classes = len(class_table(config.data))
    model = models.build(config.model, num_classes, config.dtype)
    total = config.train.steps or 100
    schedule = schedules.make_schedule(config.optim, total)
    assert 0 < float(schedule(total // 2)) <= config.optim.learning_rate
    optimizer = optim.make_optimizer(config.optim, schedule)
    mesh.make_devices({**config.parallel, "data": 1}, config.data.image_size[0])
    assert model.num_classes == num_classes
    assert optimizer.init({"kernel": np.zeros((3, 3), np.float32)})


@pytest.mark.parametrize(
    "name, preset",
    [
        # Each config's first; the others have other widths, depths and options, tested elsewhere.
        (name, preset) if (name, preset) in FIRST else pytest.param(name, preset, marks=slow)
        for name, preset in CASES
    ],
)
def test_presets_network(name, preset):
    config = load(name).get_config(preset)
    num_classes = len(class_table(config.data))
    images = jax.ShapeDtypeStruct((1, 65, 65, config.data.channels), np.float32)
    model = models.build(config.model, num_classes, config.dtype)
    init = functools.partial(model.init, train=False)
    params = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0), images)["params"])
    assert 10_000 < sum(np.prod(p.shape) for p in params) < 230_000_000
    assert all(p.dtype == np.float32 for p in params)
    assert num_classes in {p.shape[-1] for p in params}


def test_base_has_a_models_own_defaults():
    for name in models.MODELS:
        assert base.get_config(name).model.to_dict() == models.model_defaults(name)


def test_presets_hold_nothing_of_a_setting_that_they_replace():
    # The warm-up is AdamW's, which these replace by the paper's solver.
    for name in ("segnet", "segnet_basic", "deconvnet"):
        for preset in ("streets", "camvid_small"):
            assert load(name).get_config(preset).optim.warmup_steps == 0
    assert load("segnet_basic").get_config("paper+mmseg").data.local_contrast == 0


def test_a_misspelt_option_of_a_preset_is_an_error():
    for change in (lambda c: c.model.update(widht=1.0), lambda c: c.optim.update(lr=0.1)):
        with pytest.raises(KeyError):
            presets.make("segnet", "wrong", {"wrong": change})


# What the three notebooks on the India Driving Dataset train with.
NOTEBOOKS = {
    "segnet": dict(rate=1e-4, batch=16, epochs=30, stop=5, plateau=3, lowest=1e-5),
    "pspnet": dict(rate=1e-3, batch=8, epochs=30, stop=3, plateau=2, lowest=5e-4),
    "deeplabv3": dict(rate=1e-3, batch=8, epochs=50, stop=5, plateau=3, lowest=5e-4),
}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_idd_presets_are_the_seed_notebooks(name):
    config, notebook = load(name).get_config("idd"), NOTEBOOKS[name]
    assert config.optim.name == "adam"
    assert config.optim.learning_rate == notebook["rate"]
    assert config.optim.schedule == "constant"
    assert config.optim.weight_decay == 0
    assert config.optim.plateau_patience == notebook["plateau"]
    assert config.optim.plateau_factor == 0.2
    assert config.optim.plateau_min_rate == notebook["lowest"]
    assert config.train.batch_size == notebook["batch"]
    assert (config.train.steps, config.train.epochs) == (0, notebook["epochs"])
    assert config.train.early_stop_patience == notebook["stop"]
    assert config.train.eval_every == 0  # once an epoch
    assert tuple(config.data.image_size) == (240, 480)
    assert len(class_table(config.data)) == 7
    assert config.loss.class_weights == "none"
    assert not config.augment.flip
    assert tuple(config.augment.scale) == (1, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_camvid_presets_are_the_authors_data(name):
    config = load(name).get_config("camvid")
    assert tuple(config.data.image_size) == (360, 480)
    assert len(class_table(config.data)) == 11
    small = load(name).get_config("camvid_small")
    assert tuple(small.data.label_size) == (360, 480)  # scored at the published size


def test_table1_presets_differ_from_the_papers_in_the_decoder_alone():
    plain = load("segnet_basic").get_config("paper")
    for row, options in TABLE1.items():
        config = load("segnet_basic").get_config(row)
        assert {k: config.model[k] for k in options} == options
        config.model.update({k: plain.model[k] for k in options})
        assert config == plain, row


@pytest.mark.parametrize("name", ["fcn_vgg", "largefov", "deconvnet"])
def test_comparison_networks_share_table3s_recipe(name):
    config = load(name).get_config("paper")
    assert (config.optim.name, config.optim.schedule) == ("sgd", "constant")
    assert (config.optim.learning_rate, config.optim.momentum) == (0.001, 0.9)
    assert config.train.batch_size == 5
    assert config.loss.class_weights == "none"
    assert (tuple(config.augment.scale), config.augment.flip) == ((1, 1), False)


@pytest.mark.parametrize("preset", ["streets", "camvid", "camvid_small", "idd", "paper"])
def test_deconvnets_fc6_sees_the_whole_bottom_map(preset):
    config = load("deconvnet").get_config(preset)
    bottom = tuple(-(-n // 32) for n in config.data.image_size)
    assert tuple(config.model.fc_kernel) == bottom


def test_streets_presets_need_no_files():
    for name in NAMES:
        data = load(name).get_config().data
        assert (data.name, data.root) == ("streets", "")


def test_papers_presets_have_their_papers_augmentation():
    augment = load("pspnet").get_config("paper").augment
    assert (augment.rotate, augment.blur, tuple(augment.crop_size)) == (10, 0.5, (473, 473))
    augment = load("deeplabv3").get_config("paper").augment
    assert (augment.rotate, augment.blur, tuple(augment.crop_size)) == (0, 0, (513, 513))
    augment = load("deeplabv3").get_config("torchvision").augment
    assert (tuple(augment.crop_size), augment.flip, augment.hue) == ((480, 480), True, 0)
    data = {p: load("segnet_basic").get_config(p).data for p in ("paper", "bayesian", *TABLE1)}
    assert {p for p in data if data[p].local_contrast == 9} == {"paper", *TABLE1}


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_a_recipe_changes_the_augmentation_alone_and_all_of_it(recipe):
    plain = load("pspnet").get_config("camvid")
    config = load("pspnet").get_config(f"camvid+{recipe}")
    views = Augmentation.from_config(config)
    assert views.crop_size <= (360, 480)
    recipes.RECIPES[recipe](plain)
    assert config == plain
    plain.augment.update(crop_size=(99, 99), rotate=5.0, max_class_share=0.1, blur=1.0, hue=0.3)
    recipes.RECIPES[recipe](plain)
    assert config == plain  # nothing of what was there is left
    with config.unlocked():
        config.augment = load("pspnet").get_config("camvid").augment
        config.data.local_contrast = 0
    assert config == load("pspnet").get_config("camvid")


def test_unknown_recipe_lists_the_recipes():
    with pytest.raises(ValueError, match=r"recipe 'mm' is unknown.* nothing, segnet, deeplab, psp"):
        load("pspnet").get_config("camvid+mm")
