"""How runs begin and end when people, signals and other processes interfere: the truth is told and nothing is left."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from json import dumps
from pathlib import Path

import psutil
import pytest

from loadtests.recording import Manifest, read_recording
from tests.integration.embedded import EmbeddedServers, embedded_servers
from tests.integration.runs import (
    Run,
    family,
    headless_locust,
    radslo_run,
    wait_gone,
    write_scenario,
)
from tests.integration.web_ui import free_port

pytestmark = pytest.mark.integration

FAST = "classifier=0+2,detector=0+4,encoder=0+3"
LONG = [{"name": "load", "duration_s": 120, "rate": {"requests_per_s": 10}}]
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with embedded_servers(1, FAST) as running:
        yield running


@pytest.fixture(scope="module")
def target(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.json"
    path.write_text(dumps(servers.target))
    return path


def manifest_of(directory: Path) -> Manifest:
    manifest = read_recording(directory).manifest
    assert manifest is not None
    return manifest


def leader_of(run: Run) -> psutil.Process:
    """The Locust process below ``radslo run``."""
    return psutil.Process(run.process.pid).children()[0]


# --- beginning ---------------------------------------------------------------------------------------------------


def test_ctrl_c_while_preparing_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run")
    deadline = time.monotonic() + 60
    while not any(each.name() == "tritonserver" for each in family(run.process)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes = family(run.process)
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 2, output
    assert "stopped while preparing" in output
    assert "bug of radslo" not in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()
    assert wait_gone(processes) == []


def test_ctrl_c_before_locust_is_up_is_one_sentence(tmp_path: Path) -> None:
    run = radslo_run("smoke", tmp_path / "run")
    deadline = time.monotonic() + 60
    while not psutil.Process(run.process.pid).children():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.3)
    run.signal(signal.SIGINT)
    code, output = run.end()
    assert code == 2, output
    assert output.strip() == "error: stopped before anything began: no run was recorded"


def test_ctrl_c_ends_a_leader_that_waits_for_its_load_processes(tmp_path: Path) -> None:
    port = free_port()
    run = headless_locust("smoke", tmp_path / "run", "--master", "--expect-workers=2", f"--master-bind-port={port}")
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
    processes = [each for run in runs for each in family(run.process)]
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
    port = free_port()
    ports = (f"--master-bind-port={port}", f"--master-port={port}")
    scenario = write_scenario(tmp_path, LONG)
    run = headless_locust(scenario, tmp_path / "lost", "--target", target, "--processes", "1", *ports)
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
