"""Made-up runs that look like real ones, for testing and looking at reports, and a test that they are sound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from loadtests.recording import OK, REQUEST_SCHEMA, Manifest, PayloadRecord, Plan, Recording, WorkerRecord
from scenarios.scenario import Scenario
from slo_checks.objectives import objectives_document
from slo_checks.schedule import rows_digest
from slo_checks.verdict import Outcome, evaluate
from tests.unit.recordings import frame

STARTED_AT = 1_790_000_000.0
KINDS = np.array(["classifier", "detector", "encoder", "ensemble"])
MODELS = tuple(f"radstream_{name}" for name in ("preprocess", "classifier", "detector", "encoder", "ensemble"))
SERVERS = np.array(["radstream-triton-7c9f-aa1", "radstream-triton-7c9f-bb2"])


def sample_plan(phases: list[dict[str, Any]], scheduled: int, **changes: Any) -> Plan:
    scenario = Scenario.model_validate(
        {
            "name": "burst",
            "purpose": "From 10 to 50 studies per minute and a spike above capacity: does the service keep up?",
            "expected_verdict": "pass on a service that scales",
            "phases": phases,
            "payloads": [{"id": "chest-jpeg-100kb"}],
            "objectives": {"must_pass": ["latency_p95"], "must_not_fail": ["availability", "error_rate"]},
        }
    )
    plan: dict[str, Any] = {
        "run": "20261124T040000Z-burst",
        "scenario": scenario,
        "objectives": objectives_document(),
        "target": {
            "name": "embedded",
            "grpc": "dns:///triton.radstream.svc:8001",
            "emulated": True,
            "embedded_servers": 2,
        },
        "loop": "open",
        "seed": 7,
        "scheduled_count": scheduled,
        "schedule_digest": "5f1c0f",
        "started_at": STARTED_AT,
        "planned_end_at": STARTED_AT + scenario.duration_s,
        "workers": 2,
        "transport": "grpcio",
        "connection_policy": "one connection per address, round robin, names resolved again every second",
        "payloads": {"chest-jpeg-100kb": PayloadRecord(media_type="image/jpeg", size_bytes=102_400, sha256="ab" * 32)},
        "capacity_per_s": 42.0,
        "calibration": {"cpu_us_per_request": 610.0, "ceiling_per_s": 1640.0},
        "git_commit": "3399011d0c6f4f0aa0fb1c2c2f7ce0a1d5c3e9b7",
        "packages": {"locust": "2.47.0", "grpcio": "1.85.1"},
        "host": {"cpus": 2, "system": "Linux"},
    }
    return Plan(**plan | changes)


def sample_rows(count: int, run_s: float, outage: tuple[float, float] | None = None, seed: int = 3) -> pd.DataFrame:
    """``count`` requests over ``run_s``; the first tenth is warm-up. In an outage one server is gone."""
    chance = np.random.default_rng(seed)
    intended_s = np.sort(chance.uniform(0, run_s, count))
    kind = chance.choice(KINDS, count, p=[0.2, 0.2, 0.2, 0.4])
    server = chance.choice(SERVERS, count)
    middle_ms = np.select([kind == "classifier", kind == "detector", kind == "encoder"], [42.0, 95.0, 61.0], 180.0)
    service_ms = middle_ms * chance.lognormal(0, 0.35, count)
    lag_ms = chance.lognormal(-1, 0.7, count)
    status = np.full(count, OK, dtype=object)
    error = np.full(count, None, dtype=object)
    if outage:
        lag_ms[(intended_s > 0.8 * run_s) & (intended_s < 0.82 * run_s)] += 9.0
        _break(intended_s, server, service_ms, status, error, outage, chance)
    sent_s = intended_s + lag_ms / 1e3
    done_s = sent_s + service_ms / 1e3
    unsent = status == "not_sent"
    unknown = (status == "in_flight") | unsent
    unanswered = unknown | (status == "transport") | (status == "deadline")
    columns: dict[str, Any] = {
        "seq": np.arange(count),
        "worker": np.arange(count) % 2,
        "phase": np.where(intended_s < run_s / 10, "warm-up", np.where(intended_s < run_s / 2, "steady", "spike")),
        "kind": kind,
        "payload": np.full(count, "chest-jpeg-100kb"),
        "with_text": np.zeros(count, dtype=bool),
        "intended_us": (intended_s * 1e6).astype(np.int64),
        "sent_us": _micros(sent_s, unsent),
        "done_us": _micros(done_s, unknown),
        "status": status,
        "error": error,
        "served_by": _masked(server, unanswered),
        "peer": np.full(count, None, dtype=object),
        "response_bytes": _masked(np.full(count, 2048), unanswered),
        "checked": _masked(np.full(count, "values"), unanswered),
    }
    return request_rows(columns)


def request_rows(columns: dict[str, Any]) -> pd.DataFrame:
    arrays = [pa.array(columns[field.name], type=field.type, from_pandas=True) for field in REQUEST_SCHEMA]
    rows: pd.DataFrame = pa.table(arrays, schema=REQUEST_SCHEMA).to_pandas(types_mapper=pd.ArrowDtype)
    return rows


def sample_run(
    directory: Path, count: int = 8000, run_s: float = 240.0, *, outage: bool = False, sealed: bool = True
) -> Recording:
    phases = [
        {"name": "warm-up", "duration_s": run_s / 10, "warmup": True, "rate": {"requests_per_s": count / run_s}},
        {"name": "steady", "duration_s": run_s * 0.4, "rate": {"requests_per_s": count / run_s}},
        {"name": "spike", "duration_s": run_s * 0.5, "rate": {"requests_per_s": count / run_s}},
    ]
    plan = sample_plan(phases, count)
    rows = sample_rows(count, run_s, (run_s * 0.6, run_s * 0.7) if outage else None)
    plan = plan.model_copy(update={"schedule_digest": rows_digest(rows, plan.scenario)})
    seconds = np.arange(0, run_s)
    client = tuple(
        {
            "at": STARTED_AT + at, "worker": worker, "cpu_ratio": 0.31 + 0.08 * np.sin(at / 9) + 0.02 * worker,
            "rss_bytes": 96_000_000 + int(at) * 900, "in_flight": 4, "due": int(at), "done": int(at),
        }
        for at in seconds for worker in (0, 1)
    )  # fmt: skip
    gpu = tuple(
        {
            "at": STARTED_AT + at, "server": server, "gpu": "GPU-emulated-0", "emulated": True,
            "util_ratio": min(1.0, 0.55 + 0.3 * (at > run_s / 2) + 0.05 * np.cos(at / 5)),
            "engine_active_ratio": None, "power_watts": None, "busy_s": None,
        }
        for at in seconds for server in SERVERS
    )  # fmt: skip
    events = [_event(0.0, "started", "the first phase began")]
    if outage:
        events += [
            _event(run_s * 0.6, "server_exited", "radstream-triton-7c9f-bb2 ended with signal 9"),
            _event(run_s * 0.7, "server_started", "radstream-triton-7c9f-bb2 answers again"),
            _event(run_s * 0.81, "worker_slow", "load process 1 was 9 ms late for 5 s"),
        ]
    triton, watch = tuple(_counters(rows, run_s)), tuple(_heartbeats(run_s))
    return Recording(
        directory, plan, _manifest(rows, run_s) if sealed else None, rows, client=client, gpu=gpu,
        triton=triton, watch=watch, events=tuple(events),
        damage=() if sealed else ("requests-1.arrows was cut: rows up to its last whole batch were read",),
    )  # fmt: skip


def empty_run(directory: Path) -> Recording:
    phases = [{"name": "steady", "duration_s": 60.0, "rate": {"requests_per_s": 10.0}}]
    return Recording(directory, sample_plan(phases, 600), None, frame([]))


def _manifest(rows: pd.DataFrame, run_s: float) -> Manifest:
    ends = [Counter(rows[rows["worker"] == worker]["status"].tolist()) for worker in (0, 1)]
    workers = tuple(
        WorkerRecord(
            worker=worker, host="loader-0", pid=4100 + worker, delivered=True, due=ends[worker].total(),
            by_status=dict(ends[worker]),
            peak_in_flight=38, cpu_s=71.5, clock_offset_ms=0.0,
        )
        for worker in (0, 1)
    )  # fmt: skip
    return Manifest(
        ended="completed", end_reason="the whole schedule was played", ended_at=STARTED_AT + run_s + 1.5,
        due_count=len(rows), row_count=len(rows), workers=workers, shards=(),
    )  # fmt: skip


def _counters(rows: pd.DataFrame, run_s: float) -> Iterator[dict[str, Any]]:
    """What each server counted by each second, which is what it answered until then."""
    answered = rows[rows["served_by"].notna()]
    for server in SERVERS:
        done_s = np.sort(answered[answered["served_by"] == server]["done_us"].to_numpy(dtype=np.float64) / 1e6)
        for at in range(int(run_s) + 10):
            total = int(np.searchsorted(done_s, at, side="right"))
            counts = dict.fromkeys(MODELS, total)
            pending = dict.fromkeys(MODELS[:-1], at % 4) | {MODELS[-1]: 0}
            yield {
                "at": STARTED_AT + at, "server": str(server), "success": counts, "failure": {}, "inference": counts,
                "queue_us": {}, "pending": pending,
            }  # fmt: skip


def _heartbeats(run_s: float) -> Iterator[dict[str, Any]]:
    for at in range(int(run_s) + 10):
        yield {"at": STARTED_AT + at, "event": "heartbeat", "server": None, "detail": None}


def _event(after_s: float, event: str, detail: str) -> dict[str, Any]:
    return {"at": STARTED_AT + after_s, "event": event, "detail": detail}


def _break(
    intended_s: npt.NDArray[np.float64],
    server: npt.NDArray[Any],
    service_ms: npt.NDArray[np.float64],
    status: npt.NDArray[Any],
    error: npt.NDArray[Any],
    outage: tuple[float, float],
    chance: np.random.Generator,
) -> None:
    during = (intended_s >= outage[0]) & (intended_s < outage[1])
    gone = during & (server == SERVERS[1])
    status[gone], error[gone] = "transport", "UNAVAILABLE: connection reset by peer <script>alert('x')</script> | a\nb"
    service_ms[gone] = 3.0
    crowded = during & ~gone
    service_ms[crowded] *= 12
    refused = crowded & (chance.uniform(size=intended_s.size) < 0.3)
    status[refused], error[refused] = "shed", "RESOURCE_EXHAUSTED: Exceeds maximum queue size"
    service_ms[refused] = 4.0
    skipped = crowded & ~refused & (chance.uniform(size=intended_s.size) < 0.05)
    status[skipped] = "not_sent"
    status[-3:], error[-3:] = "in_flight", None


def _micros(at_s: npt.NDArray[np.float64], missing: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array((at_s * 1e6).astype(np.int64), mask=missing)


def _masked(values: npt.NDArray[Any], missing: npt.NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=missing)


def test_samples_have_the_columns_of_a_recording(tmp_path: Path) -> None:
    run = sample_run(tmp_path, 500, 50.0, outage=True)
    assert list(run.requests.columns) == REQUEST_SCHEMA.names
    assert run.requests["seq"].tolist() == list(range(500))


def test_samples_come_to_every_outcome(tmp_path: Path) -> None:
    assert evaluate(sample_run(tmp_path, 4000, 120.0)).outcome is Outcome.PASS
    assert evaluate(sample_run(tmp_path, 4000, 120.0, outage=True)).outcome is Outcome.FAIL
    assert evaluate(sample_run(tmp_path, 60, 20.0, sealed=False)).outcome is Outcome.INCONCLUSIVE
