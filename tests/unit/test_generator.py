"""The load generator over transports that behave as scripted: what is due is sent when due, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import gevent
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from loadtests.generator import Assignment, LoadGenerator
from loadtests.infer import Reply, Transport
from loadtests.messages import FEATURES, MODEL, OUTPUT_TYPES, OUTPUTS, SERVED_BY, read_answer
from loadtests.recording import REQUEST_SCHEMA, request_batch
from loadtests.rows import Outcome, Question
from scenarios.arrivals import arrival_count
from scenarios.scenario import Kind, Scenario

IMAGE = "chest-jpeg-20kb"
HANG_S = 30.0  # only so that a broken generator ends: no test's outcome depends on how fast the machine is


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


class Held:
    """A transport that keeps call ``number`` (from 1) until ``free(self, number)`` and then answers it well."""

    def __init__(self, free: Callable[[Held, int], bool]) -> None:
        self.calls = 0
        self.answered = 0
        self.most_at_once = 0
        self._at_once = 0
        self._free = free

    def infer(self, request: bytes, deadline_s: float) -> Reply:
        assert request
        assert deadline_s >= 10
        sent_ns = time.monotonic_ns()
        self.calls += 1
        number = self.calls
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        wait_for(lambda: self._free(self, number))
        self._at_once -= 1
        self.answered += 1
        return Reply("OK", None, answer(), sent_ns, time.monotonic_ns(), None)

    def call(self, method: str, request: bytes, deadline_s: float) -> Reply:
        raise NotImplementedError

    def close(self) -> None:
        pass


def wait_for(true: Callable[[], bool]) -> None:
    """Return once it is true, or after so long that what the test asserts next is false."""
    gave_up_s = time.monotonic() + HANG_S
    while not true() and time.monotonic() < gave_up_s:
        gevent.sleep(0.005)


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
    plan: Scenario,
    transport: Transport,
    *,
    worker: int = 0,
    workers: int = 1,
    golden: Mapping[tuple[str, bool], Mapping[str, np.ndarray]] | None = None,
    report: Callable[[Question, Outcome], None] | None = None,
    stop_when: Callable[[], bool] | None = None,
    stop_drain_s: float = HANG_S,
) -> tuple[LoadGenerator, dict[str, list[object]]]:
    assignment = Assignment(plan, worker, workers, time.time() + 0.05, {f"{IMAGE}": b"image"}, golden or {})
    generator = LoadGenerator(assignment, transport, report)
    playing = gevent.spawn(generator.play)
    if stop_when is not None:
        wait_for(stop_when)
        generator.stop(stop_drain_s)
    assert generator.finished.wait(2 * HANG_S)
    playing.join()
    return generator, generator.take_rows() or {name: [] for name in REQUEST_SCHEMA.names}


def test_a_slow_server_does_not_slow_its_own_load_down() -> None:
    """Nothing is answered before everything was sent: a closed loop would never send the second request."""
    plan = scenario()
    transport = Held(lambda held, _: held.calls == arrival_count(plan))
    _, rows = play(plan, transport)
    assert transport.most_at_once == arrival_count(plan) == 50
    assert set(rows["status"]) == {"ok"}
    assert (np.array(rows["sent_us"]) - np.array(rows["intended_us"])).min() >= -1000  # nor is it sent early


def test_a_fast_request_does_not_wait_for_a_slow_one() -> None:
    """Every other request is slow: held until all fast ones were answered."""
    plan, done = scenario(), list[int]()
    fast = arrival_count(plan) // 2
    transport = Held(lambda held, number: number % 2 == 0 or held.answered >= fast)
    play(plan, transport, report=lambda question, _: done.append(question.seq))
    assert [seq % 2 for seq in done[:fast]] == [1] * fast
    assert sorted(done) == list(range(2 * fast))


def test_what_finds_too_many_in_flight_is_recorded_as_not_sent() -> None:
    transport = Scripted(wait_s=lambda _: 60.0)
    generator, rows = play(scenario(in_flight_cap=10, drain_s=0.1), transport)
    assert transport.calls == 10
    assert generator.by_status == {"in_flight": 10, "not_sent": 40}
    assert {sent for sent, status in zip(rows["sent_us"], rows["status"], strict=True) if status == "not_sent"} == {
        None
    }


def test_a_run_that_is_stopped_accounts_for_all_that_was_due_until_then() -> None:
    plan, transport = scenario(duration_s=30), Scripted(wait_s=lambda _: 0.05)
    generator, rows = play(plan, transport, stop_when=lambda: transport.calls >= 20)
    assert 20 <= generator.due < arrival_count(plan)
    assert sorted(rows["seq"]) == list(range(generator.due))  # type: ignore[type-var]
    assert set(rows["status"]) == {"ok"}


def test_an_answer_that_comes_after_the_end_is_not_counted_twice() -> None:
    ended: list[bool] = []
    transport = Held(lambda *_: bool(ended))
    generator, rows = play(scenario(drain_s=0.05), transport)
    assert generator.by_status == {"in_flight": 50}
    assert sorted(rows["seq"]) == list(range(50))  # type: ignore[type-var]
    ended.append(True)
    wait_for(lambda: transport.answered == 50)
    assert transport.answered == 50
    assert generator.take_rows() is None
    assert generator.by_status == {"in_flight": 50}


@pytest.mark.parametrize(("worker", "workers", "compared"), [(0, 1, range(0, 50, 8)), (1, 2, range(1, 50, 16))])
def test_every_eighth_answer_is_compared_with_the_known_one(worker: int, workers: int, compared: range) -> None:
    """An answer that is well formed, but belongs to another image, is found only there."""
    known = read_answer(Kind.ENSEMBLE, answer()).tensors
    other = known | {"scores": known["scores"] + np.float32(0.01)}
    _, right = play(scenario(), Scripted(), worker=worker, workers=workers, golden={(IMAGE, False): known})
    assert set(right["status"]) == {"ok"}
    assert _where(right, "checked", "golden") == list(compared)
    _, wrong = play(scenario(), Scripted(), worker=worker, workers=workers, golden={(IMAGE, False): other})
    assert _where(wrong, "status", "wrong_answer") == list(compared)
    assert set(wrong["error"]) == {None, "OK: scores differs from the known answer by up to 0.01"}
    assert set(wrong["status"]) == {"ok", "wrong_answer"}


def _where(rows: dict[str, list[object]], column: str, value: object) -> list[object]:
    """The seqs of the rows with that value, in order."""
    return sorted(seq for seq, found in zip(rows["seq"], rows[column], strict=True) if found == value)  # type: ignore[type-var]


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


def test_played_is_only_what_was_sent_in_full_and_given_its_time() -> None:
    plan = scenario(drain_s=30)
    assert play(plan, Scripted())[0].played
    stopped = Scripted()
    assert not play(plan, stopped, stop_when=lambda: stopped.calls >= 5)[0].played
    # All was sent and the last answers are missing: because they were cut off, or after the whole drain time.
    cut_off = Held(lambda _held, _number: False)
    all_sent = lambda: cut_off.calls == arrival_count(plan)  # noqa: E731
    assert not play(plan, cut_off, stop_when=all_sent, stop_drain_s=0.1)[0].played
    assert play(scenario(drain_s=0.1), Held(lambda _held, _number: False))[0].played
