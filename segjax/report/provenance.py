"""run.json: how a run was started, on which data, with which versions."""

import datetime
import hashlib
import importlib.metadata
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import segjax
from segjax import config as configs
from segjax.data.doctor.findings import Finding
from segjax.data.source import files_of
from segjax.data.splits import Splits
from segjax.data.statistics import fingerprint_of
from segjax.report.numbers import evenly_spaced
from segjax.training.agreement import PACKAGES
from segjax.training.run_record import load_record, save_record

_OF_A_FINDING = ("code", "severity", "split", "title", "found", "remedy")


def save_run(
    workdir: pathlib.Path,
    base: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    data: Splits,
    findings: Sequence[Finding] = (),
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Writes run.json: `environment`, `changes` from the base config, `data` (`data_state`), the
    `findings` about them, and the `data_changes` of earlier starts with that of this one."""
    changes = configs.difference(base, config) if base else {}
    earlier = load_record(workdir)["data_changes"]
    run = {
        "environment": environment(),
        "changes": {name: {"base": old, "run": new} for name, (old, new) in changes.items()},
        "data": data_state(data, data.used),
        "findings": [
            {name: getattr(finding, name) for name in _OF_A_FINDING} for finding in findings
        ],
        "data_changes": [*earlier, *([changed] if changed else [])],
    }
    save_record(workdir, run)


def load_run(workdir: pathlib.Path, seconds: float | None = None) -> dict[str, Any]:
    """Reads run.json; first adds `seconds` of training to the file, if given."""
    run = load_record(workdir)
    if seconds is not None:
        run["seconds"] = seconds
        save_record(workdir, run)
    return run


def save_skipped_steps(workdir: pathlib.Path, skipped: int, total: int) -> str:
    """Writes into run.json, and returns, how many steps of a run changed nothing."""
    run = load_record(workdir)
    run["skipped_steps"] = (
        f"{skipped:,} of {total:,} steps were skipped (train.on_nonfinite=skip): their loss or "
        "gradient was not finite"
    )
    save_record(workdir, run)
    return run["skipped_steps"]


def known_findings(workdir: pathlib.Path) -> list[str]:
    """The titles of the findings that the run in a workdir started with; none before it starts."""
    return [finding["title"] for finding in load_record(workdir)["findings"]]


def environment(devices: bool = True) -> dict[str, Any]:
    """The causes of a number besides the config: command, time, commit, device, versions.

    `devices` is False for a command that computes without JAX, which then looks for none.
    """
    versions = {}
    for package in ("segjax", *PACKAGES):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = segjax.__version__ if package == "segjax" else "not installed"
    found = jax.devices() if devices else ()
    kinds = (
        {"device": f"{len(found)} x {found[0].device_kind} ({found[0].platform})"} if found else {}
    )
    return {
        "command": shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
        **kinds,
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def data_state(data: Splits, splits: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Number of images and a fingerprint of each split, the same for every copy of the data.

    The fingerprint is the start of the SHA-256 over names and sizes of the files (see
    `statistics.fingerprint_of`), or, of a split without files, over three of its samples.
    """
    state = {}
    for split in splits:
        source = data.source(split)
        files = files_of(source)
        by_name = fingerprint_of(files, times=False) if files else None
        fingerprint = by_name or _of_samples(source)
        state[split] = {"images": len(source), "fingerprint": fingerprint[:16]}
    return state


def _of_samples(source: Any) -> str:
    digest = hashlib.sha256(repr(len(source)).encode())
    for index in evenly_spaced(len(source), 3):
        sample = source[index]
        for array in (sample["image"], sample["label"]):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _commit() -> str:
    """The git commit of the source tree, with + if it has changes; "" outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(pathlib.Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
