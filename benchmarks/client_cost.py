"""CPU of the client for each request, and the rate that one load process reaches: ours, the usual, perf_analyzer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from benchmarks.figures import Figure, Limit, Result, median_of, not_measured, paired_ratio
from benchmarks.perf_analyzer import PerfAnalyzer, ensure_perf_analyzer
from benchmarks.servers import BenchmarkError, EchoServer, echo_server
from benchmarks.slices import LoadProcess, Order, Slice
from benchmarks.workloads import SMALL, STUDY, Workload

USERS: Final = 8
_SLICE_S: Final = 1.5
_FEW_REQUESTS: Final = 10
_BELOW_USUAL: Final = Limit("at most", 0.9)


def measure(*, quick: bool) -> Result:
    figures = [figure for workload in (SMALL, STUDY) for figure in _workload(workload, pairs=4 if quick else 12)]
    meaning = (
        f"Closed loop of {USERS} users against a real tritonserver whose model answers at once; slices of {_SLICE_S} s "
        "in turn, ratios pair by pair. Ours records and checks every answer. perf_analyzer is a C++ program."
    )
    return Result("client cost", meaning, tuple(figures))


def _workload(workload: Workload, pairs: int) -> list[Figure]:
    with (
        echo_server(workload.name) as server,
        LoadProcess("ours", workload, server.grpc) as ours,
        LoadProcess("usual", workload, server.grpc) as usual,
    ):
        order = Order(seconds=_SLICE_S, users=USERS)
        found = _in_turn({"ours": lambda: ours.play(order), "usual": lambda: usual.play(order)}, pairs)
        figures = _compared(workload, found["ours"], found["usual"])
        return figures + _against_perf_analyzer(server, workload, found["ours"], pairs)


def _in_turn(clients: dict[str, Callable[[], Slice]], pairs: int) -> dict[str, list[Slice]]:
    """Slices of each client in turn, the order swapped each time, after one of each that does not count."""
    found: dict[str, list[Slice]] = {name: [] for name in clients}
    for pair in range(-1, pairs):
        names = list(clients) if pair % 2 else list(reversed(clients))
        for name in names:
            played = clients[name]()
            if pair >= 0:
                found[name].append(played)
    return found


def _compared(workload: Workload, ours: list[Slice], usual: list[Slice]) -> list[Figure]:
    cost = [[each.cpu_us_per_request for each in slices] for slices in (ours, usual)]
    rate = [[each.rate_per_s for each in slices] for slices in (ours, usual)]
    return [
        paired_ratio(f"{workload.name}: CPU, ours / usual Locust user", cost[0], cost[1], _BELOW_USUAL),
        paired_ratio(f"{workload.name}: rate, ours / usual Locust user", rate[0], rate[1]),
        median_of(f"{workload.name}: CPU, ours", cost[0], "us/request"),
        median_of(f"{workload.name}: CPU, usual", cost[1], "us/request"),
        median_of(f"{workload.name}: rate, ours", rate[0], "/s"),
        median_of(f"{workload.name}: rate, usual", rate[1], "/s"),
    ]


def _against_perf_analyzer(server: EchoServer, workload: Workload, ours: list[Slice], pairs: int) -> list[Figure]:
    name = f"{workload.name}: CPU, ours / perf_analyzer"
    try:
        theirs = _perf_analyzer_cost(ensure_perf_analyzer(), server, workload, pairs=max(3, pairs // 4))
    except BenchmarkError as error:
        return [not_measured(name, str(error))]
    cost = median_of(f"{workload.name}: CPU, perf_analyzer", theirs, "us/request", note="start-up subtracted")
    assert cost.value is not None
    ratios = [each.cpu_us_per_request / cost.value for each in ours]
    return [median_of(name, ratios, "x", note="same server, one after the other"), cost]


def _perf_analyzer_cost(program: PerfAnalyzer, server: EchoServer, workload: Workload, pairs: int) -> list[float]:
    """Microseconds of CPU a request, of runs of a few thousand less runs of a few."""
    load = f"--concurrency-range={USERS}"
    costs = []
    for _ in range(pairs):
        idle = program.play(server, workload, _FEW_REQUESTS, load)
        busy = program.play(server, workload, 4000, load)
        costs.append((busy.cpu_s - idle.cpu_s) / (busy.requests - idle.requests) * 1e6)
    return costs
