"""The load generator of one process: sends what is due when it is due, and keeps a row of each request.

Open loop: a request is sent at its intended time however many others still wait, so that a slow server cannot slow
its own load down (coordinated omission). A request that is late is sent at once and keeps its intended time; one that
finds `Scenario.in_flight_cap` requests waiting is recorded as ``not_sent``.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.event
import gevent.pool
import psutil

from loadtests import messages, recording
from loadtests.infer import Reply, Transport, classify
from scenarios.arrivals import arrivals, share
from scenarios.scenario import Kind, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

ERROR_CHARACTERS: Final = 200
# Comparing with the known answer costs about as much as all other checks together; one in eight still meets
# every kind of request within seconds.
GOLDEN_EVERY: Final = 8
_KINDS: Final = tuple(Kind)
_COLUMNS: Final = tuple(recording.REQUEST_SCHEMA.names)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one load process has to do: its share of a scenario, and when the run's clock starts (Unix seconds).

    ``golden`` holds the known answer of each (payload id, with text); it may be empty.
    """

    scenario: Scenario
    worker: int
    workers: int
    started_at: float
    images: Mapping[str, bytes]
    golden: Mapping[tuple[str, bool], Mapping[str, np.ndarray]]


@dataclass(slots=True)
class Question:
    """One request on its way, before its outcome is known."""

    seq: int
    phase: str
    kind: Kind
    payload: str
    with_text: bool
    intended_us: int
    sent_us: int | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a request."""

    status: str
    done_us: int | None = None
    error: str | None = None
    served_by: str | None = None
    peer: str | None = None
    response_bytes: int | None = None
    checked: str | None = None


@dataclass(slots=True)
class _Rows:
    """Rows in columns, until they are taken away."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})

    def __len__(self) -> int:
        return len(self.columns["seq"])

    def take(self) -> dict[str, list[Any]]:
        taken, self.columns = self.columns, {name: [] for name in _COLUMNS}
        return taken


class LoadGenerator:
    """Plays one assignment over one transport.

    `play` returns when its share of the schedule is over or `stop` was called, and all answers are in or the drain
    time is over; from then on every request that was due has exactly one row.
    """

    def __init__(
        self, assignment: Assignment, transport: Transport, report: Callable[[Question, Outcome], None] | None = None
    ) -> None:
        self.assignment = assignment
        self.by_status: Counter[str] = Counter()
        self.due = 0
        self.peak_in_flight = 0
        self.finished = gevent.event.Event()
        self._transport = transport
        self._report = report
        self._scenario = assignment.scenario
        self._phases = assignment.scenario.phases
        self._rows = _Rows()
        self._waiting: dict[int, Question] = {}
        self._calls = gevent.pool.Group()
        self._stopping = gevent.event.Event()
        self._next_closed_seq = assignment.worker
        self._requests: dict[tuple[Kind, str, bool], bytes] = {}
        self._cpu = _CpuClock()
        # One clock for the whole run: monotonic, laid once onto the wall clock that all processes share.
        self._zero_ns = time.monotonic_ns() + int((assignment.started_at - time.time()) * 1e9)

    # --- time ---------------------------------------------------------------------------------------------------

    def now_us(self) -> int:
        return (time.monotonic_ns() - self._zero_ns) // 1000

    def _us(self, monotonic_ns: int) -> int:
        return (monotonic_ns - self._zero_ns) // 1000

    # --- open loop ----------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Send this process's share of the schedule, each request at its intended time."""
        for chunk in arrivals(self._scenario):
            mine = share(chunk, self.assignment.worker, self.assignment.workers)
            columns = (mine.seq, mine.intended_us, mine.kind, mine.payload, mine.with_text, mine.phase)
            for seq, intended_us, kind, payload, with_text, phase in zip(*(c.tolist() for c in columns), strict=True):
                if not self._wait_until(intended_us):
                    break
                name = self._scenario.payloads[payload].id
                self._dispatch(
                    Question(seq, self._phases[phase].name, _KINDS[kind], name, with_text, intended_us),
                )
            if self._stopping.is_set():
                break
        self._drain()

    def _wait_until(self, intended_us: int) -> bool:
        """False when the run is stopped before that time has come."""
        left_s = (intended_us - self.now_us()) / 1e6
        if left_s > 0:
            self._stopping.wait(left_s)
        elif self.due % 64 == 0:
            # A generator that is behind must still let answers in and stop when told to.
            gevent.sleep(0)
        return not self._stopping.is_set()

    def _dispatch(self, question: Question) -> None:
        self.due += 1
        if len(self._waiting) >= self._scenario.in_flight_cap:
            cap = self._scenario.in_flight_cap
            self._record(question, Outcome(recording.NOT_SENT, error=f"NOT_SENT: {cap} requests were in flight"))
            return
        self._waiting[question.seq] = question
        self.peak_in_flight = max(self.peak_in_flight, len(self._waiting))
        self._calls.add(gevent.spawn(self._ask, question))

    # --- closed loop --------------------------------------------------------------------------------------------

    def ask_closed(self, kind: Kind, payload: str, *, with_text: bool) -> None:
        """Send one request now and wait for its outcome; a closed loop has no intended time but this."""
        now_us = self.now_us()
        phase = self._scenario.phase_at(max(now_us, 0) / 1e6) or self._phases[-1]
        seq, self._next_closed_seq = self._next_closed_seq, self._next_closed_seq + self.assignment.workers
        self.due += 1
        question = Question(seq, phase.name, kind, payload, with_text, now_us)
        self._waiting[seq] = question
        self.peak_in_flight = max(self.peak_in_flight, len(self._waiting))
        self._ask(question)

    # --- one request --------------------------------------------------------------------------------------------

    def _ask(self, question: Question) -> None:
        request = self._request(question)
        question.sent_us = self.now_us()
        reply = self._transport.infer(request, self._scenario.deadline_s)
        question.sent_us = self._us(reply.sent_ns)
        if self._waiting.pop(question.seq, None) is not None:
            self._record(question, self._judge(question, reply))

    def _request(self, question: Question) -> bytes:
        key = (question.kind, question.payload, question.with_text)
        request = self._requests.get(key)
        if request is None:
            image = self.assignment.images[question.payload]
            request = messages.request_bytes(question.kind, image, with_text=question.with_text)
            self._requests[key] = request
        return request

    def _judge(self, question: Question, reply: Reply) -> Outcome:
        outcome = Outcome(recording.OK, self._us(reply.done_ns), peer=reply.peer)
        if reply.body is None:
            outcome.status = classify(reply)
            outcome.error = f"{reply.code}: {reply.text or 'no text'}"[:ERROR_CHARACTERS]
            return outcome
        outcome.response_bytes = len(reply.body)
        try:
            answer = messages.read_answer(question.kind, reply.body)
            outcome.served_by, outcome.checked = answer.served_by, "values"
            known = self.assignment.golden.get((question.payload, question.with_text))
            if known is not None and question.seq // self.assignment.workers % GOLDEN_EVERY == 0:
                messages.compare(answer, known)
                outcome.checked = "golden"
        except messages.WrongAnswerError as error:
            outcome.status = "wrong_answer"
            outcome.error = f"OK: {error}"[:ERROR_CHARACTERS]
        return outcome

    def _record(self, question: Question, outcome: Outcome) -> None:
        columns = self._rows.columns
        columns["seq"].append(question.seq)
        columns["worker"].append(self.assignment.worker)
        columns["phase"].append(question.phase)
        columns["kind"].append(question.kind.value)
        columns["payload"].append(question.payload)
        columns["with_text"].append(question.with_text)
        columns["intended_us"].append(question.intended_us)
        columns["sent_us"].append(question.sent_us)
        columns["done_us"].append(outcome.done_us)
        columns["status"].append(outcome.status)
        columns["error"].append(outcome.error)
        columns["served_by"].append(outcome.served_by)
        columns["peer"].append(outcome.peer)
        columns["response_bytes"].append(outcome.response_bytes)
        columns["checked"].append(outcome.checked)
        self.by_status[outcome.status] += 1
        if self._report is not None:
            self._report(question, outcome)

    # --- the end ------------------------------------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self, drain_s: float) -> None:
        """Send nothing more; wait at most ``drain_s`` seconds for answers, then end `play`."""
        self._stopping.set()
        self._finish(drain_s)

    def _drain(self) -> None:
        if not self._stopping.is_set():
            self._finish(self._scenario.drain_s)

    def _finish(self, drain_s: float) -> None:
        until = time.monotonic() + drain_s
        while self._waiting and time.monotonic() < until and not self.finished.is_set():
            gevent.sleep(0.01)
        if self.finished.is_set():
            return
        for question in list(self._waiting.values()):
            del self._waiting[question.seq]
            self._record(question, Outcome(recording.IN_FLIGHT))
        self.finished.set()

    def take_rows(self) -> dict[str, list[Any]] | None:
        """The rows since the last call, by column; None if there are none."""
        return self._rows.take() if len(self._rows) else None

    def sample(self) -> dict[str, Any]:
        """One `loadtests.recording.CLIENT_SAMPLE` of this process."""
        done = sum(self.by_status.values())
        return {
            "at": time.time(),
            "worker": self.assignment.worker,
            "cpu_ratio": self._cpu.ratio(),
            "rss_bytes": psutil.Process().memory_info().rss,
            "in_flight": len(self._waiting),
            "due": self.due,
            "done": done,
            "failed": done - self.by_status[recording.OK],
        }

    @property
    def cpu_s(self) -> float:
        return self._cpu.total_s


class _CpuClock:
    """CPU time of this process against wall time, between two calls of `ratio` and since the beginning."""

    def __init__(self) -> None:
        self._begin_cpu_s = self._last_cpu_s = time.process_time()
        self._last_s = time.monotonic()

    @property
    def total_s(self) -> float:
        return time.process_time() - self._begin_cpu_s

    def ratio(self) -> float:
        cpu_s, now_s = time.process_time(), time.monotonic()
        ratio = (cpu_s - self._last_cpu_s) / max(now_s - self._last_s, 1e-9)
        self._last_cpu_s, self._last_s = cpu_s, now_s
        return ratio
