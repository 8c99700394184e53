"""Runs ONNX files of segjax by onnxruntime, on the CPU."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.export.load import ExportedModel

SUFFIX = ".onnx"
FORMAT = "segjax onnx"


class Session:
    """An ONNX file under onnxruntime.

    Args:
      file: its path or its content.

    Attributes:
      metadata: texts by name.

    Raises:
      ImportError: if onnxruntime is missing; and onnxruntime's own errors.
    """

    def __init__(self, file: pathlib.Path | bytes):
        import onnxruntime

        content = file if isinstance(file, bytes) else str(file)
        self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

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
    try:
        session = Session(path)
    except ImportError as error:
        raise ValueError(
            f"{path} needs onnxruntime, which is not installed ({error}); pip install onnxruntime"
        ) from error
    except Exception as error:  # onnxruntime's errors have no common class but this
        raise ValueError(
            f"{path} is damaged, or no ONNX file ({error}); write it with --mode=export"
        ) from error
    texts = session.metadata
    if texts.get("format") != json.dumps(FORMAT):
        raise ValueError(
            f"{path} is no ONNX file of segjax: its metadata name no format {FORMAT!r}; use a "
            "file that --mode=export --format=onnx wrote, or onnxruntime itself"
        )
    return model({name: json.loads(text) for name, text in texts.items()}, session)


def model(metadata: Mapping[str, Any], session: Session) -> ExportedModel:
    """The model of a session, with the metadata that its file has or will have."""
    return ExportedModel(metadata, lambda images: session.run(images, "labels"))
