"""The command line of ``radslo``: parses, calls, sets the exit code.

Exit codes: 0 pass, or the verb did its work; 1 an objective was judged and missed; 2 usage or tool error;
3 inconclusive.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.local.cli import app as cluster
from loadtests.target import EMBEDDED, K3S, KUBECONFIG, LOCAL, LOCAL_TARGET_VARIABLE

# What a verb needs it imports itself: with pandas, matplotlib and scipy up here, --help and completion take seconds.
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from loadtests.recording import Recording
    from slo_checks.verdict import RunVerdict

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

app.add_typer(cluster)


def _complete_scenario(incomplete: str) -> Iterable[str]:
    from scenarios.scenario import shipped_scenarios

    return [path.stem for path in shipped_scenarios() if path.stem.startswith(incomplete)]


def _complete_target(incomplete: str) -> Iterable[tuple[str, str]]:
    known = {
        EMBEDDED: "Triton servers started here",
        LOCAL: "a Kubernetes cluster on this machine, started if need be",
        K3S: "a Kubernetes cluster in Docker, for this run",
        KUBECONFIG: "a cluster of yours; kubeconfig:CONTEXT for another than the current one",
    }
    return [(name, what) for name, what in known.items() if name.startswith(incomplete)]


def _complete_run(incomplete: str) -> Iterable[str]:
    return [str(path) for path in sorted(RUNS.glob("*")) if str(path).startswith(incomplete)]


ScenarioArgument = Annotated[
    str, typer.Argument(help="Shipped scenario or YAML file.", autocompletion=_complete_scenario, metavar="SCENARIO")
]
RunArgument = Annotated[
    Path | None,
    typer.Argument(help="Directory of a recording; the newest one by default.", autocompletion=_complete_run),
]
Targets = Annotated[
    str,
    typer.Option(
        help="'embedded', 'local', 'k3s', 'kubeconfig[:CONTEXT]', HOST:PORT, dns:///NAME:PORT, or a target file.",
        autocompletion=_complete_target,
        metavar="TARGET",
    ),
]
Servers = Annotated[int, typer.Option(min=1, max=16, help="Embedded: how many Triton servers.")]
DeviceTimes = Annotated[
    str, typer.Option(help="Embedded: emulated service times in ms, e.g. 'classifier=20+5,detector=60+10'.")
]
Processes = Annotated[int, typer.Option(min=1, help="Load processes.")]
RunsDir = Annotated[Path, typer.Option(help="Where runs are recorded.")]
ObjectivesFile = Annotated[
    Path | None, typer.Option("--objectives", help="Judge by this file, not by the objectives of the recording.")
]


@app.command(
    epilog="""Examples:

      radslo run smoke
      radslo run burst --target local
      radslo run burst --target k3s
      radslo run baseline --target kubeconfig:staging
      radslo run my.yaml --target dns:///triton.radstream:8001
      radslo run soak --target target.yaml --processes 4
    """
)
def run(
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
    from loadtests.run import RunOptions, record
    from slo_checks.verdict import exit_code

    _check_scenario(scenario)
    if target == LOCAL:
        _enter_local_cluster()
    console = Console()
    with _k3s_cluster() if target == K3S else nullcontext(target) as reached:
        if reached != EMBEDDED:
            _check_target(reached)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        options = RunOptions(
            scenario=scenario,
            target=reached,
            servers=servers,
            device_times=device_times,
            processes=processes,
            metrics_urls=tuple(metrics_url or ()),
            gpu_metrics_urls=tuple(gpu_metrics_url or ()),
            capacity_per_s=capacity_per_s,
            recording=recording or runs_dir / f"{stamp}-{Path(scenario).stem}",
        )
        directory = record(options, console)
    if check:
        raise typer.Exit(exit_code(_judge_and_report(directory, console).outcome))
    console.print(f"recorded {directory}; judge it with: radslo check {directory}", soft_wrap=True)


def _check_scenario(name: str) -> None:
    """Everything that can be wrong with it, before anything is started."""
    from loadtests.payloads import check_payloads
    from scenarios.scenario import load_scenario
    from slo_checks.objectives import check_names, load_objectives

    scenario = load_scenario(name)
    check_payloads(scenario)
    check_names(scenario, load_objectives())


def _check_target(name: str) -> None:
    """Whether it can be read, and its cluster asked for its pods."""
    from loadtests.target import read_target

    kubernetes = read_target(name).kubernetes
    if kubernetes is not None:
        from loadtests.watch.cluster import check_access

        check_access(kubernetes)


def _enter_local_cluster() -> None:
    """Return only where a local cluster's names and pods can be reached: elsewhere, this command starts anew there.

    Raises:
        LocalClusterError: this machine cannot run one.
    """
    if LOCAL_TARGET_VARIABLE in os.environ:  # set for whatever is started in there
        return
    from deploy.local.cli import progress
    from deploy.local.cluster import Cluster
    from deploy.local.up import ensure_up
    from deploy.local.visit import go_on_inside

    with progress(Console(stderr=True)) as (say, report):
        ensure_up(Cluster(), say, report)
    sys.stdout.flush()
    go_on_inside(Cluster(), [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def _k3s_cluster() -> Iterator[str]:
    """A K3s cluster that is there while this is open; its target file.

    Raises:
        K3sError: there is no Docker to start one in, or it does not come up.
    """
    from deploy.k3s.preflight import check

    check()
    from deploy.k3s.cluster import running  # needs testcontainers, which is there now
    from deploy.local.cli import progress

    with ExitStack() as stack:
        with progress(Console(stderr=True)) as (say, _):
            file = stack.enter_context(running(say))
        yield str(file)


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
    from json import dumps

    from loadtests.recording import read_recording
    from reports.contents import Contents
    from reports.markdown import summary
    from slo_checks.junit import junit_xml
    from slo_checks.verdict import exit_code, to_json

    recorded = read_recording(directory or _newest())
    verdict = _judge(recorded, objectives)
    if junit:
        junit.write_text(junit_xml(verdict, recorded), encoding="utf-8")
    if json:
        json.write_text(dumps(to_json(verdict, recorded), indent=2) + "\n", encoding="utf-8")
    if markdown:
        markdown.write_text(summary(Contents.of(recorded, verdict)), encoding="utf-8")
    _print_verdict(recorded, verdict, Console())
    raise typer.Exit(exit_code(verdict.outcome))


@app.command(epilog="Example:  radslo report runs/20261124T120000Z-smoke")
def report(
    directory: RunArgument = None,
    *,
    objectives: ObjectivesFile = None,
    output: Annotated[Path | None, typer.Option(help="Directory to write to; RUN/report by default.")] = None,
) -> None:
    """Write the HTML page, figures, verdict.json, junit.xml and summary.md of a recording."""
    from loadtests.recording import read_recording
    from reports.report import write_report

    recorded = read_recording(directory or _newest())
    page = write_report(recorded, _judge(recorded, objectives), output or recorded.directory / "report")
    Console().print(f"report: {page}", soft_wrap=True)


@app.command(epilog="Example:  radslo serve --servers 2 --device-times 'classifier=0+10,detector=0+30,encoder=0+20'")
def serve(*, servers: Servers = 1, device_times: DeviceTimes = "") -> None:
    """Run Triton servers on this machine until Ctrl-C, for use with --target or the Locust web UI."""
    command = [sys.executable, "-m", "deploy.embedded", "--servers", str(servers)]
    if device_times:
        command += ["--device-times", device_times]
    os.execv(sys.executable, command)  # noqa: S606 - our own module takes over this process


@app.command()
def scenarios() -> None:
    """List the shipped scenarios."""
    from reports.wording import seconds
    from scenarios.scenario import load_scenario, shipped_scenarios

    table = Table("scenario", "takes", "peak", "purpose")
    for path in shipped_scenarios():
        scenario = load_scenario(path)
        peak = "multiple of capacity" if scenario.needs_capacity else f"{scenario.peak_rate_per_s or 0:.3g}/s"
        table.add_row(path.stem, seconds(scenario.duration_s), peak, scenario.purpose)
    Console().print(table)


@app.command()
def demo(*, servers: Servers = 2) -> None:
    """Show the whole chain on this machine: real servers, load, recording, verdict, report."""
    from loadtests.run import RunOptions, record

    console = Console()
    console.print("The smoke scenario against embedded Triton servers; their GPUs are emulated.")
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    directory = record(RunOptions(scenario="smoke", servers=servers, recording=RUNS / f"{stamp}-smoke"), console)
    _judge_and_report(directory, console)


# --- parts of the verbs ------------------------------------------------------------------------------------------


def _newest() -> Path:
    """The recording made last; directory names begin with the time."""
    from loadtests.recording import RecordingError

    runs = sorted(path.parent for path in RUNS.glob("*/plan.json"))
    if not runs:
        msg = f"there is no recording under {RUNS}/: name one, or record one with 'radslo run smoke'"
        raise RecordingError(msg)
    return runs[-1]


def _judge(recorded: Recording, objectives_file: Path | None) -> RunVerdict:
    from slo_checks.objectives import load_objectives
    from slo_checks.verdict import evaluate

    return evaluate(recorded, load_objectives(objectives_file) if objectives_file else None)


def _judge_and_report(directory: Path, console: Console) -> RunVerdict:
    from loadtests.recording import read_recording
    from reports.report import write_report
    from slo_checks.verdict import evaluate

    recorded = read_recording(directory)
    verdict = evaluate(recorded)
    page = write_report(recorded, verdict, directory / "report")
    _print_verdict(recorded, verdict, console)
    console.print(f"report: {page.resolve()}", soft_wrap=True)
    return verdict


def _print_verdict(recorded: Recording, verdict: RunVerdict, console: Console) -> None:
    from reports.terminal import verdict_lines

    for part in verdict_lines(recorded, verdict):
        console.print(part)


def _users_mistakes() -> tuple[type[Exception], ...]:
    from deploy.image import ImageError
    from deploy.k3s import K3sError
    from deploy.local import LocalClusterError
    from loadtests.recording import RecordingError
    from loadtests.target import TargetError
    from scenarios.scenario import ScenarioError
    from slo_checks.objectives import ObjectiveError

    return ScenarioError, TargetError, RecordingError, ObjectiveError, ImageError, K3sError, LocalClusterError, OSError


class _Unheard(io.FileIO):
    """Output whose reader may leave, as ``| head`` does: the rest is dropped.

    As an error it would become exit code 1 in Typer and in Rich, here "an objective was missed".
    """

    def write(self, content: ReadableBuffer, /) -> int:
        try:
            return super().write(content)
        except BrokenPipeError:
            return memoryview(content).nbytes


def _let_readers_leave() -> None:
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        if stream is not None:
            raw = io.BufferedWriter(_Unheard(stream.fileno(), "w", closefd=False))
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=True))


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence, a bug of ours is a traceback, both exit with 2."""
    _let_readers_leave()
    try:
        app()
    except Exception as error:  # noqa: BLE001 - the only one: Python would exit with 1, here "an objective was missed"
        if isinstance(error, _users_mistakes()):
            Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}")
        else:
            traceback.print_exc()
        sys.exit(EXIT_TOOL_ERROR)


if __name__ == "__main__":
    main()
