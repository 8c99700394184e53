"""Reading flags: what is wrong with them in one line, and the folder that a config's run gets."""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags


def parse(arguments):
    """Reads the flags; one line instead of a traceback for what is wrong with them."""
    try:
        return flags.FLAGS(arguments)
    except flags.Error as error:
        message = str(error).strip().splitlines()[-1]
    except (AttributeError, KeyError):  # an option that the config has not
        message = _unknown_option(list(arguments))  # they are sys.argv, changed there
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def default_workdir() -> str:
    """runs/pspnet_camvid for --config=configs/pspnet.py:camvid."""
    file, _, preset = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    return "_".join(["runs/" + pathlib.Path(file).stem, *([preset] if preset else [])])


def _unknown_option(arguments) -> str:
    """Names the first --config.x.y that the config lacks, and what there is in its place."""
    plain = [a for a in arguments if not a.startswith(("--config.", "-config."))]
    sys.argv[:] = plain  # where config_flags looks for overrides
    flags.FLAGS(plain)
    for argument in arguments:
        if argument not in plain:
            path = argument.lstrip("-").partition("=")[0].split(".")
            section = flags.FLAGS["config"].value
            for depth, name in enumerate(path[1:], 2):
                if name not in section:
                    return f"{'.'.join(path[:depth])} is unknown; there is {', '.join(section)}"
                section = section[name]
    return "a --config option is unknown"
