"""The mode that looks ahead: what a run will cost, before it costs anything."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from clu import parameter_overview
from rich.console import Console

from segjax.accelerators import DEVICES, Device, Program, TooLargeError, parse
from segjax.report.augmentation import augmentation_sheet
from segjax.report.plan_tables import plan_table, step_figures
from segjax.training import planning
from segjax.training.evaluation import eval_batch_size
from segjax.training.planning import STEPS
from segjax.training.progress import print_line
from segjax.training.setup import Setup, setup_programs, setup_run


def plan(
    config: Mapping[str, Any],
    workdir: str | pathlib.Path,
    target: str | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Compiles the training and the evaluation step, and prints what they cost on one device:
    memory, kernels, bytes, FLOPs, messages, and the least time that these take.

    Nothing is trained and no parameter is drawn. Writes the numbers, `plan.json`, and a picture of
    what augmentation does, `augmentation.png`, into the workdir.

    Args:
      target: accelerators to compile for, see `accelerators.targets`; they need not be here, nor
        the data set, of which there is no picture then. None = this machine's devices.

    Returns:
      What is in plan.json: `parameters`; `train` and `evaluate`, each what
      `plan_tables.step_figures` gives; `flops`, `arguments`, `temporaries`, `outputs` and `peak`
      of the training step again; with a target `changes`, where the training step does not fit.

    Raises:
      ValueError: for a config or a target that will not do, or where what compiles for the target
        is not installed.
    """
    console = console or Console()
    wanted = parse(target) if target else None
    devices = wanted.devices() if wanted else None
    setup = setup_programs(config, devices) if wanted else setup_run(config)
    config = setup.config
    kind = setup.devices.mesh.devices.flat[0].device_kind
    device = wanted.device if wanted else _of_kind(kind)
    state = setup.abstract_state()
    if not wanted:
        table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
        print(table, file=console.file)
    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    print_line(console, _headline(setup, parameters, kind))

    programs = {step: _program(setup, step) for step in STEPS}
    figures = {
        step: step_figures(program, device, images=_images(setup, step), dtype=config["dtype"])
        for step, program in programs.items()
    }
    console.print(plan_table(figures))
    result = {
        "target": target or "",
        "device": kind,
        "mesh": dict(setup.devices.mesh.shape),
        "parameters": parameters,
        **_of_training(programs["train"]),
        **figures,
    }
    if wanted and not figures["train"]["fits"]:
        result["changes"] = _changes(setup, devices, figures["train"], console)
    folder = pathlib.Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(result, indent=2) + "\n")
    print_line(console, f"numbers: {folder / 'plan.json'}")
    _picture(setup, folder / "augmentation.png", console)
    return result


def _of_kind(kind: str) -> Device | None:
    """The device of the table that JAX calls so, if there is one."""
    return next((device for device in DEVICES.values() if device.kind == kind), None)


def _headline(setup: Setup, parameters: int, kind: str) -> str:
    config, mesh = setup.config, setup.devices.mesh
    crop = "x".join(map(str, setup.crop_size))
    steps = (
        f"{setup.total_steps} steps" if setup.total_steps else "steps as the data set has images"
    )
    return (
        f"{config['model']['name']}: {parameters:,} parameters; {steps}\n"
        f"one training step, batch {config['train']['batch_size']}, crop {crop}, "
        f"{len(setup.classes)} classes, {config['dtype']}, {config['parallel']['mode']}, on each "
        f"of {mesh.size} {kind}:"
    )


def _program(setup: Setup, step: str) -> Program | TooLargeError:
    try:
        return planning.compiled(setup, step)
    except TooLargeError as error:
        return error


def _images(setup: Setup, step: str) -> int:
    """Images of a batch over all devices, without padding."""
    if step == "evaluate":
        return eval_batch_size(setup.config)
    return setup.config["train"]["batch_size"]


def _of_training(program: Program | TooLargeError) -> dict[str, float]:
    if isinstance(program, TooLargeError):
        return {"peak": program.needed}
    return {
        "flops": program.total_flops,
        "arguments": program.arguments,
        "temporaries": program.temporaries,
        "outputs": program.outputs,
        "peak": program.peak,
    }


def _changes(
    setup: Setup, devices: list[jax.Device], figures: Mapping[str, Any], console: Console
) -> list[dict[str, Any]]:
    """Compiles what might fit in its place, and says which does."""
    print_line(
        console,
        f"the training step does not fit: it needs {figures['peak'] / 2**30:,.2f} GiB of "
        f"{figures['limit'] / 2**30:,.2f} GiB; what might:",
    )
    changes = planning.what_fits(setup.config, devices, figures["limit"], figures["peak"], console)
    if not any(change.fits for change in changes):
        console.print("none of these fits; use a smaller crop or network, or more of them together")
    return [dataclasses.asdict(change) for change in changes]


def _picture(setup: Setup, path: pathlib.Path, console: Console) -> None:
    """Draws what augmentation does to the first training image, if the data set is here."""
    config = setup.config
    try:
        sample = setup.data.source(config["data"]["train_split"])[0]
    except (ValueError, OSError) as error:
        print_line(console, f"no picture of the augmentation: {error}")
        return
    key = jax.random.key(config["seed"])
    augmentation_sheet(sample["image"], sample["label"], setup.classes, config, key, path)
    print_line(console, f"augmentation: {path}")
