"""What is asked of the ensemble and what it must answer: requests made once, answers checked every time.

The tensors are those of the model contract in ``triton/models/radstream_ensemble/config.pbtxt``.
"""

from __future__ import annotations

import math
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
_FP32: Final = np.dtype("<f4")
_DTYPES: Final = {"FP32": _FP32, "INT32": np.dtype("<i4")}
_ELEMENT_BYTES: Final = 4
OUTPUT_TYPES: Final[Mapping[str, str]] = dict.fromkeys(OUTPUTS[Kind.ENSEMBLE], "FP32") | {"labels": "INT32"}

# A GPU may round a batch of eight unlike a batch of one.
_GOLDEN_RELATIVE: Final = 1e-3
_GOLDEN_ABSOLUTE: Final = 1e-4
_SOFTMAX_SUM_ERROR: Final = 1e-3


class WrongAnswerError(Exception):
    """The server said OK, but its answer is not one that the model can give; the message says in what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer by output name: shapes without the batch dimension, values as they came; and the server's name."""

    shapes: dict[str, tuple[int, ...]]
    raw: dict[str, bytes]
    served_by: str

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """The values as arrays."""
        return {
            name: np.frombuffer(self.raw[name], _DTYPES[OUTPUT_TYPES[name]]).reshape(shape)
            for name, shape in self.shapes.items()
        }


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
    outputs = {output.name: (output, raw) for output, raw in zip(response.outputs, response.raw_output_contents)}  # noqa: B905 - a missing end shows as a missing tensor
    shapes = {name: _shape(name, outputs) for name in OUTPUTS[kind]}
    for name, shape in shapes.items():
        if shape != _expected_shape(name, shapes):
            msg = f"{name} has shape {list(shape)}, not {list(_expected_shape(name, shapes))}"
            raise WrongAnswerError(msg)
    raw = {name: outputs[name][1] for name in shapes}
    _check_values(raw)
    return Answer(shapes, raw, _served_by(outputs.get(SERVED_BY)))


def _shape(name: str, outputs: Mapping[str, tuple[object, bytes]]) -> tuple[int, ...]:
    """A tensor's shape without the batch dimension, which has to agree with its type and its size in bytes."""
    if name not in outputs:
        msg = f"{name} is missing"
        raise WrongAnswerError(msg)
    described, raw = outputs[name]
    if described.datatype != OUTPUT_TYPES[name]:  # type: ignore[attr-defined]
        msg = f"{name} has type {described.datatype}, not {OUTPUT_TYPES[name]}"  # type: ignore[attr-defined]
        raise WrongAnswerError(msg)
    shape = tuple(described.shape)  # type: ignore[attr-defined]
    if shape[:1] != (1,) or len(raw) != _ELEMENT_BYTES * math.prod(shape):
        msg = f"{name} has shape {list(shape)} and {len(raw)} bytes"
        raise WrongAnswerError(msg)
    return shape[1:]


def _check_values(raw: Mapping[str, bytes]) -> None:
    floats = [name for name in raw if OUTPUT_TYPES[name] == "FP32"]
    # One sum over all of them, because it costs a tenth of asking each: NaN and infinity do not vanish in a sum.
    if not math.isfinite(np.frombuffer(b"".join(raw[name] for name in floats), _FP32).sum(dtype=np.float64)):
        broken = next(name for name in floats if not np.isfinite(np.frombuffer(raw[name], _FP32)).all())
        msg = f"{broken} holds NaN or infinity"
        raise WrongAnswerError(msg)
    if "predictions" in raw:
        total = sum(struct.unpack(f"<{CLASSES}f", raw["predictions"]))
        if abs(total - 1) > _SOFTMAX_SUM_ERROR:
            msg = f"predictions sum to {total:.4f}, not 1"
            raise WrongAnswerError(msg)


def _expected_shape(name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    match name:
        case "predictions":
            return (CLASSES,)
        case "confidence":
            return (1,)
        case "boxes":
            return (*shapes["scores"], 4)
        case "scores" | "labels":
            return shapes["scores"][:1]
        case _:
            return (FEATURES,)


def _served_by(output: tuple[object, bytes] | None) -> str:
    if output is None or len(output[1]) < 4:  # noqa: PLR2004 - the length prefix of a BYTES element
        msg = f"{SERVED_BY} is missing"
        raise WrongAnswerError(msg)
    return output[1][4:].decode("utf-8", "replace")


def compare(answer: Answer, golden: Mapping[str, np.ndarray]) -> None:
    """Raise WrongAnswerError unless the answer equals the known one up to a GPU's rounding."""
    for name, tensor in answer.tensors.items():
        known = golden[name]
        if tensor.shape != known.shape:
            msg = f"{name} has shape {list(tensor.shape)}, the known answer {list(known.shape)}"
            raise WrongAnswerError(msg)
        difference = np.abs(tensor - known)
        if (difference > _GOLDEN_ABSOLUTE + _GOLDEN_RELATIVE * np.abs(known)).any():
            msg = f"{name} differs from the known answer by up to {float(difference.max()):.3g}"
            raise WrongAnswerError(msg)


def pack_golden(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[list[int], bytes]]:
    """Tensors by output name as plain values for Locust's channel; `unpack_golden` reads them."""
    return {name: (list(tensor.shape), tensor.tobytes()) for name, tensor in tensors.items()}


def unpack_golden(packed: Mapping[str, tuple[list[int], bytes]]) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(raw, _DTYPES[OUTPUT_TYPES[name]]).reshape(tuple(shape))
        for name, (shape, raw) in packed.items()
    }
