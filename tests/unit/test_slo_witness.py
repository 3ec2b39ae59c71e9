"""Server counters as a witness: which of them count, which of our rows they may hold, and whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.recording import Recording
from slo_checks.validity import ValidityCheck
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import STARTED_AT, answers, counter_sample, counters, recording

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


# --- servers that come and go: the second one serves every other answer of seconds 10 to 20 --------------------------

SCALED = [
    row | {"served_by": "late" if 10 * 10**6 <= row["intended_us"] < 20 * 10**6 and row["seq"] % 2 else "first"}
    for row in answers(3_000)
]


def scaled(seen: range, *, counted_ratio: float = 1.0) -> Recording:
    """A run in which the second server's counters were seen in these seconds; it counts that share of its answers."""
    samples = []
    for sample in counters(SCALED, SECONDS):
        total = sample["success"]["radstream_ensemble"]
        if sample["server"] == "late":
            total = round(total * counted_ratio)
        if sample["server"] == "first" or round(sample["at"] - STARTED_AT) in seen:
            samples.append(sample | {"success": {"radstream_ensemble": total}})
    return recording(SCALED, triton=samples)


@pytest.mark.parametrize(
    "seen", [range(10, 35), range(11, 35), range(12, 35), range(10, 21), range(10, 20), range(11, 20)],
    ids=["from_its_start", "first_seen_after_answers", "first_seen_late", "gone", "gone_unseen", "both"],
)  # fmt: skip
def test_a_server_that_comes_or_goes_is_no_false_alarm(seen: range) -> None:
    """Its first counter may show 45 answers or 95, and 50 may come after its last."""
    assert servers_agree(scaled(seen)).ok is True


@pytest.mark.parametrize("seen", [range(10, 35), range(11, 35), range(10, 20), range(11, 20)])
def test_a_server_that_comes_or_goes_is_still_a_witness(seen: range) -> None:
    """It counted a fifth less, or more, than we say that it answered."""
    assert servers_agree(scaled(seen, counted_ratio=0.8)).ok is False
    assert servers_agree(scaled(seen, counted_ratio=1.2)).ok is False


def test_a_counter_that_starts_at_0_misses_nothing() -> None:
    """Seen before its first answer and after its last, a server's count is exact, however short its life."""
    assert servers_agree(scaled(range(10, 35))).reason.startswith("servers counted 3,000 answers, we 3,000 in the same")
    assert servers_agree(scaled(range(10, 35), counted_ratio=0.992)).ok is False


def test_a_server_that_was_seen_once_is_no_stranger() -> None:
    """It came just before the end; what it did is too little to matter."""
    rows = [
        row | {"served_by": "late" if row["seq"] >= 2_900 and row["seq"] % 2 else "first"} for row in answers(3_000)
    ]
    samples = [
        sample for sample in counters(rows, SECONDS) if sample["server"] == "first" or sample["at"] == STARTED_AT + 34
    ]
    assert servers_agree(recording(rows, triton=samples)).ok is True


def test_a_server_that_was_never_seen_is_named() -> None:
    """Started while the API server was lost."""
    found = servers_agree(scaled(range(0)))
    assert (found.ok, "500 from late" in found.reason) == (None, True)


def test_a_server_that_was_seen_once_is_no_witness_of_much() -> None:
    assert servers_agree(scaled(range(34, 35))).ok is None


def test_servers_without_names_that_come_and_go_are_no_witness() -> None:
    """When none was seen all the time, any sum would do."""
    half = [row | {"served_by": f"pod-{row['seq'] >= 1_500:d}"} for row in answers(3_000)]
    seen = [
        sample
        for sample in by_address(half)
        if (sample["server"] == ADDRESSES["pod-0"]) == (sample["at"] < STARTED_AT + 16)
    ]
    assert servers_agree(recording(half, triton=seen)).ok is None


def test_requests_without_an_answer_are_no_answers_that_were_witnessed() -> None:
    """1,000 answers, the counters seen for the first 300 of them, and 2,000 requests that were lost before."""
    rows = answers(3_000, misses=dict.fromkeys(range(300, 2_300), "transport"))
    assert servers_agree(recording(rows, triton=counters(rows, range(24)))).ok is None


def test_pods_without_counters_were_to_have_some() -> None:
    pods: dict[str, Any] = {
        "name": "k",
        "grpc": "dns:///t:1",
        "metrics_urls": {},
        "servers_file": None,
        "kubernetes": {},
    }
    unseen = servers_agree(recording(GOOD, triton=(), target=pods))
    assert (unseen.ok, evaluate(recording(GOOD, triton=(), target=pods)).outcome) == (None, Outcome.INCONCLUSIVE)
    planned = servers_agree(recording(GOOD, triton=(), target=pods | {"kubernetes": None}))
    assert "no metrics address" in planned.reason
    assert "no metrics address" not in unseen.reason
