"""One load process's side of a run: takes its assignment, plays it, delivers its rows over Locust's own channel.

=================== ========= =======================================================================
message             direction content
=================== ========= =======================================================================
``radslo_assign``   to        what to send: scenario, target, images, known answers, which share
``radslo_ready``    from      everything is prepared; or ``error``, why it cannot be
``radslo_clock``    to        what is the time? ``asked_at`` is the leader's
``radslo_time``     from      ``asked_at`` and the time here
``radslo_begin``    to        ``started_at``: when the run's clock starts, by the clock here
``radslo_rows``     from      each second: the new rows (may be none) and a sample of the process
``radslo_stop``     to        send nothing more, wait ``drain_s`` for answers
``radslo_final``    from      after the last rows: what this process did; ``mishap`` if it ended by itself
=================== ========= =======================================================================

Each carries the id of its ``run`` and the number of the ``worker``, and is dropped where another run is on. Without
workers both sides live in one process and Locust's local runner hands the messages over.
"""

from __future__ import annotations

import os
import platform
import random
import socket
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import gevent
from locust.runners import WorkerRunner
from pydantic import ValidationError

from loadtests import messages, recording
from loadtests.generator import Assignment, LoadGenerator
from loadtests.infer import GrpcioTransport, Transport
from loadtests.preflight import PreflightError, check_model
from loadtests.rows import Outcome, Question
from loadtests.target import Target
from scenarios.scenario import Kind, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from locust.env import Environment

DELIVERY_S: Final = 1.0
# A leader that says nothing for this long is gone; nobody would record what we still send. One that only stands still
# for a while (a disk, a debugger, a busy machine) finds everything in its queue.
_LEADER_SILENCE_S: Final = 30.0


class LoadWorker:
    """Lives as long as its process; plays one run after the other, each with a generator of ``generator_type``."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._transport: GrpcioTransport | None = None
        self._run: str | None = None
        self._prepared: Assignment | None = None
        self.generator_type = LoadGenerator
        self.check: Callable[[Transport, str], None] = check_model
        self.generator: LoadGenerator | None = None
        self._played = False
        self._mishap: str | None = None
        self._leader_heard_s = time.monotonic()
        self._random = random.Random()  # noqa: S311 - chooses images, guards nothing
        self._runner.register_message("radslo_assign", self._on_assign)
        for kind, listener in {"clock": self._on_clock, "begin": self._on_begin, "stop": self._on_stop}.items():
            self._runner.register_message(f"radslo_{kind}", partial(self._of_this_run, listener))
        environment.events.heartbeat_received.add_listener(self._on_heartbeat)
        environment.events.quitting.add_listener(self._on_quitting)

    # --- messages -----------------------------------------------------------------------------------------------

    def _on_assign(self, msg: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's message
        data = msg.data
        if self.generator is not None:
            self.generator.stop(0.0)  # of a run that was given up
        self._run, self._prepared, self.generator, self._mishap = data["run"], None, None, None
        # Locust logs an exception and goes on, and the leader would wait in vain.
        error: str | None = f"process {os.getpid()} shows why"
        try:
            self._prepare(data)
            error = None
        except (PreflightError, OSError, ValidationError) as known:
            error = str(known)
        finally:
            self._send("ready", data["run"], {"worker": data["worker"], "host": socket.gethostname(), "error": error})

    def _prepare(self, data: dict[str, Any]) -> None:
        scenario = Scenario.model_validate(data["scenario"])
        target = Target.model_validate(data["target"])
        self._close_transport()
        self._transport = open_transport(target)
        # A process that does not reach the target must not have its failures counted as the target's.
        self.check(self._transport, target.grpc)
        self._prepared = Assignment(
            scenario=scenario,
            worker=data["worker"],
            workers=data["workers"],
            started_at=0.0,
            images=data["images"],
            golden={(name, text): messages.unpack_golden(packed) for name, text, packed in data["golden"]},
            run=data["run"],
        )
        self._random = random.Random(f"{scenario.seed}/{data['worker']}")  # noqa: S311

    def _of_this_run(self, listener: Callable[[dict[str, Any]], None], msg: Any, **_: Any) -> None:  # noqa: ANN401
        if msg.data["run"] == self._run:
            listener(msg.data)

    def _on_clock(self, data: dict[str, Any]) -> None:
        self._send("time", data["run"], {"worker": data["worker"], "asked_at": data["asked_at"], "at": time.time()})

    def _on_begin(self, data: dict[str, Any]) -> None:
        if self._prepared is None or self._transport is None:
            return
        assignment = replace(self._prepared, started_at=data["started_at"])
        self._played = False
        self.generator = self.generator_type(assignment, self._transport, self._show)
        gevent.spawn(self._deliver, self.generator)

    def _on_stop(self, data: dict[str, Any]) -> None:
        self._prepared = None
        if self.generator is not None:
            gevent.spawn(self.generator.stop, data["drain_s"])

    def _on_heartbeat(self, **_: Any) -> None:  # noqa: ANN401
        self._leader_heard_s = time.monotonic()

    def _on_quitting(self, **_: Any) -> None:  # noqa: ANN401
        """The process ends before its leader told it to: deliver what there is."""
        generator = self.generator
        if generator is not None and not generator.finished.is_set() and isinstance(self._runner, WorkerRunner):
            self._mishap = self._mishap or "its process was told to end"
            generator.stop(0.0)
            self._deliver_once(generator)
            self._send_final(generator)
            gevent.sleep(0.2)  # zmq sends from this greenlet's hub; let it
        self._close_transport()

    # --- playing ------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the schedule; the first user of the process does, any other only waits."""
        generator = self.generator
        if generator is None:
            gevent.sleep(0.1)
            return
        if not self._played:
            self._played = True
            # Not in the user's own greenlet: Locust kills that at will, and answers would be lost.
            gevent.spawn(generator.play)
        generator.finished.wait()

    def ask_closed(self, kind: Kind) -> float:
        """One closed-loop request with an image of the scenario's choice; returns the think time in seconds."""
        generator = self.generator
        if generator is None or generator.stopping:
            gevent.sleep(0.1)
            return 0.0
        scenario = generator.assignment.scenario
        payload = self._random.choices(scenario.payloads, [share.share for share in scenario.payloads])[0].id
        with_text = kind.reads_text and self._random.random() < scenario.with_text_ratio
        generator.ask_closed(kind, payload, with_text=with_text)
        phase = scenario.phase_at(max(generator.now_us(), 0) / 1e6)
        return (phase.think_time_s or 0.0) if phase else 0.0

    def _show(self, question: Question, outcome: Outcome) -> None:
        """Feed Locust's own statistics and web UI; verdicts never read these."""
        if outcome.done_us is None:
            return
        failed = None if outcome.status == recording.OK else RequestFailedError(f"{outcome.status}: {outcome.error}")
        self._environment.events.request.fire(
            request_type="gRPC",
            name=question.kind.value,
            response_time=(outcome.done_us - question.intended_us) / 1e3,
            response_length=outcome.response_bytes or 0,
            exception=failed,
            context={},
        )

    # --- delivering ---------------------------------------------------------------------------------------------

    def _deliver(self, generator: LoadGenerator) -> None:
        while not generator.finished.wait(DELIVERY_S):
            self._deliver_once(generator)
            if self._leader_is_gone():
                self._mishap = f"it heard nothing of its leader for {_LEADER_SILENCE_S:.0f} s"
                generator.stop(0.0)
        self._deliver_once(generator)
        self._send_final(generator)
        if self._leader_is_gone():
            self._runner.quit()

    def _deliver_once(self, generator: LoadGenerator) -> None:
        rows = generator.take_rows()
        packed = recording.pack_batch(recording.request_batch(rows)) if rows else None
        sample = generator.sample()
        data = {"worker": sample["worker"], "rows": packed, "sample": sample}
        self._send("rows", generator.assignment.run, data)

    def _send_final(self, generator: LoadGenerator) -> None:
        self._send(
            "final",
            generator.assignment.run,
            {
                "worker": generator.assignment.worker,
                "host": platform.node(),
                "pid": os.getpid(),
                "due": generator.due,
                "by_status": dict(generator.by_status),
                "peak_in_flight": generator.peak_in_flight,
                "cpu_s": generator.cpu_s,
                "played": generator.played,
                "mishap": generator.broken or self._mishap,
            },
        )

    def _send(self, kind: str, run: str, data: dict[str, Any]) -> None:
        self._runner.send_message(f"radslo_{kind}", data | {"run": run})

    def _leader_is_gone(self) -> bool:
        silent_s = time.monotonic() - self._leader_heard_s
        return isinstance(self._runner, WorkerRunner) and silent_s > _LEADER_SILENCE_S

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


class RequestFailedError(Exception):
    """How a failed request shows in Locust's statistics: its class and text."""


def open_transport(target: Target) -> GrpcioTransport:
    """The client for a target, with TLS if it says so."""
    roots = target.root_certificates_file.read_bytes() if target.root_certificates_file else None
    return GrpcioTransport(target.grpc, root_certificates=roots, tls=target.tls)
