"""The command line of ``radslo``: parses, calls, sets the exit code.

Exit codes: 0 pass, or the verb did its work; 1 an objective was judged and missed; 2 usage or tool error;
3 inconclusive.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from loadtests.payloads import check_payloads
from loadtests.recording import Recording, RecordingError, read_recording
from loadtests.run import RunOptions, record
from loadtests.target import EMBEDDED, TargetError, read_target
from reports.report import write_report
from reports.terminal import verdict_lines
from scenarios.scenario import Scenario, ScenarioError, load_scenario, shipped_scenarios
from slo_checks.objectives import ObjectiveError, check_names, load_objectives
from slo_checks.verdict import Outcome, RunVerdict, evaluate, exit_code

if TYPE_CHECKING:
    from collections.abc import Iterable

USER_ERRORS: Final = (ScenarioError, TargetError, RecordingError, ObjectiveError)
EXIT_TOOL_ERROR: Final = 2
RUNS: Final = Path(os.environ.get("RADSLO_RUNS_DIR", "runs"))

app = typer.Typer(
    name="radslo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Finds out whether RadStream keeps its promises: drives the Triton ensemble, records, judges, reports.",
    epilog="Exit codes: 0 pass or done, 1 an objective was missed, 2 usage or tool error, 3 inconclusive.",
)


def _complete_scenario(incomplete: str) -> Iterable[str]:
    return [path.stem for path in shipped_scenarios() if path.stem.startswith(incomplete)]


def _complete_run(incomplete: str) -> Iterable[str]:
    return [str(path) for path in sorted(RUNS.glob("*")) if str(path).startswith(incomplete)]


ScenarioArgument = Annotated[
    str, typer.Argument(help="Shipped scenario or YAML file.", autocompletion=_complete_scenario, metavar="SCENARIO")
]
RunArgument = Annotated[
    Path | None,
    typer.Argument(help="Directory of a recording; the newest one by default.", autocompletion=_complete_run),
]
Targets = Annotated[str, typer.Option(help="'embedded', HOST:PORT, dns:///NAME:PORT, or a target file.")]
Servers = Annotated[int, typer.Option(min=1, max=16, help="Embedded: how many Triton servers.")]
DeviceTimes = Annotated[
    str, typer.Option(help="Embedded: emulated service times in ms, e.g. 'classifier=20+5,detector=60+10'.")
]
Processes = Annotated[int, typer.Option(min=1, help="Load processes.")]
RunsDir = Annotated[Path, typer.Option(help="Where runs are recorded.")]
ObjectivesFile = Annotated[
    Path | None, typer.Option("--objectives", help="Judge by this file, not by the objectives of the recording.")
]


@app.command(epilog="Example:  radslo run smoke    radslo run my.yaml --target dns:///triton.radstream:8001")
def run(  # noqa: PLR0913 - one parameter an option
    scenario: ScenarioArgument,
    *,
    target: Targets = EMBEDDED,
    servers: Servers = 1,
    device_times: DeviceTimes = "",
    processes: Processes = 1,
    metrics_url: Annotated[list[str] | None, typer.Option(help="Triton metrics of the target; repeatable.")] = None,
    gpu_metrics_url: Annotated[list[str] | None, typer.Option(help="DCGM exporter; repeatable.")] = None,
    capacity_per_s: Annotated[float | None, typer.Option(help="The target's capacity, if known.")] = None,
    runs_dir: RunsDir = RUNS,
    recording: Annotated[Path | None, typer.Option(help="Directory of this recording.")] = None,
    check: Annotated[bool, typer.Option(help="Judge and report afterwards; the verdict is the exit code.")] = True,
) -> None:
    """Play a scenario against a target, record it, judge it, report it."""
    _check_before(load_scenario(scenario), target)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    options = RunOptions(
        scenario=scenario,
        target=target,
        servers=servers,
        device_times=device_times,
        processes=processes,
        metrics_urls=tuple(metrics_url or ()),
        gpu_metrics_urls=tuple(gpu_metrics_url or ()),
        capacity_per_s=capacity_per_s,
        recording=recording or runs_dir / f"{stamp}-{Path(scenario).stem}",
    )
    console = Console()
    directory = record(options, console)
    if check:
        recorded = read_recording(directory)
        raise typer.Exit(exit_code(_judge_and_report(recorded, None, directory / "report", console).outcome))
    console.print(f"recorded {directory}; judge it with: radslo check {directory}", soft_wrap=True)


def _check_before(scenario: Scenario, target: str) -> None:
    """Everything that can be wrong with the arguments, before anything is started."""
    check_payloads(scenario)
    check_names(scenario, load_objectives())
    if target != EMBEDDED:
        read_target(target)


@app.command(epilog="Example:  radslo check runs/20261124T120000Z-smoke --junit junit.xml")
def check(
    directory: RunArgument = None,
    *,
    objectives: ObjectivesFile = None,
    junit: Annotated[Path | None, typer.Option(help="Also write JUnit XML here.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write the verdict as JSON here.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write a CI job summary here.")] = None,
) -> None:
    """Judge a recording; no server is needed, and the verdict is always the same."""
    recorded = read_recording(directory or _newest())
    verdict = _judge(recorded, objectives)
    console = Console()
    for part in verdict_lines(recorded, verdict):
        console.print(part)
    for path, text in _documents(recorded, verdict, junit=junit, json=json, markdown=markdown):
        _write(path, text)
    raise typer.Exit(exit_code(verdict.outcome))


@app.command(epilog="Example:  radslo report runs/20261124T120000Z-smoke")
def report(
    directory: RunArgument = None,
    *,
    objectives: ObjectivesFile = None,
    output: Annotated[Path | None, typer.Option(help="Directory to write to; RUN/report by default.")] = None,
) -> None:
    """Write the HTML page, figures, verdict.json, junit.xml and summary.md of a recording."""
    recorded = read_recording(directory or _newest())
    page = write_report(recorded, _judge(recorded, objectives), output or recorded.directory / "report")
    Console().print(f"report: {page}", soft_wrap=True)
