"""Server counters as a witness: which of them count, which of our rows they may hold, and whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.recording import Recording
from slo_checks.validity import ValidityCheck
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import answers, counter_sample, counters, recording

GOOD = answers(3_000)
ROWS = [row | {"served_by": f"pod-{row['seq'] % 2}"} for row in answers(3000)]
ADDRESSES = {"pod-0": "10.0.0.1:8002", "pod-1": "10.0.0.2:8002"}
SECONDS = range(35)


def by_address(rows: list[dict[str, Any]], addresses: dict[str, str] | None = None) -> list[dict[str, Any]]:
    names = addresses or ADDRESSES
    return [sample | {"server": names[sample["server"]]} for sample in counters(rows, SECONDS)]


def servers_agree(run: Recording) -> ValidityCheck:
    return next(check for check in evaluate(run).validity if check.name == "servers_agree")


def test_counters_without_names_are_compared_by_their_sum() -> None:
    run = recording(ROWS, triton=by_address(ROWS))
    assert servers_agree(run).ok is True
    assert evaluate(run).outcome is Outcome.PASS


def test_a_sum_that_differs_voids_every_pass() -> None:
    run = recording(ROWS, triton=by_address(ROWS[:-100]))
    assert servers_agree(run).ok is False
    assert evaluate(run).outcome is Outcome.INCONCLUSIVE


def test_answers_of_more_servers_than_there_are_counters_have_no_witness() -> None:
    run = recording(ROWS, triton=by_address(ROWS[::2]))
    assert servers_agree(run).ok is None


def test_one_address_before_several_servers_is_no_witness() -> None:
    """A service's address shows now this server's counter, now that one's."""
    mixed = by_address(ROWS, dict.fromkeys(ADDRESSES, "triton:8002"))
    assert servers_agree(recording(ROWS, triton=mixed)).ok is not True


def test_a_counter_from_before_the_start_is_not_used() -> None:
    """What was asked between it and the start, by the preflight or by others, is none of our rows."""
    ours = [sample | {"success": {"radstream_ensemble": sample["success"]["radstream_ensemble"] + 500}}
            for sample in counters(GOOD, SECONDS)]  # fmt: skip
    run = recording(GOOD, triton=[counter_sample("triton-0", -2, 0), *ours])
    assert servers_agree(run).ok is True


def test_a_last_counter_may_be_as_old_as_the_time_between_two() -> None:
    """It was received 0.9 s after it was counted: 90 of our answers came in between."""
    *early, last = counters(GOOD, range(29))
    run = recording(GOOD, triton=[*early, last | {"at": last["at"] + 0.9}])
    assert servers_agree(run).ok is True


def test_a_first_counter_may_be_as_old_as_the_time_between_two() -> None:
    first, *later = counters(GOOD, range(1, 33))
    run = recording(GOOD, triton=[first | {"at": first["at"] + 0.9}, *later])
    assert servers_agree(run).ok is True


@pytest.mark.parametrize(
    ("status", "maybe"),
    [
        *((status, True) for status in ("deadline", "transport", "other", "in_flight")),
        *((status, False) for status in ("shed", "draining", "bad_input", "server_fault", "not_sent")),
    ],
)
def test_a_request_without_an_answer_may_have_been_counted_unless_it_was_refused(status: str, *, maybe: bool) -> None:
    """The servers counted every request as answered, 100 of which never reached us."""
    rows = answers(3_000, misses=dict.fromkeys(range(1_000, 1_100), status))
    assert servers_agree(recording(rows, triton=counters(GOOD, SECONDS))).ok is maybe


@pytest.mark.parametrize(("last_s", "ok"), [(28, True), (27, True), (26, None)])
def test_counters_seen_for_nine_tenths_of_all_answers_are_enough(last_s: int, *, ok: bool | None) -> None:
    run = recording(GOOD, triton=counters(GOOD, range(last_s + 1)))
    assert servers_agree(run).ok is ok
