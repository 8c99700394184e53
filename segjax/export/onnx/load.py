"""Runs ONNX files of segjax by onnxruntime, on the CPU."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.data.errors import DataError
from segjax.data.files.json_file import parse_json
from segjax.data.files.reading import reading
from segjax.export.load import ExportedModel, check_metadata
from segjax.weights.onnx_file import read_model

SUFFIX = ".onnx"
FORMAT = "segjax onnx"


class Session:
    """An ONNX file under onnxruntime.

    Args:
      content: of the file. From bytes, onnxruntime opens no other file.

    Attributes:
      inputs, outputs: their names.

    Raises:
      ImportError: if onnxruntime is missing; and onnxruntime's own errors.
    """

    def __init__(self, content: bytes):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {value.name for value in self._session.get_inputs()}
        self.outputs = {value.name for value in self._session.get_outputs()}

    def run(self, images: np.ndarray, output: str) -> np.ndarray:
        """The output of that name."""
        (result,) = self._session.run([output], {"images": images})
        return np.asarray(result)


def load(path: pathlib.Path) -> ExportedModel:
    """The model of an ONNX file that `--mode=export --format=onnx` wrote.

    The file holds no hash and no test: it was checked when it was written.

    Raises:
      ValueError: naming the file, if it is missing, damaged or of others; or if onnxruntime is.
    """
    if not path.is_file():
        raise ValueError(f"exported model {path} does not exist; write it with --mode=export")
    content, texts = read_model(path)
    if texts.get("format") != json.dumps(FORMAT):
        raise ValueError(
            f"{path} is no ONNX file of segjax: its metadata name no format {FORMAT!r}; use a "
            "file that --mode=export --format=onnx wrote, or onnxruntime itself"
        )
    remedy = "copy it again, or write it with --mode=export"
    with reading(path, remedy, "is damaged"):
        metadata = {name: parse_json(text) for name, text in texts.items()}
        check_metadata(metadata)
        try:
            return model(metadata, Session(content))
        except ImportError as error:
            raise DataError(
                f"{path} needs onnxruntime, which is not installed ({error})",
                "pip install onnxruntime",
            ) from error


def model(metadata: Mapping[str, Any], session: Session) -> ExportedModel:
    """The model of a session, with the metadata that its file has or will have; ValueError for one
    that has not our names of input and output."""
    if session.inputs != {"images"} or "labels" not in session.outputs:
        raise ValueError("its input is not images, or it has no output labels")
    return ExportedModel(metadata, lambda images: session.run(images, "labels"))
