"""The scenario of a run whose users are set by hand in the Locust web UI."""

from __future__ import annotations

from typing import Final

from scenarios.scenario import Scenario

ADHOC: Final = "ad-hoc"
_LONGEST_S: Final = 7 * 86_400


def adhoc_scenario() -> Scenario:
    """A closed loop without an end; the web UI says how many users there are and when it stops."""
    return Scenario.model_validate(
        {
            "name": ADHOC,
            "purpose": "Users set by hand in the Locust web UI; latencies of a closed loop are advisory.",
            "expected_verdict": "inconclusive or fail: nothing was planned, so little can be proven",
            "phases": [{"name": "by-hand", "duration_s": _LONGEST_S, "users": 1, "think_time_s": 1.0}],
            "mix": {"ensemble": 4, "classifier": 2, "detector": 2, "encoder": 2},
            "payloads": [{"id": "chest-jpeg-100kb", "images": 4}],
            "with_text_ratio": 0.5,
            "objectives": {"must_pass": ["availability"], "must_not_fail": ["error_rate"]},
        }
    )
