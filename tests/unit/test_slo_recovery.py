"""Recovery: from the first miss of an outage to the first of three steady windows of 5 s."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate

import pytest

from loadtests.recording import Recording
from slo_checks.objectives import load_objectives, objectives_document
from slo_checks.recovery import outages
from slo_checks.verdict import Outcome, Verdict, judge
from tests.unit.recordings import STARTED_AT, answer, answers, changed, recording, verdict_on

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def down(*outages_s: tuple[float, float], run_s: int = 120) -> Recording:
    """Ten requests a second, all lost from the start of each outage up to its end."""
    lost = {
        seq: "transport" for seq in range(run_s * 10) if any(start <= seq / 10 < end for start, end in outages_s)
    }  # fmt: skip
    return recording(answers(run_s * 10, rate_per_s=10, misses=lost), must_pass=("recovery",))


def phased(
    *phases: tuple[str, int, bool], lost_s: Sequence[tuple[float, float]], silent_s: tuple[int, int] = (0, 0)
) -> Recording:
    """Phases as name, length and whether they are warm-up; in which time all is lost, in which nothing is due."""
    ends = list(accumulate(length_s for _name, length_s, _warmup in phases))
    due_s = [tenth / 10 for tenth in range(ends[-1] * 10) if not silent_s[0] <= tenth / 10 < silent_s[1]]
    rows = [
        answer(
            seq, at_s, phase=phases[bisect(ends, at_s)][0],
            status="transport" if any(start <= at_s < end for start, end in lost_s) else "ok",
        )
        for seq, at_s in enumerate(due_s)
    ]  # fmt: skip
    documents = [
        {"name": name, "duration_s": float(length_s), "warmup": warmup, "rate": {"requests_per_s": 10}}
        for name, length_s, warmup in phases
    ]
    return recording(rows, phases=documents, must_pass=("recovery",))


def recovery_of(run: Recording) -> Verdict:
    return verdict_on(run, "recovery")


class TestAnOutageThatEnded:
    def test_lasts_from_the_first_miss_to_the_first_steady_window(self) -> None:
        """Down from 30.2 s to 48 s: the windows from 30 s to 50 s are missed, that of 50 s is the first steady one."""
        found = recovery_of(down((30.2, 48.0)))
        assert found.outcome is PASS
        assert found.estimate.value == pytest.approx(50 - 30.2)
        assert (found.estimate.low, found.estimate.high) == pytest.approx((47.9 - 30.2, 50 - 30))
        assert found.estimate.evidence == (
            "outage from 30.2 s after the start, 178 requests lost: steady again 19.8 s later",
        )

    def test_fails_over_five_minutes(self) -> None:
        found = recovery_of(down((20.0, 322.0), run_s=400))
        assert found.outcome is FAIL
        assert "misses at most 5 min" in found.reason

    def test_of_about_five_minutes_is_not_proven_either_way(self) -> None:
        """The last miss came 299.9 s after the first, the next steady window began after 300 s."""
        assert recovery_of(down((21.0, 321.0), run_s=400)).outcome is INCONCLUSIVE

    def test_is_the_longest_of_several(self) -> None:
        found = recovery_of(down((10.0, 20.0), (50.0, 80.0), run_s=150))
        assert found.estimate.samples == 2
        assert found.estimate.value == pytest.approx(30.0)

    def test_is_not_over_while_the_service_flaps(self) -> None:
        """Two good windows are not three."""
        found = recovery_of(down((30.0, 35.0), (45.0, 50.0)))
        assert found.estimate.samples == 1
        assert found.estimate.value == pytest.approx(20.0)


class TestAnOutageThatDidNotEnd:
    def test_never_passes(self) -> None:
        found = recovery_of(down((100.0, 120.0)))
        assert (found.outcome, found.estimate.value, found.estimate.high) == (INCONCLUSIVE, None, None)
        assert "ended before the service was steady again" in found.reason

    def test_never_passes_when_the_run_ends_too_soon_to_tell(self) -> None:
        assert recovery_of(down((100.0, 108.0))).outcome is INCONCLUSIVE

    @pytest.mark.parametrize(("run_s", "outcome"), [(121, INCONCLUSIVE), (124, INCONCLUSIVE), (125, PASS)])
    def test_needs_three_whole_windows_to_end(self, run_s: int, outcome: Outcome) -> None:
        assert recovery_of(down((100.0, 108.0), run_s=run_s)).outcome is outcome

    def test_fails_once_it_lasted_too_long(self) -> None:
        assert recovery_of(down((50.0, 400.0), run_s=400)).outcome is FAIL


class TestWarmUp:
    """Of 200 s, before 400 s that are judged; ten requests a second."""

    @pytest.mark.parametrize("lost_s", [
        (0, 470),                  # down since before the run
        (150, 470),                # since a known moment, which is not judged
    ])  # fmt: skip
    def test_in_which_an_outage_began_leaves_its_length_open(self, lost_s: tuple[int, int]) -> None:
        found = recovery_of(phased(("warm", 200, True), ("steady", 400, False), lost_s=(lost_s,)))
        assert (found.outcome, found.estimate.value, found.estimate.high) == (INCONCLUSIVE, None, None)
        assert found.estimate.low == pytest.approx(269.9)
        assert "when it began is not known" in found.reason
        assert found.estimate.evidence[0].startswith("outage from 200.0 s after the start or earlier, 2,700 requests")

    def test_in_which_an_outage_began_excuses_none(self) -> None:
        assert recovery_of(phased(("warm", 200, True), ("steady", 400, False), lost_s=((0, 570),))).outcome is FAIL

    @pytest.mark.parametrize(("up_s", "outcome"), [(10, INCONCLUSIVE), (20, PASS)])
    def test_that_flapped_to_its_end_was_the_same_outage(self, up_s: int, outcome: Outcome) -> None:
        """Two good windows are not three, wherever they are."""
        lost_s = ((0, 195), (195 + up_s, 270))
        assert recovery_of(phased(("warm", 200, True), ("steady", 400, False), lost_s=lost_s)).outcome is outcome

    def test_that_ended_long_before_leaves_its_length_open_too(self) -> None:
        """Where nothing was due, nobody saw the service well."""
        run = phased(("warm", 200, True), ("steady", 400, False), lost_s=((0, 270),), silent_s=(100, 200))
        assert recovery_of(run).outcome is INCONCLUSIVE

    def test_of_a_service_that_was_well_again_leaves_nothing_open(self) -> None:
        lost_s = ((0, 150), (205, 270))
        assert recovery_of(phased(("warm", 200, True), ("steady", 400, False), lost_s=lost_s)).outcome is PASS
        phases = (("steady", 100, False), ("pause", 60, True), ("again", 100, False))
        assert recovery_of(phased(*phases, lost_s=((10, 20), (100, 110), (165, 175)))).outcome is PASS

    def test_ends_where_the_first_window_begins(self) -> None:
        found = recovery_of(phased(("warm", 12, True), ("steady", 100, False), lost_s=((12.2, 30),)))
        assert (found.estimate.value, found.estimate.high) == pytest.approx((32 - 12.2, 32 - 12))

    def test_alone_has_no_outage(self) -> None:
        found = recovery_of(phased(("warm", 200, True), ("steady", 400, False), lost_s=((100, 200),)))
        assert "no failure was observed" in found.reason

    def test_has_no_outage_with_failures_that_the_objective_allows(self) -> None:
        """Two of fifty in each judged window, between warm-up phases in which all was lost."""
        phases = (("warm", 20, True), ("steady", 10, False), ("pause", 20, True), ("again", 60, False))
        found = recovery_of(phased(*phases, lost_s=((0, 20), (20, 20.2), (25, 25.2), (30, 50))))
        assert "4 failed requests, no outage" in found.reason

    def test_in_between_ends_no_outage(self) -> None:
        """It may be less load: what is lost before and after it is lost in one outage."""
        phases = (("steady", 100, False), ("pause", 60, True), ("again", 100, False))
        found = recovery_of(phased(*phases, lost_s=((90, 100), (160, 170))))
        assert found.estimate.samples == 1
        assert found.estimate.value == pytest.approx(80)


class TestSeveralLatencyObjectives:
    """Down from 30 s to 40 s, then some of ten requests are lost up to 100 s; every other answer takes 0.1 s."""

    def recovery_of(self, lost_of_ten: int = 3, **limits: tuple[float, float]) -> Verdict:
        """With objectives as percentile and bound."""
        document = objectives_document()
        shipped = dict(document["objectives"])
        template = shipped.pop("latency_p95")
        latencies = {
            name: {**template, "percentile": percentile, "bound": bound, "fewest_samples": 3_000}
            for name, (percentile, bound) in limits.items()
        }
        lost = {*range(300, 400), *(seq for seq in range(400, 1_000) if seq % 10 < lost_of_ten)}
        rows = [
            answer(seq, seq / 10, status="transport" if seq in lost else "ok", response_s=0.1 if seq % 2 else 0.01)
            for seq in range(1_500)
        ]
        objectives = {**document, "objectives": {**shipped, **latencies}}
        return recovery_of(recording(rows, must_pass=("recovery",), objectives=objectives))

    def test_are_all_to_be_met(self) -> None:
        """A median does not mind three lost of ten, a 95th percentile does."""
        assert self.recovery_of(p50=(0.5, 1)).estimate.value == pytest.approx(10)
        assert self.recovery_of(p95=(0.95, 5)).estimate.value == pytest.approx(70)
        assert self.recovery_of(p95=(0.95, 5), p50=(0.5, 1)).estimate.value == pytest.approx(70)

    def test_count_a_miss_in_a_window_that_misses_the_same_objective(self) -> None:
        """Four of five may take over 0.05 s: the last that did so, at 99.9 s, is none."""
        found = self.recovery_of(p95=(0.95, 5), p20=(0.2, 0.05))
        assert (found.estimate.low, found.estimate.value) == pytest.approx((99.2 - 30, 70))

    def test_allow_exactly_what_they_allow(self) -> None:
        """One of ten is not more than one of ten, in whatever bits."""
        assert self.recovery_of(lost_of_ten=1, p90=(0.9, 5)).estimate.value == pytest.approx(10)

    def test_without_any_failures_are_the_misses(self) -> None:
        assert self.recovery_of().estimate.value == pytest.approx(70)


def test_an_outage_from_the_first_request_on_may_have_begun_before_it() -> None:
    found = recovery_of(down((0.0, 60.0)))
    assert (found.outcome, found.estimate.high) == (INCONCLUSIVE, None)
    assert recovery_of(down((0.0, 320.0), run_s=400)).outcome is FAIL


class TestWithoutAnOutage:
    def test_there_is_nothing_to_recover_from(self) -> None:
        found = recovery_of(down())
        assert found.outcome is INCONCLUSIVE
        assert "no failure was observed to recover from" in found.reason

    @pytest.mark.parametrize(("lost", "outages"), [(2, 0), (3, 1)])
    def test_slowness_with_two_lost_requests_is_none_and_with_three_it_is_one(self, lost: int, outages: int) -> None:
        slow = dict.fromkeys(range(300, 350), 6.0)
        rows = [
            answer(seq, seq / 10, status="shed" if 300 <= seq < 300 + lost else "ok", response_s=slow.get(seq, 0.1))
            for seq in range(1_200)
        ]
        assert recovery_of(recording(rows)).estimate.samples == outages

    def test_two_lost_requests_are_none(self) -> None:
        assert "2 failed requests, no outage" in recovery_of(down((30.0, 30.2))).reason

    def test_slow_answers_are_none(self) -> None:
        rows = [answer(seq, seq / 10, response_s=6.0 if 300 <= seq < 500 else 0.1) for seq in range(1_200)]
        assert recovery_of(recording(rows)).outcome is INCONCLUSIVE

    def test_nothing_was_due_is_none(self) -> None:
        rows = [*answers(300, rate_per_s=10), *answers(300, rate_per_s=10, first=300, start_s=90.0)]
        assert recovery_of(recording(rows)).outcome is INCONCLUSIVE

    def test_nothing_was_asked_is_none(self) -> None:
        assert recovery_of(recording([])).outcome is INCONCLUSIVE


@pytest.mark.parametrize("ended_at", [STARTED_AT + 120, STARTED_AT - 1])
def test_an_interruption_is_no_outage(ended_at: float) -> None:
    """It was us who did not wait for the answers."""
    run = recording(answers(1_200, rate_per_s=10, misses=dict.fromkeys(range(1_150, 1_200), "in_flight")))
    shipped = load_objectives()
    assert len(outages(run, shipped)) == 1
    assert outages(changed(run, ended="interrupted", ended_at=ended_at), shipped) == []


class TestRequestsOfUnknownOutcome:
    """Down for 10 s, and again 330 s later; what became of the requests between the two may not be known."""

    def run_with(self, between: str) -> Recording:
        down = [*range(300, 400), *range(3_600, 3_700)]
        lost = dict.fromkeys(range(400, 3_600), between) | dict.fromkeys(down, "transport")
        return recording(answers(4_500, rate_per_s=10, misses=lost), must_pass=("recovery",))

    @pytest.mark.parametrize(("between", "outcome"), [
        ("ok", PASS), ("transport", FAIL), ("a status of another version", INCONCLUSIVE),
    ])  # fmt: skip
    def test_neither_end_an_outage_nor_make_one_long(self, between: str, outcome: Outcome) -> None:
        found = recovery_of(self.run_with(between))
        assert judge(found.objective, found.estimate)[0] is found.outcome is outcome

    def test_at_the_end_may_be_another_outage(self) -> None:
        """With no time to drain, nobody waited for them."""
        lost = dict.fromkeys(range(300, 400), "transport") | dict.fromkeys(range(1_100, 1_200), "in_flight")
        rows = answers(1_200, rate_per_s=10, misses=lost)
        assert recovery_of(recording(rows[:1_100])).outcome is PASS
        assert recovery_of(recording(rows, scenario_fields={"drain_s": 0.0})).outcome is INCONCLUSIVE


def test_a_closed_loop_cannot_tell_when_requests_would_have_failed() -> None:
    phases = [{"name": "steady", "duration_s": 120.0, "users": 5, "think_time_s": 0.0}]
    lost = dict.fromkeys(range(300, 400), "transport")
    found = recovery_of(recording(answers(1_200, rate_per_s=10, misses=lost), phases=phases))
    assert (found.outcome, found.estimate.value) == (INCONCLUSIVE, None)
