"""The machine that times are taken on, and whether it is free."""

import os
import pathlib
import platform
import time
from collections.abc import Callable

PROC = pathlib.Path("/proc")
# Cores that others may use: a shell and a clock do not matter, a compiler does.
LIMIT = 0.15
LOOK_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


class BusyError(RuntimeError):
    """Others use the machine."""


def describe() -> dict:
    """Processor, cores that may be used, memory and system."""
    fields = dict(
        line.split(":", 1) for line in (PROC / "cpuinfo").read_text().splitlines() if ":" in line
    )
    names = {name.strip(): value.strip() for name, value in fields.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def busy_seconds(proc: pathlib.Path = PROC) -> float:
    """CPU seconds used since the start by all, on all cores; what a host takes away ("steal") too.

    Reference: proc(5), /proc/stat.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(number) for number in (proc / "stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


def process_seconds(pid: int, proc: pathlib.Path = PROC) -> tuple[str, float]:
    """Name and CPU seconds of a process; nothing of one that has ended."""
    try:
        name, _, rest = (proc / str(pid) / "stat").read_text().partition(") ")
    except OSError:
        return "", 0.0
    user, system = rest.split()[11:13]
    return name.partition("(")[2], (int(user) + int(system)) / _TICKS


def others(
    proc: pathlib.Path = PROC, wait: Callable[[float], None] = time.sleep
) -> tuple[float, list[str]]:
    """What the others use over half a second, in which this process sleeps: cores, and the busiest
    processes in words. The load average says less: it lags by a minute."""

    def processes() -> dict[int, tuple[str, float]]:
        return {int(p.name): process_seconds(int(p.name), proc) for p in proc.glob("[0-9]*")}

    before, used = processes(), busy_seconds(proc)
    wait(LOOK_SECONDS)
    cores = (busy_seconds(proc) - used) / LOOK_SECONDS
    uses = [
        ((total - before.get(pid, ("", total))[1]) / LOOK_SECONDS, name, pid)
        for pid, (name, total) in processes().items()
        if pid != os.getpid()
    ]
    busiest = sorted(uses, reverse=True)[:3]
    return cores, [f"{name} (pid {pid}) {use:.2f}" for use, name, pid in busiest if use > 0.02]


def check_free(proc: pathlib.Path = PROC, wait: Callable[[float], None] = time.sleep) -> None:
    """Looks whether others use the machine.

    Raises:
      BusyError: naming the load and the busiest processes, if they use more than `LIMIT` cores.
    """
    cores, busiest = others(proc, wait)
    if cores > LIMIT:
        who = ", ".join(busiest) or "none that this process can see"
        raise BusyError(
            f"others use {cores:.2f} of {os.cpu_count()} cores, more than {LIMIT}: {who}; times "
            "would say nothing. Wait until they end, or use --busy-ok for a trial"
        )


class OthersDuring:
    """Cores that processes other than `pids` and this one use within the context, in `cores`."""

    def __init__(self, pids: list[int]):
        self._own = dict.fromkeys([os.getpid(), *pids], 0.0)
        self.cores = float("nan")

    def _foreign(self) -> float:
        for pid, known in self._own.items():
            self._own[pid] = max(known, process_seconds(pid)[1])  # 0 of one that has ended
        return busy_seconds() - sum(self._own.values())

    def __enter__(self) -> "OthersDuring":
        self._start = self._foreign(), time.monotonic()
        return self

    def __exit__(self, *_) -> None:
        foreign, began = self._start
        elapsed = max(time.monotonic() - began, 1 / _TICKS)
        self.cores = max(0.0, (self._foreign() - foreign) / elapsed)
