"""The file of objectives: what it holds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from scenarios.scenario import load_scenario, shipped_scenarios
from slo_checks.estimate import fewest_to_prove
from slo_checks.indicators import INDICATORS
from slo_checks.objectives import ObjectiveError, check_names, load_objectives, objectives_document, objectives_of
from tests.unit.recordings import answers, recording

Document = dict[str, Any]
Change = Callable[[Document], object]


def refusal(tmp_path: Path, change: Change) -> str:
    """What is said of the shipped file after a change."""
    document = objectives_document()
    change(document)
    path = tmp_path / "objectives.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(document, file)
    with pytest.raises(ObjectiveError) as refused:
        load_objectives(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


class TestTheShippedFile:
    def test_holds_the_targets_of_the_documents(self) -> None:
        bounds = {name: objective.bound for name, objective in load_objectives().objectives.items()}
        assert bounds == {
            "availability": 0.999, "error_rate": 0.001, "latency_p95": 5, "pod_start": 30, "scale_out": 120,
            "gpu_utilisation": 0.8, "recovery": 300,
        }  # fmt: skip

    def test_names_the_source_of_each_target(self) -> None:
        assert all(objective.source for objective in load_objectives().objectives.values())

    def test_asks_for_just_as_many_samples_as_can_prove_each_ratio(self) -> None:
        for objective in load_objectives().objectives.values():
            allowed = objective.allowed_miss_ratio
            if allowed is not None:
                assert objective.fewest_samples == fewest_to_prove(0, allowed, objective.confidence)

    def test_has_an_indicator_for_each_objective(self) -> None:
        assert {objective.indicator for objective in load_objectives().objectives.values()} <= set(INDICATORS)

    @pytest.mark.parametrize("path", shipped_scenarios(), ids=lambda path: path.stem)
    def test_has_every_objective_that_a_shipped_scenario_asks_for(self, path: Path) -> None:
        check_names(load_scenario(path), load_objectives())

    def test_names_the_limits_of_the_generators_lateness(self) -> None:
        limits = load_objectives().measurement
        assert (limits.lag_p99_most_s, limits.lag_worst_s) == (0.005, 1)


REFUSED: dict[str, tuple[Change, str]] = {
    "misspelt key of an objective": (
        lambda d: d["objectives"]["availability"].update(bonud=1),
        "unknown key 'bonud': did you mean 'bound'?",
    ),
    "misspelt key of a limit": (
        lambda d: d["measurement"].update(lag_most_s=1),
        "unknown key 'lag_most_s': did you mean 'lag_",
    ),
    "misspelt section": (lambda d: d.update(objective={}), "unknown key 'objective': did you mean 'objectives'?"),
    "no source": (lambda d: d["objectives"]["availability"].pop("source"), "objectives.availability.source"),
    "empty source": (lambda d: d["objectives"]["availability"].update(source=""), "objectives.availability.source"),
    "too few requests for three nines": (
        lambda d: d["objectives"]["availability"].update(fewest_samples=2_994),
        "2994 prove nothing here; 2995",
    ),
    "too few requests for p95": (
        lambda d: d["objectives"]["latency_p95"].update(fewest_samples=58),
        "58 prove nothing here; 59 is the least",
    ),
    "no percentile": (lambda d: d["objectives"]["latency_p95"].pop("percentile"), "percentile"),
    "percentile of no latency": (lambda d: d["objectives"]["recovery"].update(percentile=0.95), "percentile"),
    "wrong side of the bound": (lambda d: d["objectives"]["availability"].update(comparison="at_most"), "comparison"),
    "wrong unit": (
        lambda d: d["objectives"]["availability"].update(unit="s"),
        "unit: availability is measured in 'ratio'",
    ),
    "bound that nothing can prove": (
        lambda d: d["objectives"]["availability"].update(bound=1.0),
        "no number of requests can prove",
    ),
    "bound that takes thirty thousand million requests": (
        lambda d: d["objectives"]["availability"].update(bound=0.9999999999),
        "objectives.availability: fewest_samples: 2995 prove nothing here; 29957320256 is the least",
    ),
    "bound that takes more than can be counted": (
        lambda d: d["objectives"]["error_rate"].update(bound=5e-324),
        "objectives.error_rate: a share of misses of at most 4.9e-324 is more than any run can prove; allow more",
    ),
    "percentile that takes more than can be counted": (
        lambda d: d["objectives"]["latency_p95"].update(percentile=0.9999999999999),
        "is more than any run can prove",
    ),
    "bound in quotes": (
        lambda d: d["objectives"]["availability"].update(bound="0.999"),
        "objectives.availability.bound",
    ),
    "bound that is no number": (
        lambda d: d["objectives"]["availability"].update(bound=float("nan")),
        "objectives.availability.bound",
    ),
    "certainty": (
        lambda d: d["objectives"]["availability"].update(confidence=1.0),
        "objectives.availability.confidence",
    ),
    "unknown indicator": (
        lambda d: d["objectives"]["availability"].update(indicator="uptime"),
        "objectives.availability.indicator",
    ),
    "no objectives": (lambda d: d.update(objectives={}), "objectives"),
    "another format": (lambda d: d.update(format_version=2), "format_version"),
    "no steady window": (lambda d: d["recovery"].update(steady_windows=0), "recovery.steady_windows"),
}


class TestRefusals:
    @pytest.mark.parametrize("wrong", REFUSED)
    def test_say_where_and_what(self, tmp_path: Path, wrong: str) -> None:
        change, words = REFUSED[wrong]
        assert words in refusal(tmp_path, change)

    def test_name_every_problem_at_once(self, tmp_path: Path) -> None:
        def spoil(document: Document) -> None:
            document["objectives"]["availability"]["bound"] = -1.0
            document["gpu"]["active_least_s"] = 0

        assert len(refusal(tmp_path, spoil).splitlines()) == 2

    @pytest.mark.parametrize(("content", "words"), [
        (b"objectives: [", "not valid YAML"), (b"\xff\xfe", "not UTF-8"), (b"- a\n- b\n", "objectives"),
        (b"", "objectives"), (b"a: 1\na: 2\n", "not valid YAML"),
    ])  # fmt: skip
    def test_cover_files_that_are_no_objectives_at_all(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "objectives.yaml"
        path.write_bytes(content)
        with pytest.raises(ObjectiveError, match=words):
            load_objectives(path)

    def test_cover_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ObjectiveError, match=r"nowhere\.yaml: cannot be read: No such file"):
            load_objectives(tmp_path / "nowhere.yaml")

    def test_cover_a_plan_without_objectives(self) -> None:
        run = recording(answers(10), objectives={"format_version": 1})
        with pytest.raises(ObjectiveError, match=r"plan\.json: objectives"):
            objectives_of(run)


def test_a_plan_from_before_there_was_a_limit_on_the_worst_lag_can_still_be_judged() -> None:
    document = objectives_document()
    document["measurement"] = {key: value for key, value in document["measurement"].items() if key != "lag_worst_s"}
    assert objectives_of(recording(answers(10), objectives=document)).measurement.lag_worst_s is None
