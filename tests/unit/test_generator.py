"""The load generator over transports that behave as scripted: what is due is sent when due, and nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import gevent
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from loadtests.generator import Assignment, LoadGenerator
from loadtests.infer import Reply
from loadtests.messages import FEATURES, MODEL, OUTPUT_TYPES, OUTPUTS, SERVED_BY
from loadtests.recording import REQUEST_SCHEMA, request_batch
from scenarios.arrivals import arrival_count
from scenarios.scenario import Kind, Scenario

IMAGE = "chest-jpeg-20kb"


class Scripted:
    """A transport whose every call waits ``wait_s(number)`` and then replies ``code`` and ``body``."""

    def __init__(
        self, wait_s: Callable[[int], float] = lambda _: 0.0, code: str = "OK", body: bytes | None = None
    ) -> None:
        self.calls = 0
        self.most_at_once = 0
        self._at_once = 0
        self._wait_s = wait_s
        self._code = code
        self._body = answer() if body is None else body

    def infer(self, request: bytes, deadline_s: float) -> Reply:
        assert request
        assert deadline_s >= 10
        sent_ns = time.monotonic_ns()
        self.calls += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        gevent.sleep(self._wait_s(self.calls))
        self._at_once -= 1
        body = self._body if self._code == "OK" else None
        return Reply(self._code, "scripted", body, sent_ns, time.monotonic_ns(), "10.0.0.1:8001")

    def call(self, method: str, request: bytes, deadline_s: float) -> Reply:
        raise NotImplementedError

    def close(self) -> None:
        pass


def answer(kind: Kind = Kind.ENSEMBLE) -> bytes:
    shapes = {"predictions": [5], "confidence": [1], "boxes": [2, 4], "scores": [2], "labels": [2]}
    response = service_pb2.ModelInferResponse(model_name=MODEL)
    for name in OUTPUTS[kind]:
        shape = shapes.get(name, [FEATURES])
        dtype = np.int32 if OUTPUT_TYPES[name] == "INT32" else np.float32
        tensor = np.full(shape, 0.2 if name == "predictions" else 1, dtype)
        response.outputs.add(name=name, datatype=OUTPUT_TYPES[name], shape=[1, *shape])
        response.raw_output_contents.append(tensor.tobytes())
    response.outputs.add(name=SERVED_BY, datatype="BYTES", shape=[1, 1])
    response.raw_output_contents.append(b"\x05\0\0\0pod-a")
    return bytes(response.SerializeToString())


def scenario(rate_per_s: float = 100, duration_s: float = 0.5, **changes: object) -> Scenario:
    return Scenario.model_validate(
        {
            "name": "test",
            "purpose": "a test",
            "expected_verdict": "none",
            "phases": [
                {"name": "load", "duration_s": duration_s, "gaps": "constant", "rate": {"requests_per_s": rate_per_s}}
            ],
            "payloads": [{"id": IMAGE}],
            "objectives": {"must_pass": ["availability"]},
        }
        | changes
    )


def play(
    plan: Scenario, transport: Scripted, *, stop_after_s: float | None = None, worker: int = 0, workers: int = 1
) -> tuple[LoadGenerator, dict[str, list[object]]]:
    assignment = Assignment(plan, worker, workers, time.time() + 0.05, {f"{IMAGE}": b"image"}, {})
    generator = LoadGenerator(assignment, transport)
    playing = gevent.spawn(generator.play)
    if stop_after_s is not None:
        gevent.sleep(stop_after_s + 0.05)
        generator.stop(0.2)
    assert generator.finished.wait(10)
    playing.join()
    return generator, generator.take_rows() or {name: [] for name in REQUEST_SCHEMA.names}


def test_a_slow_server_does_not_slow_its_own_load_down() -> None:
    transport = Scripted(wait_s=lambda _: 0.4)
    _, rows = play(scenario(), transport)
    assert transport.most_at_once >= 35  # 100 a second for 0.4 s; a closed loop of one would never exceed 1
    lag_us = np.array(rows["sent_us"]) - np.array(rows["intended_us"])
    assert np.median(lag_us) < 50_000


def test_a_fast_request_does_not_wait_for_a_slow_one() -> None:
    _, rows = play(scenario(), Scripted(wait_s=lambda number: 0.4 if number % 2 else 0.0))
    service_us = np.array(rows["done_us"]) - np.array(rows["sent_us"])
    assert np.median(service_us[service_us < 200_000]) < 100_000
    assert (service_us > 390_000).sum() == 25


def test_what_finds_too_many_in_flight_is_recorded_as_not_sent() -> None:
    transport = Scripted(wait_s=lambda _: 60.0)
    generator, rows = play(scenario(in_flight_cap=10, drain_s=0.1), transport)
    assert transport.calls == 10
    assert generator.by_status == {"in_flight": 10, "not_sent": 40}
    assert {sent for sent, status in zip(rows["sent_us"], rows["status"], strict=True) if status == "not_sent"} == {
        None
    }


def test_a_run_that_is_stopped_accounts_for_all_that_was_due_until_then() -> None:
    generator, rows = play(scenario(duration_s=30), Scripted(wait_s=lambda _: 0.05), stop_after_s=0.3)
    assert generator.due == len(rows["seq"]) < 100
    assert rows["seq"] == sorted(rows["seq"]) or sorted(rows["seq"]) == list(range(generator.due))  # type: ignore[type-var]
    assert set(rows["status"]) == {"ok"}


def test_an_answer_that_comes_after_the_end_is_not_counted_twice() -> None:
    generator, rows = play(scenario(drain_s=0.05), Scripted(wait_s=lambda _: 0.3))
    before = Counter(rows["status"])
    gevent.sleep(0.4)
    assert generator.take_rows() is None
    assert before["in_flight"] > 0
    assert sum(before.values()) == generator.due


def test_a_wrong_answer_is_no_success() -> None:
    _, rows = play(scenario(rate_per_s=20), Scripted(body=answer(Kind.CLASSIFIER)))
    assert set(rows["status"]) == {"wrong_answer"}
    assert set(rows["error"]) == {"OK: boxes is missing"}


@pytest.mark.parametrize(
    ("code", "status"), [("UNAVAILABLE", "transport"), ("DEADLINE_EXCEEDED", "deadline"), ("INTERNAL", "server_fault")]
)
def test_a_failure_keeps_its_class_and_text(code: str, status: str) -> None:
    _, rows = play(scenario(rate_per_s=20), Scripted(code=code))
    assert set(rows["status"]) == {status}
    assert set(rows["error"]) == {f"{code}: scripted"}


@settings(max_examples=12)
@given(
    rate=st.floats(20, 400),
    wait_s=st.floats(0, 0.3),
    cap=st.integers(1, 60),
    drain_s=st.floats(0, 0.2),
    workers=st.integers(1, 3),
)
def test_scheduled_is_what_became_of_all_of_it(
    rate: float, wait_s: float, cap: int, drain_s: float, workers: int
) -> None:
    plan = scenario(rate_per_s=rate, duration_s=0.3, in_flight_cap=cap, drain_s=drain_s)
    seqs: list[object] = []
    for worker in range(workers):
        generator, rows = play(plan, Scripted(wait_s=lambda _: wait_s), worker=worker, workers=workers)
        assert sum(generator.by_status.values()) == generator.due == len(rows["seq"])
        assert request_batch(rows).num_rows == generator.due
        seqs += rows["seq"]
    assert sorted(seqs) == list(range(arrival_count(plan)))  # type: ignore[type-var]


# --- closed loop -------------------------------------------------------------------------------------------------


def users(transport: Scripted, starts_in_s: float = 0.0) -> LoadGenerator:
    plan = scenario(phases=[{"name": "by-hand", "duration_s": 60, "users": 1, "think_time_s": 0}])
    return LoadGenerator(Assignment(plan, 0, 1, time.time() + starts_in_s, {IMAGE: b"image"}, {}), transport)


def ask(generator: LoadGenerator) -> gevent.Greenlet[..., None]:
    """A user who asks once."""
    return gevent.spawn(generator.ask_closed, Kind.ENSEMBLE, IMAGE, with_text=False)


def test_a_user_who_is_gone_before_the_answer_leaves_a_whole_row() -> None:
    generator = users(Scripted(wait_s=lambda _: 0.2))
    user = ask(generator)
    gevent.sleep(0.05)
    user.kill()
    begin_s = time.monotonic()
    generator.stop(10.0)
    assert time.monotonic() - begin_s < 5  # the answer ends the wait, not the drain time
    assert (generator.take_rows() or {})["status"] == ["ok"]


def test_users_who_are_early_wait_for_the_clock_to_start() -> None:
    transport = Scripted()
    generator = users(transport, starts_in_s=0.3)
    early = [ask(generator) for _ in range(3)]
    gevent.sleep(0.1)
    assert transport.calls == 0
    gevent.joinall(early)
    assert min((generator.take_rows() or {})["intended_us"]) >= 0


def test_a_user_who_waits_for_a_start_that_never_comes_sends_nothing() -> None:
    generator = users(Scripted(), starts_in_s=60)
    early = ask(generator)
    gevent.sleep(0.05)
    generator.stop(0.0)
    early.join(5)
    assert early.dead
    assert generator.due == 0
    assert generator.take_rows() is None


# --- what a generator says of itself -----------------------------------------------------------------------------


class Broken(Scripted):
    """A transport with a bug: the third call raises."""

    def infer(self, request: bytes, deadline_s: float) -> Reply:
        reply = super().infer(request, deadline_s)
        if self.calls == 3:
            raise KeyError("bug")
        return reply


def test_a_bug_of_ours_loses_no_row_and_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    generator, rows = play(scenario(duration_s=30, drain_s=30), Broken())
    assert generator.broken == "its load generator broke: KeyError('bug')"
    assert not generator.played
    assert generator.by_status == {"ok": 2, "in_flight": 1}
    assert len(rows["seq"]) == generator.due == 3
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wait_s", "stop_after_s", "played"),
    [(0.0, None, True), (0.0, 0.1, False), (0.3, 0.55, False), (60.0, None, True)],
    ids=["to its end", "stopped", "all sent but answers cut off", "all sent and the whole drain time waited"],
)
def test_played_is_only_what_was_sent_in_full_and_given_its_time(
    wait_s: float, stop_after_s: float | None, *, played: bool
) -> None:
    drain_s = 30.0 if stop_after_s else 0.1
    slow = Scripted(wait_s=lambda number: 60.0 if number == 50 and wait_s == 0.3 else wait_s)
    generator, _ = play(scenario(drain_s=drain_s), slow, stop_after_s=stop_after_s)
    assert generator.played is played
