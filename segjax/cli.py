"""The flags of launch.py: what there are, what each mode needs, and what is wrong with them."""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
# What each mode reads: a config, the workdir of a finished run, or several of these.
NEEDS = {
    "train": ("config",),
    "evaluate": ("workdir",),
    "predict": ("workdir", "input"),
    "export": ("workdir",),
    "compare": ("runs",),
    "uncertainty": ("workdir", "runs"),  # one of them
    "recalibrate": ("workdir",),
    "plan": ("config",),
    "doctor": ("config",),
    "prepare": ("config",),
    "benchmark": ("config",),
}
# Modes that only read data or results: JAX need not look for devices, which on a GPU takes seconds
# and memory, nor have threads when they start processes.
WITHOUT_DEVICES = ("compare", "doctor", "prepare", "benchmark")
# Modes that several processes, as on several hosts, can share.
IN_MANY_PROCESSES = ("train", "evaluate")


def define_flags() -> None:
    """Defines every flag; once per process."""
    config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
    flags.DEFINE_enum("mode", "train", tuple(NEEDS), "What to do.")
    flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG_PRESET.")
    flags.DEFINE_list("splits", [], "Splits to work on; default those of the config.")
    flags.DEFINE_string("output", None, "Where to write; default in the workdir.")
    flags.DEFINE_string(
        "format",
        None,
        "export: stablehlo, safetensors; prepare: decoded, encoded (PNG), masks (IDD's PNGs).",
    )
    flags.DEFINE_string("protocol", "segjax", "evaluate: the protocol of the numbers.")
    flags.DEFINE_list("runs", [], "compare, uncertainty (as an ensemble): workdirs.")
    flags.DEFINE_integer("samples", 50, "uncertainty: passes with dropout.")
    flags.DEFINE_string("size", None, "prepare: HEIGHTxWIDTH to fit images to; default: none.")
    flags.DEFINE_string("input", None, "predict: an image, a folder, a list .txt, or a video.")
    flags.DEFINE_string("way", "canvas", "predict: canvas, whole or sliding.")
    flags.DEFINE_string("window", None, "predict, sliding: HEIGHTxWIDTH; default: the canvas.")
    flags.DEFINE_float("overlap", 0.5, "predict, sliding: share of a window seen twice.")
    flags.DEFINE_string("blend", "gaussian", "predict, sliding: uniform, linear or gaussian.")
    flags.DEFINE_list("scales", ["1"], "predict: test-time augmentation, such as 0.75,1,1.25.")
    flags.DEFINE_boolean("flip", False, "predict: test-time augmentation, mirrored too.")
    flags.DEFINE_integer("batch_size", 4, "predict: images or windows at a time.")
    flags.DEFINE_string(
        "profile",
        None,
        "train: START:STEPS, such as 10:5, to trace the steps 10 to 14 into WORKDIR/profile; the "
        "first step of a process compiles.",
    )
    flags.DEFINE_string(
        "target",
        None,
        "plan: accelerators to compile for, which need not be here: a100, h100, h200, b200, or xN "
        "of them as h100x8; tpu:v5e:4x4, tpu:v4:2x2x2, tpu:v5p:2x2x2, tpu:v6e:4x4.",
    )
    flags.DEFINE_boolean(
        "deterministic", False, "GPUs repeat a run bit for bit, slower; CPUs do anyway."
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "train, evaluate on several hosts: HOST:PORT of process 0, where no scheduler that JAX "
        "knows (SLURM, Open MPI, Kubernetes, TPU pods) starts the processes.",
    )
    flags.DEFINE_integer("num_processes", None, "With --coordinator; 1 = this one, by itself.")
    flags.DEFINE_integer("process_id", None, "With --coordinator: which this is, from 0.")


def check_flags() -> None:
    """Raises ValueError where a mode lacks a flag that it needs, or has one that it cannot use."""
    check_processes(FLAGS.mode, FLAGS.num_processes or 1)
    if parse_profile(FLAGS.profile) and FLAGS.mode != "train":
        raise ValueError(f"--profile is for --mode=train, not for --mode={FLAGS.mode}")
    if FLAGS.target and FLAGS.mode != "plan":
        raise ValueError(f"--target is for --mode=plan, not for --mode={FLAGS.mode}")
    needs = NEEDS[FLAGS.mode]
    given = [name for name in needs if FLAGS[name].value]
    if FLAGS.mode == "uncertainty":
        if len(given) != 1:
            raise ValueError("--mode=uncertainty wants --workdir or --runs, one of the two")
        return
    for name in needs:
        if name not in given:
            what = " (workdirs, with commas)" if name == "runs" else ""
            raise ValueError(f"--mode={FLAGS.mode} wants --{name}{what}")


def check_processes(mode: str, count: int) -> None:
    """Raises ValueError if the mode cannot run in so many processes."""
    if count > 1 and mode not in IN_MANY_PROCESSES:
        raise ValueError(
            f"--mode={mode} in {count} processes; only {' and '.join(IN_MANY_PROCESSES)} can "
            "be shared. Start it once, with --num_processes=1"
        )


def inference_options():
    """`InferenceOptions` from the flags.

    Raises:
      ValueError: for a flag that will not do.
    """
    from segjax.inference.options import InferenceOptions  # late: a wrong flag is answered at once

    try:
        scales = tuple(float(scale) for scale in FLAGS.scales)
    except ValueError as error:
        raise ValueError(f"--scales={','.join(FLAGS.scales)}; use numbers, as 0.75,1") from error
    return InferenceOptions(
        way=FLAGS.way,
        window=parse_size(FLAGS.window, "window"),
        overlap=FLAGS.overlap,
        blend=FLAGS.blend,
        scales=scales,
        flip=FLAGS.flip,
        batch_size=FLAGS.batch_size,
    )


def parse_size(text: str | None, flag: str) -> tuple[int, int] | None:
    """(height, width) of "240x480".

    Raises:
      ValueError: naming the flag, if the text is no size.
    """
    if text is None:
        return None
    numbers = text.split("x")
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        raise ValueError(f"--{flag}={text}; use HEIGHTxWIDTH, such as 240x480")
    return int(numbers[0]), int(numbers[1])


def parse_profile(text: str | None) -> tuple[int, int] | None:
    """(first step, number of steps) of "10:5"; steps count from 1, over all of the run.

    Raises:
      ValueError: naming the flag, if the text is not that.
    """
    if text is None:
        return None
    numbers = text.split(":")
    if len(numbers) != 2 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise ValueError(
            f"--profile={text}; use START:STEPS, whole numbers from 1, such as --profile=10:5 for "
            "the steps 10 to 14"
        )
    return int(numbers[0]), int(numbers[1])


def parse(arguments):
    """Reads the flags; one line instead of a traceback for what is wrong with them."""
    try:
        return FLAGS(arguments)
    except flags.Error as error:
        message = str(error).strip().splitlines()[-1]
    except (AttributeError, KeyError):  # an option that the config has not
        message = _unknown_option(list(arguments))  # they are sys.argv, changed there
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def default_workdir() -> str:
    """runs/pspnet_camvid for --config=configs/pspnet.py:camvid."""
    file, _, preset = config_flags.get_config_filename(FLAGS["config"]).partition(":")
    return "_".join(["runs/" + pathlib.Path(file).stem, *([preset] if preset else [])])


def _unknown_option(arguments) -> str:
    """Names the first --config.x.y that the config lacks, and what there is in its place."""
    plain = [a for a in arguments if not a.startswith(("--config.", "-config."))]
    sys.argv[:] = plain  # where config_flags looks for overrides
    FLAGS(plain)
    for argument in arguments:
        if argument not in plain:
            path = argument.lstrip("-").partition("=")[0].split(".")
            section = FLAGS["config"].value
            for depth, name in enumerate(path[1:], 2):
                if name not in section:
                    return f"{'.'.join(path[:depth])} is unknown; there is {', '.join(section)}"
                section = section[name]
    return "a --config option is unknown"
