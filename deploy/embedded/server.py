"""One tritonserver process: start it, await it, freeze, stop and kill it, and leave nothing behind."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from deploy.embedded import CHECKOUT, EmbeddedError, leftovers
from deploy.embedded.install import ServerInstallation

SERVE = CHECKOUT / "triton/serve.py"

_READY_DEADLINE_S = 60.0
_PROBE_INTERVAL_S = 0.05
_PROBE_DEADLINE_S = 2.0
_DRAIN_S = 5
_LOG_TAIL_LINES = 12


class State(StrEnum):
    """What a server is doing."""

    STARTING = "starting"
    READY = "ready"
    FROZEN = "frozen"
    EXITED = "exited"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of every server; each server has an address of its own."""

    http: int
    grpc: int
    metrics: int
    gpu_metrics: int


@dataclass(slots=True)
class Server:
    """A tritonserver with its stubs, its device and its metrics."""

    name: str
    address: str
    ports: Ports
    log: Path
    token: str = field(default_factory=leftovers.new_token)
    state: State = State.STARTING
    started_at: float = field(default_factory=time.time)
    process: asyncio.subprocess.Process | None = None
    others_scratch: frozenset[Path] = frozenset()
    scratch: frozenset[Path] = frozenset()
    """Empty directories that appeared while it started; known once it is ready."""
    ending: str | None = None
    """The command that ends it, once one was given; None when it ends by itself."""

    @property
    def pid(self) -> int | None:
        """The process id, which is also its process group and session; None before it is started."""
        return None if self.process is None else self.process.pid

    @property
    def device_file(self) -> Path:
        """The state of its emulated device; begins with the token, so it goes with the shared memory."""
        return leftovers.SHARED_MEMORY / f"{self.token}-device"

    def row(self) -> dict[str, object]:
        """Return its entry in servers.json."""
        return {
            "name": self.name,
            "address": self.address,
            "grpc_port": self.ports.grpc,
            "http_port": self.ports.http,
            "metrics_url": f"http://{self.address}:{self.ports.metrics}/metrics",
            "gpu_metrics_url": f"http://{self.address}:{self.ports.gpu_metrics}/metrics",
            "pid": self.pid,
            "state": self.state,
            "started_at": self.started_at,
            "log": str(self.log),
        }

    async def start(self, installation: ServerInstallation, device_times: str) -> None:
        """Start the process; it is not ready yet.

        It is killed when this process ends in any way: nobody else would stop it.
        """
        environment = os.environ | {
            "POD_NAME": self.name,
            "RADSTREAM_DEVICE_TIMES": device_times,
            "LD_LIBRARY_PATH": str(installation.libraries),
            leftovers.TOKEN_VARIABLE: self.token,
        }
        arguments = [
            *("--profile", "cpu", "--name", self.name, "--address", self.address),
            *("--http-port", str(self.ports.http), "--grpc-port", str(self.ports.grpc)),
            *("--metrics-port", str(self.ports.metrics), "--gpu-metrics-port", str(self.ports.gpu_metrics)),
            *("--backend-directory", str(installation.backends), "--device-file", str(self.device_file)),
            *("--shm-prefix", f"{self.token}-", "--exit-timeout-s", str(_DRAIN_S), "--parent-pid", str(os.getpid())),
        ]
        self.others_scratch = _scratch_directories()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(str(installation.python), str(SERVE), *arguments),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def until_ready(self) -> None:
        """Return when the ensemble is ready.

        Raises:
            EmbeddedError: it ended or was not ready in time; the message shows the end of its log.
        """
        deadline = time.monotonic() + _READY_DEADLINE_S
        while not await _answers_ok(self.address, self.ports.http, "/v2/models/radstream_ensemble/ready"):
            if self.state is State.EXITED or self.process is None or self.process.returncode is not None:
                message = f"{self.name} ended while starting; its log {self.log} ends with:\n{self.log_tail()}"
                raise EmbeddedError(message)
            if time.monotonic() > deadline:
                message = (
                    f"{self.name} was not ready after {_READY_DEADLINE_S:g} s; "
                    f"its log {self.log} ends with:\n{self.log_tail()}"
                )
                raise EmbeddedError(message)
            await asyncio.sleep(_PROBE_INTERVAL_S)
        self.scratch = _scratch_directories() - self.others_scratch

    def log_tail(self) -> str:
        """Return the last lines of the log that say something."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        refusals = [line for line in lines if line.startswith("serve.py: ") and "left out" not in line]
        return "\n".join(f"  {line}" for line in refusals or lines[-_LOG_TAIL_LINES:])

    def freeze(self) -> None:
        """Stop all of its processes from running; they keep their connections."""
        self._signal_all(signal.SIGSTOP)
        self.state = State.FROZEN

    def thaw(self) -> bool:
        """Let its processes run on; return whether it was frozen."""
        frozen = self.state is State.FROZEN
        if frozen:
            self.state = State.READY
            self._signal_all(signal.SIGCONT)
        return frozen

    def kill(self) -> None:
        """End all of its processes at once, as when a machine fails."""
        self._signal_all(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to drain and end, as Kubernetes does."""
        self.thaw()
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in leftovers.processes_with(self.token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def until_exited(self) -> int:
        """Wait for the end, then remove what is left; return the exit code, negative for a signal."""
        if self.process is None:
            message = f"{self.name} was never started"
            raise EmbeddedError(message)
        code = await self.process.wait()
        self.state = State.EXITED
        leftovers.remove(self.token)
        leftovers.reap(self.process.pid)
        self._remove_scratch()
        return code

    def _remove_scratch(self) -> None:
        """Remove what Triton's Python backend makes at start and forgets when killed; never one that is in use."""
        for directory in self.scratch:
            with contextlib.suppress(OSError):
                directory.rmdir()


def _scratch_directories() -> frozenset[Path]:
    """Those of this user; the backend makes them there whatever TMPDIR says."""
    found = Path("/tmp").glob("python_env_*")  # noqa: S108 - only looked at and, when empty, removed
    return frozenset(path for path in found if path.stat().st_uid == os.getuid())


async def _answers_ok(address: str, port: int, path: str) -> bool:
    """Tell whether an HTTP GET is answered with 200."""
    try:
        async with asyncio.timeout(_PROBE_DEADLINE_S):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
