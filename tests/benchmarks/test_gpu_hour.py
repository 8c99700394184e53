"""The GPU hour: which case runs when, what is kept, and what is said of failures."""

import json
import os
import time

import pytest

from benchmarks.gpu import agreement, beside_torch, hour, memory, schedule
from benchmarks.gpu.parts import FULL, MINIATURE, parts
from benchmarks.gpu.process import CaseProcess
from benchmarks.gpu.results import Results
from benchmarks.gpu.schedule import DONE, FAILED, UNFINISHED, Case, Outcome, Part


def case(name, seconds=100.0, alone=False):
    return Case(name, "fake", {}, seconds, alone)


class Machine:
    """A clock, and cases that take the seconds that `lasts` gives them (5 if none)."""

    def __init__(self, lasts=(), fails=()):
        self.now, self.lasts, self.fails = 0.0, dict(lasts), fails
        self.began, self.allowed, self.ended = {}, {}, {}

    def wait(self, seconds):
        self.now = round(self.now + seconds, 6)

    def start(self, case, seconds):
        self.began[case.name], self.allowed[case.name] = self.now, seconds
        return Fake(self, case)

    def record(self, case, outcome, seconds):
        self.ended[case.name] = outcome.state, round(seconds)

    def run(self, parts, states=None, budget=1000, at_once=2):
        return schedule.run(
            parts,
            states or {},
            budget=budget,
            at_once=at_once,
            start=self.start,
            record=self.record,
            clock=lambda: self.now,
            wait=self.wait,
        )


class Fake:
    def __init__(self, machine, case):
        self.machine, self.case = machine, case

    def outcome(self):
        name = self.case.name
        if self.machine.now - self.machine.began[name] < self.machine.lasts.get(name, 5):
            return None
        return Outcome(FAILED if name in self.machine.fails else DONE)

    def stop(self, why):
        return Outcome(UNFINISHED, error=why)


def test_cases_run_by_priority_beside_each_other_and_one_alone_by_itself():
    machine = Machine(fails=["a/1"])
    plan = [
        Part("a", "A", 0.1, (case("a/1"), case("a/2"), case("a/3"))),
        Part("b", "B", 0.1, (case("b/1", alone=True), case("b/2", alone=True))),
        Part("c", "C", 0.1, (case("c/1"),)),
    ]
    assert machine.run(plan) == []
    began = {name: round(at) for name, at in machine.began.items()}
    assert began == {"a/1": 0, "a/2": 0, "a/3": 5, "b/1": 10, "b/2": 15, "c/1": 20}
    assert machine.ended["a/1"] == (FAILED, 5)  # which ends only that one
    assert all(machine.ended[name] == (DONE, 5) for name in began if name != "a/1")


def test_a_part_keeps_to_its_time_and_what_it_leaves_goes_to_the_next():
    forever = {f"{part}/{k}": 9999 for part in "ab" for k in range(3)}
    machine = Machine(forever | {"c/0": 3})
    plan = [
        Part("a", "A", 0.5, tuple(case(f"a/{k}", 9999) for k in range(3))),
        Part("b", "B", 0.3, (case("b/0", 20),)),
        Part("c", "C", 0.2, (case("c/0", 9999),)),
    ]
    # Two of a last as long as a may, 50 s, and nothing is left for its third.
    assert machine.run(plan, budget=100) == ["a/2"]
    assert machine.ended["a/0"] == machine.ended["a/1"] == (UNFINISHED, 50)
    assert machine.ended["b/0"] == (UNFINISHED, 20)  # its own limit
    assert machine.allowed["c/0"] == pytest.approx(50, abs=1)  # c has 20 s, and what b left
    assert machine.now <= 100


def test_what_is_done_is_not_done_again_and_keeps_no_time():
    plan = [
        Part("a", "A", 0.4, (case("a/1"), case("a/2"), case("a/3"))),
        Part("b", "B", 0.6, (case("b/1"),)),
    ]
    machine = Machine()
    states = {"a/1": FAILED, "a/2": DONE, "b/1": DONE}
    machine.run(plan, states, budget=50, at_once=1)
    assert list(machine.began) == ["a/3", "a/1"]  # never tried, then failed
    assert machine.allowed["a/3"] == 50


def test_an_interruption_ends_the_cases_and_is_recorded():
    machine = Machine()

    def wait(seconds):
        raise KeyboardInterrupt

    machine.wait = wait
    with pytest.raises(KeyboardInterrupt):
        machine.run([Part("a", "A", 1, (case("a/1"),))])
    assert machine.ended == {"a/1": (UNFINISHED, 0)}


def test_results_are_kept_at_once_and_say_why_something_failed(tmp_path):
    plan = [Part("a", "Part A", 1, (case("a/1"), case("a/2"), case("a/3"), case("a/4")))]
    results = Results(tmp_path, plan)
    results.begin(480, {"GPU": "a | b"})
    good = {"good": True, "text": "equal"}
    results.record(case("a/1"), Outcome(DONE, good), 12.3)
    results.record(case("a/2"), Outcome(FAILED, error="code 1: no memory", log=("x", "oom")), 3)
    results.record(case("a/3"), Outcome(DONE, {"good": False, "text": "differs"}), 3)
    again = Results(tmp_path, plan)
    assert again.states == {"a/1": DONE, "a/2": FAILED, "a/3": DONE}
    assert again.values["cases"]["a/1"]["result"] == good
    page = (tmp_path / "results.md").read_text()
    assert "| GPU | a \\| b |" in page
    assert "| 1 | good | 12 | equal |" in page
    assert "| 2 | failed | 3 | code 1: no memory |" in page
    assert "| 3 | NOT AS IT SHOULD BE | 3 | differs |" in page
    assert "| 4 | not run |  |  |" in page
    assert "The last lines of a/2:\n\n    x\n    oom" in page


def ended(process, seconds=60):
    """The outcome of a process that ends by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (outcome := process.outcome()) is not None:
            return outcome
        time.sleep(0.05)
    raise AssertionError("the process does not end")


FAKES = """
import os, subprocess, sys, time

def run(folder, seconds, what, file=""):
    print("it begins", flush=True)
    if what == "raise":
        raise MemoryError("out of memory")
    if what == "die":
        os.kill(os.getpid(), 11)
    if what == "wait":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
        open(file, "w").write(str(child.pid))
        time.sleep(99)
    return {"good": None, "text": what, "seconds": seconds}
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Starts a case of FAKES, found beside `benchmarks.gpu`."""
    package = tmp_path / "benchmarks" / "gpu"
    package.mkdir(parents=True)
    (package / "fakes.py").write_text(FAKES)
    environment = {"PYTHONPATH": str(tmp_path)}  # benchmarks is a package of several folders

    def start(**arguments):
        return CaseProcess(Case("a/1", "fakes", arguments, 60), 60, tmp_path / "case", environment)

    return start


def test_a_process_gives_its_result_or_says_why_not(fake):
    assert ended(fake(what="x")) == Outcome(DONE, {"good": None, "text": "x", "seconds": 60})
    failed = ended(fake(what="raise"))
    assert (failed.state, failed.error) == (FAILED, "code 1: MemoryError: out of memory")
    assert failed.log[0] == "it begins"
    died = ended(fake(what="die"))
    assert died.state == FAILED
    assert died.error.startswith("killed by SIGSEGV: ")


def test_what_a_stopped_case_has_started_ends_too(fake, tmp_path):
    file = tmp_path / "pid"
    running = fake(what="wait", file=str(file))
    until = time.monotonic() + 60
    while not (file.exists() and file.read_text()) and time.monotonic() < until:
        assert running.outcome() is None
        time.sleep(0.05)
    outcome = running.stop("no time")
    assert outcome == Outcome(UNFINISHED, error="no time", log=("it begins",))
    child = int(file.read_text())
    for _ in range(100):
        if not _lives(child):
            return
        time.sleep(0.05)
    raise AssertionError("the child lives on")


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # or it has ended, and nobody has asked for its code
        return stat.read().rpartition(") ")[2][0] != "Z"


@pytest.mark.parametrize("size", [FULL, MINIATURE])
def test_the_parts_have_names_of_their_own_and_share_the_budget(size):
    plan = parts(size, "data", "out")
    names = [case.name for part in plan for case in part.cases]
    assert len(set(names)) == len(names)
    assert sum(part.share for part in plan) == pytest.approx(1)
    assert [part.name for part in hour.chosen(plan, "profile,memory")] == ["memory", "profile"]
    with pytest.raises(SystemExit, match="--parts=no unknown; parts are agreement, peers"):
        hour.chosen(plan, "no")


def test_losses_of_every_network_are_recorded():
    known = json.loads(agreement.LOSSES.read_text())
    assert set(known) == set(agreement.NETWORKS)
    for values in known.values():
        assert len(values["losses"]) == len(values["spread"]) == agreement.STEPS


def test_losses_agree_within_rounding():
    cpu, spread = [2.0, 1.0], [1e-6, 1e-3]

    def good(ours, dtype="float32"):
        return agreement.compare(ours, cpu, spread, dtype)["good"]

    assert good([2.0001, 1.009])
    assert not good([2.001, 1.0])
    assert not good([2.0, 1.02])
    assert not good([2.0, float("nan")])
    assert good([2.0])  # fewer steps
    assert good([2.04, 1.02], "bfloat16")
    assert not good([2.2, 1.1], "bfloat16")
    assert not good([float("nan"), 1.0], "bfloat16")
    text = agreement.compare([2.0, 1.02], cpu, spread, "float32")["text"]
    assert "the worst, of step 2, 2.0e-02 of 1.000, allowed 1.0e-02" in text


def test_peers_and_memory_in_words():
    measured = {"images": 16, "size": [360, 480]}
    entries = [
        {"name": "ours", "seconds": [0.01], "memory": {"device": 2**31}, "first_step_seconds": 9},
        {"name": "torch", "seconds": [0.02], "memory": {"device": None}, "first_step_seconds": 2},
        {"name": "torch.compile", "error": "no compiler"},
    ]
    assert beside_torch.summary(measured, {"entries": entries})["text"] == (
        "16x360x480: ours 10.0 ms, 2.00 GiB, first step after 9 s; torch 20.0 ms (2.00 of ours), "
        "first step after 2 s; torch.compile: no compiler"
    )
    text = memory.summary({"predicted": 2**31, "measured": 2**32})["text"]
    assert text == "predicted 2.00 GiB, measured 4.00 GiB, 2.000 of that"
    text = memory.summary({"predicted": 2**31, "measured": None})["text"]
    assert text == "predicted 2.00 GiB; this device does not say its peak"
