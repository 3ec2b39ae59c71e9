"""What a scenario means over time, and that the shipped ones are sound."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.payloads import check_payloads
from scenarios.arrivals import arrivals
from scenarios.scenario import Kind, Phase, Scenario, ScenarioError, load_scenario, shipped_scenarios

DURATIONS_S = st.floats(min_value=0.001, max_value=5_000)


def scenario_of(*phases: dict[str, Any], **fields: Any) -> Scenario:
    """A scenario with these phases; everything else is the plainest possible."""
    named = [{"name": f"phase-{index}", "duration_s": 10, **phase} for index, phase in enumerate(phases)]
    plain = {
        "name": "plain",
        "purpose": "a test",
        "expected_verdict": "none",
        "payloads": [{"id": "chest-jpeg-20kb"}],
        "objectives": {"must_pass": ["latency_p95"]},
    }
    return Scenario.model_validate({**plain, "phases": named, **fields})


@pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
class TestShipped:
    def test_bears_the_name_of_its_file(self, path: Any) -> None:
        assert load_scenario(path).name == path.stem
        assert load_scenario(path.stem) == load_scenario(path)

    def test_asks_only_for_images_that_exist(self, path: Any) -> None:
        check_payloads(load_scenario(path))

    def test_first_line_says_how_long_it_takes(self, path: Any) -> None:
        said = re.match(r"# Duration: (\d+) (s|min) of load", path.read_text(encoding="utf-8"))
        assert said is not None
        assert int(said[1]) * {"s": 1, "min": 60}[said[2]] == load_scenario(path).duration_s

    def test_survives_dump_and_validate(self, path: Any) -> None:
        scenario = load_scenario(path)
        assert Scenario.model_validate(scenario.model_dump(mode="json")) == scenario
        assert Scenario.model_validate(scenario.model_dump(mode="json", exclude_none=True)) == scenario
        assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario

    def test_schedules_enough_to_prove_what_it_must(self, path: Any) -> None:
        scenario = load_scenario(path).resolved(capacity_per_s=20.0)
        judged = np.array([not phase.warmup for phase in scenario.phases])
        count = sum(int(judged[chunk.phase].sum()) for chunk in arrivals(scenario))
        fewest = {"latency_p95": 59, "availability": 2_995, "error_rate": 2_995}
        assert count >= max(fewest[name] for name in scenario.objectives.must_pass)


def test_the_promised_scenarios_are_shipped() -> None:
    assert {path.stem for path in shipped_scenarios()} >= {"smoke", "baseline", "steady", "burst"}


class TestPhaseAt:
    @given(st.lists(DURATIONS_S, min_size=1, max_size=8), st.floats(min_value=0, max_value=1, exclude_max=True))
    def test_covers_the_run_exactly(self, durations_s: list[float], where: float) -> None:
        scenario = scenario_of(*({"duration_s": d, "rate": {"requests_per_s": 1}} for d in durations_s))
        assert scenario.phase_at(0.0) == scenario.phases[0]
        assert scenario.phase_at(np.nextafter(scenario.duration_s, 0.0)) == scenario.phases[-1]
        assert scenario.phase_at(where * scenario.duration_s) is not None
        assert scenario.phase_at(scenario.duration_s) is None
        assert scenario.phase_at(-1e-9) is None

    @given(st.lists(DURATIONS_S, min_size=2, max_size=8))
    def test_a_phase_begins_where_the_one_before_ends(self, durations_s: list[float]) -> None:
        scenario = scenario_of(*({"duration_s": d, "rate": {"requests_per_s": 1}} for d in durations_s))
        end_us = 0
        for before, after in zip(scenario.phases, scenario.phases[1:], strict=False):
            end_us += before.duration_us
            assert scenario.phase_at((end_us - 1) / 1e6) == before
            assert scenario.phase_at(end_us / 1e6) == after


class TestRateAt:
    @pytest.mark.parametrize(
        ("rate", "expected_per_s"),
        [
            ({"requests_per_s": 6}, {0: 6, 5: 6, 9.999: 6, 10: None, -1: None}),
            ({"studies_per_min": 30}, {0: 0.5, 9: 0.5}),
            ({"ramp": {"from": {"requests_per_s": 0}, "to": {"requests_per_s": 10}}}, {0: 0, 2.5: 2.5, 9: 9}),
            ({"ramp": {"from": {"studies_per_min": 600}, "to": {"requests_per_s": 0}}}, {0: 10, 7.5: 2.5}),
            ({"steps": [{"requests_per_s": 1}, {"requests_per_s": 4}]}, {0: 1, 4.999: 1, 5: 4, 9: 4}),
            (
                {"spike": {"base": {"requests_per_s": 1}, "peak": {"requests_per_s": 9}, "at_s": 2, "width_s": 3}},
                {0: 1, 1.999: 1, 2: 9, 4.999: 9, 5: 1, 9: 1},
            ),
            (
                {"spike": {"base": {"requests_per_s": 1}, "peak": {"requests_per_s": 9}, "at_s": 0, "width_s": 10}},
                {0: 9, 9.999: 9},
            ),
        ],
    )
    def test_follows_the_shape(self, rate: dict[str, Any], expected_per_s: dict[float, float | None]) -> None:
        scenario = scenario_of({"rate": rate})
        for elapsed_s, per_s in expected_per_s.items():
            assert scenario.rate_at(elapsed_s) == (None if per_s is None else pytest.approx(per_s)), elapsed_s

    def test_peak_is_the_highest_of_all_phases(self) -> None:
        ramp = {"ramp": {"from": {"requests_per_s": 1}, "to": {"requests_per_s": 7}}}
        assert scenario_of({"rate": {"requests_per_s": 3}}, {"rate": ramp}).peak_rate_per_s == 7

    def test_closed_loop_has_none(self) -> None:
        scenario = scenario_of({"users": 3, "think_time_s": 0})
        assert scenario.rate_at(1) is None
        assert scenario.peak_rate_per_s is None
        assert scenario.loop == "closed"


class TestCapacity:
    RATE: dict[str, Any] = {  # noqa: RUF012  read only
        "spike": {"base": {"studies_per_min": 30}, "peak": {"capacity_ratio": 1.5}, "at_s": 2, "width_s": 3}
    }

    def test_resolved_replaces_multiples_and_nothing_else(self) -> None:
        scenario = scenario_of({"rate": self.RATE}, {"rate": {"steps": [{"capacity_ratio": 1}, {"capacity_ratio": 2}]}})
        assert scenario.needs_capacity
        resolved = scenario.resolved(capacity_per_s=20.0)
        assert not resolved.needs_capacity
        assert [resolved.rate_at(t) for t in (1, 3, 12, 17)] == [0.5, 30.0, 20.0, 40.0]
        assert Scenario.model_validate(resolved.model_dump(mode="json")) == resolved

    def test_resolved_is_itself_where_no_capacity_is_needed(self) -> None:
        scenario = scenario_of({"rate": {"requests_per_s": 1}})
        assert scenario.resolved(0.0) is scenario

    @pytest.mark.parametrize("capacity_per_s", [0.0, -1.0, float("nan"), float("inf")])
    def test_no_capacity_is_refused(self, capacity_per_s: float) -> None:
        with pytest.raises(ScenarioError, match="has to be above 0"):
            scenario_of({"rate": self.RATE}).resolved(capacity_per_s)

    def test_rate_is_unknown_before_the_capacity_is(self) -> None:
        with pytest.raises(ScenarioError, match="measure it"):
            scenario_of({"rate": self.RATE}).rate_at(3)


class TestUsersAt:
    def test_ramps_within_a_phase_and_steps_without_one(self) -> None:
        scenario = scenario_of(
            {"users": 10, "think_time_s": 1, "users_per_s": 2},
            {"users": 4, "think_time_s": 1, "users_per_s": 1},
            {"users": 20, "think_time_s": 1},
        )
        found = {t: scenario.users_at(t) for t in (-1, 0, 1, 1.4, 5, 9, 10, 12, 16, 19, 20, 29.9, 30)}
        assert found == {
            -1: None, 0: 0, 1: 2, 1.4: 2, 5: 10, 9: 10, 10: 10, 12: 8, 16: 4, 19: 4, 20: 20, 29.9: 20, 30: None,
        }  # fmt: skip

    def test_open_loop_has_none(self) -> None:
        assert scenario_of({"rate": {"requests_per_s": 1}}).users_at(1) is None


def test_mix_is_relative() -> None:
    mix = scenario_of({"rate": {"requests_per_s": 1}}, mix={"ensemble": 7, "detector": 3}).mix
    assert mix.shares == {Kind.CLASSIFIER: 0.0, Kind.DETECTOR: 0.3, Kind.ENCODER: 0.0, Kind.ENSEMBLE: 0.7}


def test_images_of_a_family_are_spelt_out_and_share_its_weight() -> None:
    payloads = [{"id": "chest-jpeg-20kb", "images": 2, "share": 3}, {"id": "dicom-ct-head"}]
    scenario = scenario_of({"rate": {"requests_per_s": 1}}, payloads=payloads)
    assert [(p.id, p.share) for p in scenario.payloads] == [
        ("chest-jpeg-20kb#0", 1.5),
        ("chest-jpeg-20kb#1", 1.5),
        ("dicom-ct-head", 1.0),
    ]


def test_drains_as_long_as_the_deadline_unless_told_otherwise() -> None:
    assert scenario_of({"rate": {"requests_per_s": 1}}, deadline_s=12).drain_s == 12
    assert scenario_of({"rate": {"requests_per_s": 1}}, deadline_s=12, drain_s=3).drain_s == 3


def test_gaps_are_poisson_unless_told_otherwise() -> None:
    assert scenario_of({"rate": {"requests_per_s": 1}}).phases[0].gaps == "poisson"
    assert scenario_of({"users": 1, "think_time_s": 0}).phases[0].gaps is None


def test_a_phase_is_a_value() -> None:
    phase = Phase.model_validate({"name": "a", "duration_s": 1, "rate": {"requests_per_s": 1}})
    assert hash(phase) == hash(phase.model_copy())
