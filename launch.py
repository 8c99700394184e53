"""segjax on the command line.

python launch.py --config=configs/pspnet.py[:preset] [--workdir=DIR] [--config.x.y=value]
python launch.py --mode=evaluate --workdir=DIR [--splits=val,test] [--protocol=segnet2017]
python launch.py --mode=predict --workdir=DIR --input=IMAGE_FOLDER_LIST_OR_VIDEO [--way=sliding]
python launch.py --mode=export --workdir=DIR [--format=stablehlo|safetensors] [--output=FILE]
python launch.py --mode=compare --runs=DIR,DIR [--splits=test]
python launch.py --mode=uncertainty --workdir=DIR | --runs=DIR,DIR,... [--samples=50]
python launch.py --mode=recalibrate --workdir=DIR [--output=DIR]
python launch.py --mode=plan --config=configs/pspnet.py:paper
python launch.py --mode=doctor --config=configs/pspnet.py [--config.data.root=DIR] [--splits=train]
python launch.py --mode=prepare --config=... [--output=DIR] [--format=encoded] [--size=240x480]
python launch.py --mode=benchmark --config=...
"""

import sys

from absl import app, flags, logging

from segjax import command_line

FLAGS = flags.FLAGS
command_line.define_flags()


def main(_) -> None:
    if not logging.level_debug():
        logging.set_verbosity(logging.ERROR)  # Orbax and grain talk a lot
    try:
        run(FLAGS.mode)
    except (ValueError, OSError, ArithmeticError) as error:
        if logging.level_debug():
            raise  # otherwise the message is all there is to read
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(mode: str) -> None:
    """Runs the mode that the flags ask for."""
    command_line.check_flags()

    from configs import base  # imported late, so that a wrong flag is answered at once
    from segjax import modes
    from segjax.training import parallel

    parallel.use_compilation_cache()
    parallel.keep_freed_memory()
    config, splits, output = FLAGS.config, FLAGS.splits, FLAGS.output
    workdir = FLAGS.workdir or (command_line.default_workdir() if config else None)
    one_split = splits[0] if splits else None
    runs = FLAGS.runs or [workdir]
    calls = {
        "train": lambda: modes.train(config, workdir, base.get_config()),
        "evaluate": lambda: modes.evaluate(workdir, splits, protocol=FLAGS.protocol),
        "predict": lambda: modes.predict(
            workdir, FLAGS.input, output, options=command_line.inference_options()
        ),
        "export": lambda: modes.export(workdir, output, FLAGS.format),
        "compare": lambda: modes.compare(runs, split=one_split),
        "uncertainty": lambda: modes.uncertainty(runs, one_split, FLAGS.samples, output=output),
        "recalibrate": lambda: modes.recalibrate(workdir, output),
        "plan": lambda: modes.plan(config, workdir),
        "doctor": lambda: modes.doctor(config, workdir, splits),
        "prepare": lambda: modes.prepare(config, output, splits, FLAGS.format, FLAGS.size),
        "benchmark": lambda: modes.benchmark_data(config),
    }
    calls[mode]()


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse)
