"""What has to hold for every run: less evidence never makes a verdict better, and neither does a worse service."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.recording import FAILURES, OK, STATUSES, Recording
from slo_checks.indicators import FROM_REQUESTS
from slo_checks.objectives import objectives_document
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import (
    STARTED_AT,
    US,
    Row,
    answer,
    answers,
    asleep,
    frame,
    gpu_samples,
    recording,
    stood_still,
)

PASS = Outcome.PASS
STREAMS = ("client", "triton", "gpu", "watch")
ASKED = ("availability", "error_rate", "latency_p95", "gpu_utilisation", "recovery")


def _lenient() -> dict[str, Any]:
    """Objectives that some hundred requests can prove, so that small runs reach every outcome."""
    document = objectives_document()
    objectives = {name: dict(body) for name, body in document["objectives"].items()}
    objectives["availability"] |= {"bound": 0.9, "fewest_samples": 29}
    objectives["error_rate"] |= {"bound": 0.1, "fewest_samples": 29}
    objectives["recovery"] |= {"bound": 20}
    gpu = {**document["gpu"], "active_least_s": 10}
    return {**document, "objectives": objectives, "gpu": gpu}


LENIENT = _lenient()


@st.composite
def runs(draw: st.DrawFn) -> Recording:
    """Runs of 30 to 60 s: often good ones, some with misses anywhere, with a late generator, an outage, an idle GPU,
    a stranger who asks the same servers."""
    count = draw(st.integers(150, 300))
    ends = draw(st.dictionaries(st.integers(0, count - 1), st.sampled_from(STATUSES), max_size=12))
    first, length = draw(st.integers(0, count)), draw(st.sampled_from([0, 0, 0, 20, 60]))
    ends |= dict.fromkeys(range(first, min(count, first + length)), "transport")
    slow = draw(st.sets(st.integers(0, count - 1), max_size=12))
    lag_s = draw(st.sampled_from([0.0, 0.0, 0.0, 0.02]))
    rows = [
        answer(seq, seq / 5, status=ends.get(seq, OK), lag_s=lag_s, response_s=7.0 if seq in slow else 0.1)
        for seq in range(count)
    ]
    high = draw(st.floats(0.3, 0.7) | st.floats(0.9, 0.99))
    gpu = gpu_samples([high if second % 2 else high * 0.95 for second in range(count // 5 + 10)])
    run = recording(rows, must_pass=ASKED, gpu=gpu, objectives=LENIENT)
    strangers = draw(st.sampled_from([0, 0, 0, 30]))
    return replace(run, triton=tuple(_asked_by_others(sample, strangers) for sample in run.triton))


def _asked_by_others(sample: Row, count: int) -> Row:
    """A server's counters when `count` more requests came from elsewhere, 20 s into the run."""
    more = count if sample["at"] >= STARTED_AT + 20 else 0
    return sample | {"success": {model: total + more for model, total in sample["success"].items()}}


def outcomes(run: Recording) -> dict[str, Outcome]:
    judged = evaluate(run)
    return {verdict.objective.name: verdict.outcome for verdict in judged.verdicts} | {"the run": judged.outcome}


def new_passes(before: Recording, after: Recording) -> list[str]:
    """What passes after a change and did not before."""
    was = outcomes(before)
    return [name for name, outcome in outcomes(after).items() if outcome is PASS and was[name] is not PASS]


properties = settings(max_examples=50)


@properties
@given(runs(), st.data())
def test_losing_rows_never_makes_a_pass(run: Recording, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, len(run.requests) - 1), min_size=1, max_size=len(run.requests)))
    left = run.requests.drop(index=run.requests.index[sorted(places)])
    assert new_passes(run, replace(run, requests=left)) == []


@properties
@given(runs())
def test_losing_just_the_rows_that_missed_never_makes_a_pass(run: Recording) -> None:
    """The most tempting loss of all."""
    assert new_passes(run, replace(run, requests=run.requests[run.requests["status"] == OK])) == []


@properties
@given(runs(), st.sampled_from(STREAMS), st.data())
def test_losing_samples_never_makes_a_pass(run: Recording, stream: str, data: st.DataObject) -> None:
    samples: tuple[Row, ...] = getattr(run, stream)
    first = data.draw(st.integers(0, len(samples)))
    last = data.draw(st.integers(first, len(samples)))
    left: dict[str, Any] = {stream: samples[:first] + samples[last:]}
    assert new_passes(run, replace(run, **left)) == []


@properties
@given(runs(), st.sets(st.sampled_from(STREAMS), min_size=1))
def test_losing_whole_streams_never_makes_a_pass(run: Recording, streams: set[str]) -> None:
    lost: dict[str, Any] = dict.fromkeys(streams, ())
    assert new_passes(run, replace(run, **lost)) == []


@properties
@given(runs())
def test_losing_the_manifest_never_makes_a_pass(run: Recording) -> None:
    assert PASS not in outcomes(replace(run, manifest=None)).values()


@properties
@given(runs())
def test_judging_twice_says_the_same(run: Recording) -> None:
    assert evaluate(run) == evaluate(run)


RANK = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}


@properties
@given(runs(), st.sampled_from(FAILURES), st.sets(st.integers(0, 299), max_size=60))
def test_failing_more_requests_never_makes_a_verdict_better(run: Recording, status: str, lost: set[int]) -> None:
    """On objectives that count requests. A recovery needs failures to be judged at all."""
    rows: list[Row] = pa.Table.from_pandas(run.requests, preserve_index=False).to_pylist()
    failed = [row | {"status": status} if row["seq"] in lost and row["status"] == OK else row for row in rows]
    sound, worse = (recording(these, must_pass=ASKED, objectives=LENIENT, gpu=run.gpu) for these in (rows, failed))
    was, then = outcomes(sound), outcomes(worse)
    for name in ("availability", "error_rate", "latency_p95"):
        assert RANK[then[name]] <= RANK[was[name]], name


def new_claims(before: Recording, after: Recording) -> list[str]:
    """What passes or fails after a change and did not before."""
    was = outcomes(before)
    return [name for name, outcome in outcomes(after).items() if outcome not in {was[name], Outcome.INCONCLUSIVE}]


@properties
@given(runs(), st.sampled_from([{"status": "retried_ok"}, {"done_us": None}]), st.sets(st.integers(0, 299)))
def test_losing_what_became_of_requests_never_makes_a_claim(run: Recording, lost: Row, seqs: set[int]) -> None:
    """A failure without its stamp is a failure still, so only good answers lose theirs."""
    rows: list[Row] = pa.Table.from_pandas(run.requests, preserve_index=False).to_pylist()
    spoiled = [row | lost if row["seq"] in seqs and ("status" in lost or row["status"] == OK) else row for row in rows]
    after = replace(run, requests=frame(spoiled))
    assert not set(new_claims(run, after)) & FROM_REQUESTS


@properties
@given(runs(), st.integers(1, 100))
def test_writing_the_rows_that_missed_again_and_again_never_makes_a_claim(run: Recording, times: int) -> None:
    rows: list[Row] = pa.Table.from_pandas(run.requests, preserve_index=False).to_pylist()
    again = replace(run, requests=frame([*rows, *times * [row for row in rows if row["status"] != OK]]))
    assert not set(new_claims(run, again)) & FROM_REQUESTS


@st.composite
def pauses(draw: st.DrawFn) -> list[tuple[float, float]]:
    """Up to three times at which a load process stands still, within 60 s."""
    edges = sorted(draw(st.lists(st.floats(0, 60), min_size=2, max_size=6, unique=True)))
    return list(zip(edges[::2], edges[1::2], strict=False))


@settings(max_examples=30)
@given(pauses(), st.floats(0.01, 4.2), st.sampled_from([0.01, 0.02, 0.05]))
def test_standing_still_never_makes_a_service_fail_that_keeps_its_promises(
    when: list[tuple[float, float]], service_s: float, turn_s: float
) -> None:
    """The service lets requests in one after the other, `turn_s` apart, and is half busy with them at most."""
    rows = stood_still(answers(600, rate_per_s=10), *when)
    door_us = -1e9
    for row in rows:
        door_us = max(door_us + turn_s * US, row["sent_us"])
        row["done_us"] = round(door_us + service_s * US)
    run = asleep(recording(stood_still(rows, *when), must_pass=ASKED), *when)
    assert Outcome.FAIL not in outcomes(run).values()


def test_the_runs_above_reach_every_outcome() -> None:
    """Else the properties would hold of nothing.

    What is drawn depends on the modules that happen to be loaded (their constants are tried), so that how many it takes
    does too.
    """
    names = ("availability", "error_rate", "latency_p95", "recovery", "gpu_utilisation")
    missing = {(name, outcome) for name in names for outcome in Outcome}

    @settings(max_examples=1500, database=None, derandomize=True)
    @given(runs())
    def look(run: Recording) -> None:
        if missing:
            missing.difference_update(outcomes(run).items())

    look()
    assert missing == set()
