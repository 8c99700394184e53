"""What a run was made of, compared when it resumes: data, classes, and the file of `init_from`."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from segjax import config as configs
from segjax.data import contents as data_contents
from segjax.data.classes import ClassTable
from segjax.data.contents import Contents, class_changes, contents_of, load_contents
from segjax.data.splits import Splits
from segjax.training.checkpoint import has_checkpoint, steps_in
from segjax.training.run_record import load_record

# What a version before this record wrote of the data: names and sizes in run.json.
_EARLIER = (
    "the run is of a version that did not record its data: only their number and the classes are "
    "compared; the record is made now"
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
      contents: of its data.
      weights: stamp of the file of `init_from`; () where it is none.
      changes: how both differ from the start of the run, which `data.on_changed` accepted.
      before: fingerprints of the splits before these changes.
      step: at which they came.
      note: a line for the user, or "".
    """

    contents: Contents
    weights: tuple[Any, ...] = ()
    changes: tuple[str, ...] = ()
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    step: int = 0
    note: str = ""

    def save(self, workdir: pathlib.Path) -> None:
        """Writes them, for the next start to compare."""
        self.contents.save(workdir, weights=self.weights)

    def record(self) -> dict[str, Any]:
        """The changes as run.json holds them."""
        now = self.contents.fingerprints
        return {"step": self.step, "found": self.changes, "before": self.before, "now": now}


def read_inputs(config: Mapping[str, Any], splits: Splits, workdir: str | pathlib.Path) -> Inputs:
    """What a run is made of; writes nothing.

    Raises:
      ValueError: if `workdir` holds a checkpoint of a run that was made of something else, unless
        `data.on_changed` is "accept". A network never goes on with other classes: their number and
        order must stay.
    """
    workdir = pathlib.Path(workdir)
    if not has_checkpoint(workdir):
        return Inputs(contents_of(splits), _weights(config))
    step = max(steps_in(workdir / "checkpoints" / "latest"))
    earlier = not (workdir / data_contents.FILE).is_file()
    if earlier:
        before, weights = None, _weights(config)
        old = configs.load_classes(configs.load(workdir), workdir)
    else:
        before, values = load_contents(workdir)
        old, weights = before.classes, tuple(values.get("weights", ()))
    elsewhere = f"or another --workdir (with init_from={workdir} to train on from its weights)"
    if other := class_changes(old, splits.classes):
        raise ValueError(
            f"workdir {workdir}: {other}; use the classes that the run started with, {elsewhere}"
        )
    now = contents_of(splits, before)
    before = before or _of_earlier(now, old, workdir)
    found = data_contents.changes(before, now)
    new = _weights(config)
    if weights and new and weights[:2] != new[:2]:
        found.append(f"the file init_from={config['init_from']} has changed")
    if found and config["data"].get("on_changed", "stop") != "accept":
        raise ValueError(
            f"workdir {workdir}: the data have changed since the run started: {'; '.join(found)}. "
            f"Use the data that it started with, {elsewhere}, or --config.data.on_changed=accept "
            "to go on with these, which run.json and the report then say"
        )
    # A split that is not used now stays on record.
    kept = dataclasses.replace(now, splits={**before.splits, **now.splits})
    return Inputs(
        kept,
        new or weights,
        tuple(found),
        before.fingerprints if found else {},
        step,
        _EARLIER if earlier else "",
    )


def _weights(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """The stamp of the file of `init_from`; () for a name, another run, or a file that is gone."""
    path = pathlib.Path(config["init_from"])
    if not config["init_from"] or not path.is_file():
        return ()
    return tuple(data_contents.stamp_of(path))


def _of_earlier(now: Contents, classes: ClassTable, workdir: pathlib.Path) -> Contents:
    """What a version without a record kept: the classes, and the number of images of each split.

    Its fingerprints are over names and sizes as that version read them.
    """
    splits = {
        name: dataclasses.replace(
            now.splits[name], images=split["images"], names=(), files=(), stamps=()
        )
        for name, split in load_record(workdir)["data"].items()
        if name in now.splits
    }
    names = dataclasses.replace(now.classes, names=classes.names)
    return dataclasses.replace(now, classes=names, splits=splits)
