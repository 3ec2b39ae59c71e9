"""The recording: what was written is read, what was cut is said, what was changed is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from loadtests import recording
from loadtests.recording import RecordingError, ShardWriter, read_recording, request_batch, seal_shard
from tests.unit.recordings import answers
from tests.unit.recordings import recording as literal_recording


def rows(first: int, count: int) -> dict[str, list[object]]:
    numbers = range(first, first + count)
    columns: dict[str, list[object]] = {
        "seq": list(numbers),
        "intended_us": [n * 1000 for n in numbers],
        "sent_us": [n * 1000 + 10 for n in numbers],
        "done_us": [None] * count,
    }
    constant = {"worker": 0, "phase": "load", "kind": "ensemble", "payload": "x", "with_text": False, "status": "ok"}
    return {name: columns.get(name, [constant.get(name)] * count) for name in recording.REQUEST_SCHEMA.names}


def write_shard(directory: Path, batches: int = 3) -> Path:
    writer = ShardWriter(directory, 0)
    for batch in range(batches):
        writer.append(request_batch(rows(batch * 100, 100)))
    writer.close()
    return writer.path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    recording.write_document(tmp_path / "plan.json", literal_recording(answers(1)).plan)
    return tmp_path


def test_a_run_that_did_not_finish_is_read_up_to_its_last_whole_batch(run: Path) -> None:
    path = write_shard(run)
    path.write_bytes(path.read_bytes()[:-300])
    read = read_recording(run)
    assert not read.sealed
    assert len(read.requests) == 200
    assert any("was cut" in line for line in read.damage)


def test_null_stays_null(run: Path) -> None:
    write_shard(run)
    assert read_recording(run).requests.done_us.isna().all()


def test_sealing_keeps_every_row_and_removes_the_stream(run: Path) -> None:
    path = write_shard(run)
    shard = seal_shard(path)
    assert shard.rows == 300
    assert not path.exists()
    assert list(read_recording(run).requests.seq) == list(range(300))


def test_a_stream_that_was_cut_is_kept_beside_what_was_sealed_of_it(run: Path) -> None:
    path = write_shard(run)
    path.write_bytes(path.read_bytes()[:-200])
    assert seal_shard(path).rows == 200
    assert path.exists()


def test_a_long_run_is_sealed_in_few_row_groups(run: Path) -> None:
    shard = seal_shard(write_shard(run, batches=700))
    assert shard.rows == 70_000
    assert pq.ParquetFile(run / shard.file).num_row_groups == 2


def test_a_batch_survives_the_channel_between_processes() -> None:
    batch = request_batch(rows(7, 5))
    assert recording.unpack_batch(recording.pack_batch(batch)).equals(batch)


@pytest.mark.parametrize(
    "line", [b'{"at": 2.0, "wor', b'{"at": 2.0, "cpu_ratio": NaN}', b"12", b"{}", b'{"at": "\xff"}']
)
def test_a_line_that_is_no_row_is_left_out_and_said(run: Path, line: bytes) -> None:
    (run / "client.jsonl").write_bytes(b'{"at": 1.0, "worker": 0}\n' + line)
    read = read_recording(run)
    assert len(read.client) == 1
    assert any("client.jsonl: line 2" in told for told in read.damage)


def test_rows_that_are_not_what_the_manifest_lists_are_refused(run: Path) -> None:
    shard = seal_shard(write_shard(run))
    manifest = recording.Manifest(
        ended="completed", end_reason="", ended_at=1.0, due_count=300, row_count=300, workers=(), shards=(shard,)
    )
    recording.write_document(run / "manifest.json", manifest)
    assert len(read_recording(run).requests) == 300
    with (run / shard.file).open("ab") as file:
        file.write(b"x")
    with pytest.raises(RecordingError, match="checksum differs"):
        read_recording(run)
    (run / shard.file).unlink()
    with pytest.raises(RecordingError, match="is missing"):
        read_recording(run)


def test_a_directory_without_a_plan_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no plan\.json"):
        read_recording(tmp_path)


def test_a_damaged_plan_names_the_field(run: Path) -> None:
    text = (run / "plan.json").read_text().replace('"seed": ', '"seeed": ', 1)
    (run / "plan.json").write_text(text)
    with pytest.raises(RecordingError, match=r"plan\.json: scenario: .*unknown key 'seeed'"):
        read_recording(run)
