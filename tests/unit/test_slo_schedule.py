"""The rows are what the seed had fixed beforehand, or nothing passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtests.recording import Recording
from scenarios.arrivals import arrivals, schedule_digest
from scenarios.scenario import Kind
from slo_checks.schedule import as_scheduled, rows_digest
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import answers, changed, frame, recording, scenario, verdict_on


def scheduled() -> Recording:
    return recording(answers(3000), must_pass=("availability",))


def test_rows_of_the_real_schedule_have_its_digest() -> None:
    played = scenario(
        [
            {"name": "w", "duration_s": 5, "warmup": True, "rate": {"requests_per_s": 20}},
            {"name": "steady", "duration_s": 5, "rate": {"requests_per_s": 40}},
        ],
        mix={"ensemble": 1, "encoder": 1, "classifier": 1},
        payloads=[{"id": "chest"}, {"id": "knee", "images": 3}],
        with_text_ratio=0.5,
    )
    rows = [
        row
        for chunk in arrivals(played)
        for row in (
            answers(1, first=seq, start_s=0)[0]
            | {
                "intended_us": intended_us,
                "kind": tuple(Kind)[kind].value,
                "payload": played.payloads[payload].id,
                "with_text": with_text,
                "phase": played.phases[phase].name,
            }
            for seq, intended_us, kind, payload, with_text, phase in zip(
                chunk.seq.tolist(),
                chunk.intended_us.tolist(),
                chunk.kind.tolist(),
                chunk.payload.tolist(),
                chunk.with_text.tolist(),
                chunk.phase.tolist(),
                strict=True,
            )
        )
    ]
    assert len(rows) > 200
    assert rows_digest(frame(rows), played) == schedule_digest(played)


def test_a_run_that_kept_to_its_schedule_passes() -> None:
    assert evaluate(scheduled()).outcome is Outcome.PASS


@pytest.mark.parametrize(
    "moved", [{"intended_us": 1}, {"phase": "w"}, {"kind": "classifier"}, {"payload": "knee"}, {"with_text": True}]
)
def test_one_moved_request_voids_every_pass(moved: dict[str, object]) -> None:
    first, *others = answers(3000)
    run = replace(scheduled(), requests=frame([first | moved, *others]))
    assert as_scheduled(run)[0] is False
    assert verdict_on(run, "availability").outcome is Outcome.INCONCLUSIVE


def test_requests_that_never_were_spread_over_time_do_not_pass() -> None:
    """A generator that takes the moment of sending for the intended one would hide every stall of its own."""
    planned = scheduled()
    bunched = recording(answers(3000, rate_per_s=1e6), must_pass=("availability",))
    assert evaluate(replace(planned, requests=bunched.requests)).outcome is not Outcome.PASS


def test_an_interrupted_run_cannot_be_compared() -> None:
    assert as_scheduled(changed(scheduled(), ended="interrupted"))[0] is None


def test_good_answers_that_nobody_checked_prove_nothing() -> None:
    assert evaluate(recording(answers(3000, checked=None))).outcome is Outcome.INCONCLUSIVE


def test_good_answers_after_their_deadline_prove_nothing() -> None:
    assert evaluate(recording(answers(3000, response_s=100.0))).outcome is not Outcome.PASS
