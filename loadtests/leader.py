"""The leader of a run: prepares it, hands out the shares, records what comes back, ends it in good order.

It lives in Locust's master, or in the only process there is. The order matters and is always the same: target, checks,
known answers, capacity, assignments, plan, watcher, clock, load, last rows, seal.
"""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import gevent
import gevent.event
import gevent.lock
import psutil
from locust.runners import STATE_MISSING, MasterRunner
from ruamel.yaml import YAML

from loadtests import messages, payloads, preflight
from loadtests.adhoc import ADHOC
from loadtests.embedded import EmbeddedServers, EmbeddedServersError
from loadtests.infer import CONNECTION_POLICY, GrpcioTransport
from loadtests.preflight import PreflightError
from loadtests.recorder import Recorder
from loadtests.recording import PayloadRecord, Plan, RecordingError, WorkerRecord
from loadtests.target import EMBEDDED, Target, TargetError, read_target
from loadtests.worker import open_transport
from scenarios.arrivals import arrival_count, schedule_digest
from scenarios.scenario import Scenario, ScenarioError

if TYPE_CHECKING:
    from locust.env import Environment

# Mistakes and mishaps that a person can do something about; anything else is a bug and shows its traceback.
HARNESS_ERRORS: Final = (ScenarioError, TargetError, PreflightError, RecordingError, EmbeddedServersError)

OBJECTIVES_FILE: Final = Path(__file__).parents[1] / "slo_checks" / "objectives.yaml"
_LEAD_S: Final = 1.0
_READY_WAIT_S: Final = 60.0
_FINAL_WAIT_S: Final = 5.0
_INTERRUPT_DRAIN_S: Final = 5.0
# How far a generator may be behind its own schedule before the leader ends the run.
_LATENESS_S: Final = 30.0


class Leader:
    """One per master (or local) process; leads one run after the other."""

    def __init__(self, environment: Environment, scenario: Scenario) -> None:
        self._environment = environment
        self._runner = environment.runner
        self._options = environment.parsed_options
        self._scenario = scenario
        self._embedded: EmbeddedServers | None = None
        self._recorder: Recorder | None = None
        self._plan: Plan | None = None
        self._ready: dict[int, dict[str, Any]] = {}
        self._finals: dict[int, dict[str, Any]] = {}
        self._members: dict[int, str] = {}
        self._lost: set[int] = set()
        self._ending = gevent.lock.RLock()
        self.failed: str | None = None
        self._runner.register_message("radslo_ready", self._on_ready)
        self._runner.register_message("radslo_rows", self._on_rows)
        self._runner.register_message("radslo_final", self._on_final)
        events = environment.events
        events.test_start.add_listener(self._on_test_start)
        events.test_stopping.add_listener(lambda **_: self.conclude("interrupted", "stopped by hand"))
        events.quitting.add_listener(self._on_quitting)

    # --- questions of the shape -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._plan is not None

    def users_now(self) -> int:
        """Users that should run now: one source per process in an open loop, else what the phase says."""
        if self._scenario.loop == "open":
            return max(len(self._workers_now()), 1)
        elapsed_s = time.time() - self._plan.started_at if self._plan else 0.0
        return self._scenario.users_at(max(elapsed_s, 0.0)) or 0

    def over(self) -> bool:
        """Whether nothing more is to be expected from any process."""
        if self._plan is None:
            return False
        self._look_for_lost()
        if self._scenario.loop == "closed":
            return time.time() >= self._plan.planned_end_at
        return self._all_final() or time.time() > self._plan.planned_end_at + self._scenario.drain_s + _LATENESS_S

    # --- beginning ------------------------------------------------------------------------------------------------

    def _on_test_start(self, **_: Any) -> None:  # noqa: ANN401 - Locust's keywords
        if self.running:
            return
        try:
            self._prepare()
        except HARNESS_ERRORS as error:
            self._fail(str(error))
        finally:
            # Locust logs a listener's exception and goes on; without a plan there is nothing to go on with.
            if not self.running and self.failed is None:
                self._fail("the run could not be prepared, for the reason above; this is a bug of radslo")

    def _prepare(self) -> None:
        with preflight.null_server() as null_server:
            target = self._target()
            self._say(f"checking the models at {target.grpc}")
            images = {share.id: payloads.load_payload(share.id) for share in self._scenario.payloads}
            data = {name: image.data for name, image in images.items()}
            golden, capacity_per_s = self._ask_target(target, data)
            scenario = self._scenario.resolved(capacity_per_s) if capacity_per_s else self._scenario
            workers = self._workers_now()
            self._say("calibrating the load generator")
            calibration = preflight.calibrate_client(null_server, scenario, data, len(workers))
        self._warn_of_peak(scenario, calibration)
        self._assign(workers, scenario, target, data, golden)
        self._recorder = Recorder(self._directory(scenario))
        self._recorder.start_watcher(target)
        self._begin(self._make_plan(scenario, target, images, len(workers), capacity_per_s, calibration))

    def _ask_target(self, target: Target, images: dict[str, bytes]) -> tuple[preflight.Golden, float | None]:
        """The target's known answers and, if the scenario asks for it, its capacity."""
        transport = open_transport(target)
        try:
            preflight.check_model(transport, target.grpc)
            golden = preflight.known_answers(transport, self._scenario, images)
            return golden, self._capacity(transport, target, images)
        finally:
            transport.close()

    def _warn_of_peak(self, scenario: Scenario, calibration: dict[str, float]) -> None:
        peak_ratio = calibration.get("peak_ratio")
        if peak_ratio is not None and peak_ratio > preflight.SAFE_PEAK_RATIO:
            self._say(
                f"warning: the peak of {scenario.peak_rate_per_s:.0f} requests/s is {peak_ratio:.0%} of what this "
                "generator can send; add load processes (--processes)"
            )

    def _target(self) -> Target:
        options = self._options
        if options.target != EMBEDDED:
            return read_target(options.target, tuple(options.metrics_url or ()), tuple(options.gpu_metrics_url or ()))
        if self._embedded is None:
            self._say(f"starting {options.servers} Triton server(s) on this machine")
            self._embedded = EmbeddedServers(options.servers, options.device_times or None, self._on_server_event)
        return self._embedded.target.model_copy(
            update={"embedded_servers": options.servers, "device_times": options.device_times or None}
        )

    def _capacity(self, transport: GrpcioTransport, target: Target, images: dict[str, bytes]) -> float | None:
        if not self._scenario.needs_capacity:
            return None
        known = self._options.capacity_per_s or target.capacity_per_s
        if known:
            return float(known)
        self._say("measuring the target's capacity (the scenario asks for multiples of it)")
        return preflight.measure_capacity(transport, self._scenario, images)

    def _directory(self, scenario: Scenario) -> Path:
        if self._options.recording:
            return Path(self._options.recording)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return Path(self._options.runs_dir) / f"{stamp}-{scenario.name}"

    def _workers_now(self) -> list[str | None]:
        """Client ids of the connected load processes; a local runner is its own only one."""
        if isinstance(self._runner, MasterRunner):
            clients = self._runner.clients
            return sorted(client.id for client in clients.ready + clients.running + clients.spawning)
        return [None]

    def _assign(
        self,
        workers: list[str | None],
        scenario: Scenario,
        target: Target,
        images: dict[str, bytes],
        golden: preflight.Golden,
    ) -> None:
        """Give every process its share, and wait until each is ready."""
        self._ready, self._finals, self._lost = {}, {}, set()
        self._members = {index: client or "" for index, client in enumerate(workers)}
        packed = [(name, with_text, messages.pack_golden(tensors)) for (name, with_text), tensors in golden.items()]
        for index, client in enumerate(workers):
            data = {
                "worker": index,
                "workers": len(workers),
                "scenario": scenario.model_dump(mode="json"),
                "target": target.model_dump(mode="json"),
                "images": images,
                "golden": packed,
            }
            self._runner.send_message("radslo_assign", data, client_id=client)
        until = time.monotonic() + _READY_WAIT_S
        while len(self._ready) < len(workers):
            if time.monotonic() > until:
                msg = (
                    f"{len(workers) - len(self._ready)} of {len(workers)} load processes did not get ready in "
                    f"{_READY_WAIT_S:.0f} s; look at their output, then start again"
                )
                raise RecordingError(msg)
            gevent.sleep(0.02)

    def _make_plan(
        self,
        scenario: Scenario,
        target: Target,
        images: dict[str, payloads.Payload],
        workers: int,
        capacity_per_s: float | None,
        calibration: dict[str, float],
    ) -> Plan:
        assert self._recorder is not None  # noqa: S101 - made just before
        open_loop = scenario.loop == "open"
        started_at = time.time() + _LEAD_S
        return Plan(
            run=self._recorder.directory.name,
            scenario=scenario,
            objectives=YAML(typ="safe", pure=True).load(OBJECTIVES_FILE.read_text(encoding="utf-8")),
            target=target.model_dump(mode="json"),
            loop=scenario.loop,
            seed=scenario.seed,
            scheduled_count=arrival_count(scenario) if open_loop else None,
            schedule_digest=schedule_digest(scenario) if open_loop else None,
            started_at=started_at,
            planned_end_at=started_at + scenario.duration_s,
            workers=workers,
            transport="grpcio",
            connection_policy=CONNECTION_POLICY,
            payloads={
                name: PayloadRecord(media_type=image.media_type, size_bytes=len(image.data), sha256=image.sha256)
                for name, image in images.items()
            },
            capacity_per_s=capacity_per_s,
            calibration=calibration,
            git_commit=_git_commit(),
            packages={name: version(name) for name in _PACKAGES},
            host={
                "name": socket.gethostname(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "cores": psutil.cpu_count() or 0,
            },
        )

    def _begin(self, plan: Plan) -> None:
        assert self._recorder is not None  # noqa: S101
        # The schedule's digest may take longer than the lead; the clock starts only now.
        started_at = time.time() + _LEAD_S
        planned_end_at = started_at + plan.scenario.duration_s
        self._plan = plan.model_copy(update={"started_at": started_at, "planned_end_at": planned_end_at})
        self._recorder.write_plan(self._plan)
        self._recorder.event("started", f"{len(self._members)} load process(es)")
        for client in self._members.values():
            self._runner.send_message("radslo_begin", {"started_at": started_at}, client_id=client or None)
        self._say(f"recording to {self._recorder.directory}")

    # --- while it runs --------------------------------------------------------------------------------------------

    def _on_ready(self, msg: Any, **_: Any) -> None:  # noqa: ANN401 - Locust's message
        offset_s = msg.data["at"] - time.time() if msg.data["host"] != socket.gethostname() else 0.0
        self._ready[msg.data["worker"]] = msg.data | {"clock_offset_ms": offset_s * 1e3}

    def _on_rows(self, msg: Any, **_: Any) -> None:  # noqa: ANN401
        if self._recorder is None:
            return
        try:
            if msg.data["rows"] is not None:
                self._recorder.rows(msg.data["worker"], msg.data["rows"])
            self._recorder.client_sample(msg.data["sample"])
        except RecordingError as error:
            self._fail(str(error))

    def _on_final(self, msg: Any, **_: Any) -> None:  # noqa: ANN401
        self._finals.setdefault(msg.data["worker"], msg.data)

    def _on_server_event(self, event: str, detail: str) -> None:
        self._say(detail)
        if self.running:
            self._record_event(event, detail)

    def _record_event(self, event: str, detail: str) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.event(event, detail)
        except RecordingError as error:
            self._fail(str(error))

    def _look_for_lost(self) -> None:
        if not isinstance(self._runner, MasterRunner):
            return
        present = {client.id for client in self._runner.clients.all if client.state != STATE_MISSING}
        for worker, client in self._members.items():
            if client not in present and worker not in self._lost and worker not in self._finals:
                self._lost.add(worker)
                detail = f"load process {worker} ({client}) was lost: its share of the load is missing from here on"
                self._say(detail)
                self._record_event("worker_lost", detail)

    def _all_final(self) -> bool:
        return set(self._finals) | self._lost >= set(self._members)

    # --- the end --------------------------------------------------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        """Stop now but in good order, then end Locust; for signal handlers."""
        self.conclude("interrupted", reason)
        self._runner.quit()

    def conclude(self, ended: Literal["completed", "interrupted"], reason: str) -> None:
        """Have every process deliver its last rows, seal the recording; does nothing when no run is on."""
        with self._ending:
            if self._plan is None or self._recorder is None:
                return
            plan = self._plan
            if ended == "interrupted" and self._played_out(plan):
                ended, reason = "completed", "the whole schedule was played"
            self._record_event("stopped", reason)
            self._await_finals(plan.scenario.drain_s if ended == "completed" else _INTERRUPT_DRAIN_S)
            self._plan = None
            self._seal(ended, reason)

    def _played_out(self, plan: Plan) -> bool:
        """Whether there was nothing left to send; a run with users set by hand is over when a hand stops it."""
        if plan.scenario.loop == "open":
            return self._all_final()
        return time.time() >= plan.planned_end_at or plan.scenario.name == ADHOC

    def _await_finals(self, drain_s: float) -> None:
        if not self._all_final():
            self._runner.send_message("radslo_stop", {"drain_s": drain_s})
        until = time.monotonic() + drain_s + _FINAL_WAIT_S
        while not self._all_final() and time.monotonic() < until:
            gevent.sleep(0.05)
            self._look_for_lost()

    def _seal(self, ended: str, reason: str) -> None:
        assert self._recorder is not None  # noqa: S101
        recorder, self._recorder = self._recorder, None
        try:
            recorder.seal(
                ended=ended,
                end_reason=reason,
                ended_at=time.time(),
                workers=tuple(self._worker_record(worker) for worker in self._members),
            )
        except RecordingError as error:
            self._fail(str(error))
        else:
            self._say(f"sealed {recorder.directory}: {reason}")

    def _worker_record(self, worker: int) -> WorkerRecord:
        final = self._finals.get(worker)
        ready = self._ready.get(worker, {})
        return WorkerRecord(
            worker=worker,
            host=ready.get("host"),
            pid=final["pid"] if final else None,
            delivered=final is not None,
            due=final["due"] if final else None,
            by_status=final["by_status"] if final else None,
            peak_in_flight=final["peak_in_flight"] if final else None,
            cpu_s=final["cpu_s"] if final else None,
            clock_offset_ms=ready.get("clock_offset_ms"),
        )

    def _fail(self, reason: str) -> None:
        """The run cannot go on, or cannot be recorded: say why, keep what there is, end with exit code 2."""
        if self.failed is not None:
            return
        self.failed = reason
        self._say(f"error: {reason}")
        self._environment.process_exit_code = 2
        self._plan = None
        if self._recorder is not None:
            self._recorder.abandon()
            self._recorder = None
        self._runner.send_message("radslo_stop", {"drain_s": 0.0})
        gevent.spawn(self._runner.quit)

    def _on_quitting(self, **_: Any) -> None:  # noqa: ANN401
        self.conclude("interrupted", "the process was told to end")
        if self._environment.process_exit_code is None:
            self._environment.process_exit_code = 0
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None

    def _say(self, text: str) -> None:
        print(f"radslo: {text}", flush=True)  # noqa: T201 - progress for people


_PACKAGES: Final = ("radslo", "locust", "gevent", "grpcio", "tritonclient", "numpy", "pyarrow", "pandas", "pydicom")


def _git_commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    where = Path(__file__).parent
    found = subprocess.run(  # noqa: S603
        [git, "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None
