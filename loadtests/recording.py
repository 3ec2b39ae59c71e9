"""The recording: what one run leaves behind, and all that later stages may read.

A run is a directory ``runs/<utc>-<scenario>/``. Verdicts and figures are functions of its contents, so they can be
made again later, elsewhere, without a server.

=====================  ===================================================================================
file                   content
=====================  ===================================================================================
``plan.json``          `Plan`, written before the first request: what was meant to happen
``requests-N.arrows``  request rows of load process N while the run goes on, an Arrow IPC stream that keeps
                       every whole batch when its writer is killed
``requests-N.parquet`` the same rows once the run is sealed
``client.jsonl``       one `CLIENT_SAMPLE` per load process and second: the generator's own health
``events.jsonl``       one `EVENT` for each thing that happened to the run itself
``triton.jsonl``       one `TRITON_SAMPLE` per server and second, by the watcher
``gpu.jsonl``          one `GPU_SAMPLE` per GPU and second, by the watcher
``watch.jsonl``        one `WATCH_ROW` for each scrape that failed or time without the API server, and a heartbeat
                       per second
``manifest.json``      `Manifest`, written last. Without it the run did not finish
=====================  ===================================================================================

Request rows, one for each scheduled request, whatever became of it (columns of `REQUEST_SCHEMA`):

================== ======= =====================================================================================
column             type    meaning
================== ======= =====================================================================================
``seq``            int64   place in the run's schedule, 0 and up; every value occurs once, a gap is a lost row
``worker``         uint16  load process that owned the request
``phase``          string  scenario phase of ``intended_us``
``kind``           string  classifier, detector, encoder or ensemble: which outputs were asked for
``payload``        string  id of the image, a key of ``Plan.payloads``
``with_text``      bool    whether a text was sent along
``intended_us``    int64   when the schedule said to send it; us after ``Plan.started_at``
``sent_us``        int64   when it was handed to the transport; null if it never was
``done_us``        int64   when its outcome was known; null if none was known at the end of the run
``status``         string  one of `STATUSES`
``error``          string  ``CODE: text`` of a failure, at most 200 characters; null if ok
``served_by``      string  server (pod) that answered, as it names itself; null without an answer
``peer``           string  address the request went to; null where the transport does not tell (grpcio)
``response_bytes`` uint32  size of the answer's message; null without an answer
``checked``        string  ``values`` (shape, finite, softmax) or ``golden`` (and compared with a known answer);
                           null without an answer
================== ======= =====================================================================================

``response = done_us - intended_us`` is what a caller waits, and what an objective on latency is about;
``service = done_us - sent_us`` is server and network; ``lag = sent_us - intended_us`` is the generator's own fault.
Stamps come from each load process's monotonic clock, laid once onto ``Plan.started_at``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from scenarios.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION: Final = 1
_ROW_GROUP_ROWS: Final = 2**16
_Model = TypeVar("_Model", bound=BaseModel)

OK: Final = "ok"
FAILURES: Final = (
    "shed",  # the server refused it: queue full, or its queue time ran out
    "draining",  # the server said that it is stopping
    "transport",  # no connection, reset, or gone without an answer
    "deadline",  # no answer within the scenario's deadline
    "bad_input",  # the server refused the image
    "server_fault",  # the server failed inside
    "wrong_answer",  # answered, but not with what the model must answer
    "other",  # any other status code; the text says which
)
IN_FLIGHT: Final = "in_flight"  # sent, no outcome when the run ended
NOT_SENT: Final = "not_sent"  # due, but the generator did not send it: the in-flight cap was reached
STATUSES: Final = (OK, *FAILURES, IN_FLIGHT, NOT_SENT)

REQUEST_SCHEMA: Final = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("worker", pa.uint16(), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("payload", pa.string(), nullable=False),
        pa.field("with_text", pa.bool_(), nullable=False),
        pa.field("intended_us", pa.int64(), nullable=False),
        pa.field("sent_us", pa.int64()),
        pa.field("done_us", pa.int64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("served_by", pa.string()),
        pa.field("peer", pa.string()),
        pa.field("response_bytes", pa.uint32()),
        pa.field("checked", pa.string()),
    ],
    metadata={"radslo_format": str(FORMAT_VERSION)},
)

CLIENT_SAMPLE: Final = {
    "at": "Unix seconds",
    "worker": "load process",
    "cpu_ratio": "CPU time over wall time since the last sample; 1 is one core",
    "rss_bytes": "resident memory",
    "in_flight": "requests sent and not answered",
    "due": "requests due so far",
    "done": "outcomes known so far",
    "failed": "of those, not ok",
}
EVENT: Final = {
    "at": "Unix seconds",
    "event": "started, worker_lost, server_exited, stopped, ...",
    "detail": "sentence for people",
}
TRITON_SAMPLE: Final = {
    "at": "Unix seconds, receipt",
    "server": "server name",
    "success": "nv_inference_request_success by model, counter",
    "failure": "nv_inference_request_failure by model, counter, all reasons; over-counts on ensembles",
    "inference": "nv_inference_count by model, counter",
    "queue_us": "nv_inference_queue_duration_us by model, counter; lies (0) for ensembles",
    "pending": "nv_inference_pending_request_count by model, gauge; lies (0) for ensembles",
}
GPU_SAMPLE: Final = {
    "at": "Unix seconds, receipt",
    "server": "server name",
    "gpu": "GPU UUID",
    "emulated": "true if the exporter says so",
    "util_ratio": "DCGM_FI_DEV_GPU_UTIL / 100; null if absent",
    "engine_active_ratio": "DCGM_FI_PROF_GR_ENGINE_ACTIVE; null if absent",
    "power_watts": "DCGM_FI_DEV_POWER_USAGE; null if absent",
    "busy_s": "exact busy time counter of an emulated device; null on a real one",
}
WATCH_ROW: Final = {
    "at": "Unix seconds",
    "event": "heartbeat, scrape_failed, started, stopped; api_lost (at: when the API server was last heard), api_back",
    "server": "server name, or null",
    "detail": "what failed, or null",
}


class RecordingError(Exception):
    """A recording cannot be written or read. The message says what, where and what to do next."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PayloadRecord(_Document):
    """One image of the run's payload catalogue."""

    media_type: str
    size_bytes: int
    sha256: str


class Plan(_Document):
    """What was meant to happen; written before the first request is sent.

    ``started_at`` is Unix seconds; the rows' ``*_us`` columns count from it. ``schedule_digest`` (of
    `scenarios.arrivals.digest_of`) and ``scheduled_count`` are None in a closed loop, where the servers set the pace.
    ``capacity_measured`` is False for a capacity that somebody gave; None where none is known, and in recordings from
    before it was written down.
    """

    format_version: Literal[1] = 1
    run: str
    scenario: Scenario
    objectives: dict[str, Any]
    target: dict[str, Any]
    loop: Literal["open", "closed"]
    seed: int
    scheduled_count: int | None
    schedule_digest: str | None
    started_at: float
    planned_end_at: float
    workers: int
    transport: str
    connection_policy: str
    payloads: dict[str, PayloadRecord]
    capacity_per_s: float | None
    capacity_measured: bool | None = None
    calibration: dict[str, float] | None
    git_commit: str | None
    packages: dict[str, str]
    host: dict[str, str | int]


class WorkerRecord(_Document):
    """What one load process says that it did. ``delivered`` is False when its final word never came.

    Its clock was ``clock_offset_ms`` ahead of the leader's, give or take ``clock_uncertainty_ms``; its rows and samples
    are told by the leader's.
    """

    worker: int
    host: str | None
    pid: int | None
    delivered: bool
    due: int | None
    by_status: dict[str, int] | None
    peak_in_flight: int | None
    cpu_s: float | None
    clock_offset_ms: float | None
    clock_uncertainty_ms: float | None = None


class ShardRecord(_Document):
    """One file of request rows."""

    file: str
    rows: int
    sha256: str


class Manifest(_Document):
    """What did happen; written last, so that its absence means that the run did not finish.

    ``ended`` is ``completed`` when the whole schedule was played, else ``interrupted``; ``end_reason`` is the sentence
    for people. Times are Unix seconds. ``due_count`` counts the requests that were due before the run stopped.
    """

    format_version: Literal[1] = 1
    ended: Literal["completed", "interrupted"]
    end_reason: str
    ended_at: float
    due_count: int | None
    row_count: int
    workers: tuple[WorkerRecord, ...]
    shards: tuple[ShardRecord, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    """A run as it was recorded.

    ``requests`` has the columns of `REQUEST_SCHEMA` with Arrow types (null stays null), sorted by ``seq``.
    ``damage`` names what could not be read to its end: a torn last line, a cut stream. ``manifest`` is None when the
    run did not finish.
    """

    directory: Path
    plan: Plan
    manifest: Manifest | None
    requests: pd.DataFrame
    client: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    triton: tuple[dict[str, Any], ...] = ()
    gpu: tuple[dict[str, Any], ...] = ()
    watch: tuple[dict[str, Any], ...] = ()
    damage: tuple[str, ...] = ()

    @property
    def sealed(self) -> bool:
        return self.manifest is not None


def read_recording(directory: Path) -> Recording:
    """Read a run, finished or not.

    Raises:
        RecordingError: the directory is no recording, was written by another format, or lost what its manifest lists.
    """
    if not directory.is_dir():
        msg = f"{directory} is not a directory: name a run under runs/, or record one with 'radslo run'"
        raise RecordingError(msg)
    plan = _read_document(directory / "plan.json", Plan)
    if plan is None:
        msg = f"{directory} has no plan.json: it is no recording, or its run ended before it began; record it again"
        raise RecordingError(msg)
    manifest = _read_document(directory / "manifest.json", Manifest)
    damage: list[str] = []
    requests = _read_requests(directory, manifest, damage)
    rows = {name: tuple(_read_json_lines(directory / f"{name}.jsonl", damage)) for name in JSON_STREAMS}
    return Recording(directory, plan, manifest, requests, damage=tuple(damage), **rows)


JSON_STREAMS: Final = ("client", "events", "triton", "gpu", "watch")


def write_document(path: Path, document: BaseModel) -> None:
    """Write ``document`` as JSON so that the file is either whole or absent, whatever happens."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(document.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@dataclass(slots=True)
class JsonLines:
    """Appends one JSON object a line; each is with the operating system when `write` returns."""

    path: Path
    _file: Any = field(default=None, init=False)

    def write(self, row: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = self.path.open("ab", buffering=0)
        self._file.write(json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ShardWriter:
    """Appends request rows of one load process to ``requests-<worker>.arrows``, whole batches only."""

    def __init__(self, directory: Path, worker: int) -> None:
        self.path = directory / f"requests-{worker}.arrows"
        self._file = self.path.open("wb", buffering=0)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        self._stream = pa.ipc.new_stream(self._file, REQUEST_SCHEMA, options=options)

    def append(self, batch: pa.RecordBatch) -> None:
        self._stream.write_batch(batch)

    def close(self) -> None:
        if not self._file.closed:
            self._stream.close()
            self._file.close()


def request_batch(rows: Mapping[str, Sequence[Any]]) -> pa.RecordBatch:
    """Columns of equal length, keyed and typed as in `REQUEST_SCHEMA`, as one batch."""
    arrays = [pa.array(rows[column.name], type=column.type) for column in REQUEST_SCHEMA]
    return pa.record_batch(arrays, schema=REQUEST_SCHEMA)


def pack_batch(batch: pa.RecordBatch) -> bytes:
    """A batch as bytes for Locust's channel; `unpack_batch` reads them."""
    return bytes(batch.serialize())


def unpack_batch(packed: bytes) -> pa.RecordBatch:
    return pa.ipc.read_record_batch(pa.py_buffer(packed), REQUEST_SCHEMA)


def seal_shard(path: Path) -> ShardRecord:
    """Turn a finished Arrow stream into Parquet beside it; the stream is removed once the Parquet file is whole.

    A stream that was cut is sealed up to its last whole batch, and kept.
    """
    sealed = path.with_suffix(".parquet")
    unfinished = path.with_suffix(".parquet.tmp")
    row_count = 0
    damage: list[str] = []
    with unfinished.open("wb") as file:
        with pq.ParquetWriter(file, REQUEST_SCHEMA, compression="zstd") as writer:
            for group in _row_groups(_whole_batches(path, damage)):
                writer.write_table(group)
                row_count += group.num_rows
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(sealed)
    if not damage:
        path.unlink()
    return ShardRecord(file=sealed.name, rows=row_count, sha256=_sha256(sealed))


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of a second each in groups of many rows: each group costs Parquet memory until the file is closed."""
    held: list[pa.RecordBatch] = []
    held_rows = 0
    for batch in batches:
        held.append(batch)
        held_rows += batch.num_rows
        if held_rows >= _ROW_GROUP_ROWS:
            yield pa.Table.from_batches(held).combine_chunks()
            held, held_rows = [], 0
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _whole_batches(path: Path, damage: list[str]) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        try:
            stream = pa.ipc.open_stream(file)
            yield from stream
        except (pa.ArrowInvalid, OSError) as error:
            damage.append(f"{path.name} was cut ({error}): rows up to its last whole batch were read")


def _read_requests(directory: Path, manifest: Manifest | None, damage: list[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - a second to load, and those who write a recording never read it

    tables = [REQUEST_SCHEMA.empty_table()]
    if manifest is not None:
        tables += [_read_shard(directory / shard.file, shard) for shard in manifest.shards]
    else:
        streams = sorted(directory.glob("requests-*.arrows"))
        sealed = [path for path in sorted(directory.glob("requests-*.parquet")) if _stream_of(path) not in streams]
        tables += [pa.Table.from_batches(_whole_batches(path, damage), REQUEST_SCHEMA) for path in streams]
        tables += [pq.read_table(path, schema=REQUEST_SCHEMA) for path in sealed]
    rows = pa.concat_tables(tables).sort_by("seq")
    frame: pd.DataFrame = rows.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def _stream_of(sealed: Path) -> Path:
    return sealed.with_suffix(".arrows")


def _read_shard(path: Path, shard: ShardRecord) -> pa.Table:
    if not path.is_file():
        msg = f"{path} is missing, but the manifest lists it: copy the whole run directory again"
        raise RecordingError(msg)
    if _sha256(path) != shard.sha256:
        msg = f"{path} is not what the manifest lists (checksum differs): copy the whole run directory again"
        raise RecordingError(msg)
    return pq.read_table(path, schema=REQUEST_SCHEMA)


def _read_document(path: Path, model: type[_Model]) -> _Model | None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        msg = f"{path}: {where}: {first['msg']}; it is damaged, or was written by another version of radslo"
        raise RecordingError(msg) from error


def _read_json_lines(path: Path, damage: list[str]) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line, parse_constant=_refuse_constant)
            except ValueError:  # no JSON, or bytes that are no text
                row = None
            if isinstance(row, dict) and "at" in row:
                yield row
            else:
                damage.append(f"{path.name}: line {number} is damaged and was left out")


def _refuse_constant(name: str) -> float:
    """NaN and the infinities are no JSON, and no comparison with them says that something is wrong."""
    raise ValueError(name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
