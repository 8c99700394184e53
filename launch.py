"""segjax on the command line.

python launch.py --config=configs/pspnet.py[:preset] [--workdir=DIR] [--config.x.y=value]
python launch.py --mode=evaluate --workdir=DIR [--splits=val,test]
python launch.py --mode=predict --workdir=DIR --input=IMAGE_OR_FOLDER [--output=FOLDER]
python launch.py --mode=export --workdir=DIR [--output=FILE.safetensors]
python launch.py --mode=plan --config=configs/pspnet.py:paper
python launch.py --mode=doctor --config=configs/pspnet.py [--config.data.root=DIR] [--splits=train]
python launch.py --mode=prepare --config=... [--output=DIR] [--format=encoded] [--size=240x480]
python launch.py --mode=benchmark --benchmark=data --config=...
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from segjax import command_line

# What each mode reads: a config, or the workdir of a finished run.
NEEDS = {
    "train": "config",
    "evaluate": "workdir",
    "predict": "workdir",
    "export": "workdir",
    "plan": "config",
    "doctor": "config",
    "prepare": "config",
    "benchmark": "config",
}
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG_PRESET.")
_MODE = flags.DEFINE_enum("mode", "train", tuple(NEEDS), "What to do.")
_SPLITS = flags.DEFINE_list("splits", [], "evaluate, doctor, prepare: splits; default all.")
_INPUT = flags.DEFINE_string("input", None, "predict: an image or a folder.")
_OUTPUT = flags.DEFINE_string("output", None, "predict, export, prepare: where to write.")
_FORMAT = flags.DEFINE_string(
    "format", None, "export: safetensors; prepare: encoded (PNG), decoded, masks (IDD's PNGs)."
)
_SIZE = flags.DEFINE_string("size", None, "prepare: HEIGHTxWIDTH to fit images to; default: none.")
_BENCHMARK = flags.DEFINE_enum("benchmark", "data", ("data",), "benchmark: of what.")


def main(_) -> None:
    if not logging.level_debug():
        logging.set_verbosity(logging.ERROR)  # Orbax and grain talk a lot
    try:
        run(_MODE.value)
    except (ValueError, OSError, ArithmeticError) as error:
        if logging.level_debug():
            raise  # otherwise the message is all there is to read
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(mode: str) -> None:
    """Runs the mode that the flags ask for."""
    if flags.FLAGS[NEEDS[mode]].value is None:
        raise ValueError(f"--mode={mode} wants --{NEEDS[mode]}")
    if mode == "predict" and not _INPUT.value:
        raise ValueError("--mode=predict wants --input, an image or a folder")

    from configs import base  # imported late, so that a wrong flag is answered at once
    from segjax import modes
    from segjax.training import parallel

    parallel.use_compilation_cache()
    parallel.keep_freed_memory()
    config, splits, output = _CONFIG.value, _SPLITS.value, _OUTPUT.value
    workdir = _WORKDIR.value or command_line.default_workdir() if config else _WORKDIR.value
    calls = {
        "train": lambda: modes.train(config, workdir, base.get_config()),
        "evaluate": lambda: modes.evaluate(workdir, splits),
        "predict": lambda: modes.predict(workdir, _INPUT.value, output),
        "export": lambda: modes.export(workdir, output, _FORMAT.value),
        "plan": lambda: modes.plan(config, workdir),
        "doctor": lambda: modes.doctor(config, workdir, splits),
        "prepare": lambda: modes.prepare(config, output, splits, _FORMAT.value, _SIZE.value),
        "benchmark": lambda: modes.benchmark_data(config),
    }
    calls[mode]()


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse)
