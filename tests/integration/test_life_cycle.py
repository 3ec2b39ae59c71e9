"""How runs begin and end when people, signals and other processes interfere: the truth is told and nothing is left."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from json import loads
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtests.recording import Manifest, read_recording
from tests.integration.embedded import wait_gone
from tests.integration.runs import (
    BIN,
    CHECKOUT,
    LONG,
    Run,
    free_port,
    headless_locust,
    radslo_run,
    write_scenario,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NOBODY = "127.0.0.1:1"


def manifest_of(directory: Path) -> Manifest:
    manifest = read_recording(directory).manifest
    assert manifest is not None
    return manifest


def leader_of(run: Run) -> psutil.Process:
    """The Locust process below ``radslo run``."""
    return psutil.Process(run.process.pid).children()[0]


# --- the web UI --------------------------------------------------------------------------------------------------


@dataclass
class WebUi:
    """A plain ``locust`` with its web UI."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(self, path: str, **form: str) -> Any:
        """POST a form, or GET where there is none."""
        data = urllib.parse.urlencode(form).encode() if form else None
        with urllib.request.urlopen(f"{self.url}/{path}", data, timeout=10) as response:  # noqa: S310 - our own http
            return response.read()

    def start(self, **form: str) -> None:
        self.ask("swarm", user_count="2", spawn_rate="2", **form)

    def stop(self) -> None:
        self.ask("stop", now="please")

    def state(self) -> str:
        return str(loads(self.ask("stats/requests"))["state"])

    def until_said(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 90
        while self.log.read_text().count(text) < times:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        processes = family_of(self.process.pid)
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert wait_gone(processes) == []
        return code


def family_of(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


@pytest.fixture
def web_ui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebUi]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    options = [str(option) for option in getattr(request, "param", ())]
    if "TARGET" in options:
        options[options.index("TARGET")] = str(request.getfixturevalue("target"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "locust"), "--web-port", str(port), "--runs-dir", str(tmp_path / "runs"), *options],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    ui = WebUi(process, f"http://127.0.0.1:{port}", tmp_path / "log")
    try:
        _until_it_answers(ui)
        yield ui
    finally:
        for each in reversed(family_of(process.pid) if process.poll() is None else []):
            each.kill()
        process.wait()


def _until_it_answers(ui: WebUi) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ui.ask("")
        except OSError:
            assert ui.process.poll() is None, ui.log.read_text()
            assert time.monotonic() < deadline, ui.log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_web_ui(number: signal.Signals, web_ui: WebUi) -> None:
    assert web_ui.end(number) == 0


def test_ctrl_c_during_a_run_by_hand_seals_it_and_ends_ui_and_servers(web_ui: WebUi, tmp_path: Path) -> None:
    web_ui.start()
    web_ui.until_said("recording to")
    time.sleep(3)
    assert any(each.name() == "tritonserver" for each in family_of(web_ui.process.pid))
    assert web_ui.end() == 0
    (run,) = (tmp_path / "runs").iterdir()
    recording = read_recording(run)
    assert manifest_of(run).end_reason == "stopped by SIGINT"
    assert len(recording.requests) > 0
    # The first users are there a second before the run's clock starts.
    assert recording.requests.intended_us.min() >= 0


@pytest.mark.parametrize("web_ui", [["--target", "TARGET"]], indirect=True)
def test_a_page_cannot_turn_the_run_elsewhere(web_ui: WebUi, tmp_path: Path) -> None:
    web_ui.start(recording=str(tmp_path / "elsewhere"), target=NOBODY, runs_dir=str(tmp_path / "elsewhere"))
    web_ui.until_said("recording to")
    time.sleep(2)
    web_ui.stop()
    web_ui.until_said("sealed")
    assert not (tmp_path / "elsewhere").exists()
    (run,) = (tmp_path / "runs").iterdir()
    assert read_recording(run).plan.target["grpc"] != NOBODY
    assert manifest_of(run).end_reason == "stopped by hand"
    assert web_ui.end() == 0


@pytest.mark.parametrize(
    "web_ui",
    [["--target", NOBODY], ["--target", NOBODY, "--scenario", "smoke"]],
    ids=["by-hand", "shape"],
    indirect=True,
)
def test_a_run_that_cannot_begin_says_so_each_time_and_leaves_the_ui_up(web_ui: WebUi, tmp_path: Path) -> None:
    for times in (1, 2):
        web_ui.start()
        web_ui.until_said("error: no server answers", times)
        deadline = time.monotonic() + 20
        while web_ui.state() != "stopped":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert b"no server answers" in web_ui.ask("exceptions")
    assert not (tmp_path / "runs").exists()
    assert web_ui.end() == 2
    assert "Traceback" not in web_ui.log.read_text()


@pytest.mark.parametrize(
    "web_ui",
    [[], ["--processes", "2"], ["--processes", "2", "--scenario", "smoke"]],
    ids=["local", "processes", "processes-shape"],
    indirect=True,
)
def test_stop_in_the_ui_while_preparing_keeps_nothing_half_made(web_ui: WebUi, tmp_path: Path) -> None:
    for times in (1, 2):
        web_ui.start()
        web_ui.until_said("starting 1 Triton server", times)
        time.sleep(0.5)
        web_ui.stop()
        web_ui.until_said("stopped while preparing: no run was recorded", times)
        left = [each.name() for each in family_of(web_ui.process.pid)]
        assert "tritonserver" not in left
        assert web_ui.state() in {"ready", "stopped", "stopping"}
    assert not (tmp_path / "runs").exists()
    web_ui.end()
    assert "bug of radslo" not in web_ui.log.read_text()


# --- beginning ---------------------------------------------------------------------------------------------------


def test_ctrl_c_while_preparing_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run")
    deadline = time.monotonic() + 60
    while not any(each.name() == "tritonserver" for each in run.family()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes = run.family()
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 2, output
    assert "stopped while preparing" in output
    assert "bug of radslo" not in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
    assert wait_gone(processes) == []


def test_ctrl_c_ends_a_leader_that_waits_for_its_load_processes(tmp_path: Path) -> None:
    run = headless_locust("smoke", tmp_path / "run", "--master", "--expect-workers", "2", port=(port := free_port()))
    deadline = time.monotonic() + 60
    while not any(address.laddr.port == port for address in psutil.Process(run.process.pid).net_connections()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    run.signal(signal.SIGINT)
    code, output = run.end(30)
    assert code == 2, output
    assert "no run was recorded" in output


def test_a_recording_that_exists_is_refused_before_any_server_is_started(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code, output = radslo_run("smoke", tmp_path / "run").end()
    assert code == 2
    assert "exists already" in output
    assert "starting" not in output
    assert list((tmp_path / "run").iterdir()) == []


# --- several load processes ----------------------------------------------------------------------------------------


def test_load_processes_are_for_this_run_alone_and_die_with_their_leader(target: Path, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, LONG)
    runs = [radslo_run(scenario, tmp_path / str(n), "--target", target, "--processes", "2") for n in range(2)]
    for run in runs:
        run.until_rows(10)
    processes = [each for run in runs for each in run.family()]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert len({address.port for address in listening}) == 2
    runs[0].signal(signal.SIGINT)
    assert runs[0].end()[0] == 3
    assert manifest_of(tmp_path / "0").end_reason == "stopped by SIGINT"
    assert [worker.delivered for worker in manifest_of(tmp_path / "0").workers] == [True, True]
    leader_of(runs[1]).kill()
    assert runs[1].end()[0] == 2
    assert wait_gone(processes, 15) == []


def test_a_leader_that_stands_still_for_a_while_loses_nothing(target: Path, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [{"name": "load", "duration_s": 22, "rate": {"requests_per_s": 8}}])
    run = radslo_run(scenario, tmp_path / "run", "--target", target, "--processes", "2")
    run.until_rows(10)
    leader = leader_of(run)
    leader.suspend()
    time.sleep(14)  # more than the 10 s after which load processes once gave up
    leader.resume()
    run.end()
    manifest = manifest_of(tmp_path / "run")
    assert manifest.ended == "completed", manifest.end_reason
    recording = run.recording()
    assert list(recording.requests.seq) == list(range(recording.plan.scheduled_count or 0))


def test_the_end_is_not_called_completed_when_the_load_process_was_lost(target: Path, tmp_path: Path) -> None:
    run = headless_locust(write_scenario(tmp_path, LONG), tmp_path / "lost", "--target", target, "--processes", "1")
    run.until_rows(10)
    psutil.Process(run.process.pid).children()[0].kill()
    code, output = run.end()
    assert code == 0, output
    manifest = manifest_of(tmp_path / "lost")
    assert (manifest.ended, manifest.end_reason) == ("interrupted", "load process 0 was lost")


def test_a_disk_that_is_full_at_the_very_end_is_a_sentence(target: Path, tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--target", target)
    run.until_rows(20)
    leader = leader_of(run)
    leader.rlimit(resource.RLIMIT_FSIZE, (1, 1))
    leader.send_signal(signal.SIGINT)
    code, output = run.end()
    assert code == 2, output
    assert "cannot write to" in output
    assert "Traceback" not in output
    recording = run.recording()
    assert recording.manifest is None
    assert len(recording.requests) > 0


def test_users_who_come_and_go_leave_no_request_without_an_end(target: Path, tmp_path: Path) -> None:
    phases = [
        {"name": "many", "duration_s": 4, "users": 12, "think_time_s": 0},
        {"name": "few", "duration_s": 4, "users": 2, "think_time_s": 0},
    ]
    run = radslo_run(write_scenario(tmp_path, phases), tmp_path / "run", "--target", target)
    run.end()
    rows = run.recording().requests
    assert set(rows.status) == {"ok"}
    assert sorted(rows.seq) == list(range(len(rows)))
    assert rows.intended_us.min() >= 0
    assert manifest_of(tmp_path / "run").ended == "completed"
