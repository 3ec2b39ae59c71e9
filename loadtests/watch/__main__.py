"""The watcher's loop: a round of samples each second, every failure a row, a heartbeat to show that it lived."""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import urllib3

from loadtests.recording import JsonLines
from loadtests.target import Target, TargetError
from loadtests.watch.endpoints import Endpoint, endpoints
from loadtests.watch.metrics import gpu_rows, triton_row
from loadtests.watch.pods import pod_endpoints

if TYPE_CHECKING:
    from loadtests.watch.cluster import PodFollower

_ROUND_S: Final = 1.0
# A server that is slower than this is sampled again once it has answered; the round goes on without it.
_ROUND_WAIT_S: Final = 0.8
_READ_TIMEOUT_S: Final = 5.0


class Watcher:
    """Samples endpoints and writes rows; one thread per endpoint asks, this one alone writes."""

    def __init__(self, directory: Path, target: Target) -> None:
        self._target = target
        self._files = {name: JsonLines(directory / f"{name}.jsonl") for name in ("triton", "gpu", "watch")}
        self._http = urllib3.PoolManager(num_pools=200, retries=False, timeout=urllib3.Timeout(_READ_TIMEOUT_S))
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="scrape")
        self._asking: dict[Endpoint, Future[list[dict[str, Any]]]] = {}
        self._followed = _follower(target)

    def start(self) -> None:
        """Return when it is known what to sample.

        Raises:
            TargetError: the cluster does not tell.
        """
        if self._followed is not None:
            self._followed.start()

    def note(
        self, event: str, server: str | None = None, detail: str | None = None, *, at: float | None = None
    ) -> None:
        row = {"at": time.time() if at is None else at, "event": event, "server": server, "detail": detail}
        self._files["watch"].write(row)

    def round(self) -> None:
        """Ask every endpoint that is not still being asked; write what arrives within the round."""
        for endpoint in self._endpoints():
            if endpoint not in self._asking:
                self._asking[endpoint] = self._pool.submit(self._sample, endpoint)
        wait(self._asking.values(), timeout=_ROUND_WAIT_S)
        for endpoint, asked in list(self._asking.items()):
            if asked.done():
                del self._asking[endpoint]
                self._write(endpoint, asked)
            else:
                self.note("scrape_failed", endpoint.server, f"{endpoint.kind}: no answer within {_ROUND_WAIT_S} s")

    def _endpoints(self) -> list[Endpoint]:
        named = endpoints(self._target)
        if self._followed is None or self._target.kubernetes is None:
            return named
        for note in self._followed.take_notes():
            self.note(note.event, detail=note.detail, at=note.at)
        return named + pod_endpoints(self._followed.pods(), self._target.kubernetes)

    def _sample(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        text = self._read(endpoint)
        at = time.time()
        if endpoint.kind == "triton":
            return [triton_row(text, endpoint.server, at)]
        return gpu_rows(text, endpoint.server, at)

    def _read(self, endpoint: Endpoint) -> str:
        if self._followed is not None and endpoint.pod_port is not None:
            return self._followed.metrics(endpoint.server, endpoint.pod_port)
        response = self._http.request("GET", endpoint.url)
        if response.status != 200:  # noqa: PLR2004 - HTTP's OK
            msg = f"HTTP {response.status}"
            raise ValueError(msg)
        return response.data.decode()

    def _write(self, endpoint: Endpoint, asked: Future[list[dict[str, Any]]]) -> None:
        try:
            rows = asked.result()
        except (urllib3.exceptions.HTTPError, ValueError, TargetError) as error:
            self.note("scrape_failed", endpoint.server, f"{endpoint.kind}: {error}"[:300])
            return
        if not rows:
            self.note("scrape_failed", endpoint.server, f"{endpoint.kind}: the answer has no sample of a GPU")
        for row in rows:
            self._files[endpoint.kind].write(row)

    def close(self) -> None:
        if self._followed is not None:
            self._followed.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for file in self._files.values():
            file.close()


def _follower(target: Target) -> PodFollower | None:
    if target.kubernetes is None:
        return None
    # Only here: it takes most of a second, which a target without a cluster need not wait.
    from loadtests.watch.cluster import PodFollower  # noqa: PLC0415

    return PodFollower(target.kubernetes)


def main() -> int:
    # A Ctrl-C is for whoever started us; we end when they close our standard input, or are gone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = Path(sys.argv[1])
    watcher = Watcher(directory, Target.model_validate_json(sys.stdin.readline()))
    try:
        watcher.start()
        _watch(watcher)
    except TargetError as error:
        sentence = " ".join(str(error).split())
        print(sentence, flush=True)  # noqa: T201 - instead of the line its parent waits for
        return 2
    except OSError as error:
        sys.stderr.write(f"radslo: the watcher cannot write to {directory} ({error.strerror}) and ends\n")
        return 2
    finally:
        watcher.close()
    return 0


def _watch(watcher: Watcher) -> None:
    ending = threading.Event()
    threading.Thread(target=_end_with_stdin, args=(ending,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    watcher.note("started")
    watcher.round()
    print("ready", flush=True)  # noqa: T201 - the line its parent waits for
    due_s = time.monotonic() + _ROUND_S
    while not ending.wait(max(0.0, due_s - time.monotonic())):
        due_s = max(due_s + _ROUND_S, time.monotonic())
        watcher.note("heartbeat")
        watcher.round()
    watcher.round()
    watcher.note("stopped")


def _end_with_stdin(ending: threading.Event) -> None:
    sys.stdin.read()
    ending.set()


if __name__ == "__main__":
    sys.exit(main())
