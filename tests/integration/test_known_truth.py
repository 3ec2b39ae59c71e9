"""Runs whose truth is known in advance, because the devices are emulated: the verdict has to find it, both ways.

A whole study takes the device ``c + d + e`` ms, one study after the other. So a server's capacity is
``1000 / (c + d + e)`` studies per second, its utilisation at a lower rate is ``rate * (c + d + e) / 1000``, and no
study is answered in less than the device takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from json import dumps
from pathlib import Path
from typing import Any

import pytest

from loadtests.recording import Recording, read_recording
from slo_checks.objectives import Objectives, objectives_document
from slo_checks.verdict import Outcome, Verdict, evaluate
from tests.integration.embedded import EmbeddedServers, embedded_servers
from tests.integration.runs import radslo_run, write_scenario

pytestmark = pytest.mark.integration

STUDY_S = 0.080
DEVICE = "classifier=0+20,detector=0+40,encoder=0+20"
CAPACITY_PER_S = 1 / STUDY_S
UTILISATION = 0.6


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with embedded_servers(1, DEVICE) as running:
        yield running


@pytest.fixture(scope="module")
def target(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.json"
    path.write_text(dumps(servers.target))
    return path


@pytest.fixture(scope="module")
def steady(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A load that keeps the device busy 60 % of the time, for 25 s."""
    directory = tmp_path_factory.mktemp("steady")
    rate = {"requests_per_s": UTILISATION * CAPACITY_PER_S}
    scenario = write_scenario(directory, [{"name": "load", "duration_s": 25, "gaps": "constant", "rate": rate}])
    radslo_run(scenario, directory / "run", "--target", target).end()
    return _read(directory / "run")


@pytest.fixture(scope="module")
def overloaded(target: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Half as much again as the server can do, by its own measured capacity, for 20 s."""
    directory = tmp_path_factory.mktemp("overloaded")
    scenario = write_scenario(directory, [{"name": "load", "duration_s": 20, "rate": {"capacity_ratio": 1.5}}])
    radslo_run(scenario, directory / "run", "--target", target).end()
    return _read(directory / "run")


def _read(directory: Path) -> Recording:
    return read_recording(directory)


def judged(recording: Recording, objective: str, **changes: Any) -> Verdict:
    """One objective's verdict under another bound; the limits of a minute are shortened to fit a test."""
    document = deepcopy(objectives_document())
    document["objectives"][objective] |= changes
    document["gpu"]["active_least_s"] = 5
    # Whether the generator was on time is another test's question; here a busy machine must not hide the truth.
    document["measurement"] |= {"lag_p99_most_s": 1.0, "lag_worst_s": 10.0, "cpu_most_ratio": 1.0}
    verdicts = evaluate(recording, Objectives.model_validate(document)).verdicts
    return next(verdict for verdict in verdicts if verdict.objective.name == objective)


def test_latency_below_the_devices_own_time_cannot_pass(steady: Recording) -> None:
    assert judged(steady, "latency_p95", bound=STUDY_S * 0.99).outcome is Outcome.FAIL


def test_latency_with_room_above_the_devices_time_passes(steady: Recording) -> None:
    assert judged(steady, "latency_p95", bound=2.0).outcome is Outcome.PASS


def test_utilisation_is_what_rate_and_service_time_make_it(steady: Recording) -> None:
    measured = judged(steady, "gpu_utilisation").estimate
    assert measured.value == pytest.approx(UTILISATION, abs=0.05)
    assert measured.emulated


def test_utilisation_is_judged_in_both_directions(steady: Recording) -> None:
    assert judged(steady, "gpu_utilisation", bound=UTILISATION - 0.15).outcome is Outcome.PASS
    assert judged(steady, "gpu_utilisation", bound=0.8).outcome is Outcome.FAIL


def test_utilisation_of_a_saturated_device_passes(overloaded: Recording) -> None:
    verdict = judged(overloaded, "gpu_utilisation", bound=0.8)
    assert verdict.outcome is Outcome.PASS, verdict.reason


def test_measured_capacity_is_the_devices(overloaded: Recording) -> None:
    assert overloaded.plan.capacity_per_s is not None
    # Never more than the device can do; what the server's own batching loses is a few per cent.
    assert 0.85 * CAPACITY_PER_S < overloaded.plan.capacity_per_s < 1.03 * CAPACITY_PER_S


def test_overload_is_found_out(overloaded: Recording) -> None:
    # 6 studies a second too many for 20 s: the last ones wait for the device for seconds.
    assert judged(overloaded, "latency_p95", bound=1.0).outcome is Outcome.FAIL
    served = (overloaded.requests.status == "ok").sum()
    lasted_s = float(overloaded.requests.done_us.max()) / 1e6
    assert served <= CAPACITY_PER_S * lasted_s + 8


def test_overload_is_refused_and_survived(overloaded: Recording) -> None:
    statuses = overloaded.requests.status.value_counts()
    assert set(statuses.index) == {"ok", "shed"}
    # The device is never idle meanwhile: what it can do, it does.
    last_s = float(overloaded.requests.done_us.max()) / 1e6
    assert statuses["ok"] > 0.8 * CAPACITY_PER_S * last_s


def test_what_a_short_run_cannot_know_stays_inconclusive(steady: Recording) -> None:
    for objective in ("availability", "error_rate", "pod_start", "scale_out", "recovery"):
        assert judged(steady, objective).outcome is Outcome.INCONCLUSIVE, objective


def test_the_frozen_server_shows_in_the_latency_of_those_who_would_have_asked(tmp_path: Path) -> None:
    """A closed loop would wait with the server and report 20 quick answers instead of 60 late ones."""
    with embedded_servers(1, "classifier=0+2,detector=0+4,encoder=0+3") as servers:
        path = tmp_path / "target.json"
        path.write_text(dumps(servers.target))
        phases = [{"name": "load", "duration_s": 15, "gaps": "constant", "rate": {"requests_per_s": 20}}]
        run = radslo_run(write_scenario(tmp_path, phases), tmp_path / "run", "--target", path)
        run.until_rows(40)
        servers.command("freeze triton-0 3")
        run.end()
    rows = run.recording().requests
    response_s = (rows.done_us - rows.intended_us).astype(float) / 1e6
    # Arrivals are spread evenly over the 3 s: those of the first second wait for more than 2 s, and so do some that
    # stand behind them when the server goes on.
    assert 16 <= (response_s > 2.0).sum() <= 50
    assert (response_s > 0.5).sum() >= 45
    assert judged(run.recording(), "latency_p95", bound=2.0).outcome is Outcome.FAIL
