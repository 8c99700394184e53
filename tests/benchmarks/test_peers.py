"""The comparison with torch and Keras: ours alone runs it; the rest is arithmetic on made-up times.

What needs the peers themselves is in test_peers_networks.py.
"""

import json
import re

import jax
import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import machine, report, turns
from benchmarks.peers.rows import ROWS, Row

TINY = Row(
    "Tiny",
    images=1,
    size=(16, 16),
    classes=3,
    model={"name": "segnet_basic", "features": 4},
    peers={"torch": "no such network"},
)


def test_ours_runs_and_a_peer_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))
    file = tmp_path / "out.json"
    options = peers.parser().parse_args(
        ["--work=train", "--turns=1", "--busy-ok", f"--json={file}"]
    )
    result = peers.run([TINY], options)
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    ours, torch = result["rows"][0]["again"][0]["entries"]
    assert len(ours["seconds"]) == 1
    assert ours["seconds"][0] > 0
    assert ours["logits"] == [1, 16, 16, 3]
    assert ours["memory"]["steps"] > ours["memory"]["base"] > 2**20
    assert 0 < ours["value"] < 10  # a loss of three classes
    # torch is missing, or has no such network.
    assert re.match("ModuleNotFoundError: No module named 'torch'|KeyError", torch["error"])
    text = report.markdown([result])
    assert "A trial on a machine that others may have used" in text
    assert f"- Tiny 1x16x16, training step: torch failed: {torch['error']}" in text


def entry(name, seconds, **more):
    return {
        "name": name,
        "side": name,
        "seconds": seconds,
        "memory": {"base": 2**28, "start": 2**29, "steps": 2**30, "device": None},
        "versions": {name: "1.0"},
        "threads": f"{name}: 2",
        "device": "cpu",
        **more,
    }


def result(again, work="train"):
    row = {"title": "Net", "images": 2, "size": [24, 48], "classes": 3, "work": work}
    return {
        "made": "2026-01-02T03:04:05+00:00",
        "machine": {"processor": "P", "cores": 2, "memory": 2**33, "python": "3.11"},
        "options": dict(device="cpu", dtype="float32", turns=3, again=len(again), busy_ok=False),
        "rows": [{**row, "again": again}],
    }


def test_the_table_has_medians_quartiles_ratios_memory_and_reasons():
    failed = {"name": "Keras", "side": "keras", "error": "no kernel"}
    again = [
        {
            "entries": [entry("ours", [0.1, 0.2, 0.3]), entry("torch", [0.3, 0.3, 0.3]), failed],
            "others": 0.02,
            "notes": ["torch: one more bias"],
        },
        {
            "entries": [entry("ours", [0.2, 0.2, 0.2]), entry("torch", [0.5, 0.5, 0.5]), failed],
            "others": 0.4,
            "notes": ["torch: one more bias"],
        },
    ]
    lines = report.markdown([result(again), result(again[:1], "infer")]).splitlines()
    assert lines[0] == (
        "P, 2 cores; 8 GiB; float32; Python 3.11; ours 1.0, torch 1.0; threads: ours: 2, torch: 2; "
        "turns: 3; repetitions: 1-2; 2026-01-02."
    )
    assert lines[1] == ""
    assert "| network | work | ours, ms | torch, ms | Keras, ms |" in lines
    training = (
        "| Net 2x24x48 | training step | 200 (200 to 200) | 400 (300 to 500), **1.50, 2.50** "
        "| failed |"
    )
    inference = (
        "| Net 2x24x48 | inference | 200 (150 to 250) | 300 (300 to 300), **1.50** | failed |"
    )
    assert training in lines
    assert inference in lines
    assert "| Net 2x24x48 | inference | 1,024 (512; 256) | 1,024 (512; 256) |  |" in lines
    assert lines[-4:] == [
        "- Net 2x24x48, training step: Keras failed: no kernel",
        "- Net 2x24x48: torch: one more bias",
        "- Net 2x24x48, training step: others used 0.40 cores meanwhile",
        "- Net 2x24x48, inference: Keras failed: no kernel",
    ]


def test_the_table_goes_between_a_pages_markers(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write("new\n", page)
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    report.write("alone\n", tmp_path / "other.md")
    assert (tmp_path / "other.md").read_text() == "alone\n"


def fake_proc(folder, user: int, own: int) -> None:
    """A /proc of one process, "cc1 plus", in ticks of a hundredth of a second."""
    folder.joinpath("stat").write_text(f"cpu  {user} 0 0 5000 7 0 0 0 0 0\ncpu0 1 2 3\n")
    process = folder / "4321"
    process.mkdir(exist_ok=True)
    fields = ["R", *["0"] * 10, str(own), "0", *["0"] * 30]
    process.joinpath("stat").write_text(f"4321 (cc1 plus) {' '.join(fields)}\n")


def test_a_busy_machine_is_refused_and_the_busiest_process_named(tmp_path):
    fake_proc(tmp_path, 1000, 300)
    with pytest.raises(machine.BusyError) as error:
        machine.check_free(tmp_path, lambda _: fake_proc(tmp_path, 1060, 345))
    # 60 ticks in half a second are 1.2 cores, 45 of them the compiler's.
    assert "others use 1.20 of" in str(error.value)
    assert "cc1 plus (pid 4321) 0.90" in str(error.value)
    machine.check_free(tmp_path, lambda _: fake_proc(tmp_path, 1065, 346))


def test_a_run_on_a_busy_machine_ends_with_the_reason(monkeypatch):
    def busy():
        raise machine.BusyError("others use it")

    monkeypatch.setattr(machine, "check_free", busy)
    monkeypatch.setattr("sys.argv", ["peers", "segnet"])
    with pytest.raises(SystemExit, match="others use it"):
        peers.main()


def test_networks_that_differ_are_not_timed_unless_the_row_says_why():
    def found(name, parameters, logits):
        return {"name": name, "side": name, "parameters": parameters, "logits": logits}

    def check(row):
        entries = [
            found("ours", 5, [1, 2, 2, 3]),
            found("torch", 7, [1, 2, 2, 3]),
            found("keras", 5, [1, 4, 4, 3]),
        ]
        return turns.check_same(row, entries), [e.get("error") for e in entries]

    shapes = "another network: logits [1, 4, 4, 3], ours [1, 2, 2, 3]"
    assert check(TINY) == ([], [None, "another network: 7 parameters, ours 5", shapes])
    notes, errors = check(ROWS["smp_pspnet"])
    assert notes == [
        "torch: 7 parameters, ours 5; SMP's encoder keeps the two stages that the network does not"
        " run"
    ]
    assert errors == [None, None, shapes]


def test_an_unknown_row_is_named(monkeypatch):
    monkeypatch.setattr("sys.argv", ["peers", "segnot", "--work=dream"])
    with pytest.raises(
        SystemExit, match="segnot, dream: unknown; rows, works and sides are segnet"
    ):
        peers.main()
