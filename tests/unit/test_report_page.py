"""What a reader of a report relies on, whatever the run was like."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from loadtests.recording import (
    REQUEST_SCHEMA,
    Recording,
    ShardWriter,
    read_recording,
    request_batch,
    seal_shard,
    write_document,
)
from reports import wording
from reports.contents import Contents
from reports.markdown import summary
from reports.report import write_report
from reports.terminal import verdict_lines
from slo_checks.objectives import Objectives, objectives_document
from slo_checks.verdict import Outcome, RunVerdict, evaluate
from tests.unit.recordings import STARTED_AT, Row, answer, answers, changed, gpu_samples, recording
from tests.unit.test_report_samples import empty_run, sample_run

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "rect"}
ODD_RUNS = {
    "one request": recording([answer(0, 0.1)]),
    "nothing answered": recording(answers(50, misses=dict.fromkeys(range(50), "transport"))),
    "nothing sent": recording(answers(50, misses=dict.fromkeys(range(50), "not_sent"))),
    "instant answers": recording(answers(50, response_s=0.0)),
    "nothing has an outcome": recording(answers(50, misses=dict.fromkeys(range(50), "in_flight")), manifest=None),
    "ok at no known time": recording(answers(50, done_us=None), triton=[]),
    "statuses of another version": recording(answers(50, misses=dict.fromkeys(range(50), "not_of_this_version"))),
    "one answer at all": recording(answers(50, misses=dict.fromkeys(range(1, 50), "deadline"))),
}


class Page(HTMLParser):
    """Reads a page as a browser does: its text, its tags, and what it would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} runs a script"
            if name == "id":
                self.ids.append(value or "")
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in {"src", "href", "xlink:href", "srcset", "data", "action"}:
                self.fetched.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report_of(run: Recording, directory: Path) -> tuple[str, Page]:
    html = write_report(run, evaluate(run), directory).read_text(encoding="utf-8")
    return html, Page(html)


def on_disk(run: Recording, rows: list[Row], directory: Path) -> Path:
    """A sealed recording as a run leaves it."""
    assert run.manifest is not None
    directory.mkdir()
    write_document(directory / "plan.json", run.plan)
    writer = ShardWriter(directory, 0)
    writer.append(request_batch({name: [row[name] for row in rows] for name in REQUEST_SCHEMA.names}))
    writer.close()
    shards = (seal_shard(writer.path),)
    write_document(directory / "manifest.json", run.manifest.model_copy(update={"shards": shards}))
    return directory


def runs(directory: Path) -> dict[str, Recording]:
    return {
        "pass": sample_run(directory, 4000, 120.0),
        "fail": sample_run(directory, 4000, 120.0, outage=True),
        "unsealed": sample_run(directory, 60, 20.0, sealed=False),
        "empty": empty_run(directory),
        **ODD_RUNS,
    }


@dataclass(frozen=True)
class Reported:
    """A run, its verdict and its report."""

    run: Recording
    verdict: RunVerdict
    directory: Path
    html: str
    page: Page


@pytest.fixture(scope="module", params=["pass", "fail", "unsealed", "empty", *ODD_RUNS])
def reported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    directory = tmp_path_factory.mktemp("report")
    run = runs(directory)[request.param]
    html, page = report_of(run, directory)
    return Reported(run, evaluate(run), directory, html, page)


def test_a_page_is_whole_and_fetches_nothing(reported: Reported) -> None:
    html, page = reported.html, reported.page
    assert page.open == []
    assert "script" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert all(target.startswith("#") for target in page.fetched)
    assert all(not re.match(r"\w+:|//", link) for link in page.links)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html


def test_every_link_leads_somewhere(reported: Reported) -> None:
    for link in reported.page.links:
        assert link[1:] in reported.page.ids if link.startswith("#") else (reported.directory / link).is_file(), link


def test_the_page_has_the_numbers_of_the_verdict(reported: Reported) -> None:
    verdict, page = reported.verdict, reported.page
    assert wording.OUTCOME_WORDS[verdict.outcome] in page.text
    for each in verdict.verdicts:
        assert each.objective.title in page.text
        assert wording.sentence(each.reason) in page.text
        assert wording.measured(each) in page.text
        assert f"{each.estimate.samples:,}" in page.text
    for check in verdict.validity:
        assert wording.sentence(check.reason) in page.text
    assert f"{verdict.conservation.ok:,} answered well" in page.text


def test_a_run_from_disk_links_its_raw_files(tmp_path: Path) -> None:
    rows = answers(100)
    directory = on_disk(recording(rows), rows, tmp_path / "20261124T040000Z-literal")
    _, page = report_of(read_recording(directory), directory / "report")
    assert {"../plan.json", "../manifest.json", "../requests-0.parquet", "timeline.png"} <= set(page.links)
    assert "radslo check runs/20261124T040000Z-literal" in page.text


def test_a_run_can_be_played_again_from_the_page(tmp_path: Path) -> None:
    _, page = report_of(sample_run(tmp_path, 100, 30.0), tmp_path)
    assert "git checkout 3399011d0c6f4f0aa0fb1c2c2f7ce0a1d5c3e9b7" in page.text
    assert "radslo run burst --servers 2 --processes 2 --capacity-per-s 42" in page.text


@pytest.mark.parametrize(("name", "said"), [("local", "local"), ("kubeconfig:a b", "'kubeconfig:a b'")])
def test_a_run_against_a_cluster_can_be_played_again(tmp_path: Path, name: str, said: str) -> None:
    target = {"name": name, "grpc": "dns:///triton:8001", "kubernetes": {}}
    _, page = report_of(recording(answers(100), target=target), tmp_path)
    assert f"radslo run literal --target {said} --processes 1" in page.text


@pytest.mark.parametrize(("measured", "said"), [(True, ", measured before the run"), (False, ", as given"), (None, "")])
def test_a_capacity_says_whether_it_was_measured(tmp_path: Path, *, measured: bool | None, said: str) -> None:
    run = sample_run(tmp_path, 100, 30.0)
    plan = run.plan.model_copy(update={"capacity_measured": measured})
    _, page = report_of(replace(run, plan=plan), tmp_path)
    assert re.search(rf"42 requests per second{said}(?!,)", page.text)


def test_no_data_is_said_and_nothing_is_drawn(tmp_path: Path) -> None:
    _, page = report_of(empty_run(tmp_path), tmp_path)
    assert "NO DATA" in page.text
    assert "NOT SEALED" in page.text
    assert "INCONCLUSIVE" in page.text
    assert "svg" not in page.tags
    assert not (tmp_path / "timeline.png").exists()


def test_an_interrupted_run_says_why(tmp_path: Path) -> None:
    run = changed(recording(answers(100)), ended="interrupted", end_reason="stopped by SIGTERM")
    _, page = report_of(run, tmp_path)
    assert "INTERRUPTED. Stopped by SIGTERM; numbers tell only of the time until then." in page.text


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>"
    rows = answers(100, misses={3: "other"}, served_by=hostile)
    rows[3]["error"] = hostile
    run = replace(recording(rows), events=({"at": 1_700_000_000.5, "event": hostile, "detail": hostile},))
    html, page = report_of(run, tmp_path)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "<script" not in html
    assert hostile in page.text
    assert "<script" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_long_texts_are_cut_and_whole_in_their_title(tmp_path: Path) -> None:
    rows = answers(10, misses={3: "other"})
    rows[3]["error"] = "INTERNAL: " + "a" * 190
    html, page = report_of(recording(rows), tmp_path)
    assert "a" * 190 not in page.text
    assert f'title="INTERNAL: {"a" * 190}"' in html


def test_emulated_devices_are_named_as_such_everywhere(tmp_path: Path) -> None:
    html, page = report_of(sample_run(tmp_path, 4000, 120.0), tmp_path)
    assert "EMULATED DEVICE." in page.text
    assert "GPU utilisation, EMULATED DEVICE" in page.text
    assert re.search(r'data-label="Measured">[\d.]+ % <span class="tag emulated">emulated', html)
    assert "emulated" in (tmp_path / "summary.md").read_text(encoding="utf-8").lower()


def test_real_devices_are_not_called_emulated(tmp_path: Path) -> None:
    _, page = report_of(recording(answers(100)), tmp_path)
    assert "EMULATED" not in page.text


def other_objectives() -> dict[str, Any]:
    """The shipped ones, with a second promise on latency and a looser limit of lag."""
    document = objectives_document()
    tail = {**document["objectives"]["latency_p95"], "percentile": 0.999, "bound": 0.5, "fewest_samples": 2_995}
    measurement = {**document["measurement"], "lag_p99_most_s": 0.05}
    return {**document, "objectives": {**document["objectives"], "tail": tail}, "measurement": measurement}


def test_every_promise_on_latency_is_drawn_by_the_name_of_its_percentile(tmp_path: Path) -> None:
    _, page = report_of(recording(answers(100), objectives=other_objectives()), tmp_path)
    assert "limit of p95 5 s" in page.text
    assert "limit of p99.9 500 ms" in page.text


def test_limits_are_drawn_as_they_were_judged(tmp_path: Path) -> None:
    run = recording(answers(100))
    verdict = evaluate(run, Objectives.model_validate(other_objectives()))
    page = Page(write_report(run, verdict, tmp_path).read_text(encoding="utf-8"))
    assert "limit of p99.9 500 ms" in page.text
    assert "limit of p99 50 ms" in page.text
    assert "The limit is 50 ms for 99 %." in page.text


def test_figures_follow_the_colour_scheme(tmp_path: Path) -> None:
    html, _ = report_of(sample_run(tmp_path, 500, 60.0), tmp_path)
    assert not re.search(r"#[0-9a-f]{6}", html[html.index("<svg") :])


def test_files_are_what_their_names_say(tmp_path: Path) -> None:
    run = sample_run(tmp_path, 1000, 60.0, outage=True)
    page = write_report(run, evaluate(run), tmp_path / "new" / "report")
    assert page.name == "report.html"
    for picture in ("timeline.png", "latency.png"):
        with Image.open(page.parent / picture) as image:
            image.verify()
            assert image.format == "PNG"
            assert image.width >= 1000
    assert json.loads((page.parent / "verdict.json").read_bytes())["outcome"] == "fail"
    suite = ET.parse(page.parent / "junit.xml").getroot()  # noqa: S314 - our own file
    assert int(suite.get("failures", "0")) > 0
    assert not list(page.parent.glob("*.tmp"))


def test_a_report_made_again_is_the_same(tmp_path: Path) -> None:
    run = sample_run(tmp_path, 1000, 60.0, outage=True)
    verdict = evaluate(run)
    write_report(run, verdict, tmp_path)
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_report(run, verdict, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first


def test_a_former_figure_does_not_outlive_its_data(tmp_path: Path) -> None:
    (tmp_path / "timeline.png").write_bytes(b"of another run")
    report_of(empty_run(tmp_path), tmp_path)
    assert not (tmp_path / "timeline.png").exists()


def test_a_long_run_makes_no_larger_page(tmp_path: Path) -> None:
    html, _ = report_of(sample_run(tmp_path, 20_000, 6 * 3600.0, outage=True), tmp_path)
    assert len(html) < 2_000_000


def test_thousands_of_events_are_cut_off_and_counted(tmp_path: Path) -> None:
    events = tuple({"at": STARTED_AT + at / 1e3, "event": "worker_lost", "detail": f"no {at}"} for at in range(4_000))
    html, page = report_of(replace(recording(answers(400)), events=events), tmp_path)
    assert len(html) < 500_000
    assert "Only the first 40 events are drawn as lines, 3,960 later ones are not." in page.text
    assert "no 49 and 3,950 more, in the files below" in page.text


@pytest.mark.parametrize("name", ["$\\frac{$", "_hidden", "\u65e5\u672c", "", "a\x00\x1b[31mb"])
def test_names_from_outside_are_drawn_as_they_stand(tmp_path: Path, name: str) -> None:
    events = ({"at": STARTED_AT + 0.5, "event": name, "detail": name},)
    rows = answers(30, served_by=name, kind=name)
    html, _ = report_of(replace(recording(rows, gpu=gpu_samples([0.5], server=name)), events=events), tmp_path)
    timeline = Page(html[html.index("<svg") : html.index("</svg>")]).text
    words = name.replace("\x00\x1b", "\ufffd\ufffd").replace("_", " ").strip() or "(no name)"
    assert timeline.replace("_", " ").count(words) == len(["event", "server", "GPU"])


def test_the_markdown_table_is_well_formed(reported: Reported) -> None:
    lines = (reported.directory / "summary.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(reported.verdict.verdicts)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {8}


def test_markdown_cannot_be_broken_out_of() -> None:
    rows = answers(100)
    run = changed(recording(rows), ended="interrupted", end_reason="a|b\n# c <b>d</b> `e` [f](http://g)")
    text = summary(Contents.of(run, evaluate(run)))
    assert "a\\|b \\# c &lt;b&gt;d&lt;/b&gt; \\`e\\` \\[f\\]" in text


def test_the_balance_says_why_it_counts_more_than_the_verdicts(tmp_path: Path) -> None:
    phases = [
        {"name": "start", "duration_s": 1.0, "warmup": True, "rate": {"requests_per_s": 100}},
        {"name": "steady", "duration_s": 3.0, "rate": {"requests_per_s": 100}},
    ]
    rows = answers(100, phase="start", misses={1: "shed"}) + answers(200, first=100, start_s=1.0)
    run = recording(rows, phases=phases)
    balance = (
        "300 scheduled = 299 ok + 1 shed + 0 in flight + 0 not sent + 0 lost; "
        "100 of them were warm-up, which is not judged"
    )
    assert balance in summary(Contents.of(run, evaluate(run)))
    assert balance in printed(run, evaluate(run), width=200)
    _, page = report_of(run, tmp_path)
    assert "100 of the requests were due in warm-up, which is not judged" in page.text
    assert "300 requests recorded, 100 of them in warm-up" in page.text


def test_a_balance_of_an_unfinished_run_does_not_pretend_to_know() -> None:
    run = recording(answers(100, misses={1: "shed"}), manifest=None)
    assert wording.balance(evaluate(run).conservation, 0) == (
        "An unknown number scheduled = 99 ok + 1 shed + 0 in flight + 0 not sent + an unknown number lost"
    )


def test_a_run_judged_by_other_objectives_says_so_everywhere(tmp_path: Path) -> None:
    run = recording(answers(100))
    own, others = evaluate(run), evaluate(run, Objectives.model_validate(other_objectives()))
    said = "the run was judged by a file of objectives, not by those that it was planned with"
    for verdict, there in ((own, False), (others, True)):
        page = Page(write_report(run, verdict, tmp_path).read_text(encoding="utf-8"))
        assert (wording.sentence(said) in page.text) is there
        assert ("radslo check runs/literal --objectives FILE" in page.text) is there
        assert (said in (tmp_path / "summary.md").read_text(encoding="utf-8")) is there
        assert (said in printed(run, verdict, width=200)) is there


def test_the_console_tells_each_doubt_once() -> None:
    run = recording(answers(4_000), damage=["requests-0.arrows was cut"], must_pass=("availability", "latency_p95"))
    assert printed(run, evaluate(run), width=300).count("requests-0.arrows was cut") == 2  # one for each promise


def test_a_number_that_is_not_there_is_not_called_emulated(tmp_path: Path) -> None:
    run = recording(answers(300), gpu=gpu_samples([0.9] * 5, emulated=True))
    assert evaluate(run).emulated
    html, _ = report_of(run, tmp_path)
    assert wording.UNKNOWN + " <span" not in html
    assert wording.UNKNOWN + "*" not in printed(run, evaluate(run))
    assert wording.UNKNOWN + " emulated" not in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_checks_that_failed_come_first() -> None:
    run = recording(answers(300), damage=["cut"], client=[])
    checks = [check.ok for check in Contents.of(run, evaluate(run)).checks]
    assert checks == sorted(checks, key=[False, None, True].index)
    assert {False, None, True} == set(checks)


def test_no_line_of_the_page_ends_between_a_number_and_its_unit(tmp_path: Path) -> None:
    html, _ = report_of(recording(answers(100)), tmp_path)
    assert "Too few: 100 of 2,995 requests: 100\N{NO-BREAK SPACE}% (97.048\N{NO-BREAK SPACE}% to" in html


def printed(run: Recording, verdict: RunVerdict, width: int = 80) -> str:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as captured:
        for line in verdict_lines(run, verdict):
            console.print(line)
    return captured.get()


def test_the_console_shows_each_verdict_in_80_columns_without_colour(reported: Reported) -> None:
    verdict = reported.verdict
    text = printed(reported.run, verdict)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("…") == 0
    assert wording.OUTCOME_WORDS[verdict.outcome] in text
    for each in verdict.verdicts:
        assert wording.measured(each) in text


def test_only_pass_has_the_sign_of_a_pass(tmp_path: Path) -> None:
    verdict = evaluate(empty_run(tmp_path))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "✅" not in summary(Contents.of(empty_run(tmp_path), verdict))


@pytest.mark.parametrize(("value", "text"), [(4.2, "4.2 s"), (float("inf"), "never"), (None, wording.UNKNOWN)])
def test_a_time_that_is_not_known_is_a_dash_and_one_without_end_is_never(value: float | None, text: str) -> None:
    assert wording.seconds(value) == text
    assert wording.milliseconds(None if value is None else value * 1e3) == text
