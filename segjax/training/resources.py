"""What a run needs of its machine, looked at before it starts."""

import math
import os
import pathlib
import resource
import shutil
from typing import Any

import jax

from segjax.training.checkpoint import has_checkpoint
from segjax.training.distributed import is_first
from segjax.training.setup import Setup

_SHARED = pathlib.Path("/dev/shm")  # where workers leave their batches
_AHEAD = 5  # batches of a worker that are there at a time
_FILES, _FILES_A_WORKER = 64, 32  # that are open at a time
_GIB = 2**30


def check_resources(setup: Setup, workdir: str | os.PathLike) -> None:
    """Checks that memory, shared memory, open files and the disk are enough to begin with.

    The limit of open files is raised as far as this process may. A run that resumes may find the
    disk full: it says so, and goes on.

    Args:
      setup: of the run.
      workdir: an existing folder.

    Raises:
      ValueError: naming the option, what is needed, what there is and what to do.
    """
    batches = setup.abstract_batch(), setup.abstract_eval_batch()
    needed = {
        "train.batch_size": _bytes(batches[0]) // jax.process_count(),
        "train.eval_batch_size": _bytes(batches[1]) // jax.process_count(),
    }
    option = max(needed, key=lambda name: needed[name])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed[option] > memory:
        raise ValueError(
            f"{option}: a batch of images of {setup.config['data']['image_size']} takes "
            f"{needed[option] / _GIB:,.1f} GiB, of {memory / _GIB:,.1f} GiB of this machine's "
            "memory; use fewer or smaller images (data.image_size)"
        )
    workers = setup.config["data"]["workers"]
    if workers:
        _check_shared(workers, needed["train.batch_size"])
    _check_files(workers)
    if is_first() and not has_checkpoint(workdir):
        _check_disk(setup, pathlib.Path(workdir))


def _bytes(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _check_shared(workers: int, batch: int) -> None:
    if not _SHARED.is_dir():  # as on a Mac
        return
    needed, free = workers * _AHEAD * batch, shutil.disk_usage(_SHARED).free
    if free < needed:
        raise ValueError(
            f"data.workers={workers} pass batches in {_SHARED}, up to {needed / 2**20:,.2f} MiB, "
            f"which has {free / 2**20:,.2f} MiB left; make it larger (docker run --shm-size), or "
            "use data.workers=0, threads, which need none"
        )


def _check_files(workers: int) -> None:
    needed = _FILES + _FILES_A_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ValueError(
            f"this process may open {hard} files (ulimit -n), and needs up to {needed} with "
            f"data.workers={workers}; raise the limit"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_disk(setup: Setup, workdir: pathlib.Path) -> None:
    needed, free = _bytes(setup.abstract_state()) + 2**20, shutil.disk_usage(workdir).free
    if free < needed:  # its descriptions, and what else a run writes, take the rest
        raise ValueError(
            f"workdir {workdir}: {free / 2**20:,.1f} MiB are left there, and a checkpoint takes "
            f"{needed / 2**20:,.1f} MiB; make room, or use another --workdir"
        )
