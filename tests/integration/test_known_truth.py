"""Runs whose truth is known in advance, because the devices are emulated: the verdict has to find it, both ways.

A whole study takes the device ``c + d + e`` ms, one study after the other. So a server's capacity is
``1000 / (c + d + e)`` studies per second, its utilisation at a lower rate is ``rate * (c + d + e) / 1000``, and no
study is answered in less than the device takes.

A busy machine may stop everything for seconds. That takes readings away and bends latencies upwards; it changes
neither what the device did, which it counts exactly, nor who was due when.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from json import dumps
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loadtests.recording import Recording
from slo_checks.objectives import Objectives, objectives_document
from slo_checks.verdict import Outcome, Verdict, evaluate
from tests.integration.embedded import EmbeddedServers, embedded_servers
from tests.integration.runs import radslo_run, write_scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

STUDY_S = 0.080
DEVICE = "classifier=0+20,detector=0+40,encoder=0+20"
CAPACITY_PER_S = 1 / STUDY_S
UTILISATION = 0.3
"""Low, so that what piles up while everything stands still is soon worked off."""
STEADY_S = 25
OVERLOADED_S = 20
FREEZE_S = 6


@pytest.fixture(scope="module")
def servers() -> Iterator[EmbeddedServers]:
    with embedded_servers(1, DEVICE) as running:
        yield running


@pytest.fixture(scope="module")
def target(servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("target") / "target.json"
    path.write_text(dumps(servers.target))
    return path


@dataclass(frozen=True)
class Known:
    """A recording, and how long the device was busy from before the run to after it, by its own exact count."""

    recording: Recording
    busy_s: float

    @property
    def rows(self) -> pd.DataFrame:
        return self.recording.requests

    @property
    def answered(self) -> int:
        return int((self.rows.status == "ok").sum())

    @property
    def lasted_s(self) -> float:
        return float(self.rows.done_us.max()) / 1e6


@pytest.fixture(scope="module")
def steady(servers: EmbeddedServers, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """A load that keeps the device busy 30 % of the time."""
    phase = {"duration_s": STEADY_S, "gaps": "constant", "rate": {"requests_per_s": UTILISATION * CAPACITY_PER_S}}
    before_s = busy_s(servers)
    recording = recorded(target, tmp_path_factory.mktemp("steady"), phase)
    return Known(recording, busy_s(servers) - before_s)


@pytest.fixture(scope="module")
def overloaded(servers: EmbeddedServers, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """Half as much again as the device can do."""
    phase = {"duration_s": OVERLOADED_S, "rate": {"requests_per_s": 1.5 * CAPACITY_PER_S}}
    before_s = busy_s(servers)
    recording = recorded(target, tmp_path_factory.mktemp("overloaded"), phase)
    return Known(recording, busy_s(servers) - before_s)


def busy_s(servers: EmbeddedServers) -> float:
    return servers.metrics()["radstream_emulated_device_busy_seconds_total"]


def recorded(target: Path, directory: Path, phase: dict[str, Any]) -> Recording:
    scenario = write_scenario(directory, [{"name": "load", **phase}])
    run = radslo_run(scenario, directory / "run", "--target", target, "--no-check")
    code, output = run.end()
    assert code == 0, output
    return run.recording()


def judged(recording: Recording, objective: str, **changes: Any) -> Verdict:
    """One objective's verdict under another bound.

    The limits of a minute are shortened to fit a test. Whether the generator and the watcher were on time is another
    test's question; here a busy machine must not hide the truth.
    """
    document = deepcopy(objectives_document())
    document["objectives"][objective] |= changes
    document["gpu"] |= {"active_least_s": 5, "coverage_least_ratio": 0.3, "witness_most_ratio": 0.1}
    document["measurement"] |= {
        "lag_p99_most_s": 30.0,
        "lag_worst_s": 60.0,
        "cpu_most_ratio": 2.0,
        "silence_most_s": 30.0,
    }
    verdicts = evaluate(recording, Objectives.model_validate(document)).verdicts
    return next(verdict for verdict in verdicts if verdict.objective.name == objective)


# --- latency -----------------------------------------------------------------------------------------------------


def test_latency_below_the_devices_own_time_cannot_pass(steady: Known) -> None:
    assert judged(steady.recording, "latency_p95", bound=STUDY_S * 0.99).outcome is Outcome.FAIL


def test_latency_with_room_above_the_devices_time_passes(steady: Known) -> None:
    verdict = judged(steady.recording, "latency_p95", bound=5.0)
    assert verdict.outcome is Outcome.PASS, verdict.reason


# --- utilisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["steady", "overloaded"])
def test_the_device_was_busy_for_exactly_the_studies_that_were_answered(
    run: str, request: pytest.FixtureRequest
) -> None:
    known: Known = request.getfixturevalue(run)
    # Before the load it answered one study for each image: the known answers.
    studies = known.answered + len(known.recording.plan.payloads)
    assert known.busy_s == pytest.approx(STUDY_S * studies, abs=1e-6)


def test_utilisation_is_what_rate_and_service_time_make_it(steady: Known) -> None:
    measured = judged(steady.recording, "gpu_utilisation", fewest_samples=10).estimate
    assert measured.low is not None, measured.reason
    assert measured.high is not None
    # With every second read the interval is a point; each that nobody could read widens it by what it may have held.
    assert measured.low - 0.05 <= UTILISATION <= measured.high + 0.05
    assert measured.emulated


def test_utilisation_is_judged_in_both_directions(steady: Known) -> None:
    low, promised = (
        judged(steady.recording, "gpu_utilisation", bound=bound, fewest_samples=10) for bound in (0.1, 0.8)
    )
    assert low.outcome is Outcome.PASS, low.reason
    assert promised.outcome is Outcome.FAIL, promised.reason


def test_utilisation_of_a_saturated_device_is_full_and_passes(overloaded: Known) -> None:
    verdict = judged(overloaded.recording, "gpu_utilisation", bound=UTILISATION + 0.05, fewest_samples=8)
    assert verdict.outcome is Outcome.PASS, verdict.reason
    assert verdict.estimate.value is not None
    assert verdict.estimate.value > 0.8


# --- capacity and overload ---------------------------------------------------------------------------------------


def test_measured_capacity_is_the_devices(target: Path, tmp_path: Path) -> None:
    """Never more than the device can do. A stall of some seconds within the eight that it takes may hide a part."""
    for attempt in range(3):
        directory = tmp_path / str(attempt)
        directory.mkdir()
        found = recorded(target, directory, {"duration_s": 2, "rate": {"capacity_ratio": 0.5}}).plan.capacity_per_s
        assert found is not None
        assert found < 1.03 * CAPACITY_PER_S
        if found > 0.7 * CAPACITY_PER_S:
            return
    pytest.fail(f"{found:.1f} studies per second were found, but the device can do {CAPACITY_PER_S:.1f}")


def test_overload_is_found_out(overloaded: Known) -> None:
    # 6 studies a second too many for 20 s: the last ones wait for the device for seconds.
    assert judged(overloaded.recording, "latency_p95", bound=1.0).outcome is Outcome.FAIL
    assert overloaded.answered <= CAPACITY_PER_S * overloaded.lasted_s + 8


def test_overload_is_refused_and_survived(overloaded: Known) -> None:
    assert set(overloaded.rows.status) == {"ok", "shed"}
    # What the device can do meanwhile, it does; seconds in which this machine stood still, and read nothing, aside.
    gaps_s = [after["at"] - before["at"] for before, after in pairwise(overloaded.recording.gpu)]
    stood_still_s = sum(max(0.0, gap_s - 1.5) for gap_s in gaps_s)
    assert overloaded.answered > 0.6 * CAPACITY_PER_S * (overloaded.lasted_s - stood_still_s)


def test_what_a_short_run_cannot_know_stays_inconclusive(steady: Known) -> None:
    for objective in ("availability", "error_rate", "pod_start", "scale_out", "recovery"):
        assert judged(steady.recording, objective).outcome is Outcome.INCONCLUSIVE, objective


# --- coordinated omission ----------------------------------------------------------------------------------------


def test_the_frozen_server_shows_in_the_latency_of_those_who_would_have_asked(
    servers: EmbeddedServers, target: Path, tmp_path: Path
) -> None:
    """A closed loop would wait with the server and report one late answer instead of sixty."""
    per_s = 10
    scenario = write_scenario(
        tmp_path, [{"name": "load", "duration_s": 16, "gaps": "constant", "rate": {"requests_per_s": per_s}}]
    )
    with servers.devices_take("classifier=0+2,detector=0+4,encoder=0+3"):
        run = radslo_run(scenario, tmp_path / "run", "--target", target, "--no-check")
        run.until_rows(20)
        servers.command(f"freeze triton-0 {FREEZE_S}")
        frozen, thawed = servers.until("frozen"), servers.until("thawed")
        run.end()
        recording = run.recording()
    rows, started_at = recording.requests, recording.plan.started_at
    begin_us, end_us = ((event["at"] - started_at) * 1e6 for event in (frozen, thawed))
    during = rows[(rows.intended_us > begin_us + 1e5) & (rows.intended_us < end_us - 1e5)]
    assert len(during) >= per_s * (FREEZE_S - 0.3)
    assert (during.done_us >= begin_us + FREEZE_S * 1e6 - 1e4).all()
    assert judged(recording, "latency_p95", bound=1.0).outcome is Outcome.FAIL
