"""The verdict on a whole run: from what was asked and what is proven to an exit code, JSON and JUnit."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Any

import pytest

from loadtests.recording import Recording
from scenarios.scenario import Objectives as Asked
from slo_checks.estimate import Estimate
from slo_checks.junit import junit_xml
from slo_checks.objectives import ObjectiveError, load_objectives
from slo_checks.verdict import Outcome, evaluate, exit_code, judge, to_json
from tests.unit.recordings import answers, changed, gpu_samples, recording, verdict_on

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SHIPPED = load_objectives().objectives
HOSTILE = '<![CDATA[ ]]> & "quotes" \x00\x1b[31m \ud800 </testsuite>'


def asked(must_pass: tuple[str, ...], must_not_fail: tuple[str, ...] = (), misses: int = 0) -> Recording:
    """4,000 requests, of which some were refused: none proves all, 20 miss three nines, 3 prove p95 alone."""
    rows = answers(4_000, misses=dict.fromkeys(range(misses), "shed"))
    return recording(rows, must_pass=must_pass, must_not_fail=must_not_fail)


class TestTheWholeRun:
    @pytest.mark.parametrize(("must_pass", "must_not_fail", "misses", "outcome"), [
        (("availability", "latency_p95"), (), 0, PASS),
        (("availability", "latency_p95"), (), 20, FAIL),            # one of two fails
        (("latency_p95",), ("availability",), 20, FAIL),            # must not fail, and does
        (("latency_p95",), ("availability",), 3, PASS),             # must not fail, and is not proven
        (("latency_p95", "availability"), (), 3, INCONCLUSIVE),     # must pass, and is not proven
        (("latency_p95",), (), 20, PASS),                           # fails, and nobody asked
        (("availability", "pod_start"), (), 0, INCONCLUSIVE),       # nothing observed pods
        (("availability",), ("pod_start",), 0, PASS),
        (("pod_start", "availability"), (), 20, FAIL),              # a fail counts before what is not proven
    ])  # fmt: skip
    def test_is_decided_by_what_the_scenario_asked(
        self, must_pass: tuple[str, ...], must_not_fail: tuple[str, ...], misses: int, outcome: Outcome
    ) -> None:
        assert evaluate(asked(must_pass, must_not_fail, misses)).outcome is outcome

    def test_names_what_decided_it(self) -> None:
        assert evaluate(asked(("availability", "latency_p95"), (), 20)).reason == "missed: Availability"
        assert evaluate(asked(("pod_start", "availability"))).reason == "not proven: Pod start"
        told = evaluate(asked(("latency_p95",), ("availability",), 3)).reason
        assert told == "proven: Latency, 95th percentile; not missed, though not proven: Availability"

    def test_does_not_pass_when_nothing_was_judged(self) -> None:
        run = asked(("availability",))
        nothing = Asked.model_construct(must_pass=(), must_not_fail=("pod_start",))
        scenario = run.plan.scenario.model_copy(update={"objectives": nothing})
        judged = evaluate(replace(run, plan=run.plan.model_copy(update={"scenario": scenario})))
        assert (judged.outcome, judged.reason) == (INCONCLUSIVE, "nothing was judged")

    def test_shows_every_objective_with_its_role(self) -> None:
        judged = evaluate(asked(("availability",), ("latency_p95",)))
        roles = {verdict.objective.name: verdict.role for verdict in judged.verdicts}
        assert roles == dict.fromkeys(SHIPPED, "not_asked") | {
            "availability": "must_pass", "latency_p95": "must_not_fail",
        }  # fmt: skip

    @pytest.mark.parametrize(("outcome", "code"), [(PASS, 0), (FAIL, 1), (INCONCLUSIVE, 3)])
    def test_has_an_exit_code(self, outcome: Outcome, code: int) -> None:
        assert exit_code(outcome) == code

    def test_is_judged_by_the_objectives_of_its_plan(self) -> None:
        """Targets that change later do not change the verdict on a run of today."""
        document: dict[str, Any] = dict(asked(("availability",)).plan.objectives)
        lenient = {**document["objectives"]["availability"], "bound": 0.9, "fewest_samples": 29}
        document["objectives"] = {"availability": lenient}
        rows = answers(1_000, misses=dict.fromkeys(range(50), "shed"))
        assert evaluate(recording(rows, objectives=document)).outcome is PASS
        assert evaluate(recording(rows, objectives=document), load_objectives()).outcome is FAIL

    def test_refuses_an_objective_that_does_not_exist(self) -> None:
        with pytest.raises(ObjectiveError, match="must_pass: unknown objective 'availabilty': did you mean 'availabi"):
            evaluate(recording(answers(10), must_pass=("availabilty",)))


class TestAnEstimate:
    @pytest.mark.parametrize("name", SHIPPED)
    @pytest.mark.parametrize("end", [None, float("nan")])
    def test_without_numbers_proves_nothing(self, name: str, end: float | None) -> None:
        assert judge(SHIPPED[name], Estimate(end, end, end, 10_000))[0] is INCONCLUSIVE

    @pytest.mark.parametrize(("low", "high", "outcome"), [
        (3.0, 5.0, PASS), (3.0, 5.001, INCONCLUSIVE), (5.0, 6.0, INCONCLUSIVE), (5.001, 6.0, FAIL),
        (None, 4.0, PASS), (6.0, None, FAIL), (4.0, None, INCONCLUSIVE),
    ])  # fmt: skip
    def test_decides_when_its_whole_interval_is_on_one_side(
        self, low: float | None, high: float | None, outcome: Outcome
    ) -> None:
        assert judge(SHIPPED["latency_p95"], Estimate(4.0, low, high, 1_000))[0] is outcome

    def test_passes_nothing_with_too_few_samples_and_still_fails(self) -> None:
        gpu = SHIPPED["gpu_utilisation"]
        assert judge(gpu, Estimate(0.9, 0.9, 0.9, 19))[0] is INCONCLUSIVE
        assert judge(gpu, Estimate(0.9, 0.9, 0.9, 20))[0] is PASS
        assert judge(gpu, Estimate(0.1, 0.1, 0.1, 5))[0] is FAIL


class TestJson:
    def test_is_plain_and_complete(self) -> None:
        run = asked(("availability",))
        document = json.loads(json.dumps(to_json(evaluate(run), run), allow_nan=False))
        assert (document["outcome"], document["exit_code"], document["run"]) == ("pass", 0, run.plan.run)
        first = document["objectives"][0]
        assert (first["name"], first["role"], first["value"], first["samples"]) == (
            "availability",
            "must_pass",
            1,
            4_000,
        )
        assert first["source"]
        assert {check["name"] for check in document["validity"]} >= {"sealed", "generator_lag", "servers_agree"}
        assert document["conservation"]["scheduled"] == 4_000

    def test_has_null_for_what_is_not_a_number(self) -> None:
        run = recording(answers(100, misses=dict.fromkeys(range(100), "shed")), manifest=None)
        document = json.loads(json.dumps(to_json(evaluate(run), run), allow_nan=False))
        latency = next(entry for entry in document["objectives"] if entry["name"] == "latency_p95")
        assert (latency["value"], latency["value_text"], document["ended_at"]) == (None, "no good answer", None)


class TestJunit:
    def suite(self, run: Recording) -> ET.Element:
        suite = ET.fromstring(junit_xml(evaluate(run), run)).find("testsuite")  # noqa: S314 - our own document
        assert suite is not None
        return suite

    def case(self, run: Recording, name: str) -> dict[str, str]:
        """Message by tag of what a test case says; empty for a bare pass."""
        (case,) = (found for found in self.suite(run).iter("testcase") if found.get("name") == name)
        return {child.tag: child.get("message", "") for child in case if child.tag != "system-out"}

    def test_of_a_pass_has_no_failure_and_no_error(self) -> None:
        run = asked(("availability",))
        suite = self.suite(run)
        assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
        assert self.case(run, "availability") == self.case(run, "verdict") == {}

    def test_of_a_fail_is_a_failure(self) -> None:
        run = asked(("availability",), (), 20)
        assert set(self.case(run, "availability")) == set(self.case(run, "verdict")) == {"failure"}
        assert "20 misses of 4,000" in self.case(run, "availability")["failure"]

    def test_of_what_must_pass_and_is_not_proven_is_an_error(self) -> None:
        run = asked(("availability",), (), 3)
        assert set(self.case(run, "availability")) == set(self.case(run, "verdict")) == {"error"}

    def test_of_what_must_not_fail_and_is_not_proven_is_skipped(self) -> None:
        assert set(self.case(asked(("latency_p95",), ("availability",), 3), "availability")) == {"skipped"}

    def test_of_what_nobody_asked_is_skipped_even_when_it_failed(self) -> None:
        skipped = self.case(asked(("latency_p95",), (), 20), "availability")
        assert "not asked by the scenario (fail: misses" in skipped["skipped"]

    def test_of_a_doubt_is_an_error_when_something_asked_rests_on_it(self) -> None:
        rows = answers(4_000)
        assert set(self.case(recording(rows, damage=["cut"]), "files_whole")) == {"error"}
        assert set(self.case(recording(rows, watch=()), "watcher_awake")) == {"skipped"}
        assert set(self.case(recording(rows, watch=(), must_pass=("pod_start",)), "watcher_awake")) == {"error"}

    @pytest.mark.parametrize("run", [
        asked(("availability",)), asked(("availability",), (), 20), asked(("pod_start",)), recording([]),
    ])  # fmt: skip
    def test_counts_what_it_holds(self, run: Recording) -> None:
        suite = self.suite(run)
        for name, tag in {"failures": "failure", "errors": "error", "skipped": "skipped"}.items():
            assert suite.get(name) == str(len(list(suite.iter(tag))))
        assert suite.get("tests") == str(len(list(suite.iter("testcase"))))

    def test_is_green_only_when_the_run_passed(self) -> None:
        for run in (asked(("availability",)), asked(("availability",), (), 3), asked(("latency_p95",), (), 20)):
            suite = self.suite(run)
            green = suite.get("failures") == suite.get("errors") == "0"
            assert green is (evaluate(run).outcome is PASS)

    def test_escapes_hostile_text(self) -> None:
        rows = [row | {"served_by": HOSTILE.replace("\ud800", "")} for row in answers(4_000)]
        run = changed(recording(rows), ended="interrupted", end_reason=HOSTILE)
        run = replace(run, damage=(HOSTILE,))
        message = self.case(run, "files_whole")["error"]
        assert message == HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
        assert junit_xml(evaluate(run), run).encode()

    def test_says_when_the_run_was_emulated(self) -> None:
        gpu = gpu_samples([0.9] * 40, emulated=True, busy=[0.9] * 40)
        suite = self.suite(recording(answers(100), gpu=gpu))
        facts = {fact.get("name"): fact.get("value") for fact in suite.iter("property")}
        assert (facts["emulated"], facts["scenario"]) == ("true", "literal")


def test_a_reason_is_one_sentence_with_the_numbers_in_it() -> None:
    found = verdict_on(asked(("availability",), (), 3), "availability")
    assert found.reason == (
        "not proven: 7,752 requests would be needed with 3 misses: 99.925 % (99.806 % to 99.98 %), 3 misses of 4,000"
    )
