"""What recording costs the client, and whether its memory stays flat."""

from __future__ import annotations

import statistics
from typing import Final

from benchmarks.figures import Figure, Limit, Result, median_of
from benchmarks.servers import python_server
from benchmarks.slices import LoadProcess, Order
from benchmarks.workloads import NULL

_USERS: Final = 8
_SLICE_S: Final = 1.5


def measure(*, quick: bool) -> Result:
    with python_server("loadtests.null_server") as address, LoadProcess("ours", NULL, address) as process:
        cost = _cost(process, pairs=4 if quick else 12)
        memory = _memory(process, lasts_s=30 if quick else 180)
    meaning = (
        "Slices with and without rows in turn, against a server that answers at once; then one long slice, whose "
        "resident memory is compared: median of its last quarter over median of its second."
    )
    return Result("recorder", meaning, (cost, memory))


def _cost(process: LoadProcess, pairs: int) -> Figure:
    shares = []
    for pair in range(pairs):
        found = {
            record: process.play(Order(seconds=_SLICE_S, users=_USERS, record=record)).cpu_us_per_request
            for record in ((True, False) if pair % 2 else (False, True))
        }
        shares.append((found[True] - found[False]) / found[True])
    return median_of("share of the client's CPU", shares, "", Limit("at most", 0.05))


def _memory(process: LoadProcess, lasts_s: float) -> Figure:
    rss_bytes = process.play(Order(seconds=lasts_s, users=_USERS)).rss_bytes
    quarter = len(rss_bytes) // 4
    growth = statistics.median(rss_bytes[-quarter:]) / statistics.median(rss_bytes[quarter : 2 * quarter])
    note = f"{lasts_s:.0f} s, {rss_bytes[-1] / 2**20:.0f} MiB at the end"
    return Figure("resident memory, last quarter / second", growth, "x", limit=Limit("at most", 1.05), note=note)
