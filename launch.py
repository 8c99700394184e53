"""segjax on the command line.

python launch.py --config=configs/pspnet.py[:preset] [--workdir=DIR] [--config.x.y=value]
python launch.py --mode=evaluate --workdir=DIR [--splits=val,test]
python launch.py --mode=predict --workdir=DIR --input=IMAGE_OR_FOLDER [--output=FOLDER]
python launch.py --mode=plan --config=configs/pspnet.py:paper
"""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

MODES = ("train", "evaluate", "predict", "plan")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/CONFIG_PRESET.")
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_SPLITS = flags.DEFINE_list("splits", [], "evaluate: splits; default data.eval_splits.")
_INPUT = flags.DEFINE_string("input", None, "predict: an image or a folder.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "predict: where to write; default WORKDIR/predictions."
)


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax and grain talk a lot
    try:
        run()
    except ValueError as error:
        # What a user can mend: the message is all there is to read.
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

    # Imported late, so that a wrong flag is answered at once.
    from segjax import modes
    from segjax.training import parallel

    parallel.use_compilation_cache()
    parallel.keep_freed_memory()
    if mode == "train":
        modes.train(_CONFIG.value, _WORKDIR.value or default_workdir(), base_config())
    elif mode == "plan":
        modes.plan(_CONFIG.value)
    elif mode == "evaluate":
        modes.evaluate(_WORKDIR.value, _SPLITS.value)
    else:
        output = _OUTPUT.value or pathlib.Path(_WORKDIR.value) / "predictions"
        modes.predict(_WORKDIR.value, _INPUT.value, output)


def default_workdir() -> str:
    """runs/pspnet_camvid for --config=configs/pspnet.py:camvid."""
    file, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = pathlib.Path(file).stem
    return f"runs/{name}_{preset}" if preset else f"runs/{name}"


def base_config():
    """configs/base.py, which the report names the differences from."""
    from configs import base

    return base.get_config()


if __name__ == "__main__":
    app.run(main)
