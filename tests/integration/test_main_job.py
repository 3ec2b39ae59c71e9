"""The main job, end to end on real servers: load by two processes, recording, verdict, report."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from loadtests.recording import Recording, read_recording
from slo_checks.verdict import evaluate, undermines
from tests.integration.embedded import EmbeddedServers
from tests.integration.runs import BIN, CHECKOUT, radslo, radslo_run, validity, write_scenario, write_yaml

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CAPACITY_PER_S = 20


@dataclass(frozen=True)
class Played:
    """A complete run: what it recorded, printed and returned."""

    recording: Recording
    code: int
    output: str

    @property
    def directory(self) -> Path:
        return self.recording.directory

    @property
    def rows(self) -> pd.DataFrame:
        return self.recording.requests


@pytest.fixture(scope="module")
def played(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One complete run by ``radslo run`` against servers that it is told of as if they stood elsewhere."""
    directory = tmp_path_factory.mktemp("played")
    target = write_yaml(directory / "target.yaml", {"name": "elsewhere", "grpc": servers.target["grpc"]})
    scenario = write_scenario(
        directory,
        [
            {"name": "warm-up", "duration_s": 2, "warmup": True, "rate": {"requests_per_s": 5}},
            {"name": "load", "duration_s": 8, "rate": {"capacity_ratio": 0.5}},
        ],
        mix={"ensemble": 1, "classifier": 1, "detector": 1, "encoder": 1},
        with_text_ratio=0.5,
    )
    metrics = [f"--metrics-url={row['name']}={row['metrics_url']}" for row in servers.servers()]
    metrics += [f"--gpu-metrics-url={row['name']}={row['gpu_metrics_url']}" for row in servers.servers()]
    options = ["--target", str(target), *metrics, "--capacity-per-s", str(CAPACITY_PER_S), "--processes", "2"]
    code, output = radslo_run(scenario, directory / "run", *options).end()
    return Played(read_recording(directory / "run"), code, output)


def test_every_scheduled_request_has_exactly_one_row(played: Played) -> None:
    assert played.recording.manifest is not None
    assert played.recording.manifest.ended == "completed"
    assert played.recording.plan.scheduled_count
    assert list(played.rows.seq) == list(range(played.recording.plan.scheduled_count))
    assert set(played.rows.status) == {"ok"}


def test_two_load_processes_share_the_schedule(played: Played) -> None:
    assert played.recording.plan.workers == 2
    assert list(played.rows.worker) == [seq % 2 for seq in played.rows.seq]


def test_a_rate_in_multiples_of_capacity_follows_the_capacity_that_is_known(played: Played) -> None:
    assert played.recording.plan.capacity_per_s == CAPACITY_PER_S
    assert played.recording.plan.scenario.rate_at(5.0) == CAPACITY_PER_S / 2


def test_all_servers_answer_and_name_themselves(played: Played) -> None:
    assert set(played.rows.served_by) == {"triton-0", "triton-1"}
    for _, own in played.rows.groupby("worker"):
        servers = list(own.sort_values("sent_us").served_by)
        changes = sum(before != after for before, after in pairwise(servers))
        assert changes > len(servers) / 3, "round robin alternates; a connection that ends disturbs it for a moment"


def test_latency_counts_from_the_intended_time_and_stamps_are_ordered(played: Played) -> None:
    rows = played.rows
    assert (rows.sent_us >= rows.intended_us).all()
    assert (rows.done_us > rows.sent_us).all()
    # The device alone takes 9 ms for a whole study, one after the other.
    whole = rows[rows.kind == "ensemble"]
    assert len(whole) > 10
    assert ((whole.done_us - whole.intended_us) >= 9_000).all()


def test_answers_are_checked_and_a_sample_is_compared_with_known_ones(played: Played) -> None:
    checked = played.rows.checked.value_counts()
    assert checked["golden"] > 0
    assert checked.sum() == len(played.rows)


def test_the_watcher_saw_the_requests_that_the_client_counted(played: Played) -> None:
    recording = played.recording
    assert {sample["server"] for sample in recording.triton} == {"triton-0", "triton-1"}
    assert {sample["server"] for sample in recording.gpu} == {"triton-0", "triton-1"}
    assert {sample["emulated"] for sample in recording.gpu} == {True}
    witnessed = validity(recording)["servers_agree"]
    assert witnessed.ok is True, witnessed.reason


def test_run_passes_and_prints_the_verdict_and_where_the_report_is(played: Played) -> None:
    page = played.directory / "report" / "report.html"
    assert page.is_file()
    assert str(page) in played.output
    assert "Availability" in played.output
    verdict = evaluate(played.recording)
    doubts = {check.name for check in verdict.validity if undermines(check, verdict.verdicts)}
    # Only a machine so busy that the load itself came late may keep this run from its pass.
    assert doubts <= {"generator_lag", "generator_cpu"}
    assert played.code == (3 if doubts else 0), played.output


def test_check_report_and_pytest_agree_later_without_a_server(played: Played, tmp_path: Path) -> None:
    junit, again = tmp_path / "junit.xml", tmp_path / "again"
    assert radslo("check", played.directory, "--junit", junit).returncode == played.code
    assert "<testsuite" in junit.read_text()
    assert radslo("report", played.directory, "--output", again).returncode == 0
    assert json.loads((again / "verdict.json").read_text())["exit_code"] == played.code
    tests = subprocess.run(
        [str(BIN / "pytest"), "-p", "no:locust", "-q", "slo_checks", "--run", str(played.directory)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert tests.returncode == (0 if played.code == 0 else 1), tests.stdout
