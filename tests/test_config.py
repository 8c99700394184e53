import functools
import json

import ml_collections
import pytest

from configs import base, pspnet
from segjax import config as configs
from segjax.data.class_lists import read_class_list
from segjax.data.sets.camvid import CAMVID
from segjax.training.options import check_options


def test_plain_is_what_json_holds():
    config = ml_collections.ConfigDict({"a": (1, 2), "b": {"c": 0.5, "d": "x", "e": None}})
    expected = {"a": [1, 2], "b": {"c": 0.5, "d": "x", "e": None}}
    assert configs.plain(config) == expected
    assert configs.plain({"a": (1, 2), "b": {"c": 0.5, "d": "x", "e": None}}) == expected


def test_flatten_joins_names_with_dots():
    nested = ml_collections.ConfigDict({"a": 1, "b": {"c": [2, 3], "d": {"e": "x"}}})
    assert configs.flatten(nested) == {"a": 1, "b.c": [2, 3], "b.d.e": "x"}


def test_difference_lists_what_differs_and_what_is_missing():
    ours = {"a": 1, "b": {"c": (1, 2), "d": 3, "only": 4}}
    theirs = {"a": 1, "b": {"c": [1, 2], "d": 5, "other": False}}
    assert configs.difference(ours, theirs) == {
        "b.d": (3, 5),
        "b.only": (4, None),
        "b.other": (None, False),
    }
    assert configs.difference(base.get_config(), base.get_config()) == {}


def test_save_and_load_round_trip(tmp_path):
    config = pspnet.get_config()
    configs.save(config, tmp_path)
    loaded = configs.load(tmp_path)
    assert configs.difference(config, loaded) == {}
    assert configs.load(str(tmp_path)).optim.learning_rate == config.optim.learning_rate
    assert json.loads((tmp_path / "config.json").read_text())["model"]["name"] == "pspnet"
    configs.save(loaded, tmp_path)  # and once more
    assert configs.difference(config, configs.load(tmp_path)) == {}


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"workdir .* holds no run \(there is no config\.json\)"):
        configs.load(tmp_path)
    configs.check_same_run(base.get_config(), tmp_path)  # a new run may start there


def test_options_that_change_no_result_may_differ(tmp_path):
    config = base.get_config()
    configs.save(config, tmp_path)
    config.data.root, config.data.workers, config.data.cache_mb = "elsewhere", 4, 1.0
    config.data.eval_splits = ("test",)
    config.train.log_every = 1
    config.train.on_nonfinite, config.data.on_unreadable = "rollback", "skip"
    config.parallel.data = 8
    config.report.samples = 2
    configs.check_same_run(config, tmp_path)


def test_a_models_option_that_a_run_lacks_has_its_default(tmp_path):
    config = pspnet.get_config()
    del config.model.bins, config.model.stem
    configs.save(config, tmp_path)
    configs.check_same_run(pspnet.get_config(), tmp_path)
    config.model.stem = "7x7"
    with pytest.raises(ValueError, match=r"model\.stem: '3x3' there, '7x7' now"):
        configs.check_same_run(config, tmp_path)


def test_another_run_is_refused_with_the_options_that_differ(tmp_path):
    config = base.get_config()
    configs.save(config, tmp_path)
    config.optim.learning_rate, config.seed, config.data.image_size = 0.5, 3, (64, 64)
    config.data.root = "elsewhere"
    with pytest.raises(ValueError, match="holds a run with another config") as error:
        configs.check_same_run(config, tmp_path)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == [
        "  data.image_size: [97, 193] there, [64, 64] now",
        "  optim.learning_rate: 0.01 there, 0.5 now",
        "  seed: 0 there, 3 now",
    ]
    assert lines[-1].startswith("use another --workdir")


def test_classes_round_trip(tmp_path):
    configs.save_classes(CAMVID, tmp_path)
    assert read_class_list(tmp_path / configs.CLASSES_FILE).classes == CAMVID


def a_rule(rate, scale=1.0):
    return rate * scale


def test_functions_are_saved_by_name_and_source_and_come_back_as_text(tmp_path):
    config = base.get_config()
    config.optim.optimizer_function = a_rule
    configs.save(config, tmp_path)
    saved = configs.load(tmp_path).optim.optimizer_function
    assert saved.startswith("a_rule, source ")
    configs.check_same_run(config, tmp_path)  # the function of the config file again
    config.optim.optimizer_function = functools.partial(a_rule, scale=2.0)
    with pytest.raises(ValueError, match=r"optimizer_function: 'a_rule, source .*\]' now"):
        configs.check_same_run(config, tmp_path)
    with pytest.raises(TypeError, match="cannot be saved as JSON"):
        configs.plain({"a": object()})


def test_an_option_that_an_older_run_lacks_has_its_default(tmp_path):
    config = base.get_config("pspnet")
    older = base.get_config("pspnet")
    del older.optim.eta_min, older.optim.optimizer_function, older.train.ema_warmup
    configs.save(older, tmp_path)
    configs.check_same_run(config, tmp_path, base.get_config("pspnet"))
    config.optim.eta_min = 0.001
    with pytest.raises(ValueError, match=r"optim\.eta_min: 0\.0 there, 0\.001 now"):
        configs.check_same_run(config, tmp_path, base.get_config("pspnet"))


def test_factors_by_part_are_text_in_every_config(tmp_path):
    config = base.get_config().lock()
    config.optim.lr_scale = {"head": 10, "encoder/stage[23].*": 0.5}
    assert config.optim.lr_scale == "head=10,encoder/stage[23].*=0.5"
    config.optim.update(decay_scale={"bias": 0}, lr_scale="aux=2")
    assert (config.optim.decay_scale, config.optim.lr_scale) == ("bias=0", "aux=2")
    configs.save(config, tmp_path)
    assert configs.load(tmp_path).optim.decay_scale == "bias=0"
    assert config.copy_and_resolve_references().optim.lr_scale == "aux=2"
    changed = configs.with_overrides(
        config, {"optim.lr_scale": "head=10,aux=10,bias=2", "train.freeze": "encoder,norm"}
    )
    assert changed.optim.lr_scale == "head=10,aux=10,bias=2"
    assert changed.train.freeze == ("encoder,norm",)


@pytest.mark.parametrize("everywhere, text", [(True, ""), (False, "bias=0,norm=0")])
def test_the_decay_of_an_older_run_keeps_its_meaning(tmp_path, everywhere, text):
    config = base.get_config().to_dict()
    for section, name in (
        ("optim", "lr_scale"),
        ("optim", "decay_scale"),
        ("optim", "layer_decay"),
        ("train", "freeze"),
    ):
        del config[section][name]
    config["optim"]["decay_biases_and_norms"] = everywhere
    configs.save(config, tmp_path)
    loaded = configs.load(tmp_path)
    assert loaded.optim.decay_scale == text
    assert "decay_biases_and_norms" not in loaded.optim
    ours = base.get_config()
    ours.optim.decay_scale = text
    configs.check_same_run(ours, tmp_path, base.get_config())
    ours.train.freeze = ("norm",)
    with pytest.raises(ValueError, match=r"train\.freeze: \[\] there, \['norm'\] now"):
        configs.check_same_run(ours, tmp_path, base.get_config())


def test_masks_of_earlier_versions_are_the_mask_format(tmp_path):
    config = base.get_config().to_dict()
    del config["data"]["mask_format"]
    config["data"]["masks"] = "bits"
    configs.save(config, tmp_path)
    loaded = configs.load(tmp_path)
    assert loaded.data.mask_format == "bits"
    assert loaded.data.masks == ""
    ours = base.get_config()
    ours.data.masks, ours.train.steps = "bits", 1
    with pytest.raises(ValueError, match=r"data\.masks='bits' is now data\.mask_format=bits"):
        check_options(ours)
