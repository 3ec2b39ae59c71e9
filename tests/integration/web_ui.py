"""A plain ``locust`` with its web UI, for tests: what a person does in the browser, what they read in the terminal."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

import psutil

from tests.integration.embedded import wait_gone


@dataclass
class WebUi:
    """A plain ``locust`` with its web UI."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def until_it_answers(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                self.ask("")
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)
            else:
                return

    def ask(self, path: str, **form: str) -> Any:
        """POST a form, or GET where there is none."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with urllib.request.urlopen(f"{self.url}/{path}", data, timeout=60) as response:  # noqa: S310 - our own http
            return response.read()

    def start(self, **form: str) -> None:
        self.ask("swarm", user_count="2", spawn_rate="2", **form)

    def stop(self) -> None:
        self.ask("stop", now="please")

    def state(self) -> str:
        return str(loads(self.ask("stats/requests"))["state"])

    def until_at_rest(self, stops: int) -> None:
        """Wait until nothing runs and every load process has come back from the last of so many stops."""
        processes, shape = (option in self.process.args for option in ("--processes", "--scenario"))  # type: ignore[operator]
        # Stopping users set by hand, Locust kills what prepares the run and tells the load processes nothing.
        self.until_said("reported as ready", processes * 2 * (stops * shape + 1))
        deadline = time.monotonic() + 120
        while self.state() not in {"ready", "stopped"}:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def until_said(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 120
        while self.log.read_text().count(text) < times:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        processes = family_of(self.process.pid)
        self.process.send_signal(number)
        code = self.process.wait(120)
        assert wait_gone(processes) == []
        return code


def family_of(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
