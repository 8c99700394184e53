"""Every table is read, and every row's config, model and schedule are built at every scale."""

import functools
import json

import jax
import numpy as np
import pytest

from segjax import models
from segjax.config import difference, with_overrides
from segjax.data.datasets import class_table, spec_of
from segjax.inference.crf import DenseCRF
from segjax.published import cost, table
from segjax.published.runs import config_of
from segjax.training import mesh, optim, schedules
from segjax.transforms.augment import Augmentation
from segjax.weights import hub

NAMES = table.names()
CASES = [(name, scale) for name in NAMES for scale in table.read_table(name).scales]
# Splits that a data set has by another name, or draws.
SPLITS = {"ade20k": ("train", "val")}


@functools.cache
def read(name):
    return table.read_table(name)


@functools.cache
def configs_at(name, scale):
    """Row -> config, of the rows that are trained."""
    rows = read(name).rows_at(scale)
    return {row.name: config_of(read(name), row, scale) for row in rows if row.config}


def options_of(model):
    """What two configs must share to have the same parameters."""
    return json.dumps(model.to_dict(), sort_keys=True, default=list)


def abstract_variables(config):
    """Shapes of a network's variables, nothing computed."""
    model = models.build(config.model, len(class_table(config.data)), config.dtype)
    images = jax.ShapeDtypeStruct((1, 65, 65, config.data.channels), np.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)


def parameters(config):
    """The number of parameters, nothing computed."""
    params = jax.tree.leaves(abstract_variables(config)["params"])
    return sum(int(np.prod(p.shape)) for p in params)


def test_the_tables_of_the_papers_are_there():
    assert {"segnet/1", "segnet/3", "segnet/6", "bayesian_segnet/camvid", "torchvision/voc"} < {
        *NAMES
    }
    assert {f"pspnet/{k}" for k in (1, 2, 4)} < {*NAMES}
    assert {f"deeplabv3/{k}" for k in (1, 2, 3, 4, 5, 6)} < {*NAMES}
    assert {"semseg/1", "notebooks/idd", "notebooks/ncsu"} < {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_table_says_what_it_shows_and_what_differs(name):
    read_table = read(name)
    assert {"paper", "cpu"} <= {*read_table.scales} <= {"paper", "cpu", "gpu15"}
    assert read_table.about
    for scale in {*read_table.scales} - {"paper"}:
        assert read_table.scales[scale].about
        names = {row.name for row in read_table.rows_at(scale)}
        assert names >= {*read_table.scales[scale].first}
        runs = [row for row in read_table.rows_at(scale) if row.is_run]
        assert bool(runs) == bool(read_table.scales[scale].options)


@pytest.mark.parametrize("name, scale", CASES)
def test_rows_are_built(name, scale):
    seen = set()
    for config in configs_at(name, scale).values():
        steps = config.train.steps or 100
        key = options_of(config.model), steps, options_of(config.optim), config.data.name
        if key in seen:
            continue
        seen.add(key)
        num_classes = len(class_table(config.data))
        model = models.build(config.model, num_classes, config.dtype)
        assert model.num_classes == num_classes
        schedule = schedules.make_schedule(config.optim, steps)
        assert 0 < float(schedule(steps // 2)) <= config.optim.learning_rate
        assert optim.make_optimizer(config.optim, schedule)
        mesh.make_devices({**config.parallel, "data": 1}, config.data.image_size[0])
        Augmentation.from_config(config)


@pytest.mark.parametrize("name, scale", CASES)
def test_columns_are_measured(name, scale):
    at = read(name).at(scale)
    for row in at.rows_at(scale):
        if row.config and "cost" not in row.then:
            data = configs_at(name, scale)[row.name].data
            known = SPLITS.get(data.name, spec_of(data).splits)
            evaluated = [*data.eval_splits] or [data.val_split, *({"test"} & {*known})]
            assert {*evaluated, data.train_split, data.val_split} <= {*known}
            splits = [c.split for c in at.columns if c.measure in table.MEASURES]
            assert {*splits} <= {*evaluated}, row.name
            wanted = {c.measure for c in at.columns if c.name in row.paper}
            measures = configs_at(name, scale)[row.name].report.measures
            assert "boundary" in measures or not wanted & {"boundary_f1", "boundary_iou"}
        measured = cost.MEASURES if "cost" in row.then else table.MEASURES
        for column in at.columns:
            assert column.name not in row.paper or column.measure in measured, row.name


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_follow_can_follow(name):
    for scale in read(name).scales:
        configs = configs_at(name, scale)
        for row in read(name).rows_at(scale):
            if row.continues in configs:
                shorter, longer = configs[row.continues], configs[row.name]
                # Another length would have given the first steps other rates.
                assert longer.optim.schedule == "constant"
                assert longer.train.steps > shorter.train.steps
                assert {*difference(shorter, longer)} == {"train.steps"}
            if "dropout" in row.then and row.of in configs:
                assert configs[row.of].model.dropout_rate > 0
            if "crf" in row.then:
                DenseCRF.from_options({k: float(v) for k, v in row.then["crf"].items()})
            if "recalibrate" in row.then and row.config:
                assert configs[row.name].model.name in ("segnet", "segnet_basic", "deconvnet")


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_there_by_their_names_for_the_networks(name):
    seen = set()
    for scale in read(name).scales:
        for config in configs_at(name, scale).values():
            source, key = config.init_from, (config.init_from, options_of(config.model))
            if not source or key in seen:
                continue
            seen.add(key)
            if source.endswith(".pth"):
                assert source.startswith("weights/")
                continue
            model = models.build(config.model, len(class_table(config.data)), config.dtype)
            row = hub.find(source, hub.networks_of(model))
            assert row is not None, source
            hub._check_stem(row, model)


@pytest.mark.parametrize("name", ["deeplabv3/4", "deeplabv3/6"])
def test_other_options_leave_the_parameters_as_they_are(name):
    configs = configs_at(name, "cpu")
    rows = {str(r.then["options"]): r for r in read(name).rows if "options" in r.then}
    for row in rows.values():
        changed = with_overrides(configs[row.of], row.then["options"])
        assert {*difference(configs[row.of], changed)} == {"model.output_stride"}
        assert abstract_variables(changed) == abstract_variables(configs[row.of])


# Numbers that the papers print of what a network is, and the share by which they are rounded or
# leave normalisation out.
SIZES = {
    "torchvision/voc": ("parameters (M)", 0),
    "segnet/6": ("model (MB)", 0.02),
    "segnet/1_cost": ("parameters (M)", 0.025),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_papers_size(name):
    column, share = SIZES[name]
    for row in read(name).rows:
        if column in row.paper:
            config = configs_at(name, "paper")[row.of or row.name]
            count = parameters(config) / 1e6
            found = count * 4 if "MB" in column else count
            assert found == pytest.approx(row.paper[column], rel=share, abs=1e-9), row.name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_networks_of_rows(name):
    seen = {}
    for scale in read(name).scales:
        for config in configs_at(name, scale).values():
            seen.setdefault((options_of(config.model), config.data.name), config)
    for config in seen.values():
        assert 10_000 < parameters(config) < 230_000_000
