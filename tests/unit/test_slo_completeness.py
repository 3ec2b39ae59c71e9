"""Rows that contradict themselves or the manifest; a run that was interrupted is checked up to its end."""

from __future__ import annotations

from loadtests.recording import Recording
from slo_checks.verdict import Outcome, ValidityCheck, evaluate
from tests.unit.recordings import STARTED_AT, Row, answer, answers, changed, recording

GOOD = answers(3_000)


def check_of(run: Recording, name: str) -> ValidityCheck:
    return next(check for check in evaluate(run).validity if check.name == name)


def with_last(row: Row) -> Recording:
    return recording([*GOOD[:-1], row])


def test_an_answer_from_before_its_request_was_sent_voids_every_pass() -> None:
    run = with_last(answer(2_999, 29.99, lag_s=0.5, response_s=0.1))
    assert check_of(run, "rows_make_sense").ok is False
    assert "outcome before it was sent" in check_of(run, "rows_make_sense").reason
    assert evaluate(run).outcome is Outcome.INCONCLUSIVE


def test_rows_of_a_load_process_that_the_manifest_does_not_list_void_every_pass() -> None:
    run = with_last(GOOD[-1] | {"worker": 7})
    assert check_of(run, "rows_as_counted").ok is False
    assert "that the manifest does not list: [7]" in check_of(run, "rows_as_counted").reason
    assert evaluate(run).outcome is Outcome.INCONCLUSIVE


def test_an_interrupted_run_owes_no_samples_for_the_time_after_its_end() -> None:
    """Of 120 s planned it played 30: the silence of the other 90 is nobody's."""
    phases = [{"name": "steady", "duration_s": 120.0, "rate": {"requests_per_s": 100}}]
    samples = [{"at": STARTED_AT + second, "worker": 0, "cpu_ratio": 0.3} for second in range(32)]
    beats = [{"at": STARTED_AT + second, "event": "heartbeat"} for second in range(32)]
    planned = recording(GOOD, phases=phases, client=samples, watch=beats)
    run = changed(planned, ended="interrupted", end_reason="Ctrl-C", ended_at=STARTED_AT + 31)
    assert (check_of(run, "generator_cpu").ok, check_of(run, "watcher_awake").ok) == (True, True)
    assert (check_of(planned, "generator_cpu").ok, check_of(planned, "watcher_awake").ok) == (None, False)
