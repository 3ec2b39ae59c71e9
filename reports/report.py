"""Writes a report: the page, its figures, and the verdict for people and for machines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

from loadtests.recording import Recording
from reports import markdown
from reports.contents import Contents
from reports.ink import any_letters
from reports.latency_plot import latency_figure
from reports.page import Figures, LinkedFile, page
from reports.timeline_plot import timeline_figure
from slo_checks import junit, verdict
from slo_checks.verdict import RunVerdict

PNG_DPI: Final = 130
RAW_FILES: Final = {
    "plan.json": "what was meant to happen",
    "manifest.json": "what did happen, written last",
    "requests-*": "one row for each request",
    "client.jsonl": "CPU, memory and progress of the load processes, each second",
    "events.jsonl": "what happened to the run itself",
    "triton.jsonl": "the servers' own counters, each second",
    "gpu.jsonl": "GPU samples, each second",
    "watch.jsonl": "the watcher's heartbeat, and what it could not read",
}
REPORT_FILES: Final = {
    "timeline.png": "the timeline as a picture",
    "latency.png": "the distributions as a picture",
    "verdict.json": "the verdict for programs",
    "junit.xml": "the verdict for CI systems",
    "summary.md": "the verdict for a CI job's summary",
}


def write_report(recording: Recording, run_verdict: RunVerdict, directory: Path) -> Path:
    """Write ``report.html`` and the files beside it into ``directory``, and return the page's path.

    Each file is either whole or absent or the former one, whatever happens. The page comes last: where it is, the
    rest is. A figure for which there are no data is not written, and a former one removed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = Contents.of(recording, run_verdict)
    figures = draw(contents)
    for name, figure in (("timeline.png", figures.timeline), ("latency.png", figures.latency)):
        if figure is None:
            (directory / name).unlink(missing_ok=True)
        else:
            _write(directory / name, _png(figure))
    path = directory / "report.html"
    _write(directory / "verdict.json", _json(verdict.to_json(run_verdict, recording)))
    _write(directory / "junit.xml", junit.junit_xml(run_verdict, recording).encode())
    _write(directory / "summary.md", markdown.summary(contents, str(path)).encode())
    files = [*_linked(directory, REPORT_FILES, directory), *_linked(recording.directory, RAW_FILES, directory)]
    _write(path, page(contents, figures, files).encode())
    return path


def draw(contents: Contents) -> Figures:
    return Figures(
        timeline=None if contents.timeline is None else timeline_figure(contents.timeline, contents.limits),
        latency=latency_figure(contents.latency, contents.limits.latency) if contents.latency else None,
    )


def _linked(where: Path, files: dict[str, str], page_directory: Path) -> Iterator[LinkedFile]:
    for pattern, content in files.items():
        for file in sorted(where.glob(pattern)):
            if file.suffix != ".tmp":
                link = Path(os.path.relpath(file.absolute(), page_directory.absolute())).as_posix()
                yield LinkedFile(file.name, link, content)


def _png(figure: Figure) -> bytes:
    drawn = BytesIO()
    with any_letters():
        figure.savefig(drawn, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return drawn.getvalue()


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.tmp")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
