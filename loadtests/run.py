"""Record one run: Locust, headless, in a process of its own, with its progress shown here."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from loadtests.orphans import end_with_parent
from loadtests.recording import Plan, RecordingError
from loadtests.target import EMBEDDED

if TYPE_CHECKING:
    from rich.console import Console

LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")
_REFRESH_S: Final = 0.5
_LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What ``radslo run`` passes on; see `loadtests.options` for each."""

    scenario: str
    recording: Path
    target: str = EMBEDDED
    servers: int = 1
    device_times: str = ""
    processes: int = 1
    metrics_urls: tuple[str, ...] = ()
    gpu_metrics_urls: tuple[str, ...] = ()
    capacity_per_s: float | None = None


def locust_command(options: RunOptions) -> list[str]:
    """The Locust command line of a recorded run."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    # Without Locust's own logging its statistics stay silent, which no verdict is made of; warnings still show.
    command += ["--skip-log-setup", "--exit-code-on-error", "0"]
    command += ["--scenario", options.scenario, "--target", options.target, "--servers", str(options.servers)]
    command += ["--recording", str(options.recording)]
    if options.device_times:
        command += ["--device-times", options.device_times]
    if options.capacity_per_s:
        command += ["--capacity-per-s", str(options.capacity_per_s)]
    for url in options.metrics_urls:
        command += ["--metrics-url", url]
    for url in options.gpu_metrics_urls:
        command += ["--gpu-metrics-url", url]
    if options.processes > 1:
        # A port of its own, and no stranger's: Locust's default is one for the whole machine, open to the network.
        port = str(_free_port())
        command += ["--processes", str(options.processes)]
        command += ["--master-bind-host", _LOOPBACK, "--master-bind-port", port]
        command += ["--master-host", _LOOPBACK, "--master-port", port]
    return command


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind((_LOOPBACK, 0))
        port: int = taken.getsockname()[1]
    return port


def record(options: RunOptions, console: Console) -> Path:
    """Play a scenario and return the directory of its recording, sealed or (after a mishap) not.

    SIGINT and SIGTERM end the run early but in good order. Whatever was recorded stays.

    Raises:
        RecordingError: the run did not begin, or could not be recorded to its end.
    """
    locust = subprocess.Popen(  # noqa: S603 - our own command
        locust_command(options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # SIGTERM, so that the load ends in good order should this process be killed.
        preexec_fn=partial(end_with_parent, signal.SIGTERM),  # noqa: PLW1509 - no thread runs yet
    )
    begun = threading.Event()
    with _passing_signals_on(locust, begun), _progress(console) as progress:
        done = threading.Event()
        shown = threading.Thread(target=_show_progress, args=(options.recording, progress, done))
        shown.start()
        assert locust.stdout is not None  # noqa: S101 - asked for above
        for line in locust.stdout:
            begun.set()
            progress.console.print(Text(line.rstrip("\n")))
        exit_code = locust.wait()
        done.set()
        shown.join()
    if not begun.is_set() and exit_code == -signal.SIGTERM:
        msg = "stopped before anything began: no run was recorded"
        raise RecordingError(msg)
    if exit_code != 0:
        kept = f"; what was recorded is in {options.recording}" if (options.recording / "plan.json").exists() else ""
        msg = f"the run ended with exit code {exit_code}: the reason is above{kept}"
        raise RecordingError(msg)
    return options.recording


@contextmanager
def _passing_signals_on(locust: subprocess.Popen[str], begun: threading.Event) -> Iterator[None]:
    """Have Locust get the signals that are meant to end the run."""

    def pass_on(number: int, _: FrameType | None) -> None:
        # Until it says its first word it knows no order in which to end, and would answer SIGINT with a traceback.
        locust.send_signal(number if begun.is_set() else signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:12}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
        console=console,
        transient=not console.is_terminal,
        disable=not console.is_terminal,
    )


def _show_progress(directory: Path, progress: Progress, done: threading.Event) -> None:
    """Follow the run through what it records, until ``done``."""
    task: TaskID | None = None
    plan: Plan | None = None
    while not done.wait(_REFRESH_S):
        if plan is None:
            plan = _plan(directory)
            continue
        duration_s = plan.planned_end_at - plan.started_at
        elapsed_s = min(max(time.time() - plan.started_at, 0.0), duration_s)
        phase = plan.scenario.phase_at(elapsed_s)
        if task is None:
            task = progress.add_task("", total=duration_s, state="")
        progress.update(
            task,
            completed=elapsed_s,
            description=phase.name if phase else "draining",
            state=_state(directory / "client.jsonl", plan.workers),
        )


def _plan(directory: Path) -> Plan | None:
    path = directory / "plan.json"
    return Plan.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _state(client: Path, workers: int) -> str:
    """The newest sample of each load process, added up."""
    if not client.exists():
        return "starting"
    with client.open("rb") as file:
        file.seek(max(0, client.stat().st_size - 600 * workers))
        lines = file.read().splitlines()
    newest: dict[int, dict[str, Any]] = {}
    for line in lines:
        if line.startswith(b"{") and line.endswith(b"}"):
            sample = json.loads(line)
            newest[sample["worker"]] = sample
    total = {key: sum(sample[key] for sample in newest.values()) for key in ("due", "done", "failed", "in_flight")}
    return f"{total['due']} sent, {total['done']} answered, {total['failed']} failed, {total['in_flight']} in flight"
