"""The load processes of one run, as their leader sees them: who takes part, is ready, was lost, said its last word.

The messages are those of `loadtests.worker`. Each carries the run's id, because one of an earlier run may be late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import gevent
from locust.runners import STATE_MISSING, MasterRunner

from loadtests.clocks import ClockReading, read_clock, surest
from loadtests.recording import WorkerRecord

if TYPE_CHECKING:
    from locust.runners import Runner

_READY_WAIT_S: Final = 60.0
_CLOCK_QUESTIONS: Final = 10
_CLOCK_WAIT_S: Final = 5.0
_POLL_S: Final = 0.005


class CrewError(Exception):
    """A load process cannot take part in a run. The message says which and why."""


class Crew:
    """One run's load processes by number; a local runner is its own only one."""

    def __init__(self, runner: Runner) -> None:
        self.run = uuid4().hex
        self._runner = runner
        self._clients = dict(enumerate(connected(runner)))
        self._ready: dict[int, dict[str, Any]] = {}
        self._readings: dict[int, list[ClockReading]] = {worker: [] for worker in self._clients}
        self._finals: dict[int, dict[str, Any]] = {}
        self._lost: set[int] = set()

    def __len__(self) -> int:
        return len(self._clients)

    # --- to the load processes ------------------------------------------------------------------------------------

    def assign(self, assignment: Mapping[str, Any]) -> None:
        """Give every process its share, wait until each is ready, and find out what its clock shows.

        Raises:
            CrewError: one of them cannot take part.
        """
        if not self._clients:
            raise CrewError("no load process is connected any more; look at their output, then start again")
        for worker in self._clients:
            self._send("assign", worker, {"workers": len(self), **assignment})
        self._await(self._is_ready, _READY_WAIT_S, f"did not get ready in {_READY_WAIT_S:.0f} s")
        for count in range(1, _CLOCK_QUESTIONS + 1):
            for worker in self._clients:
                self._send("clock", worker, {"asked_at": time.time()})
            self._await(lambda worker: len(self._readings[worker]) >= count, _CLOCK_WAIT_S, "did not answer")  # noqa: B023

    def _await(self, done: Callable[[int], bool], wait_s: float, otherwise: str) -> None:
        until = time.monotonic() + wait_s
        while missing := [worker for worker in self._clients if not done(worker)]:
            self.newly_lost()
            if time.monotonic() > until:
                why = "was lost before the run began" if missing[0] in self._lost else otherwise
                raise CrewError(f"load process {missing[0]} {why}; look at its output, then start again")
            gevent.sleep(_POLL_S)

    def _is_ready(self, worker: int) -> bool:
        ready = self._ready.get(worker)
        if ready is not None and ready["error"]:
            raise CrewError(f"load process {worker} on {ready['host']} cannot take part: {ready['error']}")
        return ready is not None

    def begin(self, started_at: float) -> None:
        """Tell each, on its own clock, when the run starts (``started_at`` is Unix seconds on ours)."""
        for worker in self._clients:
            self._send("begin", worker, {"started_at": started_at + self.clock(worker).offset_s})

    def stop(self, drain_s: float) -> None:
        for worker in self._clients:
            self._send("stop", worker, {"drain_s": drain_s})

    def _send(self, kind: str, worker: int, data: dict[str, Any]) -> None:
        data = data | {"run": self.run, "worker": worker}
        self._runner.send_message(f"radslo_{kind}", data, client_id=self._clients[worker])

    # --- from the load processes ----------------------------------------------------------------------------------

    def on_ready(self, data: dict[str, Any]) -> None:
        self._ready[data["worker"]] = data

    def on_time(self, data: dict[str, Any]) -> None:
        self._readings[data["worker"]].append(read_clock(data["asked_at"], data["at"], time.time()))

    def on_final(self, data: dict[str, Any]) -> None:
        self._finals.setdefault(data["worker"], data)

    # --- what is known of them ------------------------------------------------------------------------------------

    def clock(self, worker: int) -> ClockReading:
        return surest(self._readings[worker])

    def clocks(self) -> str:
        """For people: how far the clocks are off."""
        worst = max((self.clock(worker) for worker in self._clients), key=lambda clock: abs(clock.offset_s))
        return f"clocks off by {worst.offset_s * 1e3:.1f} ms (give or take {worst.uncertainty_s * 1e3:.1f}) at most"

    def newly_lost(self) -> list[str]:
        """A sentence for each process that was lost since the last call; one that comes back is lost no more."""
        if not isinstance(self._runner, MasterRunner):
            return []
        present = {client.id for client in self._runner.clients.all if client.state != STATE_MISSING}
        absent = {worker for worker, client in self._clients.items() if client not in present}
        lost = absent - set(self._finals)
        new, self._lost = lost - self._lost, lost
        return [
            f"load process {worker} ({self._clients[worker]}) was lost: its share of the load is missing from here on"
            for worker in sorted(new)
        ]

    @property
    def silent(self) -> bool:
        """Whether nothing more is to be expected from any: each said its last word or was lost."""
        return set(self._finals) | self._lost >= set(self._clients)

    @property
    def played(self) -> bool:
        """Whether each sent its whole share of the schedule and gave every answer its time."""
        return all(worker in self._finals and self._finals[worker]["played"] for worker in self._clients)

    def mishaps(self) -> str | None:
        """For people: which processes did not say a last word, or ended by themselves."""
        found = []
        for worker in self._clients:
            final = self._finals.get(worker)
            if final is None:
                what = "was lost" if worker in self._lost else "never delivered its last rows"
                found.append(f"load process {worker} {what}")
            elif final["mishap"]:
                found.append(f"load process {worker} ended early: {final['mishap']}")
        return "; ".join(found) or None

    def records(self) -> tuple[WorkerRecord, ...]:
        return tuple(self._record(worker) for worker in self._clients)

    def _record(self, worker: int) -> WorkerRecord:
        final = self._finals.get(worker)
        return WorkerRecord(
            worker=worker,
            host=self._ready[worker]["host"],
            pid=final["pid"] if final else None,
            delivered=final is not None,
            due=final["due"] if final else None,
            by_status=final["by_status"] if final else None,
            peak_in_flight=final["peak_in_flight"] if final else None,
            cpu_s=final["cpu_s"] if final else None,
            clock_offset_ms=self.clock(worker).offset_s * 1e3,
            clock_uncertainty_ms=self.clock(worker).uncertainty_s * 1e3,
        )


def connected(runner: Runner) -> list[str | None]:
    """Client ids of the load processes that are there; a local runner is its own only one."""
    if isinstance(runner, MasterRunner):
        clients = runner.clients
        return sorted(client.id for client in clients.ready + clients.running + clients.spawning)
    return [None]
