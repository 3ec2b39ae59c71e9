"""What is asked, and which answers are refused as wrong although the server said OK."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.messages import (
    OUTPUTS,
    STUDY_TEXT,
    WrongAnswerError,
    compare,
    pack_golden,
    read_answer,
    request_bytes,
    unpack_golden,
)
from scenarios.scenario import Kind
from tests.unit.test_generator import answer


@pytest.mark.parametrize("kind", list(Kind))
def test_a_request_asks_for_the_outputs_of_its_kind_and_who_served_it(kind: Kind) -> None:
    request = service_pb2.ModelInferRequest.FromString(request_bytes(kind, b"image", with_text=False))
    assert [output.name for output in request.outputs] == [*OUTPUTS[kind], "served_by"]
    assert [tensor.name for tensor in request.inputs] == ["image"]
    assert request.raw_input_contents[0] == b"\x05\0\0\0image"


def test_a_text_is_sent_along_when_asked_for() -> None:
    request = service_pb2.ModelInferRequest.FromString(request_bytes(Kind.ENCODER, b"image", with_text=True))
    assert request.raw_input_contents[1][4:].decode() == STUDY_TEXT


@pytest.mark.parametrize("kind", list(Kind))
def test_a_right_answer_is_taken(kind: Kind) -> None:
    read = read_answer(kind, answer(kind))
    assert read.served_by == "pod-a"
    assert set(read.tensors) == set(OUTPUTS[kind])


def _nan(response: service_pb2.ModelInferResponse) -> None:
    response.raw_output_contents[5] = np.full(768, np.nan, np.float32).tobytes()


def _no_softmax(response: service_pb2.ModelInferResponse) -> None:
    response.raw_output_contents[0] = np.full(5, 0.3, np.float32).tobytes()


def _short(response: service_pb2.ModelInferResponse) -> None:
    response.raw_output_contents[0] = b"\0" * 4


def _other_type(response: service_pb2.ModelInferResponse) -> None:
    response.outputs[4].datatype = "FP32"


def _boxes_without_scores(response: service_pb2.ModelInferResponse) -> None:
    response.outputs[3].shape[:] = [1, 1]
    response.raw_output_contents[3] = b"\0" * 4


def _nobody(response: service_pb2.ModelInferResponse) -> None:
    del response.outputs[-1]
    del response.raw_output_contents[-1]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_nan, "image_features holds NaN"),
        (_no_softmax, r"predictions sum to 1\.5"),
        (_short, "predictions has shape"),
        (_other_type, "labels has type FP32"),
        (_boxes_without_scores, "boxes has shape"),
        (_nobody, "served_by is missing"),
    ],
)
def test_a_wrong_answer_is_refused_and_says_in_what(
    spoil: Callable[[service_pb2.ModelInferResponse], None], says: str
) -> None:
    response = service_pb2.ModelInferResponse.FromString(answer())
    spoil(response)
    with pytest.raises(WrongAnswerError, match=says):
        read_answer(Kind.ENSEMBLE, response.SerializeToString())


def test_garbage_is_refused() -> None:
    with pytest.raises(WrongAnswerError, match="not a ModelInferResponse"):
        read_answer(Kind.ENSEMBLE, b"\xff\xff\xff")


def test_an_answer_to_another_image_is_not_the_known_one() -> None:
    read = read_answer(Kind.ENSEMBLE, answer())
    known = unpack_golden(pack_golden(read.tensors))
    compare(read, known)
    known["scores"] = known["scores"] + np.float32(0.01)
    with pytest.raises(WrongAnswerError, match=r"scores differs from the known answer by up to 0\.01"):
        compare(read, known)


def test_another_number_of_boxes_than_in_the_known_answer_is_wrong() -> None:
    read = read_answer(Kind.ENSEMBLE, answer())
    known = {
        name: tensor[:1] if name in {"boxes", "scores", "labels"} else tensor for name, tensor in read.tensors.items()
    }
    with pytest.raises(WrongAnswerError, match=r"boxes has shape \[2, 4\], the known answer \[1, 4\]"):
        compare(read, known)
