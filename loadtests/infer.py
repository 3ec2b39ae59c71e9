"""One gRPC call: request bytes and a deadline in, a reply with its stamps out.

`Transport` is the narrow interface that every client of this project implements, so that what is measured does not
depend on who measures. `GrpcioTransport` is the one that production clients use.

Connection policy: one channel per load process, with connections of its own to every address that the target's name
resolves to, requests dealt round robin. The name is resolved again whenever a connection ends, at most once a second;
so a new server gets traffic soon after the servers' ``--grpc-max-connection-age``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final, Protocol

import gevent
import grpc
import grpc.experimental.gevent

INFER_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
CONNECTION_POLICY: Final = (
    "grpcio: one channel per load process, round robin over all addresses, resolved again when a connection ends, "
    "at most once a second; no retries"
)
_MAX_MESSAGE_BYTES: Final = 2**31 - 1
_CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # A retry inside the client hides a failure from the recording.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # The default of 20 s between attempts would hide that a server is back.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
)
_FIRST_THREADS: Final = 64
# Name resolution and the like take threads from the same pool.
_SPARE_THREADS: Final = 8


def under_gevent() -> None:
    """Have grpcio wait in gevent's way; once per load process, after any fork and before the first channel."""
    grpc.experimental.gevent.init_gevent()
    gevent.get_hub().threadpool.maxsize = _FIRST_THREADS


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. ``code`` is the gRPC status name, ``body`` the message of an OK; stamps are monotonic ns.

    ``peer`` is the address asked, or None where the transport does not tell.
    """

    code: str
    text: str | None
    body: bytes | None
    sent_ns: int
    done_ns: int
    peer: str | None


class Transport(Protocol):
    """Sends one unary call at a time per greenlet; any number may be in flight."""

    def infer(self, request: bytes, deadline_s: float) -> Reply:
        """Send a serialised ModelInferRequest and wait for its outcome, at most ``deadline_s`` seconds.

        Never raises for a failed call: the failure is the reply.
        """

    def call(self, method: str, request: bytes, deadline_s: float) -> Reply:
        """As `infer`, for another unary method of the server."""

    def close(self) -> None:
        """End every connection; calls in flight end as cancelled."""


class GrpcioTransport:
    """The grpcio client under gevent, as production clients use it but with every repair that measuring needs.

    Under gevent each waiting call takes a thread of the hub's pool. Ten, the default, let slow calls block fast ones,
    and any fixed number caps the load without a word; so the pool grows with the calls that wait.
    """

    def __init__(self, address: str, *, root_certificates: bytes | None = None, tls: bool = False) -> None:
        options = list(_CHANNEL_OPTIONS)
        if tls:
            credentials = grpc.ssl_channel_credentials(root_certificates)
            self._channel = grpc.secure_channel(address, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(address, options=options)
        self._infer = self._channel.unary_unary(INFER_METHOD)

    def infer(self, request: bytes, deadline_s: float) -> Reply:
        self._make_room()
        return _timed(self._infer, request, deadline_s)

    def _make_room(self) -> None:
        pool = gevent.get_hub().threadpool
        if len(pool) >= pool.maxsize - _SPARE_THREADS:
            pool.maxsize *= 2

    def call(self, method: str, request: bytes, deadline_s: float) -> Reply:
        return _timed(self._channel.unary_unary(method), request, deadline_s)

    def close(self) -> None:
        self._channel.close()


def _timed(call: grpc.UnaryUnaryMultiCallable, request: bytes, deadline_s: float) -> Reply:
    sent_ns = time.monotonic_ns()
    try:
        body = call(request, timeout=deadline_s)
    except grpc.RpcError as error:
        return Reply(error.code().name, error.details(), None, sent_ns, time.monotonic_ns(), None)
    return Reply("OK", None, body, sent_ns, time.monotonic_ns(), None)


_SHED_TEXTS: Final = ("Request timeout expired", "Exceeds maximum queue size")
_DRAINING_TEXTS: Final = ("Server is stopping", "stopped accepting new inference requests")


def classify(reply: Reply) -> str:
    """The failure class of a reply that is not OK: one of `loadtests.recording.FAILURES`.

    Triton says UNAVAILABLE both for "I refuse" and for "I am going"; only its text tells them from a lost connection.
    """
    text = reply.text or ""
    match reply.code:
        case "RESOURCE_EXHAUSTED":
            return "shed"
        case "UNAVAILABLE":
            if any(known in text for known in _SHED_TEXTS):
                return "shed"
            return "draining" if any(known in text for known in _DRAINING_TEXTS) else "transport"
        case "DEADLINE_EXCEEDED":
            return "deadline"
        case "INVALID_ARGUMENT":
            return "bad_input"
        case "INTERNAL" | "NOT_FOUND" | "UNKNOWN" | "DATA_LOSS":
            return "server_fault"
        case "CANCELLED":
            return "transport"
        case _:
            return "other"
