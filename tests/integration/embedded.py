"""Real Triton servers for tests: the keeper as a child process, its events as objects."""

import json
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy.embedded.leftovers import SHARED_MEMORY

CHECKOUT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 240.0
"""Long enough for the first start on a machine, which installs the server."""
STUBS = 8
PROCESSES = STUBS + 2
"""Of one server. Stubs: two of each model; then tritonserver and the device's metrics."""
QUICK = "classifier=0+1,detector=0+1,encoder=0+1"
FAST = "classifier=0+2,detector=0+4,encoder=0+3"

Event = dict[str, Any]


@dataclass
class EmbeddedServers:
    """A running keeper."""

    process: subprocess.Popen[str]
    device_times: str = ""
    """What the servers were started with."""
    events: list[Event] = field(default_factory=list)
    """Everything told so far that somebody waited for, in order."""
    target: dict[str, Any] = field(default_factory=dict)
    _arrivals: queue.Queue[Event | None] = field(default_factory=queue.Queue)
    _listener: threading.Thread | None = None

    def servers(self) -> list[dict[str, Any]]:
        """Return the rows of servers.json as they are now."""
        rows: list[dict[str, Any]] = json.loads(Path(self.target["servers_file"]).read_text())["servers"]
        return rows

    def server(self, name: str) -> dict[str, Any]:
        """Return one row of servers.json as it is now."""
        return next(row for row in self.servers() if row["name"] == name)

    def grpc_address(self, name: str = "triton-0") -> str:
        row = self.server(name)
        return f"{row['address']}:{row['grpc_port']}"

    def command(self, line: str) -> None:
        """Give the keeper a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, event: str, server: str | None = None, timeout_s: float = 120.0) -> Event:
        """Wait for the next event of this name (of this server) and return it."""
        deadline = time.monotonic() + timeout_s
        wanted = f"{event!r}{f' of {server}' if server else ''}"
        while True:
            try:
                arrived = self._arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                message = f"the keeper did not tell {wanted} within {timeout_s:g} s; it told {self.events}"
                raise AssertionError(message) from None
            assert arrived is not None, f"the keeper ended before telling {wanted}; it told {self.events}"
            self.events.append(arrived)
            if arrived["event"] == event and server in {None, arrived.get("server")}:
                return arrived

    @contextmanager
    def devices_take(self, times: str) -> Iterator[None]:
        """Change the device times of all servers for the length of a `with` block."""
        self._set_device_times(times)
        try:
            yield
        finally:
            self._set_device_times(self.device_times)

    def _set_device_times(self, times: str) -> None:
        self.command(f"device all {times}")
        for row in self.servers():
            if row["state"] != "exited":
                self.until("device", row["name"])

    def metrics(self, server: str = "triton-0", url: str = "gpu_metrics_url") -> dict[str, float]:
        """Scrape a server's metrics once; by name, over all labels."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.metrics_text(server, url)):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        return found

    def metrics_text(self, server: str = "triton-0", url: str = "gpu_metrics_url") -> str:
        """Scrape a server's metrics once."""
        with urllib.request.urlopen(self.server(server)[url], timeout=60) as response:  # noqa: S310 - our own address
            text: str = response.read().decode()
        return text

    def close(self) -> int:
        """Close the keeper's standard input and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()

    def wait(self) -> int:
        """Wait for the keeper to end and return its exit code; `remaining` then has what it told last."""
        try:
            code = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its servers die with it
            raise
        if self._listener is not None:
            self._listener.join()
        return code

    def remaining(self) -> list[Event]:
        """Return the events that nobody waited for."""
        return [event for event in iter(self._arrivals.get_nowait, None) if event is not None]

    def listen(self, stdout: IO[str]) -> None:
        """Take in events until the keeper ends."""

        def take() -> None:
            with stdout:
                for line in stdout:
                    self._arrivals.put(json.loads(line))
            self._arrivals.put(None)

        self._listener = threading.Thread(target=take, daemon=True)
        self._listener.start()


@contextmanager
def keeper_process(*arguments: str, device_times: str = "") -> Iterator[EmbeddedServers]:
    """Start a keeper, for the length of a `with` block; it is told to end if it has not by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.embedded", "--device-times", device_times, *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    keeper = EmbeddedServers(process, device_times)
    assert process.stdout is not None
    keeper.listen(process.stdout)
    try:
        yield keeper
    finally:
        keeper.close()


@contextmanager
def embedded_servers(
    servers: int = 1, device_times: str = "", arguments: Sequence[str] = ()
) -> Iterator[EmbeddedServers]:
    """Run servers for the length of a `with` block.

    `device_times` is like "classifier=20+5,detector=60+10,encoder=30+5": milliseconds for a batch, and for each item.
    """
    with keeper_process("--servers", str(servers), *arguments, device_times=device_times) as keeper:
        keeper.target = keeper.until("target", timeout_s=START_DEADLINE_S)["target"]
        yield keeper


# --- what servers must not leave behind ------------------------------------------------------------------------------


def regions_of(processes: Iterable[psutil.Process]) -> set[Path]:
    """Return the files in /dev/shm that processes have mapped; those that ended meanwhile have none."""
    mapped: set[Path] = set()
    for process in processes:
        try:
            mapped |= {Path(region.path) for region in process.memory_maps()}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return {path for path in mapped if path.is_relative_to(SHARED_MEMORY) and path.exists()}


def still_alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return those that run; a zombie does not."""
    return [process for process in processes if _runs(process)]


def wait_gone(processes: Iterable[psutil.Process], timeout_s: float = 120.0) -> list[psutil.Process]:
    """Wait until none of them runs; return those that still do after that time."""
    deadline = time.monotonic() + timeout_s
    while (alive := still_alive(processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
