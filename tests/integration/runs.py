"""Whole runs for tests: a small scenario, the real ``radslo run`` or ``locust``, the recording that it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from ruamel.yaml import YAML

from deploy.embedded.ports import choose_free
from loadtests.recording import Recording, read_recording
from slo_checks.verdict import ValidityCheck, evaluate
from tests.integration.embedded import wait_gone

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LONG = [{"name": "load", "duration_s": 300, "rate": {"requests_per_s": 10}}]
"""Longer than any test waits: the test says when it ends."""
_START_S = 240.0
_END_S = 240.0


def write_scenario(directory: Path, phases: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """A scenario file of a few seconds; ``changes`` replace its fields."""
    document = {
        "name": "test",
        "purpose": "a test",
        "expected_verdict": "as the test says",
        "phases": phases or [{"name": "load", "duration_s": 8, "rate": {"requests_per_s": 8}}],
        "mix": {"ensemble": 1},
        "payloads": [{"id": "chest-jpeg-20kb", "images": 2}],
        "objectives": {"must_pass": ["latency_p95"], "must_not_fail": ["availability", "error_rate"]},
    } | changes
    return write_yaml(directory / "scenario.yaml", document)


def write_yaml(path: Path, document: dict[str, Any]) -> Path:
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    return path


@dataclass
class Run:
    """A run under way or over, in a process of its own; what it prints goes to a file, so it never waits for us."""

    process: subprocess.Popen[str]
    directory: Path
    _output: IO[str]
    _known: list[psutil.Process] = field(default_factory=list)

    def until_rows(self, fewest: int, *, workers: int = 1) -> None:
        """Wait until the load is on its way: each of so many load processes reported so many outcomes."""
        deadline = time.monotonic() + _START_S
        while len(done := self.newest_done()) < workers or min(done.values()) < fewest:
            assert self.process.poll() is None, f"the run ended early:\n{self.output()}"
            assert time.monotonic() < deadline, f"only {done} outcomes after {_START_S:.0f} s:\n{self.output()}"
            time.sleep(0.05)

    def newest_done(self) -> dict[int, int]:
        """Outcomes that each load process has reported so far."""
        client = self.directory / "client.jsonl"
        if not client.exists():
            return {}
        whole_lines = client.read_text().rpartition("\n")[0].splitlines()
        return {row["worker"]: row["done"] for row in map(json.loads, whole_lines)}

    def until_sealed(self) -> None:
        deadline = time.monotonic() + _END_S
        while not (self.directory / "manifest.json").exists():
            assert self.process.poll() is None, f"the run ended unsealed:\n{self.output()}"
            assert time.monotonic() < deadline, f"not sealed after {_END_S:.0f} s:\n{self.output()}"
            time.sleep(0.05)

    def end(self, timeout_s: float = _END_S) -> tuple[int, str]:
        """Wait for the end; exit code and everything printed."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            message = f"the run did not end within {timeout_s:.0f} s:\n{self.output()}"
            raise AssertionError(message) from None
        return code, self.output()

    def output(self) -> str:
        """Everything printed so far."""
        self._output.seek(0)
        return self._output.read()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """The process and all that it started, as they are now."""
        root = psutil.Process(self.process.pid)
        self._known = [root, *root.children(recursive=True)]
        return self._known

    def recording(self) -> Recording:
        return read_recording(self.directory)

    def clean_up(self) -> None:
        """End what is still going."""
        if self.process.poll() is None:
            self.family()
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for left in wait_gone(self._known, 10):
            left.kill()
        self._output.close()


def start(command: list[str], directory: Path, *, port: int | None = None, alone: bool = False) -> Run:
    """Start a command that records to a directory; `end_all` ends it if the test does not.

    ``port`` is that of Locust's master, by default a free one, so that runs at the same time do not meet. ``alone``
    gives the command a process group of its own, as a shell does.
    """
    output = tempfile.TemporaryFile("a+")  # noqa: SIM115 - as long as the run is looked at
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=alone,
        env=environment() | master_at(port or free_port()),
    )
    run = Run(process, directory, output)
    _STARTED.append(run)
    return run


def end_all() -> None:
    """End what failed tests left going; does nothing for runs that have ended."""
    while _STARTED:
        _STARTED.pop().clean_up()


_STARTED: list[Run] = []


def environment() -> dict[str, str]:
    """What a command of ours is told; asked anew each time, as a test may have changed something."""
    return os.environ | {"COLUMNS": "200"}


def master_at(port: int) -> dict[str, str]:
    """The environment in which Locust's master and its workers meet at a port."""
    return {
        "LOCUST_MASTER_BIND_HOST": "127.0.0.1",
        "LOCUST_MASTER_BIND_PORT": str(port),
        "LOCUST_MASTER_NODE_PORT": str(port),
    }


def free_port() -> int:
    return choose_free(1, ["127.0.0.1"])[0]


def radslo_run(scenario: Path | str, directory: Path, *arguments: str | Path) -> Run:
    command = [str(BIN / "radslo"), "run", str(scenario), *map(str, arguments), "--recording", str(directory)]
    return start(command, directory)


def headless_locust(scenario: Path | str, directory: Path, *arguments: str | Path, **how: Any) -> Run:
    command = [str(BIN / "locust"), "--headless", "--only-summary", "--skip-log-setup", "--scenario", str(scenario)]
    return start([*command, *map(str, arguments), "--recording", str(directory)], directory, **how)


def radslo(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A short command, to its end."""
    return subprocess.run(
        [str(BIN / "radslo"), *map(str, arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment() | variables,
    )


def validity(recording: Recording) -> dict[str, ValidityCheck]:
    """What is to be thought of the measurement itself, by name."""
    return {check.name: check for check in evaluate(recording).validity}
