"""The load generator of one process: sends what is due when it is due, and keeps a row of each request.

Open loop: a request is sent at its intended time however many others still wait, so that a slow server cannot slow
its own load down (coordinated omission). A request that is late is sent at once and keeps its intended time; one that
finds `Scenario.in_flight_cap` requests waiting is recorded as ``not_sent``.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import gevent
import gevent.event
import gevent.pool
import psutil

from loadtests import messages, recording
from loadtests.infer import Reply, Transport, classify
from loadtests.rows import Outcome, Question, Rows
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


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one load process has to do: its share of a scenario, and when the run's clock starts (Unix seconds).

    ``golden`` holds the known answer of each (payload id, with text); it may be empty. ``run`` is the run's id in
    messages.
    """

    scenario: Scenario
    worker: int
    workers: int
    started_at: float
    images: Mapping[str, bytes]
    golden: Mapping[tuple[str, bool], Mapping[str, np.ndarray]]
    run: str = ""


class LoadGenerator:
    """Plays one assignment over one transport.

    `play` returns when its share of the schedule is over or `stop` was called, and all answers are in or the drain
    time is over; from then on every request that was due has exactly one row. ``played`` is then True if all of the
    share was sent and every answer had its time, and ``broken`` the reason if the generator itself failed.
    """

    def __init__(
        self, assignment: Assignment, transport: Transport, report: Callable[[Question, Outcome], None] | None = None
    ) -> None:
        self.assignment = assignment
        self.by_status: Counter[str] = Counter()
        self.due = 0
        self.peak_in_flight = 0
        self.finished = gevent.event.Event()
        self.played = False
        self.broken: str | None = None
        self._transport = transport
        self._report = report
        self._scenario = assignment.scenario
        self._phases = assignment.scenario.phases
        self._rows = Rows(assignment.worker)
        self._waiting: dict[int, Question] = {}
        self._calls = gevent.pool.Group()
        self._stopping = gevent.event.Event()
        self._all_sent = False
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
                return
        self._all_sent = True
        self._finish(self._scenario.drain_s, in_full=True)

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
        self._send(question)

    def _send(self, question: Question) -> gevent.Greenlet[..., Any]:
        """The call has a greenlet of its own, which goes on whatever becomes of the one that asked for it."""
        self._waiting[question.seq] = question
        self.peak_in_flight = max(self.peak_in_flight, len(self._waiting))
        call: gevent.Greenlet[..., Any] = self._calls.spawn(self._ask, question)
        return call

    # --- closed loop --------------------------------------------------------------------------------------------

    def ask_closed(self, kind: Kind, payload: str, *, with_text: bool) -> None:
        """Send one request now and wait for its outcome; a closed loop has no intended time but this.

        Who asks before the run's clock starts waits for it; who asks when the run is being stopped sends nothing.
        """
        if (early_us := -self.now_us()) > 0:
            self._stopping.wait(early_us / 1e6)
        if self._stopping.is_set():
            return
        now_us = max(self.now_us(), 0)
        phase = self._scenario.phase_at(now_us / 1e6) or self._phases[-1]
        seq, self._next_closed_seq = self._next_closed_seq, self._next_closed_seq + self.assignment.workers
        self.due += 1
        self._send(Question(seq, phase.name, kind, payload, with_text, now_us)).join()

    # --- one request --------------------------------------------------------------------------------------------

    def _ask(self, question: Question) -> None:
        try:
            request = self._request(question)
            question.sent_us = self.now_us()
            reply = self._transport.infer(request, self._scenario.deadline_s)
            question.sent_us = self._us(reply.sent_ns)
            outcome = self._judge(question, reply)
        except Exception as error:
            # A bug of ours; it must neither lose the row nor pass for a failure of the server.
            self.broken = self.broken or f"its load generator broke: {error!r}"
            self.stop(0.0)
            raise
        if self._waiting.pop(question.seq, None) is not None:
            self._record(question, outcome)

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
        self._rows.add(question, outcome)
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
        self._finish(drain_s, in_full=False)

    def _finish(self, drain_s: float, *, in_full: bool) -> None:
        """Wait for answers; ``in_full``: for as long as the scenario says."""
        until = time.monotonic() + drain_s
        while self._waiting and time.monotonic() < until and not self.finished.is_set():
            gevent.sleep(0.01)
        if self.finished.is_set():
            return
        self.played = self._all_sent and (in_full or not self._waiting) and self.broken is None
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
