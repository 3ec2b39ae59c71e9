"""Contents -> one self-contained HTML page [pure]: no script, nothing fetched, everything from outside escaped."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from loadtests.recording import Plan
from loadtests.target import EMBEDDED, KUBECONFIG, LOCAL
from reports import palette, wording
from reports.cautions import judged_by_others
from reports.contents import Contents
from reports.series import QUANTILES
from reports.svg import inline_svg
from reports.tables import needed_for, unaccounted
from slo_checks.verdict import undermines

MOST_ROWS: Final = 50
_QUANTITY: Final = re.compile(r"(\d) (?=(?:%|ms|s|min|h)(?!\w))")
SECTIONS: Final = (
    ("verdicts", "Verdicts"), ("timeline", "Timeline"), ("latency", "Latency"), ("errors", "Errors"),
    ("balance", "Balance"), ("validity", "Validity"), ("generator", "Generator"), ("servers", "Servers"),
    ("reproduce", "Reproduce"), ("glossary", "Terms"),
)  # fmt: skip
STATUS_MEANINGS: Final = {
    "shed": "The server refused the request: its queue was full, or the request's time in it ran out.",
    "draining": "The server said that it was stopping.",
    "transport": "No connection, a reset one, or one that went away without an answer.",
    "deadline": "No answer within the scenario's deadline.",
    "bad_input": "The server refused the image.",
    "server_fault": "The server failed inside.",
    "wrong_answer": "There was an answer, but not what the model must answer.",
    "other": "Any other status code; its text says which.",
    "in_flight": "Sent, without an outcome when the run ended.",
    "not_sent": "Due, but the generator did not send it, because too many were under way already.",
    "unstamped": "Recorded as ok without the time of its answer, which proves nothing.",
    "unknown": "A status that this version does not know.",
}


@dataclass(frozen=True, slots=True)
class LinkedFile:
    """A file beside the page; ``link`` is relative to it."""

    name: str
    link: str
    content: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The page's figures; None where there is nothing to draw."""

    timeline: Figure | None
    latency: Figure | None


def page(contents: Contents, figures: Figures, files: Sequence[LinkedFile] = ()) -> str:
    """The whole page as HTML."""
    recording = contents.recording
    plan = recording.plan
    return _TEMPLATE.render(
        contents=contents,
        run=contents.verdict,
        plan=plan,
        manifest=recording.manifest,
        damage=recording.damage,
        rows=len(recording.requests),
        target=wording.target(plan),
        run_path=f"runs/{recording.directory.name}",
        commands="\n".join(reproduction(plan)),
        given_objectives=" --objectives FILE" if judged_by_others(recording, contents.verdict) else "",
        setup=_setup(plan),
        files=files,
        unaccounted=unaccounted(contents.verdict.conservation),
        bin_s=None if contents.timeline is None else contents.timeline.bin_s,
        timeline_svg=_svg(figures.timeline, "timeline", "Rates, response times, failures, servers and lag over time"),
        latency_svg=_svg(figures.latency, "latency", "Distribution of response times of each kind of request"),
    )


def reproduction(plan: Plan) -> list[str]:
    """Commands that play the same schedule again."""
    commands = [f"git checkout {plan.git_commit}"] if plan.git_commit else []
    name = str(plan.target.get("name"))
    if name == EMBEDDED:
        where = f" --servers {plan.target.get('embedded_servers') or 1}"
        if plan.target.get("device_times"):
            where += f" --device-times {shlex.quote(plan.target['device_times'])}"
    elif name == LOCAL or name.partition(":")[0] == KUBECONFIG:
        where = f" --target {shlex.quote(name)}"
    else:
        where = f" --target {plan.target.get('grpc')}"
    capacity = f" --capacity-per-s {plan.capacity_per_s:g}" if plan.capacity_per_s is not None else ""
    return [*commands, f"radslo run {plan.scenario.name}{where} --processes {plan.workers}{capacity}"]


def _capacity(plan: Plan) -> str:
    if plan.capacity_per_s is None:
        return "not known"
    source = {True: ", measured before the run", False: ", as given", None: ""}[plan.capacity_measured]
    return f"{plan.capacity_per_s:g} requests per second{source}"


def _setup(plan: Plan) -> list[tuple[str, str]]:
    facts = {
        "Schedule": f"{wording.count(plan.scheduled_count)} requests, digest {plan.schedule_digest or wording.UNKNOWN}",
        "Target": json.dumps(plan.target, sort_keys=True),
        "Capacity": _capacity(plan),
        "Deadline": wording.seconds(plan.scenario.deadline_s),
        "In-flight cap": f"{wording.count(plan.scenario.in_flight_cap)} for each load process",
        "Payloads": ", ".join(plan.payloads),
        "Packages": ", ".join(f"{name} {version}" for name, version in plan.packages.items()),
        "Host": ", ".join(f"{name} {value}" for name, value in plan.host.items()),
    }
    return list(facts.items())


def _svg(figure: Figure | None, name: str, description: str) -> Markup | None:
    # Matplotlib has escaped every text in the figure, so that the SVG is safe as it stands.
    return None if figure is None else Markup(inline_svg(figure, name, description))  # noqa: S704


def _unbroken(text: str) -> str:
    """No line ends between a number and its unit."""
    return _QUANTITY.sub("\\1\N{NO-BREAK SPACE}", text)


def _cut_off(rows: Sized) -> Markup:
    """A table never grows without end; what it leaves out is said."""
    rest = len(rows) - MOST_ROWS
    said = Markup('<p class="small">and {} more, in the files below</p>')
    return said.format(wording.count(rest)) if rest > 0 else Markup()


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    spoken = (
        wording.count, wording.percent, wording.milliseconds, wording.seconds, wording.mebibytes,
        wording.promise, wording.measured, wording.emulated, wording.interval, wording.utc, wording.moment,
        wording.shortened, wording.sentence, _unbroken,
    )  # fmt: skip
    environment.filters |= {function.__name__.lstrip("_"): function for function in spoken}
    environment.globals |= {
        "light": palette.css_variables(palette.LIGHT),
        "dark": palette.css_variables(palette.DARK),
        "sections": SECTIONS,
        "outcome_words": wording.OUTCOME_WORDS,
        "outcome_signs": wording.OUTCOME_SIGNS,
        "role_words": wording.ROLE_WORDS,
        "status_words": wording.STATUS_WORDS,
        "status_meanings": STATUS_MEANINGS,
        "unknown": wording.UNKNOWN,
        "needed": {name: needed_for(quantile) for name, quantile in QUANTILES.items()},
        "most_rows": MOST_ROWS,
        "cut_off": _cut_off,
        "undermines": undermines,
    }
    return environment


_TEMPLATE: Final = _environment().get_template("page.html")
