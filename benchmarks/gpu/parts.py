"""The parts of the GPU hour, the most important first, and how large they are."""

import dataclasses

from benchmarks.gpu import agreement
from benchmarks.gpu.schedule import Case, Part


@dataclasses.dataclass(frozen=True)
class Size:
    """How much each part does.

    Attributes:
      networks, modes, dtypes, steps: of the agreement with the CPU.
      rows, images, image_size, turns, works, device: of `benchmarks.peers`.
      scale: of the table.
      memory: batches by network, and whether their images are small.
      steps_of_runs: of the runs that are repeated and exported.
      configs: of these.
      profiled: options of the run that is profiled.
      slower: factor on the limits of the cases.
    """

    networks: tuple[str, ...] = agreement.NETWORKS
    modes: tuple[str, ...] = ("jit", "pmap")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    steps: int = agreement.STEPS
    rows: tuple[str, ...] = ("segnet", "deeplabv3", "smp_pspnet")
    works: tuple[str, ...] = ("train", "infer")
    device: str = "gpu"
    peers_dtype: str = "bfloat16"
    images: int = 16
    image_size: str = "360x480"
    turns: int = 5
    memory: tuple[tuple[str, int], ...] = (
        *(("segnet", 8), ("pspnet", 8), ("deeplabv3", 8)),
        *(("segnet", 32), ("pspnet", 32), ("deeplabv3", 32), ("segnet", 2), ("pspnet", 2)),
    )
    small: bool = False
    scale: str = "gpu15"
    configs: tuple[str, ...] = ("configs/segnet.py:streets", "configs/deeplabv3.py:streets")
    steps_of_runs: int = 20
    profiled: tuple[str, ...] = (
        *("--config.model.width=1.0", "--config.data.image_size=360,480"),
        *("--config.train.batch_size=8", "--config.dtype=bfloat16"),
    )
    slower: float = 1


FULL = Size()
MINIATURE = Size(
    networks=("segnet_basic",),
    steps=3,
    scale="cpu",
    rows=("segnet",),
    works=("train",),
    device="cpu",
    peers_dtype="float32",
    images=1,
    image_size="96x128",
    turns=1,
    memory=(("segnet", 1),),
    small=True,
    configs=("configs/segnet_basic.py:streets",),
    steps_of_runs=3,
    profiled=("--config.train.batch_size=2",),
    slower=3,
)


def parts(size: Size, data_dir: str, out: str) -> list[Part]:
    """All parts.

    Args:
      data_dir: of the table's data set.
      out: the folder of results.
    """
    return [
        _agreement(size),
        _peers(size),
        _memory(size),
        _table(size, data_dir, out),
        _runs(size, "repeat", "`--deterministic` twice", 0.06),
        _runs(size, "exported", "Exports", 0.06),
        _profile(size, out),
    ]


def _agreement(size: Size) -> Part:
    cases = tuple(
        Case(
            f"agreement/{network}/{dtype}/{mode}",
            "agreement",
            {"network": network, "dtype": dtype, "mode": mode, "steps": size.steps},
            seconds=240 * size.slower,
        )
        for mode in size.modes
        for dtype in size.dtypes
        for network in size.networks
    )
    return Part("agreement", f"Losses of {size.steps} steps beside a CPU's", 0.25, cases)


def _peers(size: Size) -> Part:
    options = {
        "device": size.device,
        "dtype": size.peers_dtype,
        "turns": size.turns,
        "images": size.images,
        "size": size.image_size,
        "compiled": size.device != "cpu",
    }
    cases = tuple(
        Case(
            f"peers/{row}/{work}",
            "beside_torch",
            {"row": row, "work": work, **options},
            seconds=240 * size.slower,
            alone=True,
        )
        for work in size.works
        for row in size.rows
    )
    return Part("peers", f"Beside torch, {size.peers_dtype}", 0.25, cases)


def _memory(size: Size) -> Part:
    cases = tuple(
        Case(
            f"memory/{network}/{images}",
            "memory",
            {"network": network, "images": images, "small": size.small},
            seconds=180 * size.slower,
        )
        for network, images in size.memory
    )
    return Part("memory", "Memory of a training step, predicted and measured", 0.12, cases)


def _table(size: Size, data_dir: str, out: str) -> Part:
    options = {"table": "segnet/1", "scale": size.scale, "data_dir": data_dir, "out": out}
    # It stops by itself at the end of its time, which is all that its part has.
    case = Case("table/segnet_1", "table", options, seconds=3600, alone=True)
    return Part("table", "Table 1 of SegNet, as far as the time goes", 0.2, (case,))


def _runs(size: Size, module: str, title: str, share: float) -> Part:
    cases = tuple(
        Case(
            f"{module}/{config.partition(':')[0].removeprefix('configs/').removesuffix('.py')}",
            module,
            {"config": config, "steps": size.steps_of_runs},
            seconds=180 * size.slower,
        )
        for config in size.configs
    )
    return Part(module, title, share, cases)


def _profile(size: Size, out: str) -> Part:
    config = "configs/segnet.py:streets"
    options = {"config": config, "options": list(size.profiled), "out": out}
    case = Case("profile/segnet", "step_profile", options, seconds=180 * size.slower, alone=True)
    return Part("profile", "One training step", 0.06, (case,))
