"""The mode that looks ahead: what a run will cost, before it costs anything."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from clu import parameter_overview
from rich.console import Console

from segjax.reporting.augment_pictures import augmentation_sheet
from segjax.training.setup import prepare


def plan(
    config: Mapping[str, Any], workdir: str | pathlib.Path, console: Console | None = None
) -> dict[str, float]:
    """Prints the parameter table, and the FLOPs and compiled memory of a training step; writes a
    picture of what augmentation does, `augmentation.png`, into the workdir.

    Nothing is trained and no parameter is drawn; the step is compiled for this machine's devices.

    Returns:
      `parameters`; `flops` of a step and bytes, per device: `arguments`, `temporaries`,
      `outputs`, `peak` (their sum, less what is updated in place).
    """
    console = console or Console()
    setup = prepare(config)
    state = setup.abstract_state()
    table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
    print(table, file=console.file)
    compiled = setup.train_step().lower(state, setup.abstract_batch()).compile()
    flops = float((compiled.cost_analysis() or {}).get("flops", float("nan")))
    memory = compiled.memory_analysis()
    sizes = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "peak": memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
    }
    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    crop = "x".join(map(str, setup.crop_size))
    console.print(
        f"{config['model']['name']}: {parameters:,} parameters; {setup.total_steps} steps\n"
        f"one training step, batch {config['train']['batch_size']}, crop {crop}, "
        f"{config['dtype']}, on each of {setup.devices.mesh.size} {jax.devices()[0].device_kind}:\n"
        f"  {flops / 1e9:,.1f} GFLOP\n"
        + "\n".join(f"  {bytes_ / 2**20:,.0f} MiB {name}" for name, bytes_ in sizes.items()),
        highlight=False,
    )
    picture = pathlib.Path(workdir) / "augmentation.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    sample, key = setup.train.source[0], jax.random.key(config["seed"])
    augmentation_sheet(sample["image"], sample["label"], setup.classes, setup.config, key, picture)
    console.print(f"augmentation: {picture}", highlight=False, soft_wrap=True)
    return {"parameters": parameters, "flops": flops, **sizes}
