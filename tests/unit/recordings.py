"""Builds literal recordings: by default a sound run in which every request was answered well.

    recording(answers(3000))                                    # 3,000 good answers, 100 a second
    recording(answers(3000, misses={17: "shed"}), must_pass=("availability",))
    recording(rows, client=[], manifest=None)                   # sources taken away

Counters, samples of the load process and heartbeats follow from the rows, so that only what a test is about differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from loadtests.recording import (
    IN_FLIGHT,
    NOT_SENT,
    OK,
    REQUEST_SCHEMA,
    JsonLines,
    Manifest,
    PayloadRecord,
    Plan,
    Recording,
    ShardWriter,
    WorkerRecord,
    request_batch,
    seal_shard,
    write_document,
)
from scenarios.scenario import Scenario
from slo_checks.objectives import objectives_document
from slo_checks.schedule import rows_digest
from slo_checks.verdict import Verdict, evaluate

STARTED_AT = 1_700_000_000.0
US = 1_000_000
Row = dict[str, Any]
DEFAULT: Any = object()


def answer(
    seq: int, at_s: float, *, status: str = OK, response_s: float = 0.1, lag_s: float = 0.0, **columns: object
) -> Row:
    """One request row, due ``at_s`` seconds after the start, known to be over ``response_s`` later."""
    sent = status != NOT_SENT
    ended = status not in {NOT_SENT, IN_FLIGHT}
    row: Row = {
        "seq": seq,
        "worker": 0,
        "phase": "steady",
        "kind": "ensemble",
        "payload": "chest",
        "with_text": False,
        "intended_us": round(at_s * US),
        "sent_us": round((at_s + lag_s) * US) if sent else None,
        "done_us": round((at_s + response_s) * US) if ended else None,
        "status": status,
        "error": None if status == OK else f"CODE: {status}",
        "served_by": "triton-0" if status in {OK, "wrong_answer"} else None,
        "peer": None,
        "response_bytes": 9600 if status == OK else None,
        "checked": "values" if status == OK else None,
    }
    return row | columns


def answers(
    count: int,
    *,
    rate_per_s: float = 100.0,
    misses: Mapping[int, str] | None = None,
    first: int = 0,
    start_s: float = 0.0,
    **columns: Any,
) -> list[Row]:
    """Rows at a constant rate; ``misses`` says which of them came to what end. ``columns`` go to `answer`."""
    ends = misses or {}
    return [
        answer(seq, start_s + (seq - first) / rate_per_s, status=ends.get(seq, OK), **columns)
        for seq in range(first, first + count)
    ]


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as `read_recording` returns them."""
    columns = {name: [row[name] for row in rows] for name in REQUEST_SCHEMA.names} if (rows := list(rows)) else None
    table = pa.Table.from_batches([request_batch(columns)]) if columns else REQUEST_SCHEMA.empty_table()
    requests: pd.DataFrame = table.sort_by("seq").to_pandas(types_mapper=pd.ArrowDtype)
    return requests


def scenario(
    phases: Sequence[Mapping[str, Any]],
    must_pass: Sequence[str] = ("availability",),
    must_not_fail: Sequence[str] = (),
    **fields: Any,
) -> Scenario:
    document = {
        "name": "literal",
        "purpose": "Rows written by hand.",
        "expected_verdict": "see the test",
        "phases": list(phases),
        "payloads": [{"id": "chest"}],
        "objectives": {"must_pass": list(must_pass), "must_not_fail": list(must_not_fail)},
    }
    return Scenario.model_validate(document | fields)


def recording(
    rows: Iterable[Row],
    *,
    phases: Sequence[Mapping[str, Any]] | None = None,
    must_pass: Sequence[str] = ("availability",),
    must_not_fail: Sequence[str] = (),
    scenario_fields: Mapping[str, Any] | None = None,
    objectives: Mapping[str, Any] | None = None,
    target: Mapping[str, Any] | None = None,
    workers: int = 1,
    cpu_ratio: float = 0.3,
    manifest: Manifest | None = DEFAULT,
    client: Sequence[Row] = DEFAULT,
    triton: Sequence[Row] = DEFAULT,
    gpu: Sequence[Row] = (),
    watch: Sequence[Row] = DEFAULT,
    damage: Sequence[str] = (),
) -> Recording:
    """A run with these rows; what is not given is as it would be had nothing gone wrong."""
    rows = list(rows)
    last_s = max((row["intended_us"] for row in rows), default=0) / US
    one_phase = {"name": "steady", "duration_s": float(max(1, ceil(last_s + 1e-6))), "rate": {"requests_per_s": 100}}
    played = scenario(phases or [one_phase], must_pass, must_not_fail, **(scenario_fields or {}))
    plan = _plan(played, objectives, target, workers, rows)
    end_s = ceil(max((row["done_us"] or 0 for row in rows), default=0) / US)
    seconds = range(max(end_s, ceil(played.duration_s)) + 3)
    waited_s = played.duration_s + played.drain_s if any(row["status"] == IN_FLIGHT for row in rows) else 0.0
    return Recording(
        directory=Path("runs/literal"),
        plan=plan,
        manifest=_manifest(rows, workers, STARTED_AT + max(seconds[-1], waited_s)) if manifest is DEFAULT else manifest,
        requests=frame(rows),
        client=tuple(_client(seconds, workers, cpu_ratio) if client is DEFAULT else client),
        triton=tuple(counters(rows, seconds) if triton is DEFAULT else triton),
        gpu=tuple(gpu),
        watch=tuple(heartbeats(seconds) if watch is DEFAULT else watch),
        damage=tuple(damage),
    )


def _plan(
    played: Scenario,
    objectives: Mapping[str, Any] | None,
    target: Mapping[str, Any] | None,
    workers: int,
    rows: Sequence[Row],
) -> Plan:
    is_open = played.loop == "open"
    return Plan(
        run="20231114T221320Z-literal",
        scenario=played,
        objectives=dict(objectives or objectives_document()),
        target=dict(target or {"name": "literal", "grpc": "localhost:8001"}),
        loop=played.loop,
        seed=1,
        scheduled_count=len(rows) if is_open else None,
        schedule_digest=rows_digest(frame(rows), played) if is_open else None,
        started_at=STARTED_AT,
        planned_end_at=STARTED_AT + played.duration_s,
        workers=workers,
        transport="literal",
        connection_policy="none",
        payloads={"chest": PayloadRecord(media_type="image/png", size_bytes=1, sha256="0" * 64)},
        capacity_per_s=None,
        calibration=None,
        git_commit=None,
        packages={},
        host={},
    )


def _manifest(rows: Sequence[Row], workers: int, ended_at: float) -> Manifest:
    by_worker = [Counter(row["status"] for row in rows if row["worker"] == worker) for worker in range(workers)]
    return Manifest(
        ended="completed",
        end_reason="the schedule was played",
        ended_at=ended_at,
        due_count=len(rows),
        row_count=len(rows),
        workers=tuple(
            WorkerRecord(
                worker=worker, host="here", pid=1, delivered=True, due=counts.total(), by_status=dict(counts),
                peak_in_flight=1, cpu_s=1.0, clock_offset_ms=0.0,
            )
            for worker, counts in enumerate(by_worker)
        ),
        shards=(),
    )  # fmt: skip


def _client(seconds: range, workers: int, cpu_ratio: float) -> list[Row]:
    return [
        {"at": STARTED_AT + second, "worker": worker, "cpu_ratio": cpu_ratio, "rss_bytes": 10**8, "in_flight": 1}
        for second in seconds for worker in range(workers)
    ]  # fmt: skip


def heartbeats(seconds: range) -> list[Row]:
    return [{"at": STARTED_AT + second, "event": "heartbeat", "server": None, "detail": None} for second in seconds]


def counters(rows: Sequence[Row], seconds: range) -> list[Row]:
    """What each server's counters say at each second: it counted an answer when it was done."""
    done: dict[str, Counter[int]] = {}
    for row in rows:
        if row["served_by"] is not None:
            done.setdefault(row["served_by"], Counter())[ceil(row["done_us"] / US)] += 1
    samples = []
    for server, by_second in done.items():
        total = 0
        for second in seconds:
            total += by_second[second]
            samples.append(counter_sample(server, second, total))
    return samples


def counter_sample(server: str, second: float, total: int) -> Row:
    """One server's counters after ``total`` answers of the whole ensemble."""
    models = ("radstream_preprocess", "radstream_classifier", "radstream_detector", "radstream_encoder")
    return {
        "at": STARTED_AT + second,
        "server": server,
        "success": dict.fromkeys((*models, "radstream_ensemble"), total),
        "failure": {},
        "inference": dict.fromkeys((*models, "radstream_ensemble"), total),
        "queue_us": {},
        "pending": {},
    }


def gpu_samples(
    values: Sequence[float | None],
    *,
    server: str = "triton-0",
    gpu: str = "GPU-0",
    emulated: bool = False,
    busy: Sequence[float] | None = None,
) -> list[Row]:
    """One reading a second, the first at the start of the run, with power that moves as it does on real devices.

    ``busy`` is the exact busy ratio of the second before each reading, for an emulated device.
    """
    counter_s, samples = 0.0, []
    for second, value in enumerate(values):
        if busy is not None:
            counter_s += busy[second]
        samples.append(
            {
                "at": STARTED_AT + second,
                "server": server,
                "gpu": gpu,
                "emulated": emulated,
                "util_ratio": value,
                "engine_active_ratio": value,
                "power_watts": 200.0 + second % 3,
                "busy_s": None if busy is None else counter_s,
            }
        )
    return samples


def held_back(stuck: int, *, cap: int = 10, worker: int = 0, unsent_count: int = 50) -> Recording:
    """3,000 requests, of which `stuck` waited for 29 s, and others were not sent meanwhile for want of places."""
    waiting = [answer(seq, seq / 1000, response_s=29.0, worker=worker) for seq in range(stuck)]
    unsent = dict.fromkeys(range(900, 900 + unsent_count), NOT_SENT)
    others = answers(3_000 - stuck, first=stuck, start_s=0.01, response_s=0.04, misses=unsent)
    return recording([*waiting, *others], workers=worker + 1, scenario_fields={"in_flight_cap": cap})


def stood_still(rows: Iterable[Row], *pauses_s: tuple[float, float], deadline_s: float = 30.0) -> list[Row]:
    """The same requests when the load process stood still from each start up to its end.

    What was due meanwhile left at the end, and what was answered meanwhile was read then, or taken for lost.
    """

    def awake(moment_us: float) -> float:
        return next((end * US for start, end in pauses_s if start * US <= moment_us < end * US), moment_us)

    changed_rows = []
    for row in rows:
        sent_us = awake(row["sent_us"])
        done_us = awake(sent_us + row["done_us"] - row["sent_us"])
        lost = {"status": "deadline", "served_by": None} if done_us - sent_us > deadline_s * US else {}
        changed_rows.append(row | {"sent_us": round(sent_us), "done_us": round(done_us)} | lost)
    return changed_rows


def asleep(run: Recording, *pauses_s: tuple[float, float]) -> Recording:
    """The same run without the samples that its load processes would have taken in a pause."""

    def awake(at_s: float) -> bool:
        return not any(start < at_s < end for start, end in pauses_s)

    return replace(run, client=tuple(sample for sample in run.client if awake(sample["at"] - STARTED_AT)))


def changed(run: Recording, **manifest_fields: Any) -> Recording:
    """The same run whose manifest says something else."""
    assert run.manifest is not None
    return replace(run, manifest=run.manifest.model_copy(update=manifest_fields))


def ended_in_warm_up() -> Recording:
    """A run that was stopped one second after its start, with nine seconds of warm-up still to come."""
    phases = [
        {"name": "warm", "duration_s": 10.0, "warmup": True, "rate": {"requests_per_s": 100}},
        {"name": "steady", "duration_s": 60.0, "rate": {"requests_per_s": 100}},
    ]
    run = recording(answers(100, phase="warm"), phases=phases, gpu=gpu_samples([0.5, 0.6]))
    return changed(run, ended="interrupted", end_reason="Ctrl-C", ended_at=STARTED_AT + 1)


def write_recording(run: Recording, directory: Path) -> Path:
    """Put a recording on disk as a run leaves it; without a manifest its rows stay an Arrow stream."""
    directory.mkdir(parents=True, exist_ok=True)
    write_document(directory / "plan.json", run.plan)
    for name in ("client", "events", "triton", "gpu", "watch"):
        lines = JsonLines(directory / f"{name}.jsonl")
        for row in getattr(run, name):
            lines.write(row)
        lines.close()
    writer = ShardWriter(directory, 0)
    columns = pa.Table.from_pandas(run.requests, schema=REQUEST_SCHEMA, preserve_index=False).to_pydict()
    writer.append(request_batch(columns))
    writer.close()
    if run.manifest is not None:
        shard = seal_shard(writer.path)
        write_document(directory / "manifest.json", run.manifest.model_copy(update={"shards": (shard,)}))
    return directory


def verdict_on(run: Recording, name: str) -> Verdict:
    """What evaluating the whole run says about one objective."""
    return next(verdict for verdict in evaluate(run).verdicts if verdict.objective.name == name)
