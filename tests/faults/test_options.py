"""Options that no run can have: one line before anything is compiled, for every option and flag."""

import dataclasses
import math
import os
import re
from types import SimpleNamespace

import jax
import ml_collections
import numpy as np
import pytest

from configs import base
from segjax import cli
from segjax.cli import COMMANDS
from segjax.config import check_set, flatten, with_overrides
from segjax.destinations import check_file, check_folder
from segjax.inference.crf import DenseCRF
from segjax.inference.options import InferenceOptions
from segjax.models import MODELS, build, model_defaults
from segjax.ranges import RANGES, check_numbers
from segjax.report.places import check_places
from segjax.training import resources
from segjax.training.options import check_options
from segjax.transforms.options import Augmentation
from tests.conftest import make_tiny_config
from tests.test_cli import refusal  # noqa: F401

OPTIONS = {name: v for name, v in flatten(base.get_config()).items() if v is not None}
NUMBERS = {name: v for name, v in OPTIONS.items() if type(v) in (int, float)}
# Tuples of texts, and those that their own place reads.
TEXTS = {"data.eval_splits", "train.freeze"}
TUPLES = {name for name, v in OPTIONS.items() if isinstance(v, tuple)} - TEXTS
# What no number of a config may be; a text, where config files may put one.
NONSENSE = (
    math.nan,
    math.inf,
    -math.inf,
    -(10.0**30),
    10**20,
    -(10**20),
    1e39,
    "x",
    "",
    None,
    True,
)


def build_with(model: str, option: str, value: object) -> None:
    check_numbers({f"model.{option}": value})
    build({"name": model, option: value}, 3)


def one_line(error: pytest.ExceptionInfo, name: str) -> None:
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert name.rpartition(".")[2] in text
    assert ";" in text  # what to do


def check(name: str, value: object) -> None:
    """The checks of a run's start that read the option."""
    config = base.get_config("segnet_basic").to_dict()
    section, _, option = name.rpartition(".")
    (config[section] if section else config)[option] = value
    if section == "augment":
        check_options({**config, "augment": {**config["augment"]}, "train": TRAIN})
        Augmentation.from_config({**config, "train": TRAIN})
    else:
        config["train"] = {**TRAIN, **{k: v for k, v in config["train"].items() if k == option}}
        check_options(config)


TRAIN = {**base.get_config().train.to_dict(), "steps": 100}


@pytest.mark.fault(
    "a number of a config is NaN, infinite, negative, of 20 digits, a text, None or True",
    "refused in one line, for every option",
)
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_make_no_sense(name):
    """A new option without a range fails here."""
    for value in NONSENSE:
        with pytest.raises(ValueError) as error:
            check(name, value)
        one_line(error, name)
    if isinstance(NUMBERS[name], int):
        with pytest.raises(ValueError, match=re.escape(f"{name}=1.5; ")):
            check(name, 1.5)


@pytest.mark.fault(
    "a tuple of a config has a wrong length, or holds no numbers", "refused in one line"
)
@pytest.mark.parametrize("name", sorted(TUPLES - {"data.value_range", "data.label_size"}))
def test_tuples_that_make_no_sense(name):
    bad = [("a", "b"), (math.nan, 1.0), ((1, 2), 3), (True, 1), "text", None, 5, (1e39, 1e39)]
    bad += [] if name in ("data.ignore_ids", "optim.step_at") else [(1,), (1, 2, 3, 4)]
    for value in bad:
        with pytest.raises(ValueError) as error:
            check(name, value)
        one_line(error, name)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_tuples_of_texts(name):
    with pytest.raises(ValueError, match=re.escape(f"{name}=(1, 2); use names")):
        check(name, (1, 2))


@pytest.mark.fault(
    "an option of a network makes no sense", "refused in one line, for every network"
)
@pytest.mark.parametrize("model", MODELS)
def test_options_of_networks(model):
    defaults = model_defaults(model)
    for option, default in defaults.items():
        if option in ("head", "threshold") or type(default) not in (int, float, tuple):
            continue
        bad = (
            [(-1,), (0,), (math.nan,), "x", None, (None,)]
            if isinstance(default, tuple)
            else NONSENSE
        )
        for value in bad:
            with pytest.raises(ValueError) as error:
                build_with(model, option, value)
            one_line(error, option)


def test_every_range_is_of_an_option():
    known = {*OPTIONS, "model.threshold", "optim.optimizer_function"}
    assert {*RANGES} <= known


@pytest.mark.fault("a config file leaves an option None", "refused in one line")
def test_none():
    config = base.get_config("segnet_basic")
    check_set(config, base.get_config("segnet_basic"))
    with config.unlocked():
        config.data.root = None
    with pytest.raises(ValueError, match=r"data\.root=None; use a value such as ''"):
        check_set(config, base.get_config("segnet_basic"))


@pytest.mark.fault("--config of a finished run is given a number that makes no sense", "refused")
def test_overrides_of_a_run():
    config = ml_collections.ConfigDict(make_tiny_config().to_dict())
    for name, value in (
        ("data.timeout_s", "nan"),
        ("train.eval_batch_size", "-3"),
        ("data.eval_images", "99999999999999999999"),
        ("report.samples", "0"),
    ):
        with pytest.raises(ValueError, match=re.escape(name)) as error:
            with_overrides(config, {name: value})
        one_line(error, name)


class TestFlags:
    """What is typed."""

    @pytest.mark.fault("a flag or an option is given twice", "refused, tuples too")
    @pytest.mark.parametrize(
        "arguments, name",
        [
            (
                ["--config.data.image_size=(32,64)", "--config.data.image_size=240"],
                "data.image_size",
            ),
            (["--config.optim.step_at=(0.5,)", "--config.optim.step_at=0.9"], "optim.step_at"),
            (["--config.train.steps=5", "--config.train.steps", "6"], "train.steps"),
            (["-config.train.steps=5", "--config.train.steps=5"], "train.steps"),
            (["--noconfig.augment.flip", "--config.augment.flip=True"], "augment.flip"),
            (["--workdir=a", "--workdir=a"], "workdir"),
            (["--workdir", "a", "--workdir=b"], "workdir"),
            (["--config=pspnet"], "config"),
            (["--deterministic", "--nodeterministic"], "deterministic"),
            (["--mode=doctor", "--mode=train"], "mode"),
        ],
    )
    def test_twice(self, refusal, arguments, name):  # noqa: F811
        answer = refusal("--config=segnet_basic", *arguments)
        assert answer.startswith("error: --")
        assert f"{name} is given more than once; give it once" in answer

    @pytest.mark.fault("a flag or an option is given twice", "refused, tuples too")
    @pytest.mark.parametrize("mode", COMMANDS)
    def test_twice_for_every_flag_of_every_command(self, refusal, mode):  # noqa: F811
        for flag in cli.flags_of(mode):
            answer = refusal(f"--mode={mode}", f"--{flag}=a", f"--{flag}=a")
            assert "is given more than once" in answer or "is no file" in answer

    def test_twice_by_the_word_of_a_command(self, refusal):  # noqa: F811
        assert "--input is given more" in refusal("predict", "a.jpg", "--input=b", "--workdir=c")
        assert "--mode is given more" in refusal("doctor", "--mode=train", "--config=pspnet")

    @pytest.mark.fault("an option is misspelt", "the nearest is named")
    @pytest.mark.parametrize(
        "argument, message",
        [
            ("--config.train.stepz=5", "did you mean train.steps?"),
            ("--config.steps=5", "did you mean train.steps?"),
            ("--config.optim.learningrate=1", "did you mean optim.learning_rate?"),
            ("--config.trane.steps=5", "did you mean train.steps?"),
            ("--config.train=5", "is a section; give one of its options, such as"),
            ("--config.train.=5", "is a section"),
            ("--config.=5", "is unknown; known are augment, data"),
            ("--config..=5", "is unknown"),
            ("--config.train.steps.x=5", "is unknown"),
            ("--workdirr=x", "Did you mean: workdir"),
        ],
    )
    def test_misspelt(self, refusal, argument, message):  # noqa: F811
        answer = refusal("--config=segnet_basic", argument)
        assert message in answer
        assert len(answer.strip().splitlines()) == 1

    @pytest.mark.fault("a value is of another type", "refused in one line")
    @pytest.mark.parametrize(
        "argument, message",
        [
            ("--config.train.steps=abc", "use a whole number"),
            ("--config.train.steps=2.5", "use a whole number"),
            ("--config.train.steps=1e3", "use a whole number"),
            ("--config.train.steps=", "use a whole number"),
            ("--config.train.batch_size=True", "use a whole number"),
            ("--config.train.steps=None", "use a whole number"),
            ("--config.optim.learning_rate=fast", "use a number"),
            ("--config.augment.flip=maybe", "use True or False"),
            ("--config.augment.scale=(1,", "Error while parsing"),
            ("--config.augment.scale={[]:1}", "unhashable"),
            ("--config.augment.scale=" + "-" * 5000 + "1", "recursion"),
            ("--process_id=x", "--process_id=x: use a whole number"),
        ],
    )
    def test_types(self, refusal, argument, message):  # noqa: F811
        answer = refusal("--config=segnet_basic", argument)
        assert message in answer
        assert len(answer.strip().splitlines()) == 1
        assert "mend the config file" not in answer

    @pytest.mark.fault("a config file cannot be run", "its line is named")
    @pytest.mark.parametrize(
        "text, message",
        [
            ("def get_config(:\n", "line 1: SyntaxError"),
            ("x = 1\ndef get_config():\n  return y\n", "line 3: NameError: name 'y'"),
            ("import nothing_like_this\n", "line 1: ModuleNotFoundError"),
            (
                "from configs import base\ndef get_config():\n  config = base.get_config()\n"
                "  config.train.steps = 2.5\n  return config\n",
                "line 4: TypeError",
            ),
            ("x = 1\n", "get_config"),
            ("raise SystemError()\n", "line 1: SystemError"),
        ],
    )
    def test_config_files(self, refusal, text, message, tmp_path):  # noqa: F811
        path = tmp_path / "own.py"
        path.write_text(text)
        answer = refusal(f"--config={path}")
        assert message in answer
        assert len(answer.strip().splitlines()) == 1

    @pytest.mark.parametrize("file", ["x" * 5000, "configs", "/dev/null/x", "\udcff.py"])
    def test_config_files_that_are_none(self, refusal, file):  # noqa: F811
        assert "is no file; known names are" in refusal(f"--config={file}")


@pytest.mark.fault("a flag's number makes no sense", "refused in one line")
@pytest.mark.parametrize(
    "options",
    [
        *({"scales": (x,)} for x in (math.nan, math.inf, 0.0, -1.0, 1e-9, 1e9)),
        *({"batch_size": x} for x in (0, -4, 10**20)),
        *({"inference": "slide", "window": x} for x in ((0, 5), (10**9, 5), (5,))),
        *({"inference": "slide", "overlap": x} for x in (math.nan, 1.0, -0.1)),
    ],
    ids=str,
)
def test_options_of_inference(options):
    with pytest.raises(ValueError) as error:
        InferenceOptions(**options)
    one_line(error, [*options][-1])


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(DenseCRF)])
def test_options_of_a_crf(name):
    for value in (math.nan, math.inf, 0.0, -1.0, 1e30):
        with pytest.raises(ValueError) as error:
            DenseCRF.from_options({name: value})
        one_line(error, name)


class TestPlaces:
    """Where a command writes is looked at before it works."""

    @pytest.mark.fault(
        "an output folder is a file, a device, a dead link or has too long a name", "refused"
    )
    def test_folders(self, tmp_path):
        (tmp_path / "file").write_text("")
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        check_folder(tmp_path / "new" / "deeper", "--output")
        for path, message in (
            (tmp_path / "file", "is a file; use a folder"),
            (tmp_path / "file" / "x" / "y", "is a file; use a folder"),
            (tmp_path / "link", "leads nowhere"),
            ("/dev/null", "is a file"),
            ("/dev/full/x", "is a file"),
            (tmp_path / ("x" * 256), "of 256 bytes; use 255"),
        ):
            with pytest.raises(ValueError, match=f"^--output=.*{message}"):
                check_folder(path, "--output")

    @pytest.mark.fault("the file to write is a folder or a device", "refused")
    def test_files(self, tmp_path):
        check_file(tmp_path / "a" / "b.onnx", "--output")
        for path in (tmp_path, "/dev/full", "/dev/null/x", tmp_path / ("x" * 256)):
            with pytest.raises(ValueError, match=r"^--output="):
                check_file(path, "--output")

    @pytest.mark.fault("report.html is a folder, or samples a file", "refused at the start")
    @pytest.mark.parametrize("name", ["report.html", "results.json", "curves.png", "config.json"])
    def test_folders_in_the_place_of_reports(self, tmp_path, name):
        check_places(tmp_path, "--workdir")
        (tmp_path / name).mkdir()
        with pytest.raises(
            ValueError, match=rf"{re.escape(name)} is no file, and will be written.*remove it"
        ):
            check_places(tmp_path, "--workdir")

    @pytest.mark.parametrize("name", ["samples", "evaluations", "checkpoints"])
    def test_files_in_the_place_of_folders(self, tmp_path, name):
        (tmp_path / name).write_text("")
        with pytest.raises(ValueError, match=f"{name} is no folder"):
            check_places(tmp_path, "--workdir")


class TestResources:
    """What a run needs of the machine."""

    @pytest.fixture
    def setup(self):
        """A run of 4 images of 100x100, whose state is 3 MiB."""
        batch = {"image": jax.ShapeDtypeStruct((4, 100, 100, 3), np.uint8)}
        return SimpleNamespace(
            config={"data": {"workers": 2, "image_size": (100, 100)}},
            abstract_batch=lambda: batch,
            abstract_eval_batch=lambda: batch,
            abstract_state=lambda: jax.ShapeDtypeStruct((3, 2**18), np.float32),
        )

    def test_a_machine_that_is_large_enough(self, setup, tmp_path):
        resources.check_resources(setup, tmp_path)

    @pytest.mark.fault("/dev/shm is too small for the workers", "refused, with the remedy")
    def test_shared_memory(self, setup, tmp_path, monkeypatch):
        free = {"/dev/shm": 2**20, str(tmp_path): 2**30}
        usage = lambda path: SimpleNamespace(free=free[str(path)])  # noqa: E731
        monkeypatch.setattr(resources.shutil, "disk_usage", usage)
        monkeypatch.setattr(resources, "_SHARED", resources.pathlib.Path("/dev/shm"))
        with pytest.raises(
            ValueError, match=r"data.workers=2 pass.* 1.14 MiB.*--shm-size.*workers=0"
        ):
            resources.check_resources(setup, tmp_path)
        setup.config["data"]["workers"] = 0
        resources.check_resources(setup, tmp_path)

    @pytest.mark.fault("the disk has no room for one checkpoint", "refused; a resumed run warns")
    def test_disk(self, setup, tmp_path, monkeypatch):
        setup.config["data"]["workers"] = 0
        usage = lambda path: SimpleNamespace(free=2**20)  # noqa: E731
        monkeypatch.setattr(resources.shutil, "disk_usage", usage)
        with pytest.raises(
            ValueError, match=r"1.0 MiB are left there, .* takes 4.0 MiB; make room"
        ):
            resources.check_resources(setup, tmp_path)
        monkeypatch.setattr(resources, "has_checkpoint", lambda workdir: True)
        resources.check_resources(setup, tmp_path)

    @pytest.mark.fault("a batch is larger than the memory", "refused")
    def test_memory(self, setup, tmp_path):
        batch = {"image": jax.ShapeDtypeStruct((2**31 - 1, 100, 100, 3), np.uint8)}
        setup.abstract_eval_batch = lambda: batch
        with pytest.raises(ValueError, match=r"train\.eval_batch_size: a batch of .* GiB, of "):
            resources.check_resources(setup, tmp_path)

    @pytest.mark.fault("ulimit -n is too small", "raised as far as it may be, else refused")
    def test_open_files(self, setup, tmp_path, monkeypatch):
        limits, new = [60, 4096], []
        monkeypatch.setattr(resources.resource, "getrlimit", lambda _: tuple(limits))
        monkeypatch.setattr(resources.resource, "setrlimit", lambda _, pair: new.append(pair))
        resources.check_resources(setup, tmp_path)
        assert new == [(128, 4096)]
        limits[1] = 100
        with pytest.raises(ValueError, match=r"may open 100 files .*needs up to 128"):
            resources.check_resources(setup, tmp_path)


def test_no_home(monkeypatch):
    """Of a user that the machine does not know, as in containers."""
    from segjax.training import runtime
    from segjax.weights import hub

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SEGJAX_CACHE", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    before = jax.config.jax_compilation_cache_dir
    runtime.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before
    with pytest.raises(ValueError, match="no home folder; set SEGJAX_CACHE"):
        hub.cache_folder()
