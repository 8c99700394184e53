"""segjax on the command line.

python launch.py --config=configs/pspnet.py[:preset] [--workdir=DIR] [--config.x.y=value]
python launch.py --mode=evaluate --workdir=DIR [--splits=val,test] [--protocol=segnet2017]
python launch.py --mode=predict --workdir=DIR --input=IMAGE_FOLDER_LIST_OR_VIDEO [--way=sliding]
python launch.py --mode=export --workdir=DIR [--format=stablehlo|safetensors] [--output=FILE]
python launch.py --mode=compare --runs=DIR,DIR [--splits=test]
python launch.py --mode=uncertainty --workdir=DIR | --runs=DIR,DIR,... [--samples=50]
python launch.py --mode=recalibrate --workdir=DIR [--output=DIR]
python launch.py --mode=plan --config=configs/pspnet.py:paper [--target=h100x8|tpu:v5e:4x4]
python launch.py --mode=doctor --config=configs/pspnet.py [--config.data.root=DIR] [--splits=train]
python launch.py --mode=prepare --config=... [--output=DIR] [--format=encoded] [--size=240x480]
python launch.py --mode=benchmark --config=...
"""

import sys

from absl import app, flags, logging

from segjax import cli

FLAGS = flags.FLAGS
# Whose text is all that the user needs to read.
EXPECTED = (ValueError, OSError, ArithmeticError)
cli.define_flags()


def main(_) -> None:
    if not logging.level_debug():
        logging.set_verbosity(logging.ERROR)  # Orbax and grain talk a lot
    try:
        run(FLAGS.mode)
    except EXPECTED as error:
        if logging.level_debug():
            raise  # otherwise the message is all there is to read
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # outside of training, where there is nothing to save
        sys.exit(130)


def run(mode: str) -> None:
    """Runs the mode that the flags ask for."""
    cli.check_flags()

    from rich.console import Console

    from configs import base  # imported late, so that a wrong flag is answered at once
    from segjax import accelerators, commands
    from segjax.training import determinism, ending, environment, interruption, processes

    if FLAGS.target:
        accelerators.without_devices()  # before JAX looks for some
    if FLAGS.deterministic:
        determinism.use_deterministic_kernels()
    environment.use_compilation_cache()
    count = processes.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    if mode not in cli.WITHOUT_DEVICES:
        environment.keep_freed_memory()
    cli.check_processes(mode, count)
    console = Console(quiet=count > 1 and not processes.is_first())
    config, splits, output = FLAGS.config, FLAGS.splits, FLAGS.output
    workdir = FLAGS.workdir or (cli.default_workdir() if config else None)
    one_split = splits[0] if splits else None
    runs, profile = FLAGS.runs or [workdir], cli.parse_profile(FLAGS.profile)
    calls = {
        "train": lambda: commands.train(
            config, workdir, base.get_config(config.model.name), console, profile
        ),
        "evaluate": lambda: commands.evaluate(workdir, splits, console, protocol=FLAGS.protocol),
        "predict": lambda: commands.predict(
            workdir, FLAGS.input, output, options=cli.inference_options()
        ),
        "export": lambda: commands.export(workdir, output, FLAGS.format),
        "compare": lambda: commands.compare(runs, split=one_split),
        "uncertainty": lambda: commands.uncertainty(runs, one_split, FLAGS.samples, output=output),
        "recalibrate": lambda: commands.recalibrate(workdir, output),
        "plan": lambda: commands.plan(config, workdir, FLAGS.target, console),
        "doctor": lambda: commands.doctor(config, workdir, splits),
        "prepare": lambda: commands.prepare(config, output, splits, FLAGS.format, FLAGS.size),
        "benchmark": lambda: commands.benchmark_data(config),
    }
    try:
        with ending.together(*(() if logging.level_debug() else EXPECTED)):
            calls[mode]()
    except interruption.Interrupted as error:
        code = interruption.EXIT_INTERRUPTED
        print(f"{error}; the same command goes on from there (exit code {code})", file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    app.run(main, flags_parser=cli.parse)
