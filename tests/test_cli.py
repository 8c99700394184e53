"""The command line: the table of commands, what is refused, and the answers of launch.py."""

import inspect
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from configs import base
from segjax import arguments, cli, config_files
from segjax.cli import COMMANDS, flags_of
from segjax.config import flatten
from segjax.flags import define_flags

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def refusal(monkeypatch, capsys):
    """A function of arguments that parses and checks them: the one line of refusal, or ""."""
    monkeypatch.chdir(ROOT)

    def parse(*arguments):
        monkeypatch.setattr(cli, "FLAGS", flags.FlagValues())
        define_flags(cli.FLAGS, tuple(COMMANDS))
        monkeypatch.setattr(
            sys, "argv", config_files.with_paths(["segjax", *cli.with_flags(arguments)])
        )
        try:
            rest = cli._parse(sys.argv)
            cli.check_flags(rest[1:])
        except SystemExit:
            return capsys.readouterr().err
        except ValueError as error:
            return f"error: {error}"
        return ""

    return parse


def test_each_command_has_a_file_of_its_name():
    files = {path.stem for path in (ROOT / "segjax" / "commands").glob("*.py")}
    assert files - {"__init__"} == set(COMMANDS)


@pytest.mark.parametrize("mode", COMMANDS)
def test_each_flag_is_a_parameter_of_the_command(mode):
    parameters = inspect.signature(cli.function_of(mode)).parameters
    command = COMMANDS[mode]
    assert set(command.needs + command.either + command.takes) <= set(parameters)
    assert ("overrides" in parameters) == bool(command.overrides)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--mode=train needs --config"),
        (["--mode=evaluate"], "--mode=evaluate needs --workdir"),
        (["--mode=predict", "--workdir=nowhere"], "--mode=predict needs --input"),
        (["--mode=doctor"], "--mode=doctor needs --config"),
        (["--mode=fly"], "--mode=fly: value should be one of <train|evaluate|"),
        (["evaluate"], "--mode=evaluate needs --workdir"),
        (["predict", "a.jpg"], "--mode=predict needs --workdir"),
        (["evaluate", "runs/a"], "'runs/a' is not a flag"),
        (["--config=pspnet", "doctor"], "'doctor' is not a flag; a command is the first word"),
        (["--config=pspnet", "--fly=1"], "Unknown command line flag 'fly'"),
        (["--config=pspnet", "--blend=linear"], "does not take --blend (--mode=predict does)"),
        (["--config=pspnet", "--flip"], "does not take --flip (--mode=evaluate, predict do)"),
        (["--mode=evaluate", "--workdir=a", "--window=24x32"], "does not take --window"),
        (["--config=pspnet", "--samples=3"], "--mode=train does not take --samples"),
        (["--mode=doctor", "--config=pspnet", "--profile=1:2"], "does not take --profile"),
        (["--mode=doctor", "--config=pspnet", "--target=h200"], "does not take --target"),
        (["--mode=compare", "--runs=a,b", "--deterministic"], "does not take --deterministic"),
        (["--mode=predict", "--num_processes=2"], "does not take --num_processes"),
        (
            ["--mode=evaluate", "--workdir=a", "--config=pspnet"],
            "--mode=evaluate does not take --config (",
        ),
        (
            ["--mode=evaluate", "--workdir=a", "--config.optim.name=sgd"],
            "does not take --config.optim.name: it has the config of the run; it takes "
            "--config.data.",
        ),
        (
            ["--mode=predict", "--workdir=a", "--input=b", "--config.data.root=c"],
            "does not take --config.data.root: it has the config of the run; it takes "
            "--config.model.threshold",
        ),
        (["--mode=score", "--workdir=a"], "--mode=score needs --predictions"),
        (["--mode=score", "--predictions=a"], "--mode=score needs --config or --workdir"),
        (
            ["--mode=score", "--predictions=a", "--config=pspnet", "--workdir=b"],
            "needs --config or --workdir, not --config and --workdir",
        ),
        (
            ["--mode=score", "--predictions=a", "--workdir=b", "--config.optim.name=sgd"],
            "does not take --config.optim.name: it has the config of the run; it takes",
        ),
        (["--mode=score", "--predictions=a", "--config=pspnet", "--size=big"], "--size=big: use"),
        (["--config=pspnet", "--profile=0:2"], "--profile=0:2: use START:STEPS"),
        (["--config=pspnet", "--mode=prepare", "--size=240"], "--size=240: use HEIGHTxWIDTH"),
        (["--mode=predict", "--scales=1,a"], "--scales=1,a: use numbers with commas"),
        (["--config=configs/pspnet.py:nothing"], "preset 'nothing' is unknown"),
        (["--config=pspnet", "--config.model.depth=3"], "depth"),
        (["--config=pspnet", "--config.data.rooot=3"], "config.data.rooot is unknown; known are"),
        (["--config=configs/nothing.py"], "is no file; known names are deconvnet, deeplabv3"),
        (["--config=nothing"], "is no file; known names are deconvnet, deeplabv3"),
    ],
)
def test_what_is_refused(refusal, arguments, message):
    answer = refusal(*arguments)
    assert message in answer
    assert answer.startswith("error: ")
    assert len(answer.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config=configs/pspnet.py:camvid", "--config.data.root=a", "--profile=10:5"],
        ["--config", "pspnet:camvid", "--deterministic"],
        ["--config=segnet.py", "--mode=prepare", "--size=240x480"],
        ["--mode=predict", "--workdir=a", "--input=b", "--scales=0.75,1", "--flip"],
        ["--mode=evaluate", "--workdir=a", "--config.data.root=b", "--splits=val,test"],
        ["--mode=evaluate", "--workdir=a", "--scales=0.75,1,1.25", "--flip", "--crf"],
        ["--mode", "evaluate", "--workdir=a", "--config.data.root=b"],
        ["--mode=uncertainty", "--runs=a,b", "--config.data.root=b"],
        ["--mode=evaluate", "--workdir=a", "--config.data.label_size=own"],
        ["--mode=score", "--predictions=a", "--config=pspnet", "--config.data.root=b"],
        ["--mode=score", "--predictions=a", "--workdir=b", "--config.data.root=b", "--size=server"],
    ],
)
def test_what_is_taken(refusal, arguments):
    assert refusal(*arguments) == ""


# Options of where data lie and how they are measured that change nothing in a command: refused, as
# those of training are.
_TRAINING = {
    *("data.train_split", "data.sampling", "data.repeat_threshold", "data.on_device"),
    *("data.on_unreadable", "data.on_changed", "data.workers", "parallel.shard_optimizer"),
}
_DEVICES = {
    *("parallel.mode", "parallel.data", "parallel.space"),
    *("report.samples", "report.measures"),
}
_NETWORK = {"data.image_size", "data.mean", "data.std", "data.local_contrast"}
REFUSED = {
    "evaluate": _TRAINING,
    "uncertainty": {*_TRAINING, "data.eval_splits", "parallel.mode", "report.measures"},
    "export": {*_TRAINING, *_DEVICES, "data.eval_splits", "data.label_size"},
    "recalibrate": {
        *(_TRAINING - {"data.train_split"}),
        *_DEVICES,
        *("data.eval_splits", "data.val_split", "data.label_size", "data.cache_mb"),
        *("data.eval_images", "train.eval_batch_size"),
    },
    "score": {
        *_TRAINING,
        *_DEVICES,
        *_NETWORK,
        *("data.eval_splits", "data.label_size", "data.cache_mb"),
        "train.eval_batch_size",
    },
}


@pytest.mark.parametrize("mode", [m for m, row in COMMANDS.items() if "config" not in row.needs])
def test_no_option_is_passed_over_in_silence(refusal, monkeypatch, mode):
    """Each option of a config is applied by a command that has a run's config, or refused."""
    flags_given = {"workdir": "a", "runs": "a,b", "input": "b", "predictions": "c"}
    needed = {*COMMANDS[mode].needs, *COMMANDS[mode].either} - {"config"}
    given = [f"--mode={mode}", *(f"--{name}={flags_given[name]}" for name in needed)]
    assert refusal(*given) == ""
    options, answers = flatten(base.get_config()), {}
    for option in options:
        monkeypatch.setattr(sys, "argv", ["segjax", *given, f"--config.{option}=1"])
        try:
            cli.check_flags()
        except ValueError as error:
            answers[option] = str(error)
    assert all(f"--config.{option}" in answer for option, answer in answers.items())
    refused = {*answers}
    sections = ("data.", "parallel.", "report.", "train.eval_batch_size")
    everything = {option for option in options if option.startswith(sections)}
    read = {"data.value_range", "data.exif", "data.timeout_s"} if mode == "predict" else set()
    assert refused & everything == REFUSED.get(mode, everything - read)
    assert {o for o in options if not o.startswith(sections)} <= refused


def test_values_arrive_parsed(refusal):
    assert not refusal("--config=pspnet", "--profile=10:5")
    assert cli.FLAGS.profile == (10, 5)
    assert not refusal("--mode=predict", "--workdir=a", "--input=b", "--window=240x480")
    assert (cli.FLAGS.window, cli.FLAGS.scales) == ((240, 480), (1.0,))
    assert not refusal("--mode=evaluate", "--workdir=a", "--config.data.root=b=c")
    assert arguments.overrides(sys.argv) == {"data.root": "b=c"}


def test_modes_that_several_processes_can_share():
    for mode in COMMANDS:
        cli.check_processes(mode, 1)
        if mode in ("train", "evaluate"):
            cli.check_processes(mode, 64)
        else:
            message = rf"--mode={mode} in 2 processes; only train and evaluate can be shared"
            with pytest.raises(ValueError, match=message):
                cli.check_processes(mode, 2)


def test_help_has_every_command_and_flag(refusal):
    refusal()
    text = cli.help_text()
    assert all(f"  {name} " in text and row.summary in text for name, row in COMMANDS.items())
    assert "pspnet" in text
    for mode in COMMANDS:
        text = cli.help_text(mode)
        assert all(f"--{name}\n" in text for name in flags_of(mode))


def test_errors_of_a_command(tmp_path):
    """From any folder: one line that says what to do, exit code 2, and no traceback."""
    process = subprocess.run(
        [sys.executable, ROOT / "launch.py", "--config=pspnet", "--mode=plan", "--target=h300"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert "--target=h300 is unknown; known: a100, h100, h200, b200" in process.stderr
    assert "Traceback" not in process.stderr
