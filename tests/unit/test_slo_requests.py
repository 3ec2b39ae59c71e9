"""Availability, error rate and latency: what a run's requests prove, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.recording import FAILURES, IN_FLIGHT, NOT_SENT, Recording
from slo_checks.estimate import fewest_to_prove, quantile_ranks, share_bounds
from slo_checks.verdict import Outcome, judge
from tests.unit.recordings import Row, answer, answers, changed, frame, held_back, recording, verdict_on

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
LATE_S = 6.0
"""An answer that is right and over the 5 s objective."""


def missing(count: int, misses: int, status: str = "shed") -> Recording:
    """A run that lost `misses` of `count` requests, spread over it."""
    lost = {place * (count // max(misses, 1)): status for place in range(misses)}
    return recording(answers(count, rate_per_s=1000, misses=lost), must_pass=("availability", "error_rate"))


def late(count: int, misses: int) -> Recording:
    """A run in which every request was answered, some of them too late."""
    rows = [answer(seq, seq / 100, response_s=LATE_S if seq < misses else 0.1) for seq in range(count)]
    return recording(rows, must_pass=("latency_p95",))


@pytest.mark.parametrize("name", ["availability", "error_rate"])
class TestSharesOfFailedRequests:
    @pytest.mark.parametrize(("count", "misses", "outcome"), [
        (2_994, 0, INCONCLUSIVE), (2_995, 0, PASS),
        (4_741, 1, INCONCLUSIVE), (4_742, 1, PASS),
        (10_000, 4, PASS), (10_000, 5, INCONCLUSIVE), (10_000, 15, INCONCLUSIVE), (10_000, 16, FAIL),
        (51, 1, FAIL), (52, 1, INCONCLUSIVE),
        (100, 100, FAIL),
    ])  # fmt: skip
    def test_are_judged_by_exact_binomial_bounds(self, name: str, count: int, misses: int, outcome: Outcome) -> None:
        assert verdict_on(missing(count, misses), name).outcome is outcome

    def test_tell_how_many_requests_a_proof_would_have_needed(self, name: str) -> None:
        assert "2,994 of 2,995 requests" in verdict_on(missing(2_994, 0), name).reason
        assert "10,511 requests would be needed with 5 misses" in verdict_on(missing(10_000, 5), name).reason

    def test_promise_no_proof_by_more_data_to_a_service_that_misses_too_often(self, name: str) -> None:
        assert "would be needed" not in verdict_on(missing(10_000, 15), name).reason

    def test_fail_with_the_numbers_and_their_interval(self, name: str) -> None:
        reason = verdict_on(missing(10_000, 16), name).reason
        assert "16 misses of 10,000" in reason
        assert "99.84 %" in reason if name == "availability" else "0.16 %" in reason

    @pytest.mark.parametrize("status", FAILURES)
    def test_count_every_class_of_failure(self, name: str, status: str) -> None:
        found = verdict_on(missing(200, 20, status), name)
        assert found.outcome is FAIL
        assert f"missed: {status} 20" in found.estimate.evidence

    def test_leave_warm_up_out(self, name: str) -> None:
        phases = [
            {"name": "warm", "duration_s": 1.0, "warmup": True, "rate": {"requests_per_s": 100}},
            {"name": "steady", "duration_s": 30.0, "rate": {"requests_per_s": 100}},
        ]
        cold = answers(100, phase="warm", misses=dict.fromkeys(range(100), "shed"))
        warm = answers(3_000, first=100, start_s=1.0)
        found = verdict_on(recording([*cold, *warm], phases=phases), name)
        assert (found.outcome, found.estimate.samples) == (PASS, 3_000)

    def test_say_nothing_of_a_run_that_was_all_warm_up_so_far(self, name: str) -> None:
        phases = [
            {"name": "warm", "duration_s": 40.0, "warmup": True, "rate": {"requests_per_s": 100}},
            {"name": "steady", "duration_s": 1.0, "rate": {"requests_per_s": 100}},
        ]
        found = verdict_on(recording(answers(3_000, phase="warm"), phases=phases), name)
        assert found.outcome is INCONCLUSIVE
        assert "warm-up" in found.reason

    def test_say_nothing_of_a_run_without_requests(self, name: str) -> None:
        assert verdict_on(recording([]), name).outcome is INCONCLUSIVE


class TestRequestsWithoutAnOutcome:
    def test_in_flight_at_the_end_missed_for_availability_and_is_undecided_for_the_error_rate(self) -> None:
        run = missing(10_000, 20, IN_FLIGHT)
        assert verdict_on(run, "availability").outcome is FAIL
        errors = verdict_on(run, "error_rate")
        assert (errors.outcome, errors.estimate.misses) == (INCONCLUSIVE, 0)

    @pytest.mark.parametrize("name", ["availability", "latency_p95"])
    @pytest.mark.parametrize(("drain_s", "sealed_late_s", "outcome"), [
        (30.0, 0.0, FAIL), (19.0, 0.0, INCONCLUSIVE), (0.0, 0.0, INCONCLUSIVE),
        (0.0, 60.0, INCONCLUSIVE),    # the leader waited for another load process
    ])  # fmt: skip
    def test_missed_only_if_we_waited_until_its_deadline(
        self, name: str, drain_s: float, sealed_late_s: float, outcome: Outcome
    ) -> None:
        """1,000 of 10,000 requests are in flight at the end, the oldest of them since 10 s, with a deadline of 30 s."""
        rows = answers(10_000, rate_per_s=1000, misses=dict.fromkeys(range(0, 10_000, 10), IN_FLIGHT))
        run = recording(rows, scenario_fields={"drain_s": drain_s})
        assert run.manifest is not None
        run = changed(run, ended_at=run.manifest.ended_at + sealed_late_s)
        assert verdict_on(run, name).outcome is outcome

    @pytest.mark.parametrize("name", ["availability", "latency_p95"])
    def test_missed_if_its_deadline_was_over_before_the_run_ended(self, name: str) -> None:
        lost = dict.fromkeys(range(400), IN_FLIGHT)
        assert verdict_on(recording(answers(4_000), scenario_fields={"drain_s": 0.0}), name).outcome is PASS
        run = recording(answers(4_000, misses=lost), scenario_fields={"drain_s": 0.0})
        assert verdict_on(run, name).outcome is FAIL

    def test_cut_off_by_an_interruption_is_not_held_against_the_service(self) -> None:
        run = changed(missing(10_000, 20, IN_FLIGHT), ended="interrupted", end_reason="Ctrl-C")
        found = verdict_on(run, "availability")
        assert (found.outcome, found.estimate.misses, found.estimate.samples) == (INCONCLUSIVE, 0, 9_980)

    def test_never_sent_because_the_service_held_every_caller_up_misses_availability_alone(self) -> None:
        run = held_back(stuck=5)
        assert verdict_on(run, "availability").outcome is FAIL
        assert verdict_on(run, "error_rate").estimate.samples == 2_950


def spoiled(what: str) -> Recording:
    """10,000 good answers of which 600 say that they were none, or do not say it."""
    changes: dict[str, Row] = {
        "shed": {"status": "shed"},
        "a status of another version": {"status": "retried_ok"},
        "a good answer without its stamp": {"done_us": None},
    }
    rows = [row | changes[what] if row["seq"] % 50 < 3 else row for row in answers(10_000)]
    return recording(rows, triton=(), must_pass=("availability", "error_rate", "latency_p95"))


@pytest.mark.parametrize("name", ["availability", "error_rate", "latency_p95"])
class TestRowsThatDoNotTell:
    """They may have been good or not: where a pass is to be proven they were not, where a fail is they were."""

    def test_would_fail_if_they_told(self, name: str) -> None:
        assert verdict_on(spoiled("shed"), name).outcome is FAIL

    @pytest.mark.parametrize("what", ["a status of another version", "a good answer without its stamp"])
    def test_prove_nothing(self, name: str, what: str) -> None:
        found = verdict_on(spoiled(what), name)
        assert found.outcome is INCONCLUSIVE
        assert judge(found.objective, found.estimate)[0] is INCONCLUSIVE  # by itself, whatever the checks say
        assert "600 requests may have been answered or not" in judge(found.objective, found.estimate)[1]
        assert (found.estimate.samples, found.estimate.misses) == (9_400, 0)

    def test_say_nothing_when_there_are_no_others(self, name: str) -> None:
        run = recording(answers(100, misses=dict.fromkeys(range(100), "fine")))
        assert (verdict_on(run, name).outcome, verdict_on(run, name).estimate.value) == (INCONCLUSIVE, None)

    def test_do_not_excuse_the_others(self, name: str) -> None:
        lost = dict.fromkeys(range(0, 10_000, 10), "shed") | dict.fromkeys(range(5, 10_000, 50), "fine")
        assert verdict_on(recording(answers(10_000, misses=lost)), name).outcome is FAIL


@pytest.mark.parametrize("name", ["availability", "error_rate", "latency_p95"])
def test_a_row_that_was_written_many_times_is_one_request(name: str) -> None:
    rows = answers(3_000, misses={1_500: "shed"})
    run = replace(recording(rows), requests=frame([*rows, *[rows[1_500]] * 300]))
    assert verdict_on(recording(answers(3_000, misses=dict.fromkeys(range(300), "shed"))), name).outcome is FAIL
    found = verdict_on(run, name)
    assert (found.outcome, found.estimate.samples, found.estimate.misses) == (INCONCLUSIVE, 3_000, 1)


class TestFailuresInTime:
    def test_show_the_worst_slice_and_the_longest_outage(self) -> None:
        run = recording(answers(6_000, misses=dict.fromkeys(range(2000, 2400), "transport")))
        evidence = "\n".join(verdict_on(run, "availability").estimate.evidence)
        assert "worst 10 s slice: 400 of 1,000 missed, 20 s after the start; 1 of 6 slices below 99 %" in evidence
        assert "longest run of misses: 400 in a row over 4.0 s, from 20.0 s after the start" in evidence

    def test_show_who_answered(self) -> None:
        rows = [*answers(100), *answers(50, first=100, start_s=1, served_by="triton-1")]
        evidence = verdict_on(recording(rows), "availability").estimate.evidence
        assert "answered by: triton-0 100, triton-1 50" in evidence


class TestLatency:
    @pytest.mark.parametrize(("count", "misses", "outcome"), [
        (58, 0, INCONCLUSIVE), (59, 0, PASS), (92, 1, INCONCLUSIVE), (93, 1, PASS), (207, 5, INCONCLUSIVE),
        (208, 5, PASS), (1_000, 38, PASS), (1_000, 39, INCONCLUSIVE), (1_000, 61, INCONCLUSIVE), (1_000, 63, FAIL),
        (59, 59, FAIL),
    ])  # fmt: skip
    def test_is_judged_by_exact_order_statistics(self, count: int, misses: int, outcome: Outcome) -> None:
        assert verdict_on(late(count, misses), "latency_p95").outcome is outcome

    def test_tells_how_many_requests_a_proof_would_have_needed(self) -> None:
        assert "too few: 58 of 59 requests" in verdict_on(late(58, 0), "latency_p95").reason
        assert "93 requests would be needed with 1 miss" in verdict_on(late(92, 1), "latency_p95").reason

    def test_agrees_with_the_binomial_test_of_the_requests_over_the_bound(self) -> None:
        """Two roads to one verdict: order statistics of the times, and bounds of the share that was late."""
        for count in (59, 93, 250, 1_000, 4_321):
            for misses in range(0, count, max(1, count // 150)):
                ascending = np.repeat([0.1, LATE_S], [count - misses, misses])
                low, high = quantile_ranks(count, 0.95, 0.95)
                least, most = share_bounds(misses, count, 0.95)
                assert (high is not None and ascending[high - 1] <= 5) == (most <= 0.05)
                assert (low is not None and ascending[low - 1] > 5) == (least > 0.05)

    def test_counts_from_the_intended_time_so_that_a_queue_in_the_client_counts(self) -> None:
        """Each call took 0.1 s, but they left 6 s after they were due."""
        rows = answers(3_000, lag_s=LATE_S, response_s=LATE_S + 0.1)
        found = verdict_on(recording(rows), "latency_p95")
        assert found.estimate.value == pytest.approx(LATE_S + 0.1)

    @pytest.mark.parametrize("status", [*FAILURES, IN_FLIGHT, NOT_SENT])
    def test_takes_what_was_not_answered_as_infinitely_late(self, status: str) -> None:
        """Quick refusals do not make a service fast."""
        run = recording(answers(1_000, misses=dict.fromkeys(range(900), status)), must_pass=("latency_p95",))
        found = verdict_on(run, "latency_p95")
        assert found.estimate.value == float("inf")
        assert found.outcome is (INCONCLUSIVE if status == NOT_SENT else FAIL)

    def test_names_no_interval_between_two_absent_answers(self) -> None:
        run = recording(answers(100, misses=dict.fromkeys(range(100), "shed")), must_pass=("latency_p95",))
        found = verdict_on(run, "latency_p95")
        assert found.reason == "misses at most 5 s: no good answer, 100 misses of 100"

    def test_still_names_an_interval_with_one_end(self) -> None:
        assert (
            "(at least 100 ms)"
            in verdict_on(recording(answers(1_000, misses=dict.fromkeys(range(50), "shed"))), "latency_p95").reason
        )

    def test_leaves_warm_up_out_by_the_intended_time(self) -> None:
        """A request that was due in warm-up and answered after it is warm-up."""
        phases = [
            {"name": "warm", "duration_s": 2.0, "warmup": True, "rate": {"requests_per_s": 100}},
            {"name": "steady", "duration_s": 10.0, "rate": {"requests_per_s": 100}},
        ]
        cold = answers(200, phase="warm", response_s=8.0)
        run = recording([*cold, *answers(1_000, first=200, start_s=2.0)], phases=phases, must_pass=("latency_p95",))
        found = verdict_on(run, "latency_p95")
        assert (found.outcome, found.estimate.misses, found.estimate.samples) == (PASS, 0, 1_000)

    @pytest.mark.parametrize("response_s", [0.1, LATE_S])
    def test_of_a_closed_loop_is_advisory(self, response_s: float) -> None:
        phases = [{"name": "steady", "duration_s": 40.0, "users": 5, "think_time_s": 0.0}]
        found = verdict_on(recording(answers(3_000, response_s=response_s), phases=phases), "latency_p95")
        assert found.outcome is INCONCLUSIVE
        assert found.estimate.value == pytest.approx(response_s)
        assert "closed loop" in found.reason

    def test_shows_each_kind_of_request(self) -> None:
        rows: list[Row] = [answer(seq, seq / 100, kind="encoder" if seq % 2 else "ensemble") for seq in range(200)]
        evidence = verdict_on(recording(rows), "latency_p95").estimate.evidence
        assert evidence == (
            "encoder: p95 0.100 s, of 100 requests",
            "ensemble: p95 0.100 s, of 100 requests",
        )


class TestExactBounds:
    @pytest.mark.parametrize(("misses", "fewest"), [
        (0, 2_995), (1, 4_742), (2, 6_294), (3, 7_752), (5, 10_511), (10, 16_959), (20, 29_058),
    ])  # fmt: skip
    def test_need_the_published_number_of_requests_for_three_nines(self, misses: int, fewest: int) -> None:
        assert fewest_to_prove(misses, 0.001, 0.95) == fewest
        assert share_bounds(misses, fewest, 0.95)[1] <= 0.001 < share_bounds(misses, fewest - 1, 0.95)[1]

    @pytest.mark.parametrize(("misses", "most"), [(1, 51), (2, 355), (3, 818), (5, 1_971), (10, 5_427), (20, 13_257)])
    def test_prove_a_miss_up_to_the_published_number_of_requests(self, misses: int, most: int) -> None:
        assert share_bounds(misses, most, 0.95)[0] > 0.001 >= share_bounds(misses, most + 1, 0.95)[0]

    def test_close_at_the_ends(self) -> None:
        assert share_bounds(0, 10, 0.95)[0] == 0
        assert share_bounds(10, 10, 0.95)[1] == 1

    def test_bound_a_percentile_from_above_only_with_enough_samples(self) -> None:
        assert quantile_ranks(58, 0.95, 0.95)[1] is None
        assert quantile_ranks(59, 0.95, 0.95)[1] == 59
        assert quantile_ranks(299, 0.99, 0.95)[1] == 299
        assert quantile_ranks(1_000, 0.99, 0.95)[1] == 996
