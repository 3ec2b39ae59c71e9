"""What others saw of the run: the servers' own counters, and whether the watcher was awake [pure]."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loadtests.recording import IN_FLIGHT, OK, Recording
from slo_checks.asserted import US_PER_S, BoolArray, asserted_spans, by_key, column, is_in, longest_silence_s, stamps
from slo_checks.objectives import Measurement, Objectives
from slo_checks.validity import Effect, ValidityCheck

ENSEMBLE: Final = "radstream_ensemble"
COUNTED: Final = (OK, "wrong_answer")
"""Outcomes that a server counts as a success: it answered, right or wrong."""
MAYBE_COUNTED: Final = ("deadline", "transport", "other", IN_FLIGHT)
"""Outcomes without an answer that a server may have counted, then or later."""
WITNESSED_LEAST_RATIO: Final = 0.9
"""Share of all answers that has to fall into time in which counters were seen; the rest is room for restarts."""
INSIDE_LEAST_RATIO: Final = 0.5
"""Share of those that has to lie wholly inside it: bounds further apart than that would believe any count.

The edges of a stretch take up to two seconds, a quarter of the shortest runs; of runs that can prove something they
are next to nothing.
"""
SCRAPE_S: Final = 1.0
"""A counter is as old as its receipt, or up to this much older."""


def witnesses(recording: Recording, objectives: Objectives) -> list[ValidityCheck]:
    return [_reconciled(recording, objectives.measurement), _watched(recording, objectives.measurement)]


# --- the servers' counters -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which one server's counter was seen to run on without a restart. Microseconds after the start."""

    server: str
    from_us: float
    to_us: float
    successes: int


def _reconciled(recording: Recording, limits: Measurement) -> ValidityCheck:
    if not recording.triton and _planned_without_counters(recording):
        reason = "the target has no metrics address, so nothing but the answers themselves tells that they came"
        return ValidityCheck("servers_agree", None, reason, Effect.NONE)
    ok, reason = _reconcile(recording, limits.reconcile_most_ratio)
    return ValidityCheck("servers_agree", ok, reason, Effect.BLOCKS_PASS)


def _planned_without_counters(recording: Recording) -> bool:
    target = recording.plan.target
    tells = target.get("servers_file", "") is not None or target.get("kubernetes") is not None
    return not target.get("metrics_urls", "unknown") and not tells


def _reconcile(recording: Recording, tolerance_ratio: float) -> tuple[bool | None, str]:
    """Compare our count of answers with the servers' counts, while their counters were seen.

    A server counts an answer somewhen between `sent` and `done`. So in each stretch its counter has to gain at least
    the answers that lie wholly inside, and at most those that touch it, all warm-up rows included. With counters read
    before the first request and after the last one both are the same number. What was asked before the run began lies
    before the first counter that is used; what a server did between its last counter and its death is not compared.
    Nor is what one that was started meanwhile did before its first counter, which need not be 0: it is read once a
    second, and who was seen only once bears no witness, but is no stranger either.
    """
    counters = _counters(recording)
    stretches = [found for server, samples in counters.items() for found in _runs(server, samples)]
    if not stretches:
        return None, "no server counter was seen to run during the load, so our count of answers has no witness"
    answers = is_in(recording.requests, "status", list(COUNTED))
    if _nameless(recording, stretches, answers):
        inside, touching, maybe = _bounds_together(recording, stretches, answers)
    else:
        known = answers & is_in(recording.requests, "served_by", sorted(counters))
        if int((answers & ~known).sum()) > tolerance_ratio * int(answers.sum()):
            return None, f"not every answer has a witness: {_unwatched(recording, answers & ~known)}"
        inside, touching, maybe = _bounds(recording, stretches, answers)
    at_least, at_most = inside, touching + maybe
    counted = sum(stretch.successes for stretch in stretches)
    told = f"servers counted {counted:,} answers, we {_between(at_least, at_most)} in the same time"
    if not at_most:
        return None, f"no request falls into the time in which the {len(stretches)} server counters were seen"
    needed = f"{WITNESSED_LEAST_RATIO:.0%} are needed to believe the rest"
    if touching < WITNESSED_LEAST_RATIO * int(answers.sum()):
        return None, f"counters were seen for {touching:,} of our {int(answers.sum()):,} answers at most, {needed}"
    if inside < INSIDE_LEAST_RATIO * touching:
        return None, f"of {touching:,} answers only {inside:,} lie wholly between two counters of a server: too few"
    if at_least * (1 - tolerance_ratio) <= counted <= at_most * (1 + tolerance_ratio):
        restarts = len(stretches) - len({stretch.server for stretch in stretches})
        return True, told + (f"; {restarts} restarts of servers, answers around them not compared" if restarts else "")
    return False, f"{told}: more than {tolerance_ratio:.1%} apart; was anything else using these servers?"


def _nameless(recording: Recording, stretches: list[Stretch], answers: BoolArray) -> bool:
    """Whether the counters carry none of the names in the answers: metrics addresses given without their servers.

    Then only the sums can be compared: of as many servers as there are counters, each without a restart.
    """
    names = pc.drop_null(pc.filter(column(recording.requests, "served_by"), pa.array(answers)))
    answered_by = set(pc.unique(names).to_pylist())
    counted = {stretch.server for stretch in stretches}
    return not answered_by & counted and len(answered_by) <= len(counted) == len(stretches)


def _bounds_together(recording: Recording, stretches: list[Stretch], answers: BoolArray) -> tuple[int, int, int]:
    """As `_bounds`, for all servers as one: at least what lies where all were seen, at most what touches any."""
    starts, ends = [each.from_us for each in stretches], [each.to_us for each in stretches]
    requests = recording.requests.assign(served_by="all")
    together = replace(recording, requests=requests)
    inside, _, _ = _bounds(together, [Stretch("all", max(starts), min(ends), 0)], answers)
    _, touching, maybe = _bounds(together, [Stretch("all", min(starts), max(ends), 0)], answers)
    return inside, touching, maybe


def _bounds(recording: Recording, stretches: list[Stretch], answers: BoolArray) -> tuple[int, int, int]:
    """Of our rows, those that the servers must have counted, may have counted, and may have though none answered.

    The first are among the second, the third are not.
    """
    requests = recording.requests
    sent_us, done_us = stamps(requests, "sent_us"), stamps(requests, "done_us")
    maybe = is_in(requests, "status", list(MAYBE_COUNTED)) & np.isfinite(sent_us)
    maybe_counted = np.zeros(len(requests), dtype=np.bool_)
    inside = touching = 0
    slack_us = SCRAPE_S * US_PER_S
    for server in sorted({stretch.server for stretch in stretches}):
        own = answers & is_in(requests, "served_by", [server])
        for stretch in (found for found in stretches if found.server == server):
            started = sent_us < stretch.to_us
            inside += int((own & (sent_us >= stretch.from_us) & (done_us < stretch.to_us - slack_us)).sum())
            touching += int((own & started & (done_us > stretch.from_us - slack_us)).sum())
            maybe_counted |= maybe & started
    return inside, touching, int(maybe_counted.sum())


def _counters(recording: Recording) -> dict[str, list[dict[str, Any]]]:
    """Samples of the ensemble's counter by server, from the start of the run on: earlier ones hold other requests."""
    started_at = recording.plan.started_at
    samples = tuple(
        sample for sample in recording.triton
        if float(sample["at"]) >= started_at and ENSEMBLE in (sample.get("success") or {})
    )  # fmt: skip
    zeroed = tuple({**sample, "at": (float(sample["at"]) - started_at) * US_PER_S} for sample in samples)
    return by_key(zeroed, lambda sample: str(sample["server"]))


def _runs(server: str, samples: list[dict[str, Any]]) -> list[Stretch]:
    """Cut one server's samples where the counter went back: there another process took over."""
    cuts = [
        place for place, (before, after) in enumerate(pairwise(samples), start=1)
        if after["success"][ENSEMBLE] < before["success"][ENSEMBLE]
    ]  # fmt: skip
    parts = [samples[start:end] for start, end in pairwise([0, *cuts, len(samples)])]
    return [
        Stretch(
            server,
            float(part[0]["at"]),
            float(part[-1]["at"]),
            int(part[-1]["success"][ENSEMBLE] - part[0]["success"][ENSEMBLE]),
        )
        for part in parts
        if len(part) > 1
    ]


def _unwatched(recording: Recording, answers: BoolArray) -> str:
    names = pc.value_counts(pc.filter(column(recording.requests, "served_by"), pa.array(answers))).to_pylist()
    texts = [f"{entry['counts']:,} from {entry['values'] or 'a server without a name'}" for entry in names[:4]]
    return f"{', '.join(texts)}, whose counters were not seen"


def _between(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


# --- the watcher ---------------------------------------------------------------------------------------------------


def _watched(recording: Recording, limits: Measurement) -> ValidityCheck:
    ok, reason = _watch(recording, limits.silence_most_s)
    return ValidityCheck("watcher_awake", ok, reason, Effect.WATCHED)


def _watch(recording: Recording, silence_most_s: float) -> tuple[bool | None, str]:
    """A watcher that slept saw nothing; it says that it is awake once a second."""
    if not recording.watch:
        return None, "no watcher took part in this run"
    awake = [float(row["at"]) for row in recording.watch if row.get("event") == "heartbeat"]
    failed = sum(row.get("event") == "scrape_failed" for row in recording.watch)
    silence_s = max((longest_silence_s(awake, *span) for span in asserted_spans(recording)), default=0.0)
    told = f"{len(awake):,} signs of life, {failed:,} failed reads"
    if silence_s > silence_most_s:
        return False, f"the watcher was silent for {silence_s:.1f} s, at most {silence_most_s:g} s are allowed; {told}"
    return True, f"longest silence {silence_s:.1f} s; {told}"
