"""Real Triton servers for tests: the keeper as a child process, its events as objects."""

import json
import queue
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CHECKOUT = Path(__file__).resolve().parents[2]
START_DEADLINE_S = 240.0
"""Long enough for the first start on a machine, which installs the server."""

Event = dict[str, Any]


@dataclass
class EmbeddedServers:
    """A running keeper."""

    process: subprocess.Popen[str]
    events: list[Event] = field(default_factory=list)
    """Everything told so far that somebody waited for, in order."""
    target: dict[str, Any] = field(default_factory=dict)
    _arrivals: queue.Queue[Event | None] = field(default_factory=queue.Queue)
    _listener: threading.Thread | None = None

    def servers(self) -> list[dict[str, Any]]:
        """Return the rows of servers.json as they are now."""
        rows: list[dict[str, Any]] = json.loads(Path(self.target["servers_file"]).read_text())["servers"]
        return rows

    def command(self, line: str) -> None:
        """Give the keeper a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, event: str, server: str | None = None, timeout_s: float = 60.0) -> Event:
        """Wait for the next event of this name (of this server) and return it."""
        deadline = time.monotonic() + timeout_s
        while True:
            arrived = self._arrivals.get(timeout=max(0.0, deadline - time.monotonic()))
            assert arrived is not None, f"the keeper ended before telling {event!r}; it told {self.events}"
            self.events.append(arrived)
            if arrived["event"] == event and server in {None, arrived.get("server")}:
                return arrived

    def metrics(self, server: str = "triton-0", url: str = "gpu_metrics_url") -> str:
        """Scrape a server's metrics."""
        row = next(row for row in self.servers() if row["name"] == server)
        with urllib.request.urlopen(row[url], timeout=10) as response:  # noqa: S310 - our own http:// address
            text: str = response.read().decode()
        return text

    def close(self) -> int:
        """Close the keeper's standard input and return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()

    def wait(self) -> int:
        """Wait for the keeper to end and return its exit code; `remaining` then has what it told last."""
        code = self.process.wait(timeout=60)
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


def start_keeper(*arguments: str) -> EmbeddedServers:
    """Start a keeper and return at once; whoever calls this closes it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.embedded", *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    keeper = EmbeddedServers(process)
    assert process.stdout is not None
    keeper.listen(process.stdout)
    return keeper


@contextmanager
def embedded_servers(
    servers: int = 1, device_times: str = "", arguments: Sequence[str] = ()
) -> Iterator[EmbeddedServers]:
    """Run servers for the length of a `with` block.

    `device_times` is like "classifier=20+5,detector=60+10,encoder=30+5": milliseconds for a batch, and for each item.
    """
    keeper = start_keeper("--servers", str(servers), "--device-times", device_times, *arguments)
    try:
        keeper.target = keeper.until("target", timeout_s=START_DEADLINE_S)["target"]
        yield keeper
    finally:
        keeper.close()
