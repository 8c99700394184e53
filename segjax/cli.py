"""The command line: `python launch.py ...` in a checkout, `segjax ...` once installed.

COMMANDS is the table of all commands; the flags that each takes and the text of --help follow from
it. A new command is a row here, and a function in segjax/commands: the file and the function have
the command's name, and the parameters have the names of its flags.
"""

import dataclasses
import importlib.machinery
import importlib.util
import inspect
import pathlib
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from segjax import arguments, config_files, terminal
from segjax.failures import explained
from segjax.flags import define_flags

FLAGS = flags.FLAGS
EXIT_ERROR = 2  # of a user's error
# Options of a finished run that say how probabilities become labels, where its data lie and how
# they are read.
_LABELS = ("model.threshold",)
_READING = ("data.value_range", "data.exif", "data.timeout_s")
_DATA = ("data.", "parallel.", "report.", "train.eval_batch_size")
# Of these, what only training reads, and what only an evaluation by batches reads.
_OF_TRAINING = (
    *("data.train_split", "data.sampling", "data.repeat_threshold", "data.on_device"),
    *("data.on_unreadable", "data.on_changed", "data.workers", "parallel.shard_optimizer"),
    "report.writers",
)
_OF_EVALUATION = ("data.eval_splits", "data.label_size")


@dataclasses.dataclass(frozen=True)
class Command:
    """A row of COMMANDS.

    Attributes:
      summary: what the command does, for --help.
      needs: the flags that must be given.
      takes: further flags that it knows.
      either: flags of which one must be given, and no more.
      overrides: the options of a finished run that --config.OPTION=VALUE may change, by the start
        of their names; with --config any of its options may be given.
      without_effect: those among them, by the start of their names, that change nothing in what the
        command does, and are refused.
      uses_devices: whether JAX looks for accelerators. It takes seconds and memory on a GPU, and
        processes cannot be forked after it.
      many_processes: whether several processes, as on several hosts, can share the command.
      prints: whether what it prints is all its result, which is an error to lose.
      word: the flag that a word after the command stands for, as in `segjax init FOLDER`.
    """

    summary: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
    uses_devices: bool = True
    many_processes: bool = False
    prints: bool = False
    word: str = ""


COMMANDS: Mapping[str, Command] = {
    "train": Command(
        "train a network, or resume its run; evaluate the best checkpoint and write the report",
        needs=("config",),
        takes=("workdir", "profile"),
        many_processes=True,
    ),
    "evaluate": Command(
        "evaluate the best checkpoint of a run, on its own data or on others",
        needs=("workdir",),
        takes=("splits", "protocol", "output", "scales", "flip", "crf"),
        overrides=_DATA + _LABELS,
        without_effect=_OF_TRAINING,
        many_processes=True,
    ),
    "score": Command(
        "score label maps that any program predicted, as evaluate does those of a run",
        needs=("predictions",),
        either=("config", "workdir"),
        takes=("split", "protocol", "ids", "size", "void", "output"),
        overrides=("data.",),
        without_effect=(
            *_OF_TRAINING,
            *_OF_EVALUATION,
            *("data.image_size", "data.cache_mb"),
            *("data.mean", "data.std", "data.local_contrast"),
        ),
        uses_devices=False,
    ),
    "predict": Command(
        "write label maps of an image, a folder, a list of images or a video",
        needs=("workdir", "input"),
        takes=(
            *("output", "inference", "window", "overlap", "blend"),
            *("scales", "flip", "batch_size", "crf", "ids"),
        ),
        overrides=_LABELS + _READING,
        word="input",
    ),
    "compare": Command(
        "set evaluated runs side by side, with paired tests over the images",
        needs=("runs",),
        takes=("split",),
        uses_devices=False,
        prints=True,
    ),
    "runs": Command(
        "list the runs of a folder: state, best numbers, options that differ",
        takes=("workdir",),
        uses_devices=False,
        prints=True,
        word="workdir",
    ),
    "uncertainty": Command(
        "measure uncertainty by dropout (--workdir) or by an ensemble (--runs)",
        takes=("workdir", "runs", "split", "samples", "output"),
        overrides=_DATA,
        without_effect=(*_OF_TRAINING, "data.eval_splits", "parallel.mode", "report.measures"),
    ),
    "recalibrate": Command(
        "recompute the batch normalisation statistics of a run over all training images",
        needs=("workdir",),
        takes=("output",),
        overrides=("data.",),
        without_effect=(
            *_OF_TRAINING[1:],
            *_OF_EVALUATION,
            *("data.val_split", "data.eval_images", "data.cache_mb"),
        ),
    ),
    "export": Command(
        "write a run as a StableHLO program, an ONNX graph, its weights, or a folder for a hub",
        needs=("workdir",),
        takes=("output", "format", "license", "half"),
        overrides=("data.", "train.eval_batch_size", *_LABELS),
        without_effect=(*_OF_TRAINING, *_OF_EVALUATION),
    ),
    "reproduce": Command(
        "train the rows of a published table, and set the numbers beside the paper's",
        needs=("table",),
        takes=("scale", "seeds", "rows", "budget", "data_dir", "workdir"),
    ),
    "plan": Command(
        "compile a run without training it: memory, kernels, bytes, least time",
        needs=("config",),
        takes=("workdir", "target"),
    ),
    "init": Command(
        "look at a folder of images and masks, and write a config for it",
        needs=("input",),
        takes=("output",),
        word="input",
    ),
    "doctor": Command(
        "read a data set as the config does, and list what is wrong with it",
        needs=("config",),
        takes=("workdir", "splits"),
        uses_devices=False,
    ),
    "prepare": Command(
        "write a data set as ArrayRecord files, which are read fast",
        needs=("config",),
        takes=("output", "splits", "format", "size"),
        uses_devices=False,
    ),
    "weights": Command(
        "list the weights that are known by name, fetch some, or verify the cached ones",
        takes=("fetch", "verify"),
        uses_devices=False,
        prints=True,
    ),
    "benchmark": Command(
        "measure how many training images a second the host makes ready",
        needs=("config",),
        uses_devices=False,
        prints=True,
    ),
}
# Flags about the process rather than the command: commands that use devices take `deterministic`,
# those that many processes can share take the others.
_DETERMINISTIC = ("deterministic",)
_PROCESSES = ("coordinator", "num_processes", "process_id")


def flags_of(mode: str) -> tuple[str, ...]:
    """The names of all flags that a command takes, in the order of --help."""
    command = COMMANDS[mode]
    return (
        *command.needs,
        *command.either,
        *command.takes,
        *(_DETERMINISTIC if command.uses_devices else ()),
        *(_PROCESSES if command.many_processes else ()),
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command that the words (those of the process by default) ask for.

    Until the command's function runs, there is nothing to end in order: Ctrl-C ends the process,
    and no library that is being imported can lose it.
    """
    terminal.take_over()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    define_flags(FLAGS, tuple(COMMANDS))
    given = sys.argv if words is None else ["segjax", *words]
    sys.argv[:] = config_files.with_paths([given[0], *with_flags(given[1:])])
    if any(a in ("--help", "-help", "-h", "--helpfull", "--helpshort") for a in sys.argv[1:]):
        print(help_text(_mode_in(sys.argv)))
        _check_printed(is_result=True)
        return
    app.run(_run, argv=sys.argv, flags_parser=_parse)


def _run(words: Sequence[str]) -> None:
    """Runs the command; an error that a user can cause ends it with one message and code 2."""
    if not logging.level_debug():
        logging.set_verbosity(logging.ERROR)  # Orbax and grain log every step of theirs
    try:
        check_flags(words[1:])
        _call(FLAGS.mode)
    except KeyboardInterrupt:  # outside of training, where nothing is to be saved
        sys.exit(130)
    except Exception as error:
        message = None if logging.level_debug() else explained(error)
        if message is None:
            raise
        _fail(message)
    _check_printed(is_result=COMMANDS[FLAGS.mode].prints)


def _fail(message: str) -> NoReturn:
    terminal.say(f"error: {message}")
    sys.exit(EXIT_ERROR)


def _check_printed(is_result: bool) -> None:
    """Says that stdout failed; an error only where it was to hold the result. A reader that has
    seen enough, as `head` has, is none."""
    failed = sys.stdout.failed if isinstance(sys.stdout, terminal.Output) else None
    if failed is None or isinstance(failed, BrokenPipeError):
        return
    message = f"stdout could not be written ({failed.strerror})"
    if is_result:
        _fail(message)
    terminal.say(f"{message}; the command has done its work all the same")


def _call(mode: str) -> None:
    """Prepares the process and calls the command's function."""
    # Imported here, so that a wrong flag is answered at once.
    from segjax import accelerators
    from segjax import config as configs
    from segjax.console import Console
    from segjax.training import distributed, interruption, runtime

    command = COMMANDS[mode]
    if FLAGS.target:
        accelerators.without_devices()  # before JAX looks for some
    if FLAGS.deterministic:
        runtime.use_deterministic_kernels()
    runtime.use_compilation_cache()
    count = distributed.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if command.uses_devices:
        runtime.keep_freed_memory()
    check_processes(mode, count)
    values = {name: FLAGS[name].value for name in flags_of(mode)}
    values["console"] = Console(quiet=count > 1 and not distributed.is_first())
    if "config" in command.needs:
        values["base"] = config_files.base(FLAGS.config.model.name)
        configs.check_set(FLAGS.config, values["base"])
        if "workdir" in values:
            values["workdir"] = values["workdir"] or default_workdir()
    elif mode == "init":
        values["base"] = config_files.base
    if command.overrides and not _has_config(mode, sys.argv):
        values["overrides"] = arguments.overrides(sys.argv)
    function = function_of(mode)
    known = inspect.signature(function).parameters
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with (
            interruption.ends_at_signals(sigterm=count == 1 or mode != "train"),
            distributed.fail_together(explain=not logging.level_debug()),
        ):
            function(**{name: value for name, value in values.items() if name in known})
    except interruption.Interrupted as error:
        code = interruption.EXIT_INTERRUPTED
        terminal.say(f"{error}; the same command resumes it (exit code {code})")
        sys.exit(code)


def function_of(mode: str) -> Any:
    """The function that runs a command: segjax.commands.MODE.MODE."""
    return getattr(importlib.import_module(f"segjax.commands.{mode}"), mode)


def check_flags(rest: Sequence[str] = ()) -> None:
    """Checks the parsed flags against the row of the command.

    Args:
      rest: arguments that are no flags.

    Raises:
      ValueError: for a flag that the command needs and lacks, or does not take.
    """
    mode = FLAGS.mode
    command, known = COMMANDS[mode], flags_of(mode)
    if rest:
        known = "a command is the first word" if rest[0] in COMMANDS else "see --help"
        raise ValueError(f"{' '.join(rest)!r} is not a flag; {known}")
    ours = {name for row in COMMANDS for name in flags_of(row)}
    for name in sorted(ours - set(known)):
        if FLAGS[name].present:
            takers = [row for row in COMMANDS if name in flags_of(row)]
            raise ValueError(
                f"--mode={mode} does not take --{name} (--mode={', '.join(takers)} "
                f"{'does' if len(takers) == 1 else 'do'}); it takes "
                f"{', '.join(f'--{flag}' for flag in known)}"
            )
    for name in command.needs:
        if not FLAGS[name].value:
            text = " (workdirs with commas; --mode=runs lists those of a folder)" * (name == "runs")
            raise ValueError(f"--mode={mode} needs --{name}{text}")
    given = [f"--{name}" for name in command.either if FLAGS[name].value]
    if command.either and len(given) != 1:
        names = " or ".join(f"--{name}" for name in command.either)
        both = f", not {' and '.join(given)}" * bool(given)
        raise ValueError(f"--mode={mode} needs {names}{both}")
    if not _has_config(mode, sys.argv):
        for name in arguments.overrides(sys.argv):
            if name.startswith(command.without_effect):
                raise ValueError(f"--config.{name} changes nothing in --mode={mode}; leave it out")
            if not name.startswith(command.overrides):
                some = ", ".join(f"--config.{start}" for start in command.overrides)
                raise ValueError(
                    f"--mode={mode} does not take --config.{name}: it has the config of the run; "
                    f"it takes {f'{some}...' if some else 'no --config'}"
                )
    check_processes(mode, FLAGS.num_processes or 1)


def check_processes(mode: str, count: int) -> None:
    """Raises ValueError if the command cannot run in so many processes."""
    if count > 1 and not COMMANDS[mode].many_processes:
        shared = " and ".join(name for name, row in COMMANDS.items() if row.many_processes)
        raise ValueError(
            f"--mode={mode} in {count} processes; only {shared} can be shared. Start it once, with "
            "--num_processes=1"
        )


def help_text(mode: str | None = None) -> str:
    """The text of --help: all commands, or one with its flags."""
    script = pathlib.Path(sys.argv[0]).name
    program = f"python {script}" if script.endswith(".py") else "segjax"
    if mode is not None:
        return _help_of(mode, program)
    lines = [
        "segjax: semantic segmentation in JAX and Flax",
        "",
        f"{program} --config=NAME_OR_FILE[:PRESET] [--workdir=DIR] [--config.OPTION=VALUE]",
        f"{program} COMMAND ... (or --mode=COMMAND)",
        "",
        "commands (train by default):",
    ]
    for name, row in COMMANDS.items():
        usage = [f"--{flag}" for flag in row.needs] + [f"[--{flag}]" for flag in row.takes]
        if row.either:
            usage.insert(len(row.needs), "|".join(f"--{flag}" for flag in row.either))
        lines += [f"  {name:<12}{row.summary}", f"{'':14}{' '.join(usage)}"]
    shared = " and ".join(name for name, row in COMMANDS.items() if row.many_processes)
    names = ", ".join(config_files.names())
    return "\n".join(
        [
            *lines,
            "",
            f"in several processes, {shared} take {' '.join(f'--{flag}' for flag in _PROCESSES)};",
            f"commands that use devices take {' '.join(f'--{flag}' for flag in _DETERMINISTIC)}",
            "",
            textwrap.fill(f"configs: {names}; or the path of a file", 100),
            f"{program} COMMAND --help describes the flags of a command",
        ]
    )


def _help_of(mode: str, program: str) -> str:
    row = COMMANDS[mode]
    word = f" {row.word.upper()}" if row.word else ""
    lines = [f"{program} {mode}{word} (or --mode={mode}): {row.summary}", ""]
    for name in flags_of(mode):
        flag, needed = FLAGS[name], "Needed. " * (name in row.needs)
        if name in row.either:
            needed = f"Needed, or --{' or --'.join(f for f in row.either if f != name)}. "
        default = "" if flag.default in (None, [], False) else f" Default: {flag.default}."
        text = needed + flag.help + default
        lines += [f"  --{name}", textwrap.indent(textwrap.fill(text, 90), " " * 6)]
    if "config" in row.needs:
        lines += ["  --config.OPTION=VALUE", "      Changes an option of the config."]
    if row.overrides:
        some = ", ".join(f"{start}{'*' * start.endswith('.')}" for start in row.overrides)
        lines += ["  --config.OPTION=VALUE", f"      Changes an option of the run: {some}."]
    return "\n".join(lines)


def with_flags(words: Sequence[str]) -> list[str]:
    """The words with --mode=COMMAND for a first word that is a command, and the flag for the
    word after it."""
    if not words or words[0] not in COMMANDS:
        return list(words)
    mode, rest = words[0], list(words[1:])
    if rest and not rest[0].startswith("-") and COMMANDS[mode].word:
        rest[0] = f"--{COMMANDS[mode].word}={rest[0]}"
    return [f"--mode={mode}", *rest]


def _mode_in(words: Sequence[str]) -> str | None:
    """The command that --mode names, None without a known one."""
    given = arguments.value_of("mode", words)
    return given if given in COMMANDS else None


def _parse(words: Sequence[str]) -> list[str]:
    """Reads the flags; what is wrong with them ends the process with one line."""
    try:
        return arguments.parse(FLAGS, words, _has_config(_mode_in(words) or "train", words))
    except ValueError as error:
        _fail(str(error))


def _has_config(mode: str, words: Sequence[str]) -> bool:
    """Whether --config.OPTION=VALUE changes the config that --config gives, and not a run's."""
    command = COMMANDS[mode]
    either = "config" in command.either and arguments.value_of("config", words) is not None
    return "config" in command.needs or either


def default_workdir() -> str:
    """runs/pspnet_camvid for --config=configs/pspnet.py:camvid."""
    file, _, preset = config_flags.get_config_filename(FLAGS["config"]).partition(":")
    return "_".join(["runs/" + pathlib.Path(file).stem, *([preset] if preset else [])])
