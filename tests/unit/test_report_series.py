"""The arithmetic behind the figures and tables, by examples worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtests.recording import Recording
from reports.bins import MOST_BINS, bin_edges_s, most_in_flight, quantiles_by_bin
from reports.columns import UNSTAMPED
from reports.series import MOST_SERVERS, OTHER_SERVERS, UNKNOWN_STATUS, Timeline, timeline
from reports.tables import (
    MOST_CURVE_POINTS,
    answers_by_server,
    errors_by_class,
    generator_lag,
    latency_by_kind,
    load_processes,
    unaccounted,
)
from slo_checks.verdict import Conservation, evaluate
from tests.unit.recordings import STARTED_AT, answer, answers, gpu_samples, recording
from tests.unit.test_report_samples import sample_run


def shown(run: Recording) -> Timeline:
    found = timeline(run)
    assert found is not None
    return found


def sealed_until(run: Recording, end_s: float) -> Recording:
    assert run.manifest is not None
    return replace(run, manifest=run.manifest.model_copy(update={"ended_at": STARTED_AT + end_s}))


@pytest.mark.parametrize(
    ("end_s", "edges_s"),
    [
        (3.0, [0, 1, 2, 3]),
        (3.4, [0, 1, 2, 3.4]),
        (3.6, [0, 1, 2, 3, 3.6]),
        (0.0, [0, 0.5]),
    ],
)
def test_bins_are_a_second_wide_but_for_the_last(end_s: float, edges_s: list[float]) -> None:
    assert bin_edges_s(end_s).tolist() == edges_s


@pytest.mark.parametrize("end_s", [601.0, 3600.0, 86_400.0, 7 * 86_400.0, 1e8])
def test_a_long_run_has_wider_bins_not_more(end_s: float) -> None:
    edges_s = bin_edges_s(end_s)
    assert MOST_BINS / 3 < edges_s.size - 1 <= MOST_BINS
    assert edges_s[-1] == pytest.approx(end_s)


def test_rates_count_what_was_due_by_its_time_and_what_was_served_by_its_answer() -> None:
    # Due in second 0: three; one is answered within it, one only in second 2, one is shed in second 1.
    rows = [
        answer(0, 0.1, response_s=0.2),
        answer(1, 0.5, response_s=2.0),
        answer(2, 0.9, response_s=0.2, status="shed"),
        answer(3, 2.2, response_s=0.1),
    ]
    found = shown(sealed_until(recording(rows), 3.0))
    assert found.offered_per_s.tolist() == [3, 0, 1]
    assert found.served_per_s.tolist() == [1, 0, 2]
    assert found.failed_per_s["shed"].tolist() == [0, 1, 0]
    assert list(found.failed_per_s) == ["shed"]


def test_what_was_never_sent_or_answered_fails_when_it_was_due() -> None:
    rows = [answer(0, 0.5), answer(1, 1.5, status="not_sent"), answer(2, 2.5, status="in_flight")]
    found = shown(sealed_until(recording(rows), 3.0))
    assert found.failed_per_s["not_sent"].tolist() == [0, 1, 0]
    assert found.failed_per_s["in_flight"].tolist() == [0, 0, 1]


def test_every_request_is_either_served_or_failed_whatever_its_status() -> None:
    rows = answers(100, misses={1: "shed", 2: "of_another_version", 3: "of_a_third", 4: "not_sent", 5: "in_flight"})
    rows[6]["done_us"] = None
    run = recording(rows, triton=[])
    found = shown(run)
    widths_s = np.diff(found.edges_s)
    counts = {status: round(float((rates * widths_s).sum())) for status, rates in found.failed_per_s.items()}
    assert counts == {"shed": 1, "in_flight": 1, "not_sent": 1, UNSTAMPED: 1, UNKNOWN_STATUS: 2}
    assert float((found.served_per_s * widths_s).sum()) == pytest.approx(100 - 6)
    listed = {error.status: error.count for error in errors_by_class(run)}
    assert listed == dict.fromkeys(["shed", "of_another_version", "of_a_third", "not_sent", "in_flight", UNSTAMPED], 1)


def test_a_short_last_bin_still_shows_the_rate_per_second() -> None:
    found = shown(sealed_until(recording(answers(26, rate_per_s=10)), 2.6))
    assert found.offered_per_s.tolist() == pytest.approx([10, 10, 10])


def test_percentiles_are_by_nearest_rank_and_by_intended_time() -> None:
    # 100 requests due in second 0, answered after 10, 20, ... 1000 ms.
    rows = [answer(at, at / 100, response_s=(at + 1) / 100) for at in range(100)]
    found = shown(recording(rows))
    assert [found.response_ms[name][0] for name in ("p50", "p95", "p99")] == pytest.approx([500, 950, 990])
    assert math.isnan(found.response_ms["p50"][1])  # nothing was due in second 1: a gap, not 0


def test_failures_are_infinitely_late() -> None:
    # 100 due in second 0, each answered in 100 ms, but 6 of them shed: p50 stands, p95 does not.
    found = shown(recording(answers(100, misses=dict.fromkeys(range(6), "shed"))))
    assert found.response_ms["p50"][0] == pytest.approx(100)
    assert math.isinf(found.response_ms["p95"][0])


def test_a_quantile_of_a_whole_number_of_samples_is_not_one_too_far() -> None:
    edges_s, at_s, values = np.array([0.0, 1.0]), np.zeros(300), np.arange(1.0, 301.0)
    assert quantiles_by_bin(edges_s, at_s, values, {"p95": 0.95, "p99": 0.99}) == {"p95": [285.0], "p99": [297.0]}


def test_lag_keeps_the_worst_of_each_bin() -> None:
    rows = [answer(at, at / 200, lag_s=0.25 if at == 150 else 0.001, response_s=0.5) for at in range(200)]
    found = shown(recording(rows))
    assert found.lag_p99_ms[0] == pytest.approx(1)
    assert found.lag_worst_ms[0] == pytest.approx(250)


def test_in_flight_is_the_most_at_once_and_carries_over() -> None:
    # Two overlap in second 0; one of them lasts until 2.5; the third begins as the fourth ends.
    edges_s = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    sent_s, done_s = np.array([0.1, 0.2, 3.2, 3.1]), np.array([0.3, 2.5, 3.3, 3.2])
    assert most_in_flight(edges_s, sent_s, done_s).tolist() == [2, 1, 1, 1]


def test_answers_of_many_servers_are_folded_but_none_is_lost() -> None:
    rows = [answer(at, at / 100, served_by=f"pod-{at % 10}") for at in range(100)]
    found = shown(recording(rows))
    assert len(found.answers_per_s) == MOST_SERVERS + 1
    widths_s = np.diff(found.edges_s)
    assert sum(float((rates * widths_s).sum()) for rates in found.answers_per_s.values()) == pytest.approx(100)
    assert OTHER_SERVERS in found.answers_per_s


def test_samples_leave_gaps_where_there_are_none() -> None:
    client = [
        {"at": STARTED_AT + at, "worker": worker, "cpu_ratio": cpu}
        for at, worker, cpu in [(0.2, 0, 0.3), (0.3, 1, 0.9), (2.5, 0, 0.4)]
    ]
    found = shown(sealed_until(recording(answers(300), client=client), 3.0))
    assert found.client_cpu_ratio[[0, 2]].tolist() == [0.9, 0.4]
    assert math.isnan(found.client_cpu_ratio[1])


def test_gpu_use_is_a_mean_and_says_if_it_is_emulated() -> None:
    run = sealed_until(recording(answers(300), gpu=gpu_samples([0.5, None, 0.9], emulated=True)), 3.0)
    found = shown(run)
    assert found.gpu_emulated
    assert list(found.gpu_busy_ratio) == ["triton-0"]
    assert found.gpu_busy_ratio["triton-0"][[0, 2]].tolist() == [0.5, 0.9]
    assert math.isnan(found.gpu_busy_ratio["triton-0"][1])
    assert not shown(recording(answers(300), gpu=gpu_samples([0.5]))).gpu_emulated


def test_phases_follow_each_other_and_events_are_in_order() -> None:
    phases = [
        {"name": "start", "duration_s": 2.0, "warmup": True, "rate": {"requests_per_s": 100}},
        {"name": "steady", "duration_s": 3.0, "rate": {"requests_per_s": 100}},
    ]
    run = replace(
        recording(answers(500), phases=phases),
        events=(
            {"at": STARTED_AT + 4, "event": "stopped", "detail": "done"},
            {"at": STARTED_AT + 1.5, "event": "worker_lost", "detail": None},
        ),
    )
    found = shown(run)
    assert [(span.name, span.start_s, span.end_s, span.warm_up) for span in found.phases] == [
        ("start", 0, 2, True),
        ("steady", 2, 5, False),
    ]
    assert [(mark.at_s, mark.event) for mark in found.marks] == [(1.5, "worker_lost"), (4.0, "stopped")]


def test_no_rows_no_timeline() -> None:
    assert timeline(recording([])) is None


def test_latency_by_kind_leaves_warm_up_out() -> None:
    phases = [
        {"name": "start", "duration_s": 1.0, "warmup": True, "rate": {"requests_per_s": 100}},
        {"name": "steady", "duration_s": 3.0, "rate": {"requests_per_s": 100}},
    ]
    rows = answers(100, phase="start", response_s=9.0) + answers(200, first=100, start_s=1.0, response_s=0.2)
    (only,) = latency_by_kind(recording(rows, phases=phases))
    assert (only.kind, only.scheduled, only.ok) == ("ensemble", 200, 200)
    assert only.worst_ms == pytest.approx(200)


def test_percentiles_need_enough_requests() -> None:
    (only,) = latency_by_kind(recording(answers(19)))
    assert only.quantiles_ms == {"p50": pytest.approx(100), "p95": None, "p99": None}


def test_a_distribution_ends_where_the_good_answers_end() -> None:
    (only,) = latency_by_kind(recording(answers(10, misses={0: "shed", 1: "shed"})))
    assert only.curve_ratio.tolist() == pytest.approx([0.1 * at for at in range(1, 9)])


def test_a_long_distribution_keeps_its_slowest() -> None:
    rows = [answer(at, at / 1000, response_s=(at + 1) / 1000) for at in range(5000)]
    (only,) = latency_by_kind(recording(rows))
    assert only.curve_ms.size <= MOST_CURVE_POINTS
    assert only.curve_ms[-3:] == pytest.approx([4998, 4999, 5000])
    assert only.curve_ratio[-1] == 1


@pytest.mark.parametrize("outage", [False, True])
def test_the_table_has_the_p95_of_the_verdict(tmp_path: Path, outage: bool) -> None:  # noqa: FBT001
    run = sample_run(tmp_path, outage=outage)
    judged = {verdict.objective.name: verdict.estimate for verdict in evaluate(run).verdicts}["latency_p95"]
    everything = latency_by_kind(run)[-1]
    p95_ms = everything.quantiles_ms["p95"]
    assert everything.scheduled == judged.samples
    assert judged.value is not None
    assert p95_ms == pytest.approx(judged.value * 1e3)


def test_errors_are_grouped_with_their_texts() -> None:
    rows = answers(10, misses={2: "shed", 3: "shed", 5: "transport", 8: "strange"})
    rows[3] |= {"error": "CODE: other text", "served_by": "pod-b"}
    first, *rest = errors_by_class(recording(rows))
    assert (first.status, first.count, first.servers, first.texts) == ("shed", 2, ("pod-b",), 2)
    assert (first.first_s, first.last_s) == pytest.approx((0.12, 0.13))
    assert {error.status for error in rest} == {"transport", "strange"}


def test_servers_share_the_answers() -> None:
    rows = [answer(at, at / 10, served_by="pod-a" if at < 3 else "pod-b") for at in range(4)]
    rows[2]["status"] = "wrong_answer"
    first, second = answers_by_server(recording(rows))
    assert (first.server, first.answers, first.share_ratio, first.ok) == ("pod-a", 3, 0.75, 2)
    assert second.server == "pod-b"
    rows[3]["done_us"] = None
    assert answers_by_server(recording(rows, triton=[]))[1].last_s is None
    assert second.first_s == pytest.approx(0.4)


def test_lag_tells_nothing_when_nothing_was_sent() -> None:
    lag = generator_lag(recording([answer(0, 0.5, status="not_sent")]))
    assert (lag.sent, lag.p50_ms, lag.worst_ms) == (0, None, None)


def test_a_load_process_that_only_left_rows_is_listed() -> None:
    (process,) = load_processes(recording(answers(5), client=[], manifest=None))
    assert (process.worker, process.rows, process.delivered, process.cpu_mean_ratio) == (0, 5, None, None)


def test_the_balance() -> None:
    assert unaccounted(Conservation(10, 5, {"shed": 2}, 1, 1, 1)) == 0
    assert unaccounted(Conservation(10, 5, {"shed": 2}, 1, 1, None)) == 1
    assert unaccounted(Conservation(None, 5, {}, 0, 0, None)) is None
