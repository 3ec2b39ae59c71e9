"""Whether a run can be believed: each way in which it cannot, and what then follows for its verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from loadtests.recording import IN_FLIGHT, NOT_SENT, OK, Recording
from slo_checks.objectives import objectives_document
from slo_checks.verdict import Outcome, ValidityCheck, Verdict, evaluate
from tests.unit.recordings import (
    STARTED_AT,
    Row,
    answer,
    answers,
    asleep,
    changed,
    counter_sample,
    counters,
    ended_in_warm_up,
    frame,
    heartbeats,
    held_back,
    recording,
    stood_still,
    verdict_on,
)

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
GOOD = answers(3_000)
BAD = answers(3_000, misses=dict.fromkeys(range(1_000), "shed"))
SECONDS = range(33)


def check_of(run: Recording, name: str) -> ValidityCheck:
    return next(check for check in evaluate(run).validity if check.name == name)


def worker_of(run: Recording, **fields: Any) -> Recording:
    """The same run whose one load process says something else of itself."""
    assert run.manifest is not None
    return changed(run, workers=(run.manifest.workers[0].model_copy(update=fields),))


def client_samples(cpu: Callable[[int], float | None], seconds: Sequence[int] = SECONDS) -> list[Row]:
    return [{"at": STARTED_AT + second, "worker": 0, "cpu_ratio": cpu(second)} for second in seconds]


def test_a_sound_run_has_no_doubts() -> None:
    assert {check.name: check.ok for check in evaluate(recording(GOOD)).validity if check.ok is not True} == {}


# Each of these is a whole run with one thing wrong, which leaves the requests as they are.
Spoiled = Callable[[list[Row]], Recording]
SPOILED: dict[str, tuple[str, Spoiled]] = {
    "not sealed": ("sealed", lambda rows: recording(rows, manifest=None)),
    "interrupted": ("completed", lambda rows: changed(recording(rows), ended="interrupted", end_reason="Ctrl-C")),
    "stopped before all came due": ("completed", lambda rows: changed(recording(rows), due_count=2_999)),
    "a load process was lost": ("workers_delivered", lambda rows: worker_of(recording(rows), delivered=False)),
    "a load process is not listed": ("workers_delivered", lambda rows: changed(recording(rows), workers=())),
    "a row is lost": ("rows_complete", lambda rows: changed(recording(rows[:-1]), due_count=3_000, row_count=2_999)),
    "a row is there twice": ("rows_once", lambda rows: recording([*rows[:-1], rows[-2]])),
    "a row that was never due": ("rows_once", lambda rows: recording([*rows[:-1], rows[-1] | {"seq": 9_999}])),
    "fewer rows than the manifest says": ("rows_as_counted", lambda rows: changed(recording(rows), row_count=3_001)),
    "other outcomes than were counted": (
        "rows_as_counted", lambda rows: worker_of(recording(rows), by_status={OK: 2_000, "shed": 999, "other": 1})
    ),
    "a load process that told no counts": (
        "rows_as_counted", lambda rows: worker_of(recording(rows), by_status=None)
    ),
    "sent before it was due": (
        "rows_make_sense", lambda rows: recording([*rows[:-1], answer(2_999, 29.99, lag_s=-0.1)])
    ),
    "a phase that is not in the plan": (
        "rows_make_sense", lambda rows: recording([*rows[:-1], rows[-1] | {"phase": "nap"}])
    ),
    "a status that nobody knows": (
        "rows_make_sense", lambda rows: recording([*rows[:-1], rows[-1] | {"status": "fine"}])
    ),
    "a torn file": ("files_whole", lambda rows: recording(rows, damage=["watch.jsonl: line 7 is cut"])),
    "no server counter": ("servers_agree", lambda rows: recording(rows, triton=())),
    "counters that saw more": (
        "servers_agree", lambda rows: recording(rows, triton=counters([*rows, *rows[-100:]], SECONDS))
    ),
    "counters that saw less": (
        "servers_agree", lambda rows: recording(rows, triton=counters(rows[:-100], SECONDS))
    ),
    "answers of a server that nobody watched": (
        "servers_agree",
        lambda rows: recording(
            [*rows[:-100], *(row | {"served_by": "other"} for row in rows[-100:])],
            triton=counters(rows[:-100], SECONDS),
        ),
    ),
    "a busy load process": ("generator_cpu", lambda rows: recording(rows, cpu_ratio=0.9)),
    "no sample of the load process": ("generator_cpu", lambda rows: recording(rows, client=())),
    "a load process that fell silent": (
        "generator_cpu", lambda rows: recording(rows, client=client_samples(lambda _: 0.3, range(20)))
    ),
    "late requests": ("generator_lag", lambda rows: recording([*rows[:-60], *late(60, of=rows[-60:], by_s=0.02)])),
    "a client that stood still": (
        "generator_lag", lambda rows: recording([*rows[:-1], *late(1, of=rows[-1:], by_s=1.5)])
    ),
}  # fmt: skip


def late(count: int, *, of: Sequence[Row], by_s: float) -> list[Row]:
    """The same rows, the first `count` of them sent and answered that much later."""
    return [
        row | {name: row[name] + by_s * 1e6 for name in ("sent_us", "done_us") if row[name] is not None}
        if place < count else row
        for place, row in enumerate(of)
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", SPOILED)
class TestARunThatCannotBeTrusted:
    def test_names_what_is_wrong(self, wrong: str) -> None:
        name, spoil = SPOILED[wrong]
        assert check_of(spoil(GOOD), name).ok is not True

    def test_passes_nothing_that_rests_on_its_requests(self, wrong: str) -> None:
        name, spoil = SPOILED[wrong]
        judged = evaluate(spoil(GOOD))
        assert {verdict.outcome for verdict in judged.verdicts} <= {INCONCLUSIVE, FAIL}
        assert judged.outcome is INCONCLUSIVE
        (doubt,) = (check for check in judged.validity if check.name == name)
        assert doubt.reason

    def test_still_fails_what_the_service_missed(self, wrong: str) -> None:
        """Nothing that is wrong with the measurement excuses a third of all requests refused."""
        judged = evaluate(SPOILED[wrong][1](BAD))
        assert judged.outcome is FAIL


class TestLoadThatLeftLate:
    """It makes answers late, so its part is taken out before anything is held against a server."""

    def test_proves_no_pass(self) -> None:
        found = verdict_on(recording(late(3_000, of=GOOD, by_s=0.02)), "latency_p95")
        assert found.outcome is INCONCLUSIVE
        assert "generator was late" in found.reason
        assert "it alone would say: meets" in found.reason

    def test_proves_no_fail_of_a_service_that_was_quick(self) -> None:
        run = recording(late(3_000, of=GOOD, by_s=6.0), must_pass=("latency_p95",))
        assert verdict_on(run, "latency_p95").outcome is INCONCLUSIVE

    def test_leaves_a_fail_of_a_service_that_was_slow_by_itself(self) -> None:
        run = recording(late(3_000, of=answers(3_000, response_s=7.0), by_s=0.02), must_pass=("latency_p95",))
        found = verdict_on(run, "latency_p95")
        assert found.outcome is FAIL
        assert "without the generator's part too" in found.reason

    @pytest.mark.parametrize(("count", "lags", "ok"), [
        (91, 0, True), (91, 1, True), (91, 3, True), (91, 4, False),
        (1, 1, False),
        (10_000, 117, True), (10_000, 118, False),
    ])  # fmt: skip
    def test_is_proven_by_more_than_one_hiccup(self, count: int, lags: int, ok: bool) -> None:  # noqa: FBT001
        rows = late(lags, of=answers(count), by_s=0.006)
        assert check_of(recording(rows), "generator_lag").ok is ok

    def test_tells_p99_and_how_many_were_late(self) -> None:
        reason = check_of(recording(late(3, of=answers(91), by_s=0.006)), "generator_lag").reason
        assert reason.startswith("p99 of sent - intended is 6.00 ms; 3 of 91 requests left more than 5 ms late")

    def test_is_counted_from_the_limit_on(self) -> None:
        assert check_of(recording(answers(91, lag_s=0.005)), "generator_lag").ok is True
        assert check_of(recording(answers(91, lag_s=0.0051)), "generator_lag").ok is False

    @pytest.mark.parametrize(("by_s", "ok"), [(0.9, True), (1.1, False)])
    def test_includes_a_client_that_stood_still_once(self, by_s: float, ok: bool) -> None:  # noqa: FBT001
        check = check_of(recording(late(1, of=answers(1_000), by_s=by_s)), "generator_lag")
        assert check.ok is ok
        assert ok or "stood still: one left 1.10 s late" in check.reason

    def test_in_warm_up_does_not_matter(self) -> None:
        phases = [
            {"name": "warm", "duration_s": 1.0, "warmup": True, "rate": {"requests_per_s": 100}},
            {"name": "steady", "duration_s": 30.0, "rate": {"requests_per_s": 100}},
        ]
        cold = late(100, of=answers(100, phase="warm"), by_s=3.0)
        assert evaluate(recording([*cold, *answers(3_000, first=100, start_s=1)], phases=phases)).outcome is PASS

    def test_of_a_run_that_sent_nothing_is_not_known(self) -> None:
        run = recording(answers(10, misses=dict.fromkeys(range(10), NOT_SENT)))
        assert check_of(run, "generator_lag").ok is None


STRICT: dict[str, Any] = {
    "title": "Latency, 99.9th percentile", "indicator": "latency", "percentile": 0.999, "comparison": "at_most",
    "bound": 0.5, "unit": "s", "confidence": 0.95, "fewest_samples": 2995, "source": "this test",
}  # fmt: skip


def strict(rows: Sequence[Row], **fields: Any) -> Verdict:
    """The verdict on an objective that is stricter than the lateness which a generator in order may have."""
    document = objectives_document()
    document["objectives"] = {**document["objectives"], "strict": STRICT}
    return verdict_on(recording(rows, objectives=document, must_pass=("strict",), **fields), "strict")


class TestLatenessWithinItsLimits:
    """Up to 1 % of the requests may leave up to 1 s late: enough to miss a strict objective by lateness alone."""

    def late_by(self, lag_s: float, service_s: float) -> list[Row]:
        lags_s = [0.0 if seq % 112 else lag_s for seq in range(10_000)]
        return [
            answer(seq, seq / 100, lag_s=lag_s, response_s=lag_s + service_s) for seq, lag_s in enumerate(lags_s)
        ]  # fmt: skip

    def test_does_not_fail_a_service_that_was_quick(self) -> None:
        found = strict(self.late_by(0.9, 0.05))
        assert check_of(recording(self.late_by(0.9, 0.05)), "generator_lag").ok is True
        assert found.outcome is INCONCLUSIVE
        assert found.reason.startswith("the generator's lateness decides this: misses")
        assert "; without it: meets" in found.reason

    def test_leaves_a_fail_of_a_service_that_was_slow_by_itself(self) -> None:
        found = strict(self.late_by(0.9, 0.6))
        assert found.outcome is FAIL
        assert "generator" not in found.reason

    def test_of_a_burst_does_not_fail_the_service_that_it_made_queue(self) -> None:
        """After 0.95 s of silence 95 requests come at once to a service that takes 7 ms for each."""
        rows = stood_still(answers(10_000, response_s=0.007), (50.0, 50.95))
        free_us = 0.0
        for row in rows:
            free_us = max(free_us, row["sent_us"]) + 7_000
            row["done_us"] = round(free_us)
        assert sum(row["done_us"] - row["sent_us"] > 500_000 for row in rows) > 50
        assert check_of(recording(rows), "generator_lag").ok is True
        assert strict(rows).outcome is INCONCLUSIVE

    def test_does_not_excuse_what_the_service_kept_from_being_sent(self) -> None:
        run = held_back(10, unsent_count=300)
        assert check_of(run, "generator_lag").ok is check_of(run, "in_flight_cap").ok is True
        assert verdict_on(run, "latency_p95").outcome is FAIL


@pytest.mark.parametrize("name", ["availability", "error_rate", "latency_p95"])
class TestALoadProcessThatStoodStill:
    """It reads late what was answered meanwhile, takes some of it for lost, and then sends everything at once."""

    def run_with(self, *pauses_s: tuple[float, float], service_s: float = 3.0, **ends: Any) -> Recording:
        rows = stood_still(answers(6_000, rate_per_s=50, response_s=service_s, **ends), *pauses_s)
        return asleep(recording(rows, must_pass=("availability", "error_rate", "latency_p95")), *pauses_s)

    @pytest.mark.parametrize("pause_s", [(15.0, 50.0), (15.0, 27.0), (110.0, 150.0), (0.0, 40.0)])
    def test_does_not_fail_a_service_that_answered_all_the_time(self, name: str, pause_s: tuple[float, float]) -> None:
        assert verdict_on(self.run_with(), name).outcome is PASS
        judged = evaluate(self.run_with(pause_s))
        assert judged.outcome is INCONCLUSIVE
        assert verdict_on(self.run_with(pause_s), name).outcome is INCONCLUSIVE

    def test_does_not_excuse_a_service_that_failed_at_other_times(self, name: str) -> None:
        refused = dict.fromkeys(range(4_000, 6_000), "shed")
        assert verdict_on(self.run_with((15.0, 50.0), misses=refused), name).outcome is FAIL

    def test_does_not_excuse_a_service_that_never_answered(self, name: str) -> None:
        """Each request ends at its deadline; few of them do so near a pause of 2 s."""
        lost = dict.fromkeys(range(6_000), "deadline")
        run = self.run_with((60.0, 62.0), service_s=30.0, misses=lost)
        assert check_of(run, "generator_lag").ok is False
        assert verdict_on(run, name).outcome is FAIL

    def test_in_warm_up_does_not_fail_the_service_that_it_flooded(self, name: str) -> None:
        """All that was due in the last 10 s of warm-up arrives at its end, and makes the service refuse for 5 s."""
        phases = [
            {"name": "warm", "duration_s": 20.0, "warmup": True, "rate": {"requests_per_s": 100}},
            {"name": "steady", "duration_s": 60.0, "rate": {"requests_per_s": 100}},
        ]
        rows = stood_still([*answers(2_000, phase="warm"), *answers(6_000, first=2_000, start_s=20.0)], (10.0, 20.0))
        flooded = [row | {"status": "shed"} if 20e6 <= row["sent_us"] < 25e6 else row for row in rows]
        run = recording(flooded, phases=phases)
        assert check_of(run, "generator_lag").ok is True
        assert verdict_on(run, name).outcome is INCONCLUSIVE


def test_a_burst_of_our_making_may_take_longer_than_the_pause_before_it() -> None:
    rows = stood_still(answers(6_000), (20.0, 24.0))
    slow = [row | {"done_us": 33_000_000} if row["sent_us"] == 24_000_000 else row for row in rows]
    assert verdict_on(recording(slow), "latency_p95").outcome is INCONCLUSIVE


class TestSilenceOfALoadProcess:
    def test_after_the_last_request_does_not_fail_a_service_whose_answers_it_never_read(self) -> None:
        """The time to drain was over when it woke up."""
        rows = answers(3_000, rate_per_s=50, response_s=8.0)
        unread: Row = {"status": IN_FLIGHT, "done_us": None, "served_by": None}
        left = [row | unread if row["done_us"] > 62e6 else row for row in rows]
        assert verdict_on(recording(left), "availability").outcome is FAIL
        run = asleep(recording(left, client=client_samples(lambda _: 0.3, range(130))), (62.0, 95.0))
        assert all(check_of(run, name).ok for name in ("generator_lag", "generator_cpu"))
        assert verdict_on(run, "availability").outcome is INCONCLUSIVE

    def test_does_not_fail_a_service_whose_answers_it_may_have_read_late(self) -> None:
        """Nothing was due while it stood still, so no request left late."""
        rows = [*answers(500, response_s=3.0), *answers(500, first=500, start_s=30.0, response_s=3.0)]
        run = asleep(recording(stood_still(rows, (5.0, 29.0))), (5.0, 29.0))
        assert check_of(run, "generator_lag").ok is True
        assert check_of(run, "generator_cpu").ok is None
        assert verdict_on(run, "latency_p95").outcome is INCONCLUSIVE


class TestABusyLoadProcess:
    def test_may_peak_for_a_moment(self) -> None:
        samples = client_samples(lambda second: 1.0 if 10 <= second < 13 else 0.3)
        assert check_of(recording(GOOD, client=samples), "generator_cpu").ok is True

    def test_may_not_be_busy_for_ten_seconds(self) -> None:
        samples = client_samples(lambda second: 1.0 if 10 <= second < 20 else 0.3)
        check = check_of(recording(GOOD, client=samples), "generator_cpu")
        assert check.ok is False
        assert "100% of a core" in check.reason

    def test_is_found_among_idle_ones(self) -> None:
        rows = [row | {"worker": row["seq"] % 2} for row in GOOD]
        samples = [sample | {"worker": worker, "cpu_ratio": (0.1, 0.95)[worker]}
                   for sample in client_samples(lambda _: 0.0) for worker in (0, 1)]  # fmt: skip
        assert "load process 1" in check_of(recording(rows, workers=2, client=samples), "generator_cpu").reason

    @pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
    def test_whose_samples_hold_no_number_could_not_be_checked(self, nothing: float | None) -> None:
        samples = client_samples(lambda second: 0.3 if second == 15 else nothing)
        assert check_of(recording(GOOD, client=samples), "generator_cpu").ok is None

    def test_could_not_be_checked_when_the_run_ended_before_a_judged_phase(self) -> None:
        check = check_of(ended_in_warm_up(), "generator_cpu")
        assert (check.ok, check.reason) == (None, "the run ended before a judged phase began")

    def test_does_not_excuse_a_fail_that_the_service_alone_would_earn(self) -> None:
        assert verdict_on(recording(BAD, cpu_ratio=0.99), "availability").outcome is FAIL


class TestPlacesForWaitingRequests:
    """Requests held back by the in-flight cap: whose fault they are depends on how long the others had waited."""

    def test_that_ran_out_while_the_service_was_quick_are_the_generators_fault(self) -> None:
        run = recording(answers(3_000, response_s=1.0, misses=dict.fromkeys(range(1_500, 1_600), NOT_SENT)))
        check = check_of(run, "in_flight_cap")
        assert check.ok is False
        assert "raise in_flight_cap" in check.reason
        assert verdict_on(run, "availability").outcome is INCONCLUSIVE

    @pytest.mark.parametrize(("stuck", "cap", "ok", "outcome"), [
        (5, 10, True, FAIL), (6, 11, True, FAIL), (10, 10, True, FAIL),
        (4, 10, False, INCONCLUSIVE), (5, 11, False, INCONCLUSIVE), (1, 10, False, INCONCLUSIVE),
    ])  # fmt: skip
    def test_that_ran_out_behind_a_stuck_service_are_its_fault_if_it_held_half_of_them(
        self, stuck: int, cap: int, outcome: Outcome, *, ok: bool
    ) -> None:
        """One straggler in a small cap is no reason to blame the service for every request that found no place."""
        run = held_back(stuck, cap=cap)
        assert check_of(run, "in_flight_cap").ok is ok
        assert verdict_on(run, "availability").outcome is outcome

    def test_are_those_of_each_load_process(self) -> None:
        """One that is stuck does not excuse another that had places left."""
        assert check_of(held_back(10, worker=1), "in_flight_cap").ok is False

    def test_are_held_by_what_is_still_in_flight_at_the_end(self) -> None:
        run = held_back(5)
        rows: list[Row] = pa.Table.from_pandas(run.requests, preserve_index=False).to_pylist()
        left = [row | {"status": "in_flight", "done_us": None} if row["seq"] < 5 else row for row in rows]
        assert check_of(replace(run, requests=frame(left)), "in_flight_cap").ok is True

    def test_are_free_again_once_the_stuck_are_answered(self) -> None:
        run = held_back(5)
        rows: list[Row] = pa.Table.from_pandas(run.requests, preserve_index=False).to_pylist()
        quick = [row | {"done_us": 9_000_000 + row["seq"]} if row["seq"] < 5 else row for row in rows]
        assert check_of(replace(run, requests=frame(quick)), "in_flight_cap").ok is False


class TestTheServersOwnCount:
    def test_may_restart(self) -> None:
        """What it answered between its last counter and its death, nothing tells."""
        before = counters(GOOD, range(15))
        after = counters([row for row in GOOD if row["done_us"] > 15e6], range(15, 33))
        run = recording(GOOD, triton=[*before, *after])
        assert check_of(run, "servers_agree").ok is True
        assert "1 restarts of servers" in check_of(run, "servers_agree").reason

    def test_tells_both_numbers_when_they_differ(self) -> None:
        doubled = [counter_sample("triton-0", second, 200 * second) for second in SECONDS]
        check = check_of(recording(GOOD, triton=doubled), "servers_agree")
        assert check.ok is False
        assert "servers counted 6,400 answers, we 3,000" in check.reason

    def test_has_to_cover_most_of_the_run(self) -> None:
        """Else a mismatch would vanish together with the counters that show it."""
        check = check_of(recording(GOOD, triton=counters(GOOD, range(20))), "servers_agree")
        assert check.ok is None
        assert "1,900 of our 3,000 answers" in check.reason

    def test_may_hold_what_came_before_the_run(self) -> None:
        earlier = [{**sample, "success": {"radstream_ensemble": 5_000 + sample["success"]["radstream_ensemble"]}}
                   for sample in counters(GOOD, SECONDS)]  # fmt: skip
        assert check_of(recording(GOOD, triton=earlier), "servers_agree").ok is True

    def test_may_hold_answers_that_came_after_a_client_gave_up(self) -> None:
        rows = [row | {"status": "deadline", "served_by": None} if row["seq"] < 9 else row for row in GOOD]
        assert check_of(recording(rows, triton=counters(GOOD, SECONDS)), "servers_agree").ok is True

    def test_is_not_needed_where_the_plan_had_no_counters(self) -> None:
        target: dict[str, object] = {"name": "bare", "grpc": "x:1", "metrics_urls": [], "servers_file": None}
        run = recording(GOOD, triton=(), target=target)
        assert check_of(run, "servers_agree").ok is None
        assert evaluate(run).outcome is PASS


class TestTheWatcher:
    @pytest.mark.parametrize("watch", [(), heartbeats(range(10))])
    def test_asleep_leaves_verdicts_on_requests_alone(self, watch: Sequence[Row]) -> None:
        run = recording(GOOD, watch=watch)
        assert check_of(run, "watcher_awake").ok is not True
        assert verdict_on(run, "availability").outcome is PASS

    def test_tells_how_long_it_slept(self) -> None:
        check = check_of(recording(GOOD, watch=heartbeats(range(10))), "watcher_awake")
        assert "silent for 21.0 s" in check.reason

    def test_may_miss_a_few_seconds(self) -> None:
        awake = [*heartbeats(range(10)), *heartbeats(range(14, 33))]
        assert check_of(recording(GOOD, watch=awake), "watcher_awake").ok is True


class TestConservation:
    def test_counts_every_scheduled_request_once(self) -> None:
        ends = {1: "shed", 2: "shed", 3: "deadline", 4: "in_flight", 5: NOT_SENT}
        run = changed(recording(answers(10, misses=ends)), due_count=12)
        found = evaluate(run).conservation
        assert (found.scheduled, found.ok, found.failed) == (12, 5, {"shed": 2, "deadline": 1})
        assert (found.in_flight, found.not_sent, found.lost) == (1, 1, 2)

    def test_knows_nothing_of_losses_without_a_manifest(self) -> None:
        found = evaluate(recording(GOOD, manifest=None)).conservation
        assert (found.scheduled, found.lost) == (None, None)
