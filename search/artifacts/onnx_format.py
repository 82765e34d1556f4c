"""An ONNX program as bytes, and run by ONNX Runtime; both are an extra: imported where needed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from aesearch.models.autoencoder import BuildArguments


def content(document: onnx.ModelProto, configuration: BuildArguments) -> bytes:
    """Give the bytes of a program, with what rebuilds its network; equal ones give equal bytes."""
    for node in document.graph.node:
        # It names the files of the machine that this runs on.
        node.ClearField("metadata_props")
    onnx.helper.set_model_props(document, {"aesearch": json.dumps(configuration, sort_keys=True)})
    onnx.checker.check_model(document)
    return bytes(document.SerializeToString(deterministic=True))


def load(input_name: str, output_name: str, path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Give what a file computes: a batch in, a batch out."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run([output_name], {input_name: batch})[0]
