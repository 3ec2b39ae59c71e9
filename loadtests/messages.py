"""What is asked of the ensemble and what it must answer: requests made once, answers checked every time.

The tensors are those of the model contract in ``triton/models/radstream_ensemble/config.pbtxt``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from scenarios.scenario import Kind

MODEL: Final = "radstream_ensemble"
SERVED_BY: Final = "served_by"
STUDY_TEXT: Final = "Chest radiograph, frontal view. Question: signs of pneumonia or effusion?"
FEATURES: Final = 768
CLASSES: Final = 5

_CLASSIFIER: Final = ("predictions", "confidence")
_DETECTOR: Final = ("boxes", "scores", "labels")
_ENCODER: Final = ("image_features", "text_features", "joint_features")
OUTPUTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    Kind.CLASSIFIER: _CLASSIFIER,
    Kind.DETECTOR: _DETECTOR,
    Kind.ENCODER: _ENCODER,
    Kind.ENSEMBLE: _CLASSIFIER + _DETECTOR + _ENCODER,
}
_DTYPES: Final = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4")}
OUTPUT_TYPES: Final[Mapping[str, str]] = dict.fromkeys(OUTPUTS[Kind.ENSEMBLE], "FP32") | {"labels": "INT32"}

# A GPU may round a batch of eight unlike a batch of one.
_GOLDEN_RELATIVE: Final = 1e-3
_GOLDEN_ABSOLUTE: Final = 1e-4
_SOFTMAX_SUM_ERROR: Final = 1e-3


class WrongAnswerError(Exception):
    """The server said OK, but its answer is not one that the model can give; the message says in what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer's tensors by output name, without the batch dimension, and the server that gave it."""

    tensors: dict[str, np.ndarray]
    served_by: str


def request_bytes(kind: Kind, image: bytes, *, with_text: bool) -> bytes:
    """A serialised ModelInferRequest of batch 1 for the outputs that ``kind`` asks for, and ``served_by``."""
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    _add_bytes_input(request, "image", image)
    if with_text:
        _add_bytes_input(request, "text", STUDY_TEXT.encode())
    for name in (*OUTPUTS[kind], SERVED_BY):
        request.outputs.add(name=name)
    serialised: bytes = request.SerializeToString()
    return serialised


def _add_bytes_input(request: service_pb2.ModelInferRequest, name: str, value: bytes) -> None:
    request.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
    request.raw_input_contents.append(struct.pack("<I", len(value)) + value)


def read_answer(kind: Kind, body: bytes) -> Answer:
    """Parse and check one answer: every tensor that was asked for, its type and shape, finite, softmax sums to 1.

    Raises:
        WrongAnswerError: the message names the tensor and what is wrong with it.
    """
    try:
        response = service_pb2.ModelInferResponse.FromString(body)
    except DecodeError as error:
        msg = f"not a ModelInferResponse: {error}"
        raise WrongAnswerError(msg) from error
    raw = dict(zip((output.name for output in response.outputs), response.raw_output_contents, strict=False))
    described = {output.name: output for output in response.outputs}
    tensors = {name: _tensor(name, described.get(name), raw.get(name)) for name in OUTPUTS[kind]}
    _check_values(tensors)
    return Answer(tensors, _served_by(raw.get(SERVED_BY)))


def _tensor(name: str, described: object | None, raw: bytes | None) -> np.ndarray:
    if described is None or raw is None:
        msg = f"{name} is missing"
        raise WrongAnswerError(msg)
    if described.datatype != OUTPUT_TYPES[name]:  # type: ignore[attr-defined]
        msg = f"{name} has type {described.datatype}, not {OUTPUT_TYPES[name]}"  # type: ignore[attr-defined]
        raise WrongAnswerError(msg)
    shape = tuple(described.shape)  # type: ignore[attr-defined]
    dtype = _DTYPES[OUTPUT_TYPES[name]]
    if shape[:1] != (1,) or len(raw) != dtype.itemsize * int(np.prod(shape)):
        msg = f"{name} has shape {list(shape)} and {len(raw)} bytes"
        raise WrongAnswerError(msg)
    return np.frombuffer(raw, dtype).reshape(shape[1:])


def _check_values(tensors: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        expected = _expected_shape(name, tensors)
        if tensor.shape != expected:
            msg = f"{name} has shape {list(tensor.shape)}, not {list(expected)}"
            raise WrongAnswerError(msg)
        if not np.isfinite(tensor).all():
            msg = f"{name} holds NaN or infinity"
            raise WrongAnswerError(msg)
    predictions = tensors.get("predictions")
    if predictions is not None and abs(float(predictions.sum()) - 1) > _SOFTMAX_SUM_ERROR:
        msg = f"predictions sum to {float(predictions.sum()):.4f}, not 1"
        raise WrongAnswerError(msg)


def _expected_shape(name: str, tensors: dict[str, np.ndarray]) -> tuple[int, ...]:
    match name:
        case "predictions":
            return (CLASSES,)
        case "confidence":
            return (1,)
        case "boxes":
            return (len(tensors["scores"]), 4)
        case "scores" | "labels":
            return (len(tensors["scores"]),)
        case _:
            return (FEATURES,)


def _served_by(raw: bytes | None) -> str:
    if raw is None or len(raw) < 4:  # noqa: PLR2004 - the length prefix of a BYTES element
        msg = f"{SERVED_BY} is missing"
        raise WrongAnswerError(msg)
    return raw[4:].decode("utf-8", "replace")


def compare(answer: Answer, golden: Mapping[str, np.ndarray]) -> None:
    """Raise WrongAnswerError unless the answer equals the known one up to a GPU's rounding."""
    for name, tensor in answer.tensors.items():
        known = golden[name]
        if tensor.shape != known.shape:
            msg = f"{name} has shape {list(tensor.shape)}, the known answer {list(known.shape)}"
            raise WrongAnswerError(msg)
        if not np.allclose(tensor, known, rtol=_GOLDEN_RELATIVE, atol=_GOLDEN_ABSOLUTE):
            worst = float(np.abs(tensor - known).max())
            msg = f"{name} differs from the known answer by up to {worst:.3g}"
            raise WrongAnswerError(msg)


def pack_golden(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[list[int], bytes]]:
    """Tensors by output name as plain values for Locust's channel; `unpack_golden` reads them."""
    return {name: (list(tensor.shape), tensor.tobytes()) for name, tensor in tensors.items()}


def unpack_golden(packed: Mapping[str, tuple[list[int], bytes]]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(raw, _DTYPES[OUTPUT_TYPES[name]]).reshape(tuple(shape))
        for name, (shape, raw) in packed.items()
    }
