"""What a failed call is called, by the texts that Triton really sends; and that a call ends at its deadline."""

from __future__ import annotations

import threading

import grpc
import pytest

from loadtests.infer import Reply, classify
from loadtests.recording import FAILURES
from tests.unit.test_preflight import metadata, serving


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        ("UNAVAILABLE", "Request timeout expired", "shed"),
        ("UNAVAILABLE", "[request id: 1] Exceeds maximum queue size", "shed"),
        ("RESOURCE_EXHAUSTED", None, "shed"),
        (
            "UNAVAILABLE",
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            "draining",
        ),
        ("UNAVAILABLE", "Socket closed", "transport"),
        ("UNAVAILABLE", None, "transport"),
        ("CANCELLED", "Channel closed!", "transport"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "deadline"),
        ("INVALID_ARGUMENT", "image is no DICOM, PNG or JPEG", "bad_input"),
        ("INTERNAL", "Stub process 'radstream_detector_0_0' is not healthy.", "server_fault"),
        ("NOT_FOUND", "Request for unknown model", "server_fault"),
        ("PERMISSION_DENIED", "", "other"),
    ],
)
def test_each_failure_has_its_class(code: str, text: str | None, status: str) -> None:
    assert classify(Reply(code, text, None, 0, 0, None)) == status
    assert status in FAILURES


def test_a_call_whose_answer_does_not_come_ends_at_its_deadline() -> None:
    released = threading.Event()

    def hold(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        released.wait(60)
        return b""

    with serving(metadata(), hold) as transport:
        try:
            reply = transport.infer(b"", 0.3)
        finally:
            released.set()
    assert (reply.code, reply.body, classify(reply)) == ("DEADLINE_EXCEEDED", None, "deadline")
    assert reply.done_ns - reply.sent_ns > 0.25e9  # nor does it end long before
