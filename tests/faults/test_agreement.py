"""The processes of a run are of one mind: options, versions, workdir, data and port."""

import contextlib
import queue
import re
import socket
import threading
import time

import jax
import numpy as np
import pytest

from segjax.training import agreement, distributed
from tests.conftest import make_tiny_config
from tests.data.drawn import pairs
from tests.training.processes import TINY_RUN, free_address, start

SIZE = (40, 50)


class Others:
    """Stands for the other processes of a run: `gather` returns their values beside ours."""

    def __init__(self, monkeypatch, *, facts=(), sees=True):
        self.facts, self.sees, self.calls = dict(facts), sees, 0
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(agreement, "gather", self.gather)
        monkeypatch.setattr(agreement, "_SEEN_S", 0.0)

    def gather(self, ours):
        self.calls += 1
        if isinstance(ours, bool):
            return [ours, self.sees]
        if isinstance(ours, dict):
            return [ours, ours | self.facts]
        facts, name, _ = ours
        return [ours, (facts | self.facts, name, "/theirs")]


@pytest.mark.fault(
    "the processes of a run have other options, versions, or data",
    "all stop before the first step, and name what differs and where",
)
@pytest.mark.parametrize(
    "facts, words",
    [
        (
            {"optim.learning_rate": 0.2},
            "process 1 has optim.learning_rate=0.2, process 0 has optim.learning_rate=0.05",
        ),
        ({"seed": 5, "dtype": "bfloat16"}, "dtype='bfloat16', .*; process 1 has seed=5, process 0"),
        ({"jax": "0.1"}, "process 1 has jax='0.1', process 0 has jax="),
        ({"segjax": "0.0"}, "process 1 has segjax='0.0', process 0 has segjax='.*, sources"),
        ({"more": 1}, "process 1 has more=1, process 0 has more=None"),
        ({str(k): 0 for k in range(9)}, "; and 4 more. Start all with the same options"),
    ],
)
def test_processes_that_differ_stop(tmp_path, monkeypatch, facts, words):
    others = Others(monkeypatch, facts=facts)
    with pytest.raises(ValueError, match=words) as error:
        agreement.agree_on_run(make_tiny_config(), tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the processes of the run do not agree"):
        agreement.agree_on_data({"data of train": "abc"})
    assert others.calls == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "the processes of a run have other copies of the data at other places, or other workers",
    "they train together",
)
def test_processes_may_read_in_their_own_way(tmp_path, monkeypatch):
    own = {"data.root": "/local", "data.workers": 3, "data.cache_mb": 1.0, "data.timeout_s": 9.0}
    others, config = Others(monkeypatch), make_tiny_config()
    seen = []
    monkeypatch.setattr(agreement, "_compare", seen.append)
    agreement.agree_on_run(config, tmp_path)
    assert not own.keys() & seen[0][0].keys()
    assert others.calls == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "the processes of a run have workdirs that are not the same folder",
    "all stop within about half a minute, and name the two",
)
def test_a_workdir_that_is_not_shared_stops_all(tmp_path, monkeypatch):
    Others(monkeypatch, sees=False)
    with pytest.raises(ValueError, match=f"process 1 does not see .*=/theirs what .*{tmp_path}"):
        agreement.agree_on_run(make_tiny_config(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(
    "a process never comes to where the others wait for it",
    "the others end after two minutes at the start, a quarter of an hour after opening the data",
)
def test_no_process_waits_for_ever(monkeypatch, capsys):
    codes: queue.SimpleQueue = queue.SimpleQueue()
    monkeypatch.setattr(agreement.os, "_exit", codes.put)
    with agreement.within(0.01, "that all come"):
        assert codes.get(timeout=20) == distributed.EXIT_LOST
    error = capsys.readouterr().err
    assert error.startswith("error: process 0 waited 0.01 s for the others, that all come; see")
    assert (agreement._START_S, agreement._DATA_S) == (120, 900)
    with agreement.within(0.1, "nothing"):
        pass
    time.sleep(0.2)
    assert codes.empty()


@pytest.mark.fault(
    "another program listens on the coordinator's port",
    "process 0 says so at once, the others within a quarter of a minute",
)
@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.6\r\n"])
def test_an_occupied_port_is_named(monkeypatch, greeting):
    monkeypatch.setattr(distributed, "_PATIENCE_S", 0.3)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("too late"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer():
            with contextlib.suppress(OSError):
                server.accept()[0].sendall(greeting)

        threading.Thread(target=answer, daemon=True).start()
        for number, words in enumerate(("another program has this port", "is another program")):
            with pytest.raises(OSError, match=words) as error:
                distributed.start(address, 2, number)
            assert f"--coordinator={address}" in str(error.value)
            assert str(error.value).endswith("the same for all processes")
    with pytest.raises(pytest.fail.Exception):  # now it is free
        distributed.start(address, 2, 0)


@pytest.mark.slow
@pytest.mark.fault(
    "two real processes have other options, workdirs, versions or data, or an occupied port",
    "both end with exit code 2 and the reason",
)
@pytest.mark.parametrize(
    "own, words",
    [
        (("--config.seed=5",), "process 1 has seed=5, process 0 has seed=0"),
        (("--config.train.batch_size=4",), "process 1 has train.batch_size=4, process 0 has"),
        (("--workdir={tmp_path}/other",), "process 1 does not see"),
        ((), "the port"),
        (("--config.data.root={tmp_path}/two",), "process 1 has data of train={.*, process 0"),
    ],
    ids=["seed", "batch", "workdir", "port", "data"],
)
def test_two_processes_stop_together(tmp_path, own, words):
    options = [*TINY_RUN, "--config.train.steps=2", f"--workdir={tmp_path}/run"]
    if "data.root" in "".join(own):
        for name in ("one", "two"):
            for split in ("train", "val"):
                pairs(tmp_path / name, "abcdef", split, ids=np.eye(*SIZE), size=SIZE)
        pairs(tmp_path / "two", "a", ids=1 - np.eye(*SIZE), size=SIZE)
        options += ["--config.data.name=folder", f"--config.data.root={tmp_path}/one"]
        options += ["--config.data.classes=a,b"]
    own = [text.format(tmp_path=tmp_path) for text in own]
    replaced = {text.partition("=")[0] for text in own}  # a flag is given once
    of_each = [options, [o for o in options if o.partition("=")[0] not in replaced] + own]
    address = free_address()
    with contextlib.ExitStack() as stack:
        if words == "the port":
            host, _, port = address.partition(":")
            stack.enter_context(socket.create_server((host, int(port))))
        processes = [
            start(
                "launch.py",
                *of_each[number],
                f"--coordinator={address}",
                "--num_processes=2",
                f"--process_id={number}",
            )
            for number in range(2)
        ]
        outputs = [process.communicate(timeout=400) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == distributed.EXIT_USER_ERROR, error
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        if words != "the port":
            assert re.search(words, line), line
        else:
            assert f"--coordinator={address}" in line
