"""A run against K3s in Docker, from nothing to the verdict, and its real HPA at work.

Written where no Docker daemon was: it has not been run yet. All of it happens in processes of their own, as docker-py
leaves sockets to the garbage collector.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.k3s.server import K3S_IMAGE
from loadtests.recording import read_recording
from tests.integration.runs import CHECKOUT, Run, radslo_run, write_scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

UP_S = 900.0
"""For images that are pulled the first time: K3s, KEDA's three, Prometheus, and what makes ours."""
REFUSED = ("privileged", "authorization denied", "Operation not permitted")
"""Words of a daemon that starts no privileged container."""


def python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def docker() -> None:
    """Skip what cannot run here, with the reason that a user is told."""
    if obstacle := python("from deploy.k3s.preflight import why_not; print(why_not() or '')"):
        pytest.skip(obstacle)


def ended(run: Run) -> tuple[int, str]:
    code, output = run.end(UP_S)
    if "Docker does not start" in output and any(
        word in output.partition("it has to be pulled")[0] for word in REFUSED
    ):
        pytest.skip(output.strip())
    return code, output


def containers() -> str:
    """The K3s containers that exist."""
    return python(
        f"import docker; print(docker.from_env().containers.list(all=True, filters={{'ancestor': '{K3S_IMAGE}'}}))"
    )


def test_a_run_brings_k3s_up_passes_and_leaves_nothing(tmp_path: Path) -> None:
    before = containers()
    code, output = ended(radslo_run("smoke", tmp_path / "run", "--target", "k3s"))
    assert code == 0, output
    recording = read_recording(tmp_path / "run")
    assert "kube-proxy" in recording.plan.target["name"]
    assert set(recording.requests["served_by"].dropna()) == {row["server"] for row in recording.triton}
    assert containers() == before


def test_the_autoscaler_starts_pods_that_answer(tmp_path: Path) -> None:
    """Twice what one pod serves, until new pods have had their share for a while."""
    scenario = write_scenario(
        tmp_path, [{"name": "load", "duration_s": 90, "rate": {"capacity_ratio": 2.0}}], in_flight_cap=1000
    )
    _, output = ended(radslo_run(scenario, tmp_path / "run", "--target", "k3s"))
    recording = read_recording(tmp_path / "run")
    assert recording.requests["served_by"].nunique() > 1, output
