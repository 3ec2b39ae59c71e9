"""Before the load: does the target answer as it must, what are its answers, what can it and its client do.

Everything here runs in the process that leads the run, over the same transport as the load itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import gevent
import gevent.pool
import numpy as np
from tritonclient.grpc import service_pb2

from loadtests import messages, recording
from loadtests.completion_rate import completion_rate_per_s
from loadtests.generator import Assignment, LoadGenerator
from loadtests.infer import GrpcioTransport, Reply, Transport
from scenarios.scenario import Kind, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadtests.target import Target

_METADATA_METHOD: Final = "/inference.GRPCInferenceService/ModelMetadata"
# What the two resolvers of grpcio say; the words after the last colon tell why.
_NOT_RESOLVED: Final = ("address lookup failed", "DNS resolution failed")
_ANSWER_WAIT_S: Final = 10.0
_CAPACITY_S: Final = 8.0
_CAPACITY_SETTLE_S: Final = 2.0
_CAPACITY_COMPLETIONS: Final = 10
# Enough to keep every batch of eight full on a few servers.
_CAPACITY_IN_FLIGHT: Final = 48
# Above this share of what it can send, a generator measures itself.
SAFE_PEAK_RATIO: Final = 0.6
_CALIBRATION_S: Final = 1.0
_CALIBRATION_IN_FLIGHT: Final = 16

Golden = dict[tuple[str, bool], dict[str, np.ndarray]]


class PreflightError(Exception):
    """The target cannot be load-tested. The message says what, where and what to do next."""


def check_model(transport: Transport, address: str) -> None:
    """Find out whether a server answers there and has the ensemble with the tensors that the users ask for.

    Raises:
        PreflightError: nobody answers, no such model, or a tensor is missing or of another type.
    """
    request = service_pb2.ModelMetadataRequest(name=messages.MODEL).SerializeToString()
    reply = transport.call(_METADATA_METHOD, request, _ANSWER_WAIT_S)
    if reply.body is None:
        raise PreflightError(_why_no_metadata(reply, address))
    metadata = service_pb2.ModelMetadataResponse.FromString(reply.body)
    found = {tensor.name: tensor.datatype for tensor in (*metadata.inputs, *metadata.outputs)}
    wanted = {"image": "BYTES", "text": "BYTES", messages.SERVED_BY: "BYTES", **messages.OUTPUT_TYPES}
    wrong = [
        f"{name} ({found.get(name, 'missing')}, expected {datatype})"
        for name, datatype in wanted.items()
        if found.get(name) != datatype
    ]
    if wrong:
        msg = (
            f"{messages.MODEL} at {address} has other tensors than RadStream's: {', '.join(wrong)}; "
            "deploy the models of triton/ or correct its config.pbtxt"
        )
        raise PreflightError(msg)


def _why_no_metadata(reply: Reply, address: str) -> str:
    if reply.code == "NOT_FOUND":
        return f"the server at {address} has no model {messages.MODEL}: {reply.text}; deploy the models of triton/"
    if any(known in (reply.text or "") for known in _NOT_RESOLVED):
        why = (reply.text or "").rpartition(": ")[2].rstrip("]")
        return (
            f"the name in {address} does not resolve from here ({why}); check it, or, as a cluster's own names resolve "
            "only inside it, run this there or name the address of its load balancer in a target file"
        )
    if reply.code in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
        return (
            f"no server answers at {address} ({reply.code}: {reply.text}); "
            "check the address and port, or start a server here with 'radslo serve'"
        )
    return f"the server at {address} refuses to describe {messages.MODEL} ({reply.code}: {reply.text})"


def known_answers(transport: Transport, scenario: Scenario, images: Mapping[str, bytes]) -> Golden:
    """Ask for every image once, with and without text wherever the scenario's mix may, while nothing else runs.

    The answers are what later ones are compared with: an answer that depends on its neighbours in a batch, or that
    belongs to another image, shows.

    Raises:
        PreflightError: an image is refused or its answer is wrong already.
    """
    texts = {with_text for _, with_text in _questions(scenario)}
    return {
        (name, with_text): _known_answer(transport, scenario, name, image, with_text=with_text)
        for name, image in images.items()
        for with_text in sorted(texts)
    }


def _questions(scenario: Scenario) -> list[tuple[Kind, bool]]:
    """Every kind, with and without a text, that the scenario may ask for."""
    kinds = [kind for kind, share in scenario.mix.shares.items() if share]
    without = [(kind, False) for kind in kinds if scenario.with_text_ratio < 1 or not kind.reads_text]
    return without + [(kind, True) for kind in kinds if scenario.with_text_ratio > 0 and kind.reads_text]


def _known_answer(
    transport: Transport, scenario: Scenario, name: str, image: bytes, *, with_text: bool
) -> dict[str, np.ndarray]:
    request = messages.request_bytes(Kind.ENSEMBLE, image, with_text=with_text)
    reply = transport.infer(request, scenario.deadline_s)
    if reply.body is None:
        msg = f"the first request, with {name}, failed: {reply.code}: {reply.text}; look at the server's log"
        raise PreflightError(msg)
    try:
        return messages.read_answer(Kind.ENSEMBLE, reply.body).tensors
    except messages.WrongAnswerError as error:
        msg = f"the first answer, to {name}, is wrong: {error}; the models deployed there are not RadStream's"
        raise PreflightError(msg) from error


@dataclass(frozen=True, slots=True)
class Capacity:
    """Requests of the scenario's mix per second that a target serves at most, and whether we measured it."""

    per_s: float
    measured: bool


def find_capacity(
    transport: Transport, scenario: Scenario, images: Mapping[str, bytes], target: Target, say: Callable[[str], None]
) -> Capacity | None:
    """The target's capacity if the scenario asks for multiples of it: as given, else as measured.

    Raises:
        PreflightError: it has to be given, or not enough requests succeeded.
    """
    if not scenario.needs_capacity:
        return None
    if target.capacity_per_s is not None:
        return Capacity(target.capacity_per_s, measured=False)
    if target.kubernetes is not None:
        msg = (
            "the scenario asks for multiples of the target's capacity, which is not measured where measuring may start "
            "more pods: give what the pods that run now serve, with --capacity-per-s or in a target file"
        )
        raise PreflightError(msg)
    say("measuring the target's capacity (the scenario asks for multiples of it)")
    return Capacity(measure_capacity(transport, scenario, images), measured=True)


def measure_capacity(
    transport: Transport,
    scenario: Scenario,
    images: Mapping[str, bytes],
    *,
    lasts_s: float = _CAPACITY_S,
    settle_s: float = _CAPACITY_SETTLE_S,
) -> float:
    """What the target serves at most, in requests of the scenario's mix per second, found by keeping it saturated.

    Raises:
        PreflightError: not enough requests succeeded.
    """
    rng = np.random.default_rng(scenario.seed)
    requests = _sample_requests(scenario, images, rng)
    begin = time.monotonic()
    completed = _saturate(
        lambda n: transport.infer(requests[n % len(requests)], scenario.deadline_s).body is not None,
        _CAPACITY_IN_FLIGHT,
        begin + lasts_s,
    )
    settled = np.array([at - begin for at in completed if at >= begin + settle_s])
    capacity_per_s = completion_rate_per_s(settled) if len(settled) >= _CAPACITY_COMPLETIONS else None
    if capacity_per_s is None:
        msg = (
            f"the target's capacity could not be measured: {len(settled)} requests succeeded in "
            f"{lasts_s - settle_s:g} s; give it with --capacity-per-s"
        )
        raise PreflightError(msg)
    return capacity_per_s


def _sample_requests(scenario: Scenario, images: Mapping[str, bytes], rng: np.random.Generator) -> list[bytes]:
    """64 requests in the proportions of the scenario."""
    kinds = list(scenario.mix.shares)
    weights = np.array([payload.share for payload in scenario.payloads])
    chosen = zip(
        rng.choice(len(kinds), 64, p=list(scenario.mix.shares.values())),
        rng.choice(len(weights), 64, p=weights / weights.sum()),
        rng.random(64) < scenario.with_text_ratio,
        strict=True,
    )
    return [
        messages.request_bytes(
            kinds[kind], images[scenario.payloads[payload].id], with_text=bool(with_text) and kinds[kind].reads_text
        )
        for kind, payload, with_text in chosen
    ]


def _saturate(ask: Callable[[int], bool], in_flight: int, until: float) -> list[float]:
    """Keep ``in_flight`` calls going until then; the monotonic times at which one succeeded, in order."""
    completed: list[float] = []

    def one(first: int) -> None:
        number = first
        while time.monotonic() < until:
            if ask(number):
                completed.append(time.monotonic())
            number += in_flight

    group = gevent.pool.Group()
    for first in range(in_flight):
        group.spawn(one, first)
    try:
        group.join()
    finally:
        group.kill(block=False)  # whoever waits for them may be stopped
    return completed


@contextmanager
def null_server() -> Iterator[subprocess.Popen[str]]:
    """A server that answers at once, for `calibrate_client`; it takes a second to start, so begin early."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests.null_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield server
        finally:
            server.kill()  # it has nothing to put in order, and may be only half started


def calibrate_client(
    server: subprocess.Popen[str], scenario: Scenario, images: Mapping[str, bytes], workers: int
) -> dict[str, float]:
    """What our own client costs here, against a server that answers at once: the ceiling of this generator.

    The costliest request of the scenario is sent, its answers are judged and its rows packed as in a run; Locust's own
    statistics, some per cent, are left out. ``ceiling_per_s`` is for all load processes together and assumes a core
    for each; ``peak_ratio`` is the scenario's highest rate over it, above 0.6 of which the generator may measure
    itself.

    Raises:
        PreflightError: the null server did not start, or answers wrongly.
    """
    assert server.stdout is not None  # noqa: S101 - asked for when started
    address = server.stdout.readline().strip()
    if not address:
        msg = "the null server for the client's calibration did not start; its message is above"
        raise PreflightError(msg)
    name = max(images, key=lambda image: len(images[image]))
    request_bytes, kind, with_text = max(
        (len(messages.request_bytes(kind, images[name], with_text=with_text)), kind, with_text)
        for kind, with_text in _questions(scenario)
    )
    transport = GrpcioTransport(address)
    try:
        golden = {(name, with_text): _known_answer(transport, scenario, name, b"", with_text=with_text)}
        generator = LoadGenerator(Assignment(scenario, 0, 1, time.time(), images, golden), transport)
        cost_s, requests_per_s = _client_cost(generator, lambda: generator.ask_closed(kind, name, with_text=with_text))
    finally:
        transport.close()
    ceiling_per_s = workers / cost_s
    calibration = {
        "request_bytes": float(request_bytes),
        "cpu_us_per_request": cost_s * 1e6,
        "requests_per_s": requests_per_s,
        "ceiling_per_s": ceiling_per_s,
    }
    peak_per_s = scenario.peak_rate_per_s
    return calibration if peak_per_s is None else calibration | {"peak_ratio": peak_per_s / ceiling_per_s}


def _client_cost(generator: LoadGenerator, ask: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds per request and requests per second, one process, against the null server."""

    def answered(_: int) -> bool:
        ask()
        return True

    def pack() -> None:
        recording.pack_batch(recording.request_batch(generator.take_rows() or {}))

    ask()
    pack()  # the first time of each costs a connection and imports
    begin, begin_cpu_s, before = time.monotonic(), time.process_time(), generator.by_status[recording.OK]
    _saturate(answered, _CALIBRATION_IN_FLIGHT, begin + _CALIBRATION_S)
    pack()
    cpu_s, took_s = time.process_time() - begin_cpu_s, time.monotonic() - begin
    done = generator.by_status[recording.OK] - before
    if not done:
        msg = "the client's calibration got no answer from its own null server; is the loopback interface up?"
        raise PreflightError(msg)
    return cpu_s / done, done / took_s
