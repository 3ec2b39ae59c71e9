"""The schedule: as many requests as the rate says, when it says, fixed by the seed, whole at every border."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenarios.arrivals import (
    CHUNK_REQUESTS,
    CHUNK_S,
    Arrivals,
    arrival_count,
    arrivals,
    schedule_digest,
    share,
)
from scenarios.scenario import Kind, Scenario, ScenarioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_S = st.floats(min_value=0, max_value=20).map(lambda rate: {"requests_per_s": round(rate, 3)})
RATES = st.one_of(
    PER_S,
    st.fixed_dictionaries({"ramp": st.fixed_dictionaries({"from": PER_S, "to": PER_S})}),
    st.fixed_dictionaries({"steps": st.lists(PER_S, min_size=2, max_size=4)}),
    st.tuples(PER_S, PER_S).map(lambda two: {"spike": {"base": two[0], "peak": two[1], "at_s": 0.2, "width_s": 0.3}}),
)
PHASES = st.lists(
    st.fixed_dictionaries({"duration_s": st.floats(min_value=0.5, max_value=150), "rate": RATES}),
    min_size=1,
    max_size=4,
)
SEEDS = st.integers(min_value=0, max_value=2**64)


def scenario_of(phases: list[dict[str, Any]], gaps: str = "poisson", **fields: Any) -> Scenario:
    """A scenario with these phases, all with the same gaps."""
    named = [{"name": f"phase-{index}", "gaps": gaps, **phase} for index, phase in enumerate(phases)]
    plain = {
        "name": "plain",
        "purpose": "a test",
        "expected_verdict": "none",
        "payloads": [{"id": "a", "share": 3}, {"id": "b", "share": 1}],
        "objectives": {"must_pass": ["latency_p95"]},
    }
    return Scenario.model_validate({**plain, "phases": named, **fields})


def steady(per_s: float, duration_s: float = 60.0, gaps: str = "poisson", **fields: Any) -> Scenario:
    """A scenario with one rate."""
    return scenario_of([{"duration_s": duration_s, "rate": {"requests_per_s": per_s}}], gaps, **fields)


def whole(scenario: Scenario) -> Arrivals:
    """The schedule in one piece."""
    return joined(list(arrivals(scenario)))


def joined(chunks: list[Arrivals]) -> Arrivals:
    """Chunks one behind the other."""
    return Arrivals(*(np.concatenate([getattr(c, field.name) for c in chunks]) for field in fields(Arrivals)))


def expected_counts(scenario: Scenario) -> list[float]:
    """Area under the rate of each phase."""
    rates = [(phase.rate, phase.duration_s) for phase in scenario.phases]
    return [sum(s.expected_count for s in rate.segments(duration_s)) for rate, duration_s in rates if rate]


@given(PHASES, st.sampled_from(["poisson", "constant"]), SEEDS)
def test_rows_are_numbered_in_order_and_inside_their_phase(phases: list[dict[str, Any]], gaps: str, seed: int) -> None:
    scenario = scenario_of(phases, gaps, seed=seed)
    rows = whole(scenario)
    assert (rows.seq == np.arange(len(rows))).all()
    assert (np.diff(rows.intended_us) >= 0).all()
    assert all(
        scenario.phase_at(at_us / 1e6) == scenario.phases[index]
        for at_us, index in zip(rows.intended_us.tolist(), rows.phase.tolist(), strict=True)
    )


@given(PHASES, st.sampled_from(["poisson", "constant"]))
def test_nothing_is_due_while_the_rate_is_zero(phases: list[dict[str, Any]], gaps: str) -> None:
    scenario = scenario_of(phases, gaps)
    # A millisecond on either side: a request on the edge of a step may be rounded across it.
    for at_us in whole(scenario).intended_us.tolist():
        around = [scenario.rate_at(at_us / 1e6 + off_s) for off_s in (-1e-3, 0.0, 1e-3)]
        assert any(rate is not None and rate > 0 for rate in around)


@given(PHASES, SEEDS)
def test_poisson_counts_are_near_the_area_under_the_rate(phases: list[dict[str, Any]], seed: int) -> None:
    scenario = scenario_of(phases, seed=seed)
    counts = np.bincount(whole(scenario).phase, minlength=len(phases))
    for count, expected in zip(counts.tolist(), expected_counts(scenario), strict=True):
        assert abs(count - expected) <= 6 * np.sqrt(expected) + 6


@given(PHASES)
def test_constant_gaps_lose_and_double_nothing_at_borders(phases: list[dict[str, Any]]) -> None:
    scenario = scenario_of(phases, "constant")
    counts = np.bincount(whole(scenario).phase, minlength=len(phases))
    # Up to the end of every phase, the count is the area so far, rounded.
    assert (np.abs(np.cumsum(counts) - np.cumsum(expected_counts(scenario))) <= 0.5 + 1e-6).all()


def test_constant_gaps_are_exact_over_chunks_and_phases() -> None:
    rate = {"requests_per_s": 8}
    rows = whole(scenario_of([{"duration_s": d, "rate": rate} for d in (150, 0.3, 29.7)], "constant"))
    assert (rows.intended_us == 62_500 + 125_000 * np.arange(180 * 8)).all()


def test_constant_gaps_follow_a_ramp() -> None:
    ramp = {"ramp": {"from": {"requests_per_s": 0}, "to": {"requests_per_s": 20}}}
    rows = whole(scenario_of([{"duration_s": 10, "rate": ramp}], "constant"))
    assert len(rows) == 100
    expected_s = np.sqrt(np.arange(100) + 0.5)  # the area under 2 t is t squared
    assert np.abs(rows.intended_us - expected_s * 1e6).max() <= 1


def test_poisson_gaps_are_exponential_also_across_chunks() -> None:
    rows = whole(steady(per_s=50.0, duration_s=600.0))
    gaps_s = np.diff(rows.intended_us) / 1e6
    assert len(rows) == pytest.approx(30_000, rel=0.03)
    assert gaps_s.mean() == pytest.approx(0.02, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.02, rel=0.03)
    assert (gaps_s > 0.04).mean() == pytest.approx(np.exp(-2), rel=0.05)


def test_poisson_follows_a_ramp() -> None:
    ramp = {"ramp": {"from": {"requests_per_s": 0}, "to": {"requests_per_s": 1_000}}}
    rows = whole(scenario_of([{"duration_s": 100, "rate": ramp}]))
    # Half of the triangle's area lies behind 1 / sqrt(2) of its base, also though that falls into the second chunk.
    assert (rows.intended_us < 100e6 / np.sqrt(2)).mean() == pytest.approx(0.5, abs=0.01)


@given(st.integers(min_value=1, max_value=7), SEEDS)
def test_shares_are_a_partition(workers: int, seed: int) -> None:
    for chunk in arrivals(steady(per_s=3.0, seed=seed)):
        shares = [share(chunk, worker, workers) for worker in range(workers)]
        assert all((part.seq % workers == worker).all() for worker, part in enumerate(shares))
        both = joined(shares)
        order = np.argsort(both.seq)
        for field in fields(Arrivals):
            assert (getattr(both, field.name)[order] == getattr(chunk, field.name)).all()


@pytest.mark.parametrize(("worker", "workers"), [(2, 2), (-1, 2), (0, 0)])
def test_a_worker_that_cannot_be_is_refused(worker: int, workers: int) -> None:
    with pytest.raises(ValueError, match="count from 0"):
        share(whole(steady(1.0)), worker, workers)


def test_chunks_are_bounded_in_time_and_in_size() -> None:
    spans = [np.ptp(chunk.intended_us) for chunk in arrivals(steady(per_s=5.0, duration_s=3_600.0))]
    assert len(spans) == 60
    assert max(spans) <= CHUNK_S * 1e6
    sizes = [len(chunk) for chunk in arrivals(steady(per_s=10_000.0, duration_s=50.0))]
    assert max(sizes) < 1.05 * CHUNK_REQUESTS


@given(SEEDS)
def test_the_seed_decides(seed: int) -> None:
    scenario = steady(per_s=5.0, seed=seed)
    assert schedule_digest(scenario) == schedule_digest(Scenario.model_validate(scenario.model_dump(mode="json")))
    assert schedule_digest(scenario) != schedule_digest(steady(per_s=5.0, seed=seed + 1))


def test_the_schedule_of_a_seed_never_changes() -> None:
    """A change here changes every schedule there is: runs before and after are no longer the same load."""
    scenario = scenario_of(
        [
            {"duration_s": 70, "rate": {"studies_per_min": 50}},
            {"duration_s": 10, "rate": {"ramp": {"from": {"requests_per_s": 1}, "to": {"requests_per_s": 9}}}},
        ],
        mix={"classifier": 1, "encoder": 2, "ensemble": 3},
        with_text_ratio=0.5,
    )
    rows = whole(scenario)
    assert (len(rows), rows.intended_us[:3].tolist()) == (104, [964569, 4691459, 5045586])
    assert schedule_digest(scenario) == "f9c7612a3f37c8291ff71b905db1c7905f1ad110448d0bd26131cd2b881badc4"


def test_mix_payloads_and_texts_come_in_their_shares() -> None:
    scenario = steady(per_s=500.0, mix={"classifier": 1, "encoder": 4, "ensemble": 5}, with_text_ratio=0.25)
    rows = whole(scenario)
    kinds = np.bincount(rows.kind, minlength=len(Kind)) / len(rows)
    assert kinds == pytest.approx([0.1, 0.0, 0.4, 0.5], abs=0.02)
    assert np.bincount(rows.payload) / len(rows) == pytest.approx([0.75, 0.25], abs=0.02)
    reads_text: NDArray[np.bool_] = np.isin(rows.kind, [tuple(Kind).index(k) for k in (Kind.ENCODER, Kind.ENSEMBLE)])
    assert rows.with_text[reads_text].mean() == pytest.approx(0.25, abs=0.02)
    assert not rows.with_text[~reads_text].any()


def test_columns_have_their_types() -> None:
    rows = whole(steady(per_s=5.0))
    found = {field.name: getattr(rows, field.name).dtype.name for field in fields(Arrivals)}
    assert found == {
        "seq": "int64",
        "intended_us": "int64",
        "kind": "uint8",
        "payload": "uint16",
        "with_text": "bool",
        "phase": "uint8",
    }
    assert arrival_count(steady(per_s=5.0)) == len(rows)


def test_a_rate_of_zero_schedules_nothing() -> None:
    assert arrival_count(steady(per_s=0.0)) == 0


def test_a_closed_loop_has_no_schedule() -> None:
    scenario = scenario_of([{"duration_s": 5, "users": 2, "think_time_s": 1, "gaps": None}])
    with pytest.raises(ScenarioError, match="a closed loop has no schedule"):
        arrivals(scenario)


def test_an_unknown_capacity_is_refused_before_the_first_chunk() -> None:
    scenario = scenario_of([{"duration_s": 5, "rate": {"capacity_ratio": 1.5}}])
    with pytest.raises(ScenarioError, match="measure it"):
        arrivals(scenario)
    assert arrival_count(scenario.resolved(20.0)) > 0
