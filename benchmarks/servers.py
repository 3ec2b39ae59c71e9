"""The servers that benchmarks load: a real Triton with a model that answers at once, and small Python servers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import BUILD
from deploy.embedded import leftovers, ports
from deploy.embedded.install import ensure_installed
from deploy.embedded.server import SERVE
from loadtests.messages import MODEL

_ECHO: Final = Path(__file__).parent / "models/echo"
_RUN_ROOT: Final = BUILD / "benchmark-servers"
_READY_S: Final = 30.0
_END_S: Final = 20.0


class BenchmarkError(Exception):
    """A benchmark cannot be run here. The message says why."""


@dataclass(frozen=True, slots=True)
class EchoServer:
    """A real tritonserver whose one model answers at once."""

    grpc: str
    http: str
    token: str

    def inferences(self) -> int:
        """How many it has answered so far, by its own count."""
        with urllib.request.urlopen(f"http://{self.http}/v2/models/{MODEL}/stats", timeout=10) as response:
            statistics = json.load(response)["model_stats"][0]
        return int(statistics["inference_count"])

    def freeze(self, duration_s: float) -> None:
        """Stop all its processes from running for that long, as the keeper's command of that name does."""
        self._signal(signal.SIGSTOP)
        time.sleep(duration_s)
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in leftovers.processes_with(self.token):
            os.kill(pid, number)


@contextlib.contextmanager
def echo_server(config: str) -> Iterator[EchoServer]:
    """Run tritonserver with the echo model in one of its configurations, ``small`` or ``study``."""
    leftovers.sweep(_RUN_ROOT)
    record = leftovers.KeeperRecord(_RUN_ROOT)
    token = leftovers.new_token()
    record.note(token)
    with tempfile.TemporaryDirectory() as repository, (record.directory / "server.log").open("wb") as log:
        _copy_echo(Path(repository), config)
        process, server = _start_triton(Path(repository), token, log.fileno())
        try:
            _await_ready(server, process, record.directory / "server.log")
            yield server
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            leftovers.remove(token)
            process.wait()
    record.discard()


def _copy_echo(repository: Path, config: str) -> None:
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    shutil.copy(_ECHO / "model.py", version)
    shutil.copy(_ECHO / f"{config}.pbtxt", repository / MODEL / "config.pbtxt")


def _start_triton(repository: Path, token: str, log: int) -> tuple[subprocess.Popen[bytes], EchoServer]:
    installation = ensure_installed()
    address = "127.0.0.1"
    http, grpc, metrics = ports.choose_free(3, [address])
    command = [
        *(str(installation.python), str(SERVE), "--model-repository", str(repository), "--name", "echo"),
        *("--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)),
        *("--backend-directory", str(installation.backends), "--shm-prefix", f"{token}-"),
        # Reconnecting is no part of what is compared here.
        *("--max-connection-age-ms", "3600000", "--exit-timeout-s", "2", "--parent-pid", str(os.getpid())),
    ]
    environment = os.environ | {"LD_LIBRARY_PATH": str(installation.libraries), leftovers.TOKEN_VARIABLE: token}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    return process, EchoServer(f"{address}:{grpc}", f"{address}:{http}", token)


def _await_ready(server: EchoServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://{server.http}/v2/models/{MODEL}/ready", timeout=2).close()
            return
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    message = f"tritonserver did not get ready for the benchmark; its log ends with:\n{tail}"
    raise BenchmarkError(message)


@contextlib.contextmanager
def python_server(module: str) -> Iterator[str]:
    """Run a server module that prints its address and ends with its standard input; yields the address."""
    with subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        if not address:
            message = f"{module} did not start; its message is above"
            raise BenchmarkError(message)
        yield address
