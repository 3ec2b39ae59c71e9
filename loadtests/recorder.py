"""Writes one run's directory: plan first, rows as they come, manifest last; owns the watcher."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from loadtests import recording
from loadtests.recording import Manifest, Plan, RecordingError, WorkerRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from loadtests.target import Target

_WATCHER_END_S: Final = 15.0


class Recorder:
    """One run's files; every method may raise RecordingError when they cannot be written (a full disk)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        require_new(directory)
        with self._writing():
            directory.mkdir(parents=True, exist_ok=False)
        self._planned = False
        self._shards: dict[int, recording.ShardWriter] = {}
        self._client = recording.JsonLines(directory / "client.jsonl")
        self._events = recording.JsonLines(directory / "events.jsonl")
        self._watcher: subprocess.Popen[str] | None = None

    def write_plan(self, plan: Plan) -> None:
        with self._writing():
            recording.write_document(self.directory / "plan.json", plan)
        self._planned = True

    def start_watcher(self, target: Target) -> None:
        """Start the watcher and wait until it has seen its first sample; without anything to watch there is none."""
        if not target.is_watched:
            return
        self._watcher = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "loadtests.watch", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C in the terminal is for the leader; the watcher ends with its stdin
        )
        answer = _hand_over(self._watcher, target.model_dump_json() + "\n")
        if answer != "ready":
            msg = answer or "the watcher did not start, so nothing would observe the servers; its message is above"
            raise RecordingError(msg)

    def rows(self, worker: int, packed: bytes) -> None:
        with self._writing():
            if worker not in self._shards:
                self._shards[worker] = recording.ShardWriter(self.directory, worker)
            self._shards[worker].append(recording.unpack_batch(packed))

    def client_sample(self, sample: Mapping[str, Any]) -> None:
        with self._writing():
            self._client.write(sample)

    def event(self, event: str, detail: str) -> None:
        """Something happened to the run itself; ``event`` is one of `loadtests.recording.EVENT`."""
        with self._writing():
            self._events.write({"at": time.time(), "event": event, "detail": detail})

    def seal(self, *, ended: str, end_reason: str, ended_at: float, workers: tuple[WorkerRecord, ...]) -> Manifest:
        """Close every file, turn the rows into Parquet and write the manifest."""
        with self._writing():
            self._close()
            shards = tuple(recording.seal_shard(shard.path) for shard in self._shards.values())
            manifest = Manifest.model_validate(
                {
                    "ended": ended,
                    "end_reason": end_reason,
                    "ended_at": ended_at,
                    "due_count": _sum_or_none([worker.due for worker in workers]),
                    "row_count": sum(shard.rows for shard in shards),
                    "workers": workers,
                    "shards": shards,
                }
            )
            recording.write_document(self.directory / "manifest.json", manifest)
        return manifest

    def abandon(self) -> None:
        """Leave the recording unsealed: readable as far as it was written, and openly unfinished.

        Without a plan it is no recording, and nothing stays.
        """
        with suppress(OSError):  # the reason to give up; the rows on disk need no more than they have
            self._close()
        if not self._planned:
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say where and why something could not be written, and what to do."""
        try:
            yield
        except OSError as error:
            msg = (
                f"cannot write to {self.directory}: {error.strerror}; free space or name another place with "
                "--runs-dir. What was recorded before is kept there"
            )
            raise RecordingError(msg) from error

    def _close(self) -> None:
        self._stop_watcher()
        for shard in self._shards.values():
            shard.close()
        self._client.close()
        self._events.close()

    def _stop_watcher(self) -> None:
        if self._watcher is None:
            return
        assert self._watcher.stdin is not None  # noqa: S101 - asked for when started
        self._watcher.stdin.close()
        try:
            self._watcher.wait(_WATCHER_END_S)
        except subprocess.TimeoutExpired:
            self._watcher.kill()
            self._watcher.wait()
        assert self._watcher.stdout is not None  # noqa: S101
        self._watcher.stdout.close()
        self._watcher = None


def _hand_over(watcher: subprocess.Popen[str], target: str) -> str:
    """Give the watcher its target; its answer is "ready", or why it cannot watch, or nothing if it is gone."""
    assert watcher.stdin is not None  # noqa: S101 - asked for when started
    assert watcher.stdout is not None  # noqa: S101
    try:
        watcher.stdin.write(target)
        watcher.stdin.flush()
    except BrokenPipeError:
        return ""
    return watcher.stdout.readline().rstrip("\n")


def _sum_or_none(values: list[int | None]) -> int | None:
    return None if any(value is None for value in values) else sum(value for value in values if value is not None)


def require_new(directory: Path) -> None:
    """Refuse a directory that exists, whatever is in it: every run has its own.

    Raises:
        RecordingError: it exists.
    """
    if directory.exists():
        msg = f"{directory} exists already: every run has a directory of its own; name another with --recording"
        raise RecordingError(msg)
