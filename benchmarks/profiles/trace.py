"""Times of the operations of a program on this CPU, from a trace of XLA's profiler.

XLA runs operations beside each other, and shares large ones among threads, whose tasks wait for
each other in one queue. So the time from an operation's start to its end is no cost. Here each
moment is divided equally among the threads that compute in it, and a thread's share goes to the
operation whose code or task it runs. The shares of all operations and the idle moments add up to
the time from the first operation to the last.

A task may go on after the end of its operation: with the tasks of others, which the trace does not
show. That time goes to what the other threads do.
"""

import bisect
import collections
import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

_STARTS, _ENDS = "ThreadpoolListener::StartRegion", "ThreadpoolListener::StopRegion"
_RECORDS, _EXECUTES = "ThreadpoolListener::Record", "ThunkExecutor::Execute"


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds a step.

    Attributes:
      operations: by HLO name.
      calls: of each operation, a step.
      idle: while no operation runs: XLA's own work, and waiting.
      wall: from the first operation to the last; the sum of all `operations` and `idle`.
      threads: that compute, on average.
    """

    operations: dict[str, float]
    calls: dict[str, float]
    idle: float
    wall: float
    threads: float


@dataclasses.dataclass(frozen=True)
class _Call:
    """One run of an operation, by the trace's number."""

    name: str
    number: int


@dataclasses.dataclass(frozen=True)
class _Task:
    """A task of the threads' queue, by the trace's number."""

    number: int


@dataclasses.dataclass(frozen=True)
class _Span:
    """A part of a thread's time: of an operation, of a task, or of XLA itself."""

    start: float
    end: float
    of: _Call | _Task | None


def traced(step: Callable[[], object], steps: int, module: str) -> Times:
    """Runs `step`, which waits for its results, and reads the operations of the HLO `module`."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(steps):
                step()
        file = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        return read(jax.profiler.ProfileData.from_file(str(file)), steps, module)


def read(profile: jax.profiler.ProfileData, steps: int, module: str) -> Times:
    """The times of the operations of an HLO module in a trace of so many steps.

    Raises:
      ValueError: if the trace holds none.
    """
    threads, recorded, ends = [], [], {}
    calls = collections.Counter()
    for line in (line for plane in profile.planes for line in plane.lines):
        spans, records = _of_thread(line.events, module, ends)
        calls.update(span.of.name for span in spans if isinstance(span.of, _Call))
        threads.append(list(_innermost(spans)))
        recorded.append(records)
    if not calls:
        raise ValueError(f"the trace holds no operation of {module}")
    origins = {
        task: _at(pieces, starts, time)
        for pieces, records in zip(threads, recorded, strict=True)
        for starts in [[piece.start for piece in pieces]]
        for time, task in records
    }
    pieces = [
        _Span(piece.start, end, call)
        for thread in threads
        for piece in thread
        if (call := _owner(piece.of, origins))
        and (end := min(piece.end, ends.get(call.number, piece.end))) > piece.start
    ]
    shares, busy, total = _shared(pieces)
    # What lies between the steps is idle, too.
    wall = max(piece.end for piece in pieces) - min(piece.start for piece in pieces)
    to_ms = 1e-6 / steps
    return Times(
        operations={name: time * to_ms for name, time in shares.items()},
        calls={name: count / steps for name, count in calls.items()},
        idle=(wall - busy) * to_ms,
        wall=wall * to_ms,
        threads=total / wall,
    )


def _of_thread(
    events: Iterable[Any], module: str, ends: dict[int, float]
) -> tuple[list[_Span], list[tuple[float, _Task]]]:
    """The spans of a thread; and the tasks that it puts into the queue, with the time. Ends of
    operations, which may lie on another thread than the start, are added to `ends`."""
    spans, records, opened = [], [], []
    for event in sorted(events, key=lambda event: event.start_ns):
        name, start = event.name, event.start_ns
        end = start + event.duration_ns
        if name == _RECORDS:
            records.append((start, _Task(dict(event.stats)["_p"])))
        elif name == _STARTS:
            opened.append((start, _Task(dict(event.stats)["_c"])))
        elif name == _ENDS and opened:
            began, task = opened.pop()
            spans.append(_Span(began, start, task))
        elif name == _EXECUTES:
            spans.append(_Span(start, end, None))
        elif name.startswith("end: "):
            ends[dict(event.stats)["_c"]] = start
        else:
            stats = dict(event.stats)
            if stats.get("hlo_module") == module:
                call = _Call(stats["hlo_op"], stats["_p"])
                spans.append(_Span(start, end, call))
    return spans, records


def _innermost(spans: list[_Span]) -> Iterator[_Span]:
    """Pieces of a thread's time in order, each of the innermost span that is there."""
    stack, at = [], 0.0
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    for span in [*ordered, _Span(math.inf, math.inf, None)]:
        while stack and stack[-1].end <= span.start:
            top = stack.pop()
            if top.end > at:
                yield _Span(at, top.end, top.of)
            at = max(at, top.end)
        if stack and span.start > at:
            yield _Span(at, span.start, stack[-1].of)
        at = max(at, span.start)
        stack.append(span)


def _at(pieces: list[_Span], starts: list[float], time: float) -> _Call | _Task | None:
    place = bisect.bisect_right(starts, time) - 1
    return pieces[place].of if place >= 0 and time <= pieces[place].end else None


def _owner(of: _Call | _Task | None, origins: Mapping[_Task, _Call | _Task | None]) -> _Call | None:
    """The operation that a task belongs to; tasks put further ones into the queue."""
    while isinstance(of, _Task):
        of = origins.get(of)
    return of


def _shared(pieces: list[_Span]) -> tuple[dict[str, float], float, float]:
    """(time of each operation, time with one at least, sum over the threads)."""
    changes = sorted(
        change
        for piece in pieces
        for change in ((piece.start, 1, piece.of.name), (piece.end, -1, piece.of.name))
    )
    shares, running = collections.Counter(), collections.Counter()
    busy, total, at, count = 0.0, 0.0, 0.0, 0
    for time, change, name in changes:
        if count:
            for each, threads in running.items():
                shares[each] += (time - at) * threads / count
            busy += time - at
            total += (time - at) * count
        at = time
        running[name] += change
        count += change
        if not running[name]:
            del running[name]
    return dict(shares), busy, total
