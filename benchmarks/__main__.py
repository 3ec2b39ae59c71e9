"""Runs the benchmarks: ``python -m benchmarks``, ``make bench``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Final

from rich.console import Console

from benchmarks import BUILD, client_cost, cluster, latency_truth, recorder
from benchmarks.figures import Result, show
from benchmarks.servers import BenchmarkError

BENCHMARKS: Final[dict[str, Callable[..., Result]]] = {
    "client_cost": client_cost.measure,
    "latency_truth": latency_truth.measure,
    "recorder": recorder.measure,
    "cluster": cluster.measure,
}
EXAMPLES: Final = """\
examples:
  python -m benchmarks                       all of them, about 10 minutes
  python -m benchmarks --quick               fewer slices, about 4 minutes; wider spread
  python -m benchmarks --only client_cost    one of them
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=BENCHMARKS, help="one benchmark")
    parser.add_argument("--quick", action="store_true", help="fewer slices")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a figure misses its limit")
    options = parser.parse_args()
    console = Console()
    results = []
    for name, measure in BENCHMARKS.items():
        if options.only in {None, name}:
            console.print(f"{name} ...")
            try:
                results.append(measure(quick=options.quick))
            except BenchmarkError as error:
                console.print(f"error: {name}: {error}", style="red")
                return 2
            show(results[-1], console)
    _write(results, console)
    missed = [figure for result in results for figure in result.figures if figure.meets is False]
    return 1 if options.strict and missed else 0


def _write(results: list[Result], console: Console) -> None:
    BUILD.mkdir(exist_ok=True)
    path = BUILD / "benchmarks.json"
    path.write_text(json.dumps([result.to_json() for result in results], indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(main())
