"""What a person is told when the target cannot be load-tested, before any load is sent; over real gRPC on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtests.infer import GrpcioTransport
from loadtests.messages import MODEL, OUTPUT_TYPES, SERVED_BY, read_answer
from loadtests.null_server import answer as null_answer
from loadtests.preflight import (
    Capacity,
    Golden,
    PreflightError,
    calibrate_client,
    check_model,
    find_capacity,
    known_answers,
    measure_capacity,
    null_server,
)
from loadtests.target import Kubernetes, Target
from scenarios.scenario import Kind, Scenario
from tests.unit.test_generator import IMAGE, answer, scenario

Answer = Callable[[bytes, grpc.ServicerContext], bytes]


@contextmanager
def serving(metadata: Answer, infer: Answer) -> Iterator[GrpcioTransport]:
    """A KServe server of two methods that answers as scripted."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(method)
        for name, method in {"ModelMetadata": metadata, "ModelInfer": infer}.items()
    }
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    transport = GrpcioTransport(f"127.0.0.1:{port}")
    try:
        yield transport
    finally:
        transport.close()
        server.stop(None).wait()


def metadata(**types: str | None) -> Answer:
    """The ensemble's metadata, with some tensors of another type or (None) left out."""
    tensors = {"image": "BYTES", "text": "BYTES", SERVED_BY: "BYTES", **OUTPUT_TYPES} | types
    response = service_pb2.ModelMetadataResponse(name=MODEL)
    for name, datatype in tensors.items():
        if datatype is not None:
            (response.inputs if name in {"image", "text"} else response.outputs).add(name=name, datatype=datatype)
    return lambda _request, _context: bytes(response.SerializeToString())


def refusing(code: grpc.StatusCode, text: str) -> Answer:
    def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, text)
        raise AssertionError

    return refuse


def right(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return answer()


def test_the_right_models_pass() -> None:
    with serving(metadata(), right) as transport:
        check_model(transport, "here:8001")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (refusing(grpc.StatusCode.NOT_FOUND, "unknown model"), "has no model radstream_ensemble: unknown model"),
        (metadata(boxes=None), r"boxes \(missing, expected FP32\)"),
        (metadata(labels="INT64"), r"labels \(INT64, expected INT32\)"),
        (metadata(image=None, input_image="FP32"), r"image \(missing, expected BYTES\)"),
        (refusing(grpc.StatusCode.PERMISSION_DENIED, "no"), "refuses to describe"),
    ],
)
def test_other_models_are_refused_and_the_difference_named(given: Answer, says: str) -> None:
    with serving(given, right) as transport, pytest.raises(PreflightError, match=says):
        check_model(transport, "here:8001")


@pytest.mark.parametrize("address", ["dns:///triton-headless.nowhere.invalid:8001", "triton.nowhere.invalid:8001"])
def test_a_name_that_does_not_resolve_says_where_it_would(address: str) -> None:
    transport = GrpcioTransport(address)
    try:
        with pytest.raises(PreflightError, match=r"does not resolve from here \([^\]]+\); .*load balancer") as refused:
            check_model(transport, address)
    finally:
        transport.close()
    assert str(refused.value).count(address) == 1


def test_a_first_request_that_fails_or_is_answered_wrongly_stops_the_run() -> None:
    images = {IMAGE: b"image"}
    with (
        serving(metadata(), refusing(grpc.StatusCode.INTERNAL, "stub is not healthy")) as transport,
        pytest.raises(PreflightError, match="INTERNAL: stub is not healthy"),
    ):
        known_answers(transport, scenario(), images)
    with (
        serving(metadata(), lambda _request, _context: b"") as transport,
        pytest.raises(PreflightError, match="predictions is missing"),
    ):
        known_answers(transport, scenario(), images)


@pytest.mark.parametrize(
    ("mix", "with_text_ratio", "texts"),
    [
        ({"ensemble": 1}, 0.0, {False}),
        ({"ensemble": 1}, 0.5, {False, True}),
        ({"encoder": 1}, 1.0, {True}),
        ({"ensemble": 1, "detector": 1}, 1.0, {False, True}),  # a detector has no use for a text and gets none
        ({"classifier": 1, "detector": 1}, 1.0, {False}),
    ],
)
def test_there_is_a_known_answer_to_every_question_of_the_mix_and_no_other(
    mix: dict[str, float], with_text_ratio: float, texts: set[bool]
) -> None:
    with serving(metadata(), right) as transport:
        plan = scenario(mix=mix, with_text_ratio=with_text_ratio)
        known: Golden = known_answers(transport, plan, {IMAGE: b"image"})
    assert set(known) == {(IMAGE, with_text) for with_text in texts}
    assert all(tensors["predictions"] == pytest.approx(np.full(5, 0.2)) for tensors in known.values())


OF_CAPACITY = scenario(phases=[{"name": "spike", "duration_s": 1, "rate": {"capacity_ratio": 1.5}}])
PODS = Target(name="k", grpc="nobody:1", kubernetes=Kubernetes())


def capacity(target: Target, plan: Scenario = OF_CAPACITY) -> Capacity | None:
    with serving(metadata(), right) as transport:
        return find_capacity(transport, plan, {IMAGE: b"image"}, target, lambda _: None)


def test_a_capacity_that_is_known_is_not_measured() -> None:
    assert capacity(PODS.model_copy(update={"capacity_per_s": 10.0})) == Capacity(10.0, measured=False)
    assert capacity(PODS, scenario()) is None


def test_the_capacity_of_pods_is_not_measured_as_that_may_start_more_of_them() -> None:
    with pytest.raises(PreflightError, match="may start more pods: give what the pods that run now serve"):
        capacity(PODS)


def test_a_capacity_that_nothing_answered_is_no_number() -> None:
    with (
        serving(metadata(), refusing(grpc.StatusCode.UNAVAILABLE, "gone")) as transport,
        pytest.raises(PreflightError, match=r"0 requests succeeded in 0\.4 s"),
    ):
        measure_capacity(transport, scenario(), {IMAGE: b"image"}, lasts_s=0.5, settle_s=0.1)


@pytest.mark.parametrize("kind", Kind)
def test_the_null_servers_answer_is_right_for_every_kind(kind: Kind) -> None:
    assert read_answer(kind, null_answer()).served_by == "null"


def test_the_clients_ceiling_counts_requests_that_were_judged_and_recorded() -> None:
    plan = scenario(rate_per_s=50, mix={"detector": 1})
    with null_server() as server:
        found = calibrate_client(server, plan, {IMAGE: b"image"}, workers=2)
    assert found["ceiling_per_s"] == pytest.approx(2 / (found["cpu_us_per_request"] / 1e6))
    assert found["peak_ratio"] == pytest.approx(50 / found["ceiling_per_s"])
    assert 0 < found["requests_per_s"] < 1e5
