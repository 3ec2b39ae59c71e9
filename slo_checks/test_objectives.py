"""The verdict on one recording as tests: what must pass and is not proven is a failing test that says so."""

from __future__ import annotations

import pytest

from slo_checks.verdict import Outcome, RunVerdict, ValidityCheck, Verdict, undermines


def test_run(run_verdict: RunVerdict) -> None:
    if run_verdict.outcome is not Outcome.PASS:
        pytest.fail(f"{run_verdict.outcome.value}: {run_verdict.reason}", pytrace=False)


def test_objective(verdict: Verdict) -> None:
    told = "\n  ".join((f"{verdict.outcome.value}: {verdict.reason}", *verdict.estimate.evidence))
    if verdict.role == "not_asked":
        pytest.skip(f"not asked by the scenario ({told})")
    if verdict.role == "must_not_fail" and verdict.outcome is Outcome.INCONCLUSIVE:
        pytest.skip(f"not missed, but not proven: {verdict.reason}")
    if verdict.outcome is not Outcome.PASS:
        pytest.fail(told, pytrace=False)


def test_validity(check: ValidityCheck, run_verdict: RunVerdict) -> None:
    if check.ok is True:
        return
    reason = check.reason if check.ok is False else f"could not be checked: {check.reason}"
    if undermines(check, run_verdict.verdicts):
        pytest.fail(f"inconclusive: {reason}", pytrace=False)
    pytest.skip(f"nothing that must pass rests on it: {reason}")
