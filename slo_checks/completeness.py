"""Whether the recording holds all that happened: sealed, completed, nothing lost, nothing twice [pure]."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from loadtests.recording import FAILURES, IN_FLIGHT, NOT_SENT, OK, STATUSES, Manifest, Recording
from slo_checks.asserted import US_PER_S, asserted_phases, column, is_in, stamps
from slo_checks.schedule import as_scheduled
from slo_checks.validity import Conservation, Effect, ValidityCheck

_EARLY_US: Final = 1000
"""A stamp may be this much before the one it follows: two clocks, laid onto each other."""
_LATE_S: Final = 1.0
"""An answer that came in time may be seen this much later, by a client that stood still."""


def conservation(recording: Recording) -> Conservation:
    """Count every scheduled request by what became of it."""
    counts = Counter({entry["values"]: entry["counts"] for entry in _count(recording, "status")})
    scheduled = _scheduled(recording)
    lost = None if scheduled is None else _lost(recording, scheduled)
    failed = {name: counts[name] for name in counts if name in FAILURES or name not in STATUSES}
    return Conservation(scheduled, counts[OK], failed, counts[IN_FLIGHT], counts[NOT_SENT], lost)


def completeness(recording: Recording) -> list[ValidityCheck]:
    """Checks of the recording as a whole. None of them can be excused: each blocks every pass."""
    checks = {
        "sealed": _sealed(recording),
        "completed": _completed(recording),
        "workers_delivered": _delivered(recording),
        "rows_complete": _complete(recording),
        "rows_once": _once(recording),
        "rows_as_counted": _as_counted(recording),
        "rows_make_sense": _make_sense(recording),
        "rows_as_scheduled": as_scheduled(recording),
        "files_whole": _whole(recording),
    }
    return [ValidityCheck(name, ok, reason, Effect.BLOCKS_PASS) for name, (ok, reason) in checks.items()]


def _sealed(recording: Recording) -> tuple[bool, str]:
    if recording.sealed:
        return True, "the run ended by itself and its recording was sealed"
    return False, "there is no manifest.json: the run did not finish, and what is missing is not known; record it again"


def _completed(recording: Recording) -> tuple[bool, str]:
    manifest = recording.manifest
    if manifest is None or manifest.ended != "completed":
        why = f": {manifest.end_reason}" if manifest else ""
        return False, f"the schedule was not played to its end{why}"
    planned = recording.plan.scheduled_count
    if recording.plan.loop == "open" and manifest.due_count != planned:
        return False, f"{_told(manifest.due_count)} requests came due, but {_told(planned)} were scheduled"
    return True, "the whole schedule was played"


def _delivered(recording: Recording) -> tuple[bool | None, str]:
    manifest, planned = recording.manifest, recording.plan.workers
    if manifest is None:
        return None, "unknown without a manifest"
    missing = sorted(set(range(planned)) - {worker.worker for worker in manifest.workers if worker.delivered})
    if missing or len(manifest.workers) != planned:
        names = ", ".join(map(str, missing)) or "none by number"
        return False, f"of {planned} load processes, {len(manifest.workers)} are listed; not delivered: {names}"
    return True, f"all {planned} load processes delivered their last row"


def _complete(recording: Recording) -> tuple[bool | None, str]:
    scheduled = _scheduled(recording)
    if scheduled is None:
        return None, "unknown: nothing tells how many requests were due"
    lost = _lost(recording, scheduled)
    if lost:
        return False, f"{lost:,} of {scheduled:,} due requests have no row"
    return True, f"each of {scheduled:,} due requests has its row"


def _once(recording: Recording) -> tuple[bool | None, str]:
    seq, scheduled = _seq(recording), _scheduled(recording)
    repeated = len(seq) - len(_distinct(seq))
    strangers = int(((seq < 0) | (seq >= scheduled)).sum()) if _is_open(recording) and scheduled is not None else 0
    if repeated or strangers:
        return False, f"{repeated:,} rows are there twice, {strangers:,} belong to no due request"
    return True, "no row is there twice"


def _as_counted(recording: Recording) -> tuple[bool | None, str]:
    """The load processes count outcomes while they happen; their counts have to be those of their rows."""
    manifest = recording.manifest
    if manifest is None:
        return None, "unknown without a manifest"
    if manifest.row_count != len(recording.requests):
        return False, f"the manifest counted {manifest.row_count:,} rows, there are {len(recording.requests):,}"
    rows: dict[int, Counter[str]] = {}
    for entry in _count_by_worker(recording):
        rows.setdefault(entry["worker"], Counter())[entry["status"]] = entry["seq_count"]
    for worker in manifest.workers:
        if worker.by_status is None:
            return None, f"load process {worker.worker} told no counts"
        if Counter(worker.by_status) != rows.get(worker.worker, Counter()):
            counted = dict(sorted(rows.get(worker.worker, Counter()).items()))
            return False, f"load process {worker.worker} counted {worker.by_status}, its rows say {counted}"
    unlisted = sorted(set(rows) - {worker.worker for worker in manifest.workers})
    if unlisted:
        return False, f"there are rows of load processes that the manifest does not list: {unlisted}"
    return True, f"rows agree with what {len(manifest.workers)} load processes counted"


def _make_sense(recording: Recording) -> tuple[bool, str]:
    """Stamps in their order, names that the format and the scenario know."""
    requests, phases = recording.requests, [phase.name for phase in recording.plan.scenario.phases]
    intended, sent, done = (stamps(requests, name) for name in ("intended_us", "sent_us", "done_us"))
    was_sent, ended = np.isfinite(sent), np.isfinite(done)
    answered = is_in(requests, "status", [OK])
    unchecked = np.asarray(pc.is_null(column(requests, "checked")).to_numpy())
    deadline_us = (recording.plan.scenario.deadline_s + _LATE_S) * US_PER_S
    wrong = {
        "status that the format does not know": ~is_in(requests, "status", list(STATUSES)),
        "phase that the scenario does not have": ~is_in(requests, "phase", phases),
        "good answer without its stamps": answered & ~(was_sent & ended),
        "good answer that nobody checked": answered & unchecked,
        "good answer long after its deadline": answered
        & was_sent
        & ended
        & (done - np.where(was_sent, sent, 0) > deadline_us),
        "sending before it was due": was_sent & (np.where(was_sent, sent, np.inf) < intended - _EARLY_US),
        "outcome before it was sent": was_sent & ended & (done < np.where(was_sent, sent, 0)),
    }
    found = [f"{int(rows.sum()):,} with a {what}" for what, rows in wrong.items() if rows.any()]
    if found:
        return False, f"rows that cannot be true: {', '.join(found)}"
    return True, f"stamps are in order; judged: {', '.join(asserted_phases(recording))}"


def _whole(recording: Recording) -> tuple[bool, str]:
    if recording.damage:
        return False, "; ".join(recording.damage)
    return True, "all files could be read to their end"


def _scheduled(recording: Recording) -> int | None:
    """Requests that were due before the run stopped; in a closed loop the load processes know."""
    manifest: Manifest | None = recording.manifest
    if manifest is None:
        return None
    if _is_open(recording):
        return manifest.due_count
    due = [worker.due for worker in manifest.workers if worker.due is not None]
    return sum(due) if len(due) == recording.plan.workers else None


def _lost(recording: Recording, scheduled: int) -> int:
    seq = _distinct(_seq(recording))
    present = seq[(seq >= 0) & (seq < scheduled)] if _is_open(recording) else seq
    return max(0, scheduled - len(present))


def _is_open(recording: Recording) -> bool:
    return recording.plan.loop == "open"


def _seq(recording: Recording) -> np.ndarray:
    return np.asarray(column(recording.requests, "seq").to_numpy())


def _distinct(seq: np.ndarray) -> np.ndarray:
    """Each value once, ascending. Rows come sorted, where this is many times faster than `np.unique`."""
    ascending = np.sort(seq, kind="stable")
    return ascending[np.diff(ascending, prepend=ascending[:1] - 1) > 0]


def _count(recording: Recording, name: str) -> list[dict[str, Any]]:
    return list(pc.value_counts(column(recording.requests, name)).to_pylist())


def _count_by_worker(recording: Recording) -> list[dict[str, Any]]:
    table = pa.table({name: column(recording.requests, name) for name in ("worker", "status", "seq")})
    return list(table.group_by(["worker", "status"]).aggregate([("seq", "count")]).to_pylist())


def _told(count: int | None) -> str:
    return "an unknown number of" if count is None else f"{count:,}"
