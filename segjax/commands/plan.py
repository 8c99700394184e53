"""The command plan: what a run will cost, before it costs anything."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from clu import parameter_overview

from segjax.accelerators import DEVICES, Device, Program, TooLargeError, parse
from segjax.console import Console
from segjax.destinations import check_folder
from segjax.report.augmentation import augmentation_sheet
from segjax.report.page import write_text
from segjax.report.plan_tables import parts_table, plan_table, step_figures
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
    """Compiles the training and the evaluation step, and prints what they cost on one device.

    The cost is memory, kernels, bytes, FLOPs, messages, and the least time that these take. Nothing
    is trained and no parameter is drawn. Writes the numbers, `plan.json`, and a picture of
    what augmentation does, `augmentation.png`, into the workdir.

    Args:
      config: see configs/base.py.
      workdir: made if it does not exist.
      target: accelerators to compile for, see `accelerators.targets`; by default this machine's
        devices. With a target, neither the accelerators nor the data set need be here (without the
        data set there is no picture).

    Returns:
      What is in plan.json: `parameters`; `parts`, the fields of each `parts.Row`; `train` and
      `evaluate`, each what `plan_tables.step_figures` gives; `flops`, `arguments`, `temporaries`,
      `outputs` and `peak` of the training step again; with a target `changes`, where the training
      step does not fit.

    Raises:
      ValueError: for an invalid config, an unknown target, or a target whose compiler is not
        installed.
    """
    console, workdir = console or Console(), pathlib.Path(workdir)
    check_folder(workdir, "--workdir", files=("plan.json", "augmentation.png"))
    accelerator = parse(target) if target else None
    devices = accelerator.devices() if accelerator else None
    setup = setup_programs(config, devices) if accelerator else setup_run(config)
    kind = setup.devices.mesh.devices.flat[0].device_kind
    device = accelerator.device if accelerator else _of_kind(kind)
    params = setup.abstract_state().params
    parameters = sum(p.size for p in jax.tree.leaves(params))
    if not accelerator:
        overview = parameter_overview.get_parameter_overview(params, include_stats=False)
        print(overview, file=console.file)
    parts = setup.parts.rows(config["optim"])
    console.print(parts_table(parts))
    print_line(console, _headline(setup, parameters, kind))
    if warning := setup.warning():
        print_line(console, warning)

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
        "parts": [dataclasses.asdict(row) for row in parts],
        **_of_training(programs["train"]),
        **figures,
    }
    if accelerator and not figures["train"]["fits"]:
        result["changes"] = _changes(setup, devices, figures["train"], console)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "plan.json"
    write_text(path, json.dumps(result, indent=2) + "\n")
    print_line(console, f"numbers: {path}")
    _draw_augmentation(setup, workdir / "augmentation.png", console)
    return result


def _of_kind(kind: str) -> Device | None:
    """The known device with JAX's name `kind`, if there is one."""
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
    """Compiles changes of the config that need less memory, and prints which of them fit."""
    print_line(
        console,
        f"the training step does not fit: it needs {figures['peak'] / 2**30:,.2f} GiB of "
        f"{figures['limit'] / 2**30:,.2f} GiB; what might:",
    )
    changes = planning.what_fits(setup.config, devices, figures["limit"], figures["peak"], console)
    if not any(change.fits for change in changes):
        print_line(console, "none of these fits; use a smaller crop or network, or several of them")
    return [dataclasses.asdict(change) for change in changes]


def _draw_augmentation(setup: Setup, path: pathlib.Path, console: Console) -> None:
    """Draws what augmentation does to the first training image, if the data set is here."""
    config = setup.config
    count = 4 if setup.objective.augmentation.mixes else 1
    try:
        source = setup.data.source(config["data"]["train_split"])
        samples = [source[index] for index in range(min(count, len(source)))]
    except (ValueError, OSError) as error:
        print_line(console, f"no picture of the augmentation: {error}")
        return
    key = jax.random.key(config["seed"])
    first, *others = [(sample["image"], sample["label"]) for sample in samples]
    augmentation_sheet(*first, setup.classes, config, key, path, others=others)
    print_line(console, f"augmentation: {path}")
