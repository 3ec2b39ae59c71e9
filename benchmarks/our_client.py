"""Our client as a run uses it: Locust's runner, `LoadWorker`, checked answers, rows packed and written each second."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any, Final

import gevent
import numpy as np
import pyarrow as pa
from locust.env import Environment

from benchmarks import BUILD
from benchmarks.slices import SETTLE_S, Clock, Order, Slice
from benchmarks.workloads import Workload
from loadtests import messages, recording, worker
from loadtests.generator import LoadGenerator
from loadtests.infer import GrpcioTransport, Transport
from loadtests.rows import Outcome, Question, Rows
from loadtests.target import Target
from loadtests.users import ClassifierUser, EncoderUser, EnsembleUser, StudySource
from scenarios.scenario import Kind, Scenario

_USERS: Final = {Kind.CLASSIFIER: ClassifierUser, Kind.ENCODER: EncoderUser, Kind.ENSEMBLE: EnsembleUser}
_DRAIN_S: Final = 10.0
_LEAD_S: Final = 0.2
# A server frozen for 3 s at 100 requests/s holds 300.
_IN_FLIGHT_CAP: Final = 512


class OurClient:
    """Plays the leader's part towards a `LoadWorker` in the same process, as Locust's local runner has it."""

    def __init__(self, address: str, workload: Workload) -> None:
        self._workload = workload
        self._target = Target(name="benchmark", grpc=address)
        self._environment = Environment(user_classes=[StudySource, _USERS[workload.kind]])
        self._runner = self._environment.create_local_runner()
        for message in ("radslo_ready", "radslo_rows", "radslo_final"):
            self._runner.register_message(message, getattr(self, f"_on_{message.removeprefix('radslo_')}"))
        self._worker = worker.LoadWorker(self._environment)
        self._worker.check = _leave_unchecked
        self._environment.load_worker = self._worker
        self._golden = self._known_answer(address)
        recording.request_batch(Rows(0).take())  # as the locustfile does, lest the first slice pay for imports
        self._shard: recording.ShardWriter | None = None
        self._rss_bytes: list[int] = []
        self._over = gevent.event.Event()

    def _known_answer(self, address: str) -> messages.Answer:
        transport = GrpcioTransport(address)
        reply = transport.infer(
            messages.request_bytes(self._workload.kind, self._workload.image(), with_text=False), _DRAIN_S
        )
        transport.close()
        assert reply.body is not None, reply.text
        return messages.read_answer(self._workload.kind, reply.body)

    # --- the leader's part --------------------------------------------------------------------------------------

    def _on_ready(self, msg: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's keywords
        assert msg.data["error"] is None, msg.data["error"]

    def _on_rows(self, msg: Any, **_: Any) -> None:  # noqa: ANN401
        assert self._shard is not None
        if msg.data["rows"] is not None:
            self._shard.append(recording.unpack_batch(msg.data["rows"]))
        self._rss_bytes.append(msg.data["sample"]["rss_bytes"])

    def _on_final(self, **_: Any) -> None:  # noqa: ANN401
        self._over.set()

    # --- one slice ----------------------------------------------------------------------------------------------

    def play(self, order: Order) -> Slice:
        """Send the load of one order, as one run."""
        self._worker.generator_type = LoadGenerator if order.record else _Unrecorded
        BUILD.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as directory:
            self._shard, self._rss_bytes = recording.ShardWriter(Path(directory), 0), []
            requests, (wall_s, cpu_s) = self._run(order)
            self._shard.close()
            rows = pa.ipc.open_stream(self._shard.path).read_all()
        assert bool(rows.num_rows) is order.record, "the rows were not left out, or not written"
        return _slice(rows, requests, wall_s, cpu_s, self._rss_bytes)

    def _run(self, order: Order) -> tuple[int, tuple[float, float]]:
        def send(message: str, data: dict[str, Any]) -> None:
            self._runner.send_message(message, data | {"run": "benchmark"})

        self._over.clear()
        send("radslo_assign", self._assignment(order))
        send("radslo_begin", {"started_at": time.time() + _LEAD_S})
        user = StudySource if order.rate_per_s else _USERS[self._workload.kind]
        self._runner.start(order.users or 1, 100, user_classes=[user])
        self._runner.spawning_greenlet.join()
        gevent.sleep(_LEAD_S + SETTLE_S)
        generator = self._worker.generator
        assert generator is not None
        clock, before = Clock(), sum(generator.by_status.values())
        gevent.sleep(order.seconds)
        requests, times = sum(generator.by_status.values()) - before, clock.read()
        send("radslo_stop", {"drain_s": _DRAIN_S})
        self._over.wait()
        self._runner.stop()
        return requests, times

    def _assignment(self, order: Order) -> dict[str, Any]:
        """What the leader would hand out."""
        tensors = messages.pack_golden(self._golden.tensors)
        return {
            "worker": 0,
            "workers": 1,
            "scenario": _scenario(order, self._workload).model_dump(mode="json"),
            "target": self._target.model_dump(mode="json"),
            "images": {self._workload.name: self._workload.image()},
            "golden": [(self._workload.name, False, tensors)],
        }


def _leave_unchecked(_transport: Transport, _address: str) -> None:
    """The servers of benchmarks have only what is asked of them."""


class _Unrecorded(LoadGenerator):
    """Our generator without its rows."""

    def _record(self, question: Question, outcome: Outcome) -> None:
        self.by_status[outcome.status] += 1
        if self._report is not None:
            self._report(question, outcome)


def _scenario(order: Order, workload: Workload) -> Scenario:
    phase: dict[str, Any] = {"name": "load", "duration_s": order.seconds + SETTLE_S}
    if order.rate_per_s is None:
        # Stopped by hand; so that no second passes at the end without load.
        phase |= {"users": order.users, "think_time_s": 0, "duration_s": order.seconds + 60}
    else:
        phase |= {"rate": {"requests_per_s": order.rate_per_s}}
    return Scenario.model_validate(
        {
            "name": "benchmark",
            "purpose": "a benchmark",
            "expected_verdict": "none",
            "phases": [phase],
            "mix": {workload.kind.value: 1},
            "payloads": [{"id": workload.name}],
            "in_flight_cap": _IN_FLIGHT_CAP,
            "objectives": {"must_pass": ["latency_p95"]},
        }
    )


def _slice(rows: pa.Table, requests: int, wall_s: float, cpu_s: float, rss_bytes: list[int]) -> Slice:
    if not rows.num_rows:
        return Slice(requests, 0, wall_s, cpu_s, rss_bytes=rss_bytes)
    intended, sent, done = (rows[column].to_numpy().astype(float) for column in ("intended_us", "sent_us", "done_us"))
    judged = intended >= SETTLE_S * 1e6
    failed = int((rows["status"].to_numpy()[judged] != recording.OK).sum())
    return Slice(
        requests,
        failed,
        wall_s,
        cpu_s,
        latency_p95_ms=float(np.nanpercentile((done - intended)[judged], 95)) / 1e3,
        lag_p99_ms=float(np.nanpercentile((sent - intended)[judged], 99)) / 1e3,
        rss_bytes=rss_bytes,
    )
