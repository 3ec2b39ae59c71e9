"""The watcher's rounds against real metrics pages: what it cannot read is a row, and keeps no other from being read."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from loadtests.target import Target
from loadtests.watch.__main__ import Watcher
from tests.unit.test_watch_metrics import DCGM, TRITON

HANG_S = 30.0  # only so that a broken watcher ends
NOBODY = "http://127.0.0.1:1/metrics"


def set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Page:
    """What one server answers, once it may."""

    body: bytes = TRITON.encode()
    status: int = 200
    may_answer: threading.Event = field(default_factory=set_event)
    asked: int = 0


@contextmanager
def serving(pages: Mapping[str, Page]) -> Iterator[Callable[[str], str]]:
    """Serve each page by its name; yields what makes a name an address."""

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages[self.path.strip("/")]
            page.asked += 1
            page.may_answer.wait(HANG_S)
            self.send_response(page.status)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield lambda name: f"http://127.0.0.1:{server.server_port}/{name}"
        finally:
            for page in pages.values():
                page.may_answer.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Watch:
    """A watcher and what it has written so far."""

    watcher: Watcher
    directory: Path

    def rounds_until(self, true: Callable[[], bool]) -> None:
        """At least one round; more where the machine stood still during it."""
        gave_up_s = time.monotonic() + HANG_S
        self.watcher.round()
        while not true() and time.monotonic() < gave_up_s:
            self.watcher.round()

    def samples_of(self, server: str, kind: str = "triton") -> list[dict[str, Any]]:
        return [row for row in self._rows(kind) if row["server"] == server]

    def failures_of(self, server: str) -> list[str]:
        return [
            str(row["detail"])
            for row in self._rows("watch")
            if (row["event"], row["server"]) == ("scrape_failed", server)
        ]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        path = self.directory / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def watching(directory: Path, triton: Mapping[str, str], gpu: Mapping[str, str] | None = None) -> Iterator[Watch]:
    target = Target(name="pages", grpc="nobody:1", metrics_urls=dict(triton), gpu_metrics_urls=dict(gpu or {}))
    with closing(Watcher(directory, target)) as watcher:
        yield Watch(watcher, directory)


@pytest.mark.parametrize(
    ("kind", "page", "says"),
    [
        ("triton", Page(status=500), "triton: HTTP 500"),
        ("triton", Page(b"<html>"), "triton: invalid metric name:<html>"),
        ("triton", Page(b"\xff"), "triton: 'utf-8' codec can't decode"),
        ("triton", None, "Connection refused"),
        ("gpu", Page(DCGM.encode(), status=404), "gpu: HTTP 404"),
        ("gpu", Page(), "gpu: the answer has no sample of a GPU"),
        ("gpu", None, "Connection refused"),
    ],
    ids=["fault", "no_metrics", "no_text", "nobody", "gpu_not_found", "gpu_without_a_gpu", "gpu_nobody"],
)
def test_what_cannot_be_read_is_a_row_and_the_others_are_read(
    tmp_path: Path, kind: str, page: Page | None, says: str
) -> None:
    with serving({"sound": Page(), "exporter": Page(DCGM.encode())} | ({"broken": page} if page else {})) as url_of:
        urls = {"triton": {"sound": url_of("sound")}, "gpu": {"exporter": url_of("exporter")}}
        urls[kind]["broken"] = url_of("broken") if page else NOBODY
        with watching(tmp_path, **urls) as watch:

            def seen() -> tuple[bool, int, int]:
                told = any(says in failure for failure in watch.failures_of("broken"))
                return told, len(watch.samples_of("sound")), len(watch.samples_of("exporter", "gpu"))

            watch.rounds_until(lambda: all(seen()))
            assert all(seen()), (seen(), watch.failures_of("broken"))
            assert not watch.samples_of("broken", kind)


def test_a_server_is_asked_anew_each_round(tmp_path: Path) -> None:
    page = Page()
    with serving({"sound": page}) as url_of, watching(tmp_path, {"sound": url_of("sound")}) as watch:
        watch.rounds_until(lambda: len(watch.samples_of("sound")) >= 3)
        samples = watch.samples_of("sound")
        assert len({sample["at"] for sample in samples}) == len(samples) >= 3
        assert page.asked >= 3


def test_a_server_that_does_not_answer_in_time_is_a_row_and_holds_up_no_other(tmp_path: Path) -> None:
    """It is asked again once it has answered or its connection timed out, never twice at a time."""
    slow = Page(may_answer=threading.Event())
    with (
        serving({"slow": slow, "quick": Page()}) as url_of,
        watching(tmp_path, {name: url_of(name) for name in ("slow", "quick")}) as watch,
    ):
        watch.rounds_until(lambda: bool(watch.samples_of("quick") and watch.failures_of("slow")))
        assert watch.samples_of("quick")
        assert set(watch.failures_of("slow")) == {"triton: no answer within 0.8 s"}
        watch.watcher.round()
        timed_out = sum("timed out" in failure for failure in watch.failures_of("slow"))
        assert slow.asked <= 1 + timed_out
        assert not watch.samples_of("slow")

        slow.may_answer.set()
        watch.rounds_until(lambda: bool(watch.samples_of("slow")))
        assert watch.samples_of("slow")
