"""The table of accelerators, and the names that stand for some of them."""

import importlib.util
import json
import re

import pytest

from segjax.accelerators import DEVICES, devices, missing_plugin, parse


@pytest.mark.parametrize(
    "name, kind, chips, count, platform",
    [
        ("a100", "a100", 1, 1, "cuda"),
        ("h100x8", "h100", 8, 8, "cuda"),
        ("b200x16", "b200", 16, 16, "cuda"),
        ("tpu:v5e:2x4", "v5e", 8, 8, "tpu"),
        ("tpu:v6e:1x1", "v6e", 1, 1, "tpu"),
        ("tpu:v5p:2x2x2", "v5p", 8, 8, "tpu"),
        ("tpu:v4:2x2x2", "v4", 8, 16, "tpu"),  # two cores a chip
    ],
)
def test_names(name, kind, chips, count, platform):
    target = parse(name)
    assert (target.name, target.device.name) == (name, kind)
    assert (target.chips, target.count) == (chips, count)
    assert target.device.platform == platform


@pytest.mark.parametrize(
    "name, message",
    [
        ("h300", r"--target=h300 is unknown; known: a100, h100, h200, b200, .*h100x8"),
        ("h100x0", r"--target=h100x0 is unknown"),
        ("v5e", r"--target=v5e is unknown; .* tpu:v5e:4x4"),
        ("tpu:v5e", r"--target=tpu:v5e is unknown"),
        ("tpu:v9:2x2", r"TPU 'v9' is unknown; known: v4, v5e, v5p, v6e"),
        ("tpu:h100:2x2", r"TPU 'h100' is unknown"),
        ("tpu:v4:2x2", r"v4 slices have 3 sides .*tpu:v4:4x4x4"),
        ("tpu:v5e:2x2x2", r"v5e slices have 2 sides .*tpu:v5e:4x4"),
        ("tpu:v5e:0x2", r"v5e slices have 2 sides"),
        ("", r"--target= is unknown"),
    ],
)
def test_unknown_names_list_the_known(name, message):
    with pytest.raises(ValueError, match=message):
        parse(name)


@pytest.mark.parametrize(
    "name, line",
    [
        ("h200", r'pip install "jax-cuda12-plugin\[with-cuda\]==[\d.]+" .*no GPU is needed'),
        ("tpu:v5e:2x2", r'pip install "jax\[tpu\]==[\d.]+".*no TPU is needed'),
    ],
)
def test_a_missing_compiler_is_answered_by_the_line_that_installs_it(name, line, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    assert re.search(line, missing_plugin(parse(name).device))
    with pytest.raises(ValueError, match=f"target {name}: .*is not installed"):
        parse(name).devices()


def test_a_compiler_that_is_there_is_not_missed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: module)
    assert missing_plugin(DEVICES["h200"]) == missing_plugin(DEVICES["v5e"]) == ""


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_the_table_is_whole(device):
    assert device.memory > 15e9
    assert device.bandwidth > 5e11
    assert device.peak["bfloat16"] >= device.peak["float32"] > 1e14
    assert all(source.startswith("https://") for source in device.sources)
    assert bool(device.gpu) != bool(device.dimensions)


def test_a_gpu_as_xla_wants_it_described():
    text = devices.xla_target_config(DEVICES["h100"])
    fields = dict(re.findall(r"(\w+): (\S+)", text))
    assert fields["core_count"] == "132"
    assert fields["memory_bandwidth"] == "3350000000000"
    assert fields["device_memory_size"] == "84942979072"
    assert fields["feature_extension"] == "ACCELERATED_FEATURES"
    assert json.loads(text.split("device_description_str: ")[1]) == DEVICES["h100"].kind
    assert text.count("{") == text.count("}")
    assert "feature_extension" not in devices.xla_target_config(DEVICES["a100"])
