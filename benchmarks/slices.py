"""Slices of load: what is ordered from a load process, what it answers, and the process seen from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Protocol, Self

from benchmarks.servers import BenchmarkError
from benchmarks.workloads import Workload

SETTLE_S = 0.4
"""Load before the clock starts: connections are made, caches are warm."""


@dataclass(frozen=True, slots=True)
class Order:
    """Load to send: ``users`` who ask again as soon as they are answered, or arrivals at ``rate_per_s``.

    ``record`` False leaves out the rows, to find out what they cost. ``reply_threads`` is gevent's pool, None for
    what the client chooses itself.
    """

    seconds: float
    users: int | None = None
    rate_per_s: float | None = None
    record: bool = True


@dataclass(frozen=True, slots=True)
class Slice:
    """What a client did after `SETTLE_S`. Latency counts from what the client itself takes for the beginning."""

    requests: int
    failed: int
    wall_s: float
    cpu_s: float
    latency_p95_ms: float | None = None
    lag_p99_ms: float | None = None
    rss_bytes: list[int] = field(default_factory=list)

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_s / self.requests * 1e6

    @property
    def rate_per_s(self) -> float:
        return self.requests / self.wall_s

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Client(Protocol):
    """One way of loading a server, inside a load process."""

    def __init__(self, address: str, workload: Workload) -> None:
        """Prepare to ask the server at ``address``."""

    def play(self, order: Order) -> Slice:
        """Send what is ordered and wait for the answers."""


class Clock:
    """CPU and wall time of this process, from now on."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def read(self) -> tuple[float, float]:
        """Wall seconds and CPU seconds."""
        return time.monotonic() - self._wall_s, time.process_time() - self._cpu_s


class LoadProcess:
    """A load process, for the length of a ``with`` block."""

    def __init__(self, kind: str, workload: Workload, address: str) -> None:
        command = [sys.executable, "-m", "benchmarks.load_process", kind, workload.name, address]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()  # grpcio may hang at the end of a patched process
            self._process.wait()

    def begin(self, order: Order) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()

    def result(self) -> Slice:
        """The answer to what was begun.

        Raises:
            BenchmarkError: the process ended instead, or its requests failed.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = "a load process ended without an answer; its message is above"
            raise BenchmarkError(message)
        return Slice(**json.loads(line))

    def play(self, order: Order) -> Slice:
        self.begin(order)
        found = self.result()
        if found.failed or not found.requests:
            message = f"{found.failed} of {found.requests} requests failed: nothing can be learnt from that slice"
            raise BenchmarkError(message)
        return found
