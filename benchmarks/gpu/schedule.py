"""Which case runs when: by priority, within the budget, each in a process of its own."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"
LEAST_SECONDS = 10  # for which nothing is started
LOOK_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Case:
    """What one process does, and what is done again if that fails.

    Attributes:
      name: of the case, PART/...; results are kept under it.
      module: of `benchmarks.gpu`, whose function `run` does it.
      arguments: of that function.
      seconds: the most that it may take.
      alone: whether nothing else may use the machine meanwhile, as where times are taken.
    """

    name: str
    module: str
    arguments: Mapping[str, Any]
    seconds: float
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Part:
    """Cases of one kind, in the order of their worth.

    Attributes:
      share: of the budget, which earlier parts leave to it. What a part does not use is left to
        the later ones.
    """

    name: str
    title: str
    share: float
    cases: tuple[Case, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
      state: DONE, FAILED (by itself) or UNFINISHED (stopped, as its time was over).
      result: of the case's function, of one that is done.
      error: why there is none.
      log: its last lines, where there is none.
    """

    state: str
    result: Mapping[str, Any] | None = None
    error: str = ""
    log: tuple[str, ...] = ()


class Running(Protocol):
    """A case that was started."""

    def outcome(self) -> Outcome | None:
        """What became of it; None while it runs."""
        ...

    def stop(self, why: str) -> Outcome:
        """Ends it, with all processes that it started."""
        ...


def missing(part: Part, states: Mapping[str, str]) -> list[Case]:
    """The cases that are not done, those that were never tried first."""
    cases = [case for case in part.cases if states.get(case.name) != DONE]
    return sorted(cases, key=lambda case: case.name in states)


def run(
    parts: Sequence[Part],
    states: Mapping[str, str],
    *,
    budget: float,
    at_once: int,
    start: Callable[[Case, float], Running],
    record: Callable[[Case, Outcome, float], None],
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Runs the cases that are not done.

    A case that is `alone` waits until nothing else runs; others run beside each other. One that
    outlasts its own limit or its part's is stopped.

    Args:
      parts: the most important first.
      states: of the cases that were tried before, by name.
      budget: seconds that all of it may take.
      at_once: the most cases beside each other.
      start: starts a case, which may take so many seconds.
      record: takes a case, its outcome and its seconds, as soon as it ends.

    Returns:
      The names of the cases for which no time was left.
    """
    end = clock() + budget
    waiting = [(k, case) for k, part in enumerate(parts) for case in missing(part, states)]
    reserve = {k: parts[k].share * budget for k, _ in waiting}
    ends: dict[int, float] = {}
    running: dict[str, tuple[Case, Running, float, float]] = {}
    without_time: list[str] = []
    try:
        while waiting or running:
            for case, process, began, until in list(running.values()):
                outcome = process.outcome()
                if outcome is None and clock() >= until:
                    outcome = process.stop(f"stopped after {clock() - began:.0f} s")
                if outcome is not None:
                    del running[case.name]
                    record(case, outcome, clock() - began)
            while waiting and _may_start(waiting[0][1], running, at_once):
                k, case = waiting.pop(0)
                if k not in ends:
                    ends[k] = end - sum(kept for later, kept in reserve.items() if later > k)
                seconds = min(ends[k] - clock(), case.seconds)
                if seconds < LEAST_SECONDS:
                    without_time.append(case.name)
                    continue
                running[case.name] = case, start(case, seconds), clock(), clock() + seconds
            if running:
                wait(LOOK_SECONDS)
    finally:  # an interruption ends the cases too
        for case, process, began, _ in running.values():
            record(case, process.stop("interrupted"), clock() - began)
    return without_time


def _may_start(
    case: Case, running: Mapping[str, tuple[Case, Running, float, float]], at_once: int
) -> bool:
    if case.alone or any(other.alone for other, *_ in running.values()):
        return not running
    return len(running) < at_once
