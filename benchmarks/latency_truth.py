"""Whether the latencies that we report are true: a frozen server, slow neighbours, a generator near its ceiling."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Final

from benchmarks.figures import Figure, Limit, Result, median_of
from benchmarks.servers import echo_server, python_server
from benchmarks.slices import LoadProcess, Order, Slice
from benchmarks.workloads import NULL, SMALL

_RATE_PER_S: Final = 100.0
_LASTS_S: Final = 20.0
_FROZEN_S: Final = 3.0
_CEILING_SHARE: Final = 0.6


def measure(*, quick: bool) -> Result:
    figures = [*_frozen(), *_head_of_line(), *_lag(slices=2 if quick else 5)]
    meaning = (
        f"A server frozen for {_FROZEN_S:.0f} s in {_LASTS_S:.0f} s at {_RATE_PER_S:.0f} requests/s; 5 fast users "
        f"(10 ms) beside 20 slow ones (1 s); lag at {_CEILING_SHARE:.0%} of the rate that one process reaches here."
    )
    return Result("truth of latency", meaning, tuple(figures))


def _frozen() -> list[Figure]:
    ours, usual = _play_frozen("ours"), _play_frozen("usual")
    assert ours.latency_p95_ms is not None
    assert usual.latency_p95_ms is not None
    return [
        Figure("frozen server: p95, ours", ours.latency_p95_ms / 1e3, "s", limit=Limit("at least", 2.0)),
        Figure(
            "frozen server: p95, usual Locust users",
            usual.latency_p95_ms / 1e3,
            "s",
            note=f"a closed loop: it sent {usual.requests:,} requests, ours {ours.requests:,}",
        ),
    ]


def _play_frozen(client: str) -> Slice:
    with echo_server(SMALL.name) as server, LoadProcess(client, SMALL, server.grpc) as process:
        process.begin(Order(seconds=_LASTS_S, rate_per_s=_RATE_PER_S))
        time.sleep(_LASTS_S / 3)
        server.freeze(_FROZEN_S)
        return process.result()


def _head_of_line() -> list[Figure]:
    with python_server("benchmarks.sleepy_server") as address:
        ours, default = _beside_slow(address, threads=288), _beside_slow(address, threads=10)
    return [
        Figure("fast p95 beside slow users, above its value alone", ours, "ms", limit=Limit("at most", 30.0)),
        Figure("the same with gevent's default pool", default, "ms", note="10 threads for 25 waiting calls"),
    ]


def _beside_slow(address: str, threads: int) -> float:
    command = [sys.executable, "-m", "benchmarks.head_of_line", address, str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    return float(found["beside_slow_ms"] - found["alone_ms"])


def _lag(slices: int) -> list[Figure]:
    with python_server("loadtests.null_server") as address, LoadProcess("ours", NULL, address) as process:
        ceiling = process.play(Order(seconds=2, users=16)).rate_per_s
        order = Order(seconds=4, rate_per_s=_CEILING_SHARE * ceiling)
        lags = [process.play(order).lag_p99_ms for _ in range(slices)]
    known = [lag for lag in lags if lag is not None]
    note = f"at {_CEILING_SHARE * ceiling:,.0f} requests/s; server and client share this machine"
    return [median_of("generator lag p99 at 60 % of its ceiling", known, "ms", Limit("at most", 5.0), note)]
