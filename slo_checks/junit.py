"""A verdict as JUnit XML, so that CI systems show each objective as a test [pure].

========================================  ==========================================
pass                                      a bare ``testcase``
fail                                      ``failure``
inconclusive and must pass                ``error`` of type ``inconclusive``
inconclusive and must not fail            ``skipped``: not proven is not green
not asked by the scenario                 ``skipped``, with what was found
check that keeps the run from passing     ``error`` of type ``inconclusive``
check not ok that nothing asked rests on  ``skipped``
========================================  ==========================================

One more test case stands for the run as a whole.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Final

from loadtests.recording import Recording
from slo_checks.verdict import Outcome, RunVerdict, ValidityCheck, Verdict, undermines

_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write, section 2.2 of its specification."""


def junit_xml(run_verdict: RunVerdict, recording: Recording) -> str:
    """The whole document, with its XML declaration."""
    plan, manifest = recording.plan, recording.manifest
    suite = ET.Element("testsuite", name=_clean(f"radslo {plan.scenario.name}"))
    suite.set("timestamp", datetime.fromtimestamp(plan.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    suite.set("time", f"{manifest.ended_at - plan.started_at if manifest else 0:.3f}")
    properties = ET.SubElement(suite, "properties")
    facts = {
        "run": plan.run,
        "scenario": plan.scenario.name,
        "target": str(plan.target.get("name", "not named")),
        "outcome": run_verdict.outcome.value,
        "emulated": str(run_verdict.emulated).lower(),
    }
    for name, value in facts.items():
        ET.SubElement(properties, "property", name=name, value=_clean(value))
    _add_run(suite, run_verdict)
    for verdict in run_verdict.verdicts:
        _add_objective(suite, verdict)
    for check in run_verdict.validity:
        _add_check(suite, check, run_verdict)
    return _document(suite)


def _document(suite: ET.Element) -> str:
    root = ET.Element("testsuites", name="radslo")
    root.append(suite)
    counts = {"tests": "testcase", "failures": "testcase/failure", "errors": "testcase/error"}
    for element, prefix in ((suite, ""), (root, "testsuite/")):
        for name, path in (counts | {"skipped": "testcase/skipped"}).items():
            element.set(name, str(len(element.findall(prefix + path))))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_run(suite: ET.Element, run_verdict: RunVerdict) -> None:
    test = _case(suite, "run", "verdict")
    match run_verdict.outcome:
        case Outcome.PASS:
            ET.SubElement(test, "system-out").text = _clean(run_verdict.reason)
        case Outcome.FAIL:
            _say(test, "failure", "objective missed", run_verdict.reason)
        case Outcome.INCONCLUSIVE:
            _say(test, "error", "inconclusive", run_verdict.reason)


def _add_objective(suite: ET.Element, verdict: Verdict) -> None:
    test = _case(suite, "objectives", verdict.objective.name)
    match verdict.role, verdict.outcome:
        case "not_asked", outcome:
            _say(test, "skipped", "not asked", f"not asked by the scenario ({outcome.value}: {verdict.reason})")
        case _, Outcome.FAIL:
            _say(test, "failure", "objective missed", verdict.reason)
        case "must_not_fail", Outcome.INCONCLUSIVE:
            _say(test, "skipped", "not proven", f"not missed, but not proven: {verdict.reason}")
        case _, Outcome.INCONCLUSIVE:
            _say(test, "error", "inconclusive", verdict.reason)
    lines = "\n".join((verdict.reason, *verdict.estimate.evidence))
    ET.SubElement(test, "system-out").text = _clean(lines)


def _add_check(suite: ET.Element, check: ValidityCheck, run_verdict: RunVerdict) -> None:
    test = _case(suite, "validity", check.name)
    if check.ok is True:
        return
    reason = check.reason if check.ok is False else f"could not be checked: {check.reason}"
    if undermines(check, run_verdict.verdicts):
        _say(test, "error", "inconclusive", reason)
    else:
        _say(test, "skipped", "not needed", f"nothing that must pass rests on it: {reason}")


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=f"radslo.{group}", name=_clean(name), time="0")


def _say(test: ET.Element, tag: str, kind: str, message: str) -> None:
    ET.SubElement(test, tag, type=kind, message=_clean(message)).text = _clean(message)


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
