"""`radslo cluster up | status | exec | down`."""

from __future__ import annotations

import json as jsonlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deploy.local.go_build import BuildProgress, Report
    from deploy.local.status import ClusterStatus

app = typer.Typer(
    name="cluster",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="A real Kubernetes on this one machine, with the ensemble in it, scaled by a real HPA. Needs root.",
)


def _complete_name(incomplete: str) -> list[str]:
    from deploy.local.cluster import known_clusters

    return [cluster.name for cluster in known_clusters() if cluster.name.startswith(incomplete)]


Name = Annotated[str, typer.Option("--name", help="Which cluster; several can run side by side.",
                                   autocompletion=_complete_name)]  # fmt: skip
LOCUST_PORT: Final = 8089


@app.command(epilog="Example:  radslo cluster up    radslo cluster up --hpa default --name slow")
def up(
    *,
    name: Name = "local",
    hpa: Annotated[
        Literal["fast", "default"] | None,
        typer.Option(help="HPA every 2 s, to see it at work, or with the defaults that EKS has; else as it was."),
    ] = None,
) -> None:
    """Bring the cluster up, or repair it; one that works is left alone. The first time builds Kubernetes."""
    from deploy.local.cluster import Cluster
    from deploy.local.up import ensure_up

    cluster = Cluster(name)
    console = Console(stderr=True)
    with progress(console) as (say, report):
        ensure_up(cluster, say, report, hpa)
    Console().print(
        f"cluster {name} is up; try:\n"
        f"  radslo cluster exec{_named(name)} kubectl get pods,hpa -n radstream\n"
        f"  radslo run burst --target {'local' if name == 'local' else cluster.target_file}\n"
        f"  radslo cluster down{_named(name)}",
        highlight=False,
        soft_wrap=True,
    )


@app.command(epilog="Example:  radslo cluster build    (in CI, with RADSLO_CACHE_DIR kept from one job to the next)")
def build(
    *, if_possible: Annotated[bool, typer.Option(help="Do nothing, and say why, where no cluster can run.")] = False
) -> None:
    """Build and fetch beforehand all that 'up' needs, once; without it 'up' does so."""
    from deploy.local.preflight import why_not
    from deploy.local.up import ensure_programs

    console = Console(stderr=True)
    obstacle = why_not()
    if obstacle and if_possible:
        console.print(obstacle, highlight=False, soft_wrap=True)
        return
    with progress(console) as (say, report):
        ensure_programs(say, report)


@app.command(epilog="Exit codes: 0 runs and works, 1 something is wrong with it or it does not run.")
def status(
    *, name: Name = "local", json: Annotated[bool, typer.Option("--json", help="For a program.")] = False
) -> None:
    """Show what runs, since when, in which version, and what is wrong."""
    from deploy.local.cluster import Cluster
    from deploy.local.status import status_of

    found = status_of(Cluster(name))
    if json:
        sys.stdout.write(jsonlib.dumps(found.to_json(), indent=2) + "\n")
    else:
        _print_status(found, Console())
    raise typer.Exit(0 if found.running and not found.problems else 1)


@app.command(
    name="exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example:  radslo cluster exec kubectl get pods -A    radslo cluster exec locust --target local",
)
def run_inside(
    command: Annotated[list[str], typer.Argument(help="What to run, with its arguments.")],
    *,
    name: Name = "local",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            help="Port in there that answers on this machine's 127.0.0.1, for the Locust web UI; 0: none.",
        ),
    ] = LOCUST_PORT,
) -> None:
    """Run a command in the cluster's network, with KUBECONFIG set and kubectl on the path."""
    from deploy.local.cluster import Cluster
    from deploy.local.visit import run_command

    raise typer.Exit(run_command(Cluster(name), command, port, Console(stderr=True).print))


@app.command(epilog="Example:  radslo cluster down    radslo cluster down --all")
def down(
    *,
    name: Name = "local",
    every: Annotated[bool, typer.Option("--all", help="All clusters of this user.")] = False,
    force: Annotated[bool, typer.Option(help="Also end commands that still run in its network.")] = False,
) -> None:
    """End the cluster and leave the machine as it was; what was built stays in the cache."""
    from deploy.local.cluster import Cluster, known_clusters
    from deploy.local.down import take_down

    console = Console()
    for cluster in known_clusters() if every else [Cluster(name)]:
        with progress(Console(stderr=True)) as (say, _):
            gone = take_down(cluster, say, force=force)
        console.print(f"cluster {cluster.name} " + ("is gone" if gone else "does not exist"), highlight=False)


@contextmanager
def progress(console: Console) -> Iterator[tuple[Callable[[str], None], Report]]:
    """Show what is being done: one line that changes on a terminal, a line per step elsewhere."""
    try:
        if console.is_terminal:
            with _Bar(console) as bar:
                yield bar.say, bar.report
        else:
            yield (lambda text: console.print(f"cluster: {text}", highlight=False, soft_wrap=True)), _Lines(console)
    except KeyboardInterrupt:
        console.print("interrupted; what is done is kept, the same command goes on from here")
        raise typer.Exit(130) from None


class _Bar:
    """A line that says what is being done, with a bar while something is built."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, transient=True)
        self._task = self._bars.add_task("looking around", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self._bars.update(self._task, description=escape(text), total=None)

    def report(self, step: BuildProgress) -> None:
        self._bars.update(self._task, description=_told(step), total=1.0, completed=step.done_ratio)


class _Lines:
    """Build progress for a log: a line when the step changes, and one each half minute."""

    def __init__(self, console: Console) -> None:
        self._console, self._step, self._next_s = console, ("", ""), 0.0

    def __call__(self, progress: BuildProgress) -> None:
        import time

        step = (progress.product, progress.step)
        if step != self._step or time.monotonic() > self._next_s:
            self._step, self._next_s = step, time.monotonic() + 30
            self._console.print(f"cluster: {_told(progress)}", highlight=False, soft_wrap=True)


def _told(step: BuildProgress) -> str:
    left = "" if step.left_s is None else f", about {max(step.left_s, 1) / 60:.0f} min left"
    if step.left_s is not None and step.left_s < 90:  # noqa: PLR2004 - seconds read better
        left = f", about {step.left_s:.0f} s left"
    return f"building Kubernetes, once: {step.product}: {step.step} ({step.done_ratio:.0%}{left})"


def _named(name: str) -> str:
    return "" if name == "local" else f" --name {name}"


def _print_status(found: ClusterStatus, console: Console) -> None:
    from rich.table import Table

    if not found.running:
        console.print(f"cluster {found.name} does not run; start it with: radslo cluster up{_named(found.name)}")
        return
    table = Table("component", "version", "pid", "since", "memory", "state")
    for each in found.components:
        since = "" if each.since_s is None else _since(each.since_s)
        memory = "" if each.pss_bytes is None else f"{each.pss_bytes / 2**20:.0f} MiB"
        state = f"[red]{escape(each.problem)}[/red]" if each.problem else "works"
        table.add_row(each.name, each.version or "", str(each.pid or ""), since, memory, state)
    console.print(table)
    total = sum(each.pss_bytes or 0 for each in found.components)
    console.print(f"HPA profile {found.hpa_profile}; components use {total / 2**20:.0f} MiB in all", highlight=False)
    for line in [*found.objects, *(f"visitor {visitor}" for visitor in found.visitors)]:
        console.print(line, highlight=False, markup=False)


def _since(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004
