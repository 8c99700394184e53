"""segjax on the command line.

python launch.py --config=configs/pspnet.py[:preset] [--workdir=DIR] [--config.x.y=value]
python launch.py --mode=evaluate --workdir=DIR [--splits=val,test]
python launch.py --mode=predict --workdir=DIR --input=IMAGE_OR_FOLDER [--output=FOLDER]
python launch.py --mode=export --workdir=DIR [--output=FILE.safetensors]
python launch.py --mode=plan --config=configs/pspnet.py:paper
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ("train", "evaluate", "predict", "export", "plan")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG_PRESET.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_SPLITS = flags.DEFINE_list("splits", [], "evaluate: splits; default data.eval_splits.")
_INPUT = flags.DEFINE_string("input", None, "predict: an image or a folder.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "predict, export: where to write; default in WORKDIR."
)
_FORMAT = flags.DEFINE_enum("format", "safetensors", ("safetensors",), "export: kind of file.")


def main(_) -> None:
    if not logging.level_debug():
        logging.set_verbosity(logging.ERROR)  # Orbax and grain talk a lot
    try:
        run()
    except (ValueError, OSError, ArithmeticError) as error:
        if logging.level_debug():
            raise  # otherwise the message is all there is to read
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run() -> None:
    """Runs the mode that the flags ask for."""
    mode = _MODE.value
    needed = "config" if mode in ("train", "plan") else "workdir"
    if flags.FLAGS[needed].value is None:
        raise ValueError(f"--mode={mode} wants --{needed}")
    if mode == "predict" and not _INPUT.value:
        raise ValueError("--mode=predict wants --input, an image or a folder")

    from configs import base  # imported late, so that a wrong flag is answered at once
    from segjax import modes
    from segjax.training import parallel

    parallel.use_compilation_cache()
    parallel.keep_freed_memory()
    if mode == "train":
        modes.train(_CONFIG.value, _WORKDIR.value or default_workdir(), base.get_config())
    elif mode == "plan":
        modes.plan(_CONFIG.value)
    elif mode == "evaluate":
        modes.evaluate(_WORKDIR.value, _SPLITS.value)
    elif mode == "export":
        modes.export(_WORKDIR.value, _OUTPUT.value)
    else:
        modes.predict(_WORKDIR.value, _INPUT.value, _OUTPUT.value)


def default_workdir() -> str:
    """runs/pspnet_camvid for --config=configs/pspnet.py:camvid."""
    file, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return "_".join(["runs/" + pathlib.Path(file).stem, *([preset] if preset else [])])


def parse(arguments):
    """Reads the flags; one line instead of a traceback for what is wrong with them."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        message = str(error).strip().splitlines()[-1]
    except (AttributeError, KeyError):  # an option that the config has not
        message = unknown_option(list(arguments))  # they are sys.argv, changed there
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def unknown_option(arguments) -> str:
    """Names the first --config.x.y that the config lacks, and what there is in its place."""
    plain = [a for a in arguments if not a.startswith(("--config.", "-config."))]
    sys.argv[:] = plain  # where config_flags looks for overrides
    flags.FLAGS(plain)
    for argument in arguments:
        if argument not in plain:
            path, section = argument.lstrip("-").partition("=")[0].split("."), _CONFIG.value
            for depth, name in enumerate(path[1:], 2):
                if name not in section:
                    return f"{'.'.join(path[:depth])} is unknown; there is {', '.join(section)}"
                section = section[name]
    return "a --config option is unknown"


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
