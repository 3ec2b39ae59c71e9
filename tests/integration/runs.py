"""Whole runs for tests: a small scenario, the real ``radslo run`` or ``locust``, the recording that it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from loadtests.recording import Recording, read_recording

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
_START_S = 90.0


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
    path = directory / "scenario.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    return path


@dataclass
class Run:
    """A run under way or over, in a process of its own."""

    process: subprocess.Popen[str]
    directory: Path

    def until_rows(self, fewest: int) -> None:
        """Wait until the load is on its way: so many outcomes were reported."""
        deadline = time.monotonic() + _START_S
        while self.newest_done() < fewest:
            assert self.process.poll() is None, f"the run ended early:\n{self.end()[1]}"
            assert time.monotonic() < deadline, f"no load after {_START_S:.0f} s"
            time.sleep(0.05)

    def newest_done(self) -> int:
        """Outcomes that the load processes have reported so far."""
        client = self.directory / "client.jsonl"
        if not client.exists():
            return 0
        newest = {row["worker"]: row["done"] for row in map(json.loads, client.read_text().splitlines())}
        return sum(newest.values())

    def end(self, timeout_s: float = 120.0) -> tuple[int, str]:
        """Wait for the end; exit code and everything printed."""
        output, _ = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def recording(self) -> Recording:
        return read_recording(self.directory)


def start(command: list[str], directory: Path, *arguments: str | Path) -> Run:
    process = subprocess.Popen(
        [*command, *map(str, arguments), "--recording", str(directory)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    return Run(process, directory)


def radslo_run(scenario: Path | str, directory: Path, *arguments: str | Path) -> Run:
    return start([str(BIN / "radslo"), "run", str(scenario)], directory, *arguments)


def headless_locust(scenario: Path | str, directory: Path, *arguments: str | Path) -> Run:
    command = [str(BIN / "locust"), "--headless", "--only-summary", "--skip-log-setup", "--scenario", str(scenario)]
    return start(command, directory, *arguments)


def radslo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A short command, to its end."""
    return subprocess.run(
        [str(BIN / "radslo"), *map(str, arguments)],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The process and all that it started, as they are now."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def wait_gone(processes: list[psutil.Process], timeout_s: float = 60.0) -> list[psutil.Process]:
    """Those still alive after that time; a zombie is gone."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        alive = [each for each in processes if _alive(each)]
        if not alive:
            return []
        time.sleep(0.1)
    return [each for each in processes if _alive(each)]


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
