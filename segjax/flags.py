"""The flags of the command line; `segjax.cli.COMMANDS` says which command takes which."""

import functools
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags


class _PairParser(flags.ArgumentParser):
    """Two whole numbers above 0 with a sign between them, as a tuple, or one of some names."""

    def __init__(self, separator: str, form: str, names: Sequence[str] = ()):
        self._separator, self._form, self._names = separator, form, names

    def parse(self, argument: str | tuple[int, int]) -> tuple[int, int] | str:
        if isinstance(argument, str) and argument in self._names:
            return argument
        parts = argument.split(self._separator) if isinstance(argument, str) else argument
        if len(parts) != 2 or not all(str(part).isdecimal() and int(part) for part in parts):
            raise ValueError(f"use {self._form}")
        return int(parts[0]), int(parts[1])


class _NumbersParser(flags.ArgumentParser):
    """Numbers with commas between them, as a tuple of floats."""

    def parse(self, argument: str | tuple[float, ...]) -> tuple[float, ...]:
        parts = argument.split(",") if isinstance(argument, str) else argument
        try:
            return tuple(float(part) for part in parts)
        except ValueError as error:
            raise ValueError("use numbers with commas, such as 0.75,1,1.25") from error


class _OptionsParser(flags.ArgumentParser):
    """Numbers by name, as a dict: {} for the flag alone, None for --noFLAG."""

    def parse(self, argument: str | dict[str, float] | None) -> dict[str, float] | None:
        if not isinstance(argument, str) or argument in ("true", "false"):
            return {} if argument == "true" else None if argument == "false" else argument
        pairs = (part.partition("=") for part in argument.split(","))
        try:
            return {name.strip(): float(value) for name, _, value in pairs}
        except ValueError as error:
            raise ValueError(
                "use OPTION=NUMBER with commas, such as iterations=5,bilateral_color_std=3"
            ) from error


def define_flags(values: flags.FlagValues, modes: Sequence[str]) -> None:
    """Defines every flag; once per process and `values`.

    Args:
      values: where flags are defined and parsed values are kept.
      modes: the names of the commands.
    """
    text, number, switch, names, choice = (
        functools.partial(define, flag_values=values)
        for define in (
            flags.DEFINE_string,
            flags.DEFINE_integer,
            flags.DEFINE_boolean,
            flags.DEFINE_list,
            flags.DEFINE_enum,
        )
    )

    def parsed(name: str, parser: flags.ArgumentParser, default: Any, description: str) -> None:
        serializer = flags.ArgumentSerializer()
        flags.DEFINE(parser, name, default, description, values, serializer)

    size = _PairParser("x", "HEIGHTxWIDTH in pixels, such as 240x480")
    named_size = _PairParser("x", "HEIGHTxWIDTH, such as 240x480, own or server", ("own", "server"))
    steps = _PairParser(":", "START:STEPS, whole numbers from 1; 10:5 is the steps 10 to 14")

    choice("mode", "train", tuple(modes), "The command.")
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, or the name of one of segjax's own; :PRESET may follow.",
        flag_values=values,
    )
    text(
        "workdir",
        None,
        "Folder of a run; with --config by default runs/CONFIG_PRESET. Of --mode=runs, a folder of "
        "runs; default: runs.",
    )
    names("splits", [], "Splits with commas; default: those of the config.")
    text("split", None, "A split; default: test, or the validation split.")
    text("output", None, "File or folder to write; default: in the workdir.")
    text(
        "format",
        None,
        "export: stablehlo, onnx, safetensors or huggingface (a folder with a model card); "
        "prepare: decoded, encoded (PNG), jpeg or masks (IDD's PNGs).",
    )
    text("license", "unknown", "Of the model, for the card of --format=huggingface, such as mit.")
    switch("half", False, "safetensors and huggingface: kernels in float16, half the size.")
    text("protocol", "segjax", "The protocol of the headline numbers.")
    names("runs", [], "Workdirs with commas.")
    names("fetch", [], "Names of weights with commas, such as imagenet/torchvision_v1/resnet50.")
    switch("verify", False, "Compares the cached files with their digests.")
    number("samples", 50, "Passes with dropout.")
    parsed(
        "size",
        named_size,
        None,
        "prepare: HEIGHTxWIDTH to fit images to; default: as they are. score: what label maps are "
        "compared at, own (the labels' own size, the default), HEIGHTxWIDTH, to which prediction "
        "and label are resized by nearest neighbour, or server (the size of the data set's own "
        "scorer, such as IDD-Lite's 128x256).",
    )
    text("predictions", None, "Folder of label maps, named as the images; any program's.")
    choice(
        "void",
        "error",
        ("error", "wrong"),
        "A predicted id of no class on a labelled pixel is an error, or counts as wrong.",
    )
    text("input", None, "An image, a folder, a list .txt, or a video.")
    choice(
        "inference",
        "resize",
        ("resize", "whole", "slide"),
        "How images are taken: resized to the size of training, at their own size, or by windows.",
    )
    parsed("window", size, None, "HEIGHTxWIDTH of --inference=slide; default: training's.")
    flags.DEFINE_float(
        "overlap", 0.5, "Share of a window that the next one covers too.", flag_values=values
    )
    choice("blend", "gaussian", ("uniform", "linear", "gaussian"), "Weights inside a window.")
    parsed("scales", _NumbersParser(), (1.0,), "Test-time augmentation, such as 0.75,1,1.25.")
    switch("flip", False, "Test-time augmentation: mirrored images too.")
    choice(
        "ids",
        "raw",
        ("raw", "train"),
        "What masks hold: the data set's own ids, as its masks and servers have them, or 0..K-1.",
    )
    number("batch_size", 4, "Images or windows at a time.")
    flags.DEFINE_flag(
        flags.Flag(
            _OptionsParser(),
            flags.ArgumentSerializer(),
            "crf",
            None,
            "A dense CRF on the class probabilities, by DeepLab-LargeFOV's published options or "
            "others: --crf=iterations=5,bilateral_color_std=3 (further: gaussian_weight, "
            "gaussian_std, bilateral_weight, bilateral_spatial_std).",
            boolean=True,
        ),
        values,
    )
    parsed(
        "profile",
        steps,
        None,
        "START:STEPS, such as 10:5, traces the steps 10 to 14 into WORKDIR/profile. The first step "
        "of a process compiles.",
    )
    text(
        "target",
        None,
        "Accelerators to compile for, which need not be present: a100, h100, h200, b200, or xN of "
        "them as h100x8; tpu:v5e:4x4, tpu:v4:2x2x2, tpu:v5p:2x2x2, tpu:v6e:4x4.",
    )
    switch("deterministic", False, "GPUs repeat a run bit for bit, slower; CPUs do anyway.")
    text("table", None, "A published table, such as segnet/1, or a .yaml file.")
    text("scale", "paper", "Of a table: paper, as published, or a smaller one that it has.")
    number("seeds", 1, "Runs of each row.")
    names("rows", [], "Rows with commas, or patterns such as FCN-*; default: all.")
    flags.DEFINE_float(
        "budget",
        None,
        "Minutes after which it stops; the same command goes on.",
        flag_values=values,
    )
    text("data_dir", "data", "Folder of the data sets that a table needs, such as data/camvid.")
    text(
        "coordinator",
        None,
        "HOST:PORT of process 0, where no scheduler that JAX knows (SLURM, Open MPI, Kubernetes, "
        "TPU pods) starts the processes.",
    )
    number("num_processes", None, "With --coordinator; 1 = this one, by itself.")
    number("process_id", None, "With --coordinator: which this is, from 0.")
