"""What a mishap in the middle of a run leaves behind, and what a person is told: the truth, and nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from json import dumps
from pathlib import Path

import psutil
import pytest

from loadtests.recording import read_recording
from slo_checks.verdict import Outcome, evaluate
from tests.integration.embedded import FAST, embedded_servers, regions_of, wait_gone
from tests.integration.runs import LONG, Run, headless_locust, radslo, radslo_run, validity, write_scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def load_processes_of(run: Run) -> list[psutil.Process]:
    """Locust's processes below the one that was started."""
    return [child for child in run.family()[1:] if "locust" in " ".join(child.cmdline())]


def watcher_of(run: Run) -> psutil.Process:
    return next(child for child in run.family() if "loadtests.watch" in child.cmdline())


# --- a process is killed -----------------------------------------------------------------------------------------


def test_a_killed_load_process_is_named_keeps_its_rows_and_voids_the_verdict(target: Path, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [{"name": "load", "duration_s": 15, "rate": {"requests_per_s": 10}}])
    run = headless_locust(scenario, tmp_path / "run", "--target", target, "--processes", "2")
    run.until_rows(5, workers=2)
    load_processes_of(run)[0].kill()
    code, output = run.end()
    assert code == 0, output
    recording = run.recording()
    assert recording.manifest is not None
    assert sorted(worker.delivered for worker in recording.manifest.workers) == [False, True]
    assert any(event["event"] == "worker_lost" for event in recording.events)
    assert validity(recording)["workers_delivered"].ok is False
    assert evaluate(recording).outcome is Outcome.INCONCLUSIVE
    # Rows come with the sample that counts them.
    for worker, done in run.newest_done().items():
        assert (recording.requests.worker == worker).sum() >= done >= 5


def test_kill_9_of_the_leader_leaves_a_readable_unsealed_recording_and_no_process(tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--device-times", FAST)
    run.until_rows(20)
    processes = run.family()
    regions = regions_of(processes)
    load_processes_of(run)[0].kill()
    code, output = run.end()
    assert code == 2, output
    assert str(tmp_path / "run") in output
    recording = run.recording()
    assert recording.manifest is None
    assert len(recording.requests) >= 20
    checked = radslo("check", tmp_path / "run")
    assert checked.returncode == 3, checked.stdout
    assert "did not finish" in checked.stdout
    assert wait_gone(processes) == []
    assert regions
    assert not any(region.exists() for region in regions)


def test_kill_9_of_radslo_itself_ends_the_load_in_good_order(target: Path, tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--target", target)
    run.until_rows(10)
    processes = run.family()
    run.process.kill()
    run.process.wait()
    assert wait_gone(processes) == []
    manifest = run.recording().manifest
    assert manifest is not None
    assert manifest.ended == "interrupted"


def test_a_killed_watcher_leaves_nothing_to_pass_on_what_it_saw(target: Path, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [{"name": "load", "duration_s": 12, "rate": {"requests_per_s": 8}}])
    run = radslo_run(scenario, tmp_path / "run", "--target", target, "--no-check")
    run.until_rows(8)
    watcher_of(run).kill()
    code, output = run.end()
    assert code == 0, output
    recording = run.recording()
    assert recording.manifest is not None
    assert recording.manifest.ended == "completed"
    checks = validity(recording)
    assert checks["watcher_awake"].ok is False
    assert checks["servers_agree"].ok is not True
    assert evaluate(recording).outcome is not Outcome.PASS


def test_killing_the_only_server_mid_run_fails_availability(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [{"name": "load", "duration_s": 20, "rate": {"requests_per_s": 10}}])
    run = radslo_run(scenario, tmp_path / "run", "--device-times", FAST)
    run.until_rows(10)
    next(each for each in run.family() if each.name() == "tritonserver").kill()
    run.end()
    recording = run.recording()
    assert list(recording.requests.seq) == list(range(recording.plan.scheduled_count or 0))
    exited_at = next(event["at"] for event in recording.events if event["event"] == "server_exited")
    after = recording.requests[recording.requests.intended_us > (exited_at - recording.plan.started_at) * 1e6]
    assert len(after) > 20
    assert set(after.status) == {"transport"}
    assert set(recording.requests.status) == {"ok", "transport"}
    verdict = evaluate(recording)
    doubts = {check.name for check in verdict.validity if check.ok is not True}
    # Only a machine that stood still itself may keep this from being a proven fail.
    assert verdict.outcome is (Outcome.INCONCLUSIVE if "generator_lag" in doubts else Outcome.FAIL), verdict.reason


# --- somebody ends it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_early_in_good_order(number: signal.Signals, target: Path, tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--target", target)
    run.until_rows(20)
    processes = run.family()
    run.signal(number)
    code, output = run.end()
    assert code == 3, output
    recording = run.recording()
    assert recording.manifest is not None
    assert recording.manifest.ended == "interrupted"
    assert recording.manifest.due_count is not None
    assert recording.manifest.due_count >= 20
    assert list(recording.requests.seq) == list(range(recording.manifest.due_count))
    assert validity(recording)["completed"].ok is False
    assert evaluate(recording).outcome is Outcome.INCONCLUSIVE
    assert wait_gone(processes) == []


@pytest.mark.parametrize("whole_group", [False, True], ids=["SIGTERM to locust", "Ctrl-C in its terminal"])
def test_two_load_processes_that_are_told_to_end_deliver_all(whole_group: bool, target: Path, tmp_path: Path) -> None:  # noqa: FBT001
    scenario = write_scenario(tmp_path, LONG)
    run = headless_locust(scenario, tmp_path / "run", "--target", target, "--processes", "2", alone=whole_group)
    run.until_rows(10, workers=2)
    processes = run.family()
    if whole_group:
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        run.signal(signal.SIGTERM)
    code, output = run.end()
    assert code == 0, output
    recording = run.recording()
    assert recording.manifest is not None
    assert recording.manifest.ended == "interrupted"
    assert [worker.delivered for worker in recording.manifest.workers] == [True, True]
    # They hear of it one after the other, so the one may have sent a little more than the other.
    for worker in recording.manifest.workers:
        own = recording.requests[recording.requests.worker == worker.worker].seq
        assert list(own) == list(range(worker.worker, 2 * (worker.due or 0), 2))
    assert wait_gone(processes) == []


# --- servers come --------------------------------------------------------------------------------------------------


def test_a_server_added_mid_run_gets_traffic_and_the_recording_can_be_read_meanwhile(tmp_path: Path) -> None:
    with embedded_servers(1, FAST) as servers:
        path = tmp_path / "target.json"
        path.write_text(dumps(servers.target))
        phases = [{"name": "load", "duration_s": 300, "rate": {"requests_per_s": 5}}]
        run = radslo_run(write_scenario(tmp_path, phases), tmp_path / "run", "--target", path)
        run.until_rows(5)
        servers.command("add")
        name = servers.until("ready")["server"]
        deadline = time.monotonic() + 120
        while (read_recording(run.directory).requests.served_by == name).sum() <= 5:
            assert time.monotonic() < deadline, f"{name} got no traffic"
            time.sleep(0.5)
        run.signal(signal.SIGINT)
        run.end()
    assert set(run.recording().requests.status) == {"ok"}


# --- things that are wrong ----------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_run_with_a_sentence_and_keeps_what_was_recorded(target: Path, tmp_path: Path) -> None:
    run = radslo_run(write_scenario(tmp_path, LONG), tmp_path / "run", "--target", target)
    run.until_rows(5)
    for process in [run.process.pid, *(child.pid for child in load_processes_of(run))]:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (12_000, 12_000))
    code, output = run.end()
    assert code == 2, output
    assert "cannot write to" in output
    assert "Traceback" not in output
    assert len(read_recording(run.directory).requests) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "smok"], "did you mean"),
        (["run", "no/such.yaml"], "no/such.yaml"),
        (["run", "smoke", "--target", "127.0.0.1"], "has no port"),
        (["run", "smoke", "--target", "nowhere.yaml"], "nowhere.yaml"),
        (["check", "no-such-run"], "no-such-run"),
        (["report", "tests"], "plan.json"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments: list[str], says: str) -> None:
    done = radslo(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("error:")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "127.0.0.1:1"], "no server answers at 127.0.0.1:1"),
        (["--device-times", "detectr=1+2"], "'detectr=1+2' is not MODEL=a+b"),
        (["--metrics-url", "http://127.0.0.1:1/metrics"], "those of embedded servers are known"),
    ],
)
def test_a_run_that_cannot_begin_says_why_and_records_nothing(arguments: list[str], says: str, tmp_path: Path) -> None:
    code, output = radslo_run("smoke", tmp_path / "run", *arguments).end()
    assert code == 2
    assert says in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


# --- the first thing that anybody tries ---------------------------------------------------------------------------


def test_demo_ends_with_the_verdict_and_a_report_of_real_inferences(tmp_path: Path) -> None:
    done = radslo("demo", "--servers", "1", RADSLO_RUNS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = tmp_path.iterdir()
    assert str(run / "report" / "report.html") in done.stdout
    assert "Latency, 95th percentile" in done.stdout
    recording = read_recording(run)
    assert set(recording.requests.served_by) == {"triton-0"}
    verdict = json.loads((run / "report" / "verdict.json").read_text())
    assert verdict["outcome"] == evaluate(recording).outcome.value
    # Without a name, the newest recording is meant.
    assert radslo("check", RADSLO_RUNS_DIR=str(tmp_path)).returncode == verdict["exit_code"]
