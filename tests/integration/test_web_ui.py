"""Runs by hand and by scenario in Locust's web UI: every end of them, and of the UI itself, is in order and is told."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.recording import Manifest, read_recording
from tests.integration.runs import BIN, CHECKOUT, environment, free_port, master_at
from tests.integration.web_ui import WebUi, family_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NOBODY = "127.0.0.1:1"


def manifest_of(directory: Path) -> Manifest:
    manifest = read_recording(directory).manifest
    assert manifest is not None
    return manifest


def until_rows(runs: Path) -> None:
    """Wait until the one run there has recorded answers."""
    (run,) = runs.iterdir()
    deadline = time.monotonic() + 120
    while read_recording(run).requests.empty:
        assert time.monotonic() < deadline, "nothing was recorded"
        time.sleep(0.2)


@pytest.fixture
def web_ui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WebUi]:
    port = free_port()
    options = [str(option) for option in getattr(request, "param", ())]
    if "TARGET" in options:
        options[options.index("TARGET")] = str(request.getfixturevalue("target"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / "locust"), "--web-port", str(port), "--runs-dir", str(tmp_path / "runs"), *options],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment() | master_at(free_port()),
        )
    ui = WebUi(process, f"http://127.0.0.1:{port}", tmp_path / "log")
    try:
        ui.until_it_answers()
        ui.until_at_rest(0)
        yield ui
    finally:
        for each in reversed(family_of(process.pid) if process.poll() is None else []):
            each.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_web_ui(number: signal.Signals, web_ui: WebUi) -> None:
    assert web_ui.end(number) == 0


def test_ctrl_c_during_a_run_by_hand_seals_it_and_ends_ui_and_servers(web_ui: WebUi, tmp_path: Path) -> None:
    web_ui.start()
    web_ui.until_said("recording to")
    until_rows(tmp_path / "runs")
    assert any(each.name() == "tritonserver" for each in family_of(web_ui.process.pid))
    assert web_ui.end() == 0
    (run,) = (tmp_path / "runs").iterdir()
    recording = read_recording(run)
    assert manifest_of(run).end_reason == "stopped by SIGINT"
    assert len(recording.requests) > 0
    # The first users are there a second before the run's clock starts.
    assert recording.requests.intended_us.min() >= 0


@pytest.mark.parametrize("web_ui", [["--target", "TARGET"]], indirect=True)
def test_a_page_cannot_turn_the_run_elsewhere(web_ui: WebUi, tmp_path: Path) -> None:
    web_ui.start(recording=str(tmp_path / "elsewhere"), target=NOBODY, runs_dir=str(tmp_path / "elsewhere"))
    web_ui.until_said("recording to")
    until_rows(tmp_path / "runs")
    web_ui.stop()
    web_ui.until_said("sealed")
    assert not (tmp_path / "elsewhere").exists()
    (run,) = (tmp_path / "runs").iterdir()
    assert read_recording(run).plan.target["grpc"] != NOBODY
    assert manifest_of(run).end_reason == "stopped by hand"
    assert web_ui.end() == 0


@pytest.mark.parametrize(
    "web_ui",
    [["--target", NOBODY], ["--target", NOBODY, "--scenario", "smoke"]],
    ids=["by-hand", "shape"],
    indirect=True,
)
def test_a_run_that_cannot_begin_says_so_each_time_and_leaves_the_ui_up(web_ui: WebUi, tmp_path: Path) -> None:
    for times in (1, 2):
        web_ui.start()
        web_ui.until_said("error: no server answers", times)
        web_ui.until_at_rest(times)
        assert b"no server answers" in web_ui.ask("exceptions")
    assert not (tmp_path / "runs").exists()
    assert web_ui.end() == 2
    assert "Traceback" not in web_ui.log.read_text()


@pytest.mark.parametrize(
    "web_ui",
    [[], ["--processes", "2"], ["--processes", "2", "--scenario", "smoke"]],
    ids=["local", "processes", "processes-shape"],
    indirect=True,
)
def test_stop_in_the_ui_while_preparing_keeps_nothing_half_made(web_ui: WebUi, tmp_path: Path) -> None:
    for times in (1, 2):
        web_ui.start()
        web_ui.until_said("starting 1 Triton server", times)
        time.sleep(0.5)
        web_ui.stop()
        web_ui.until_said("stopped while preparing: no run was recorded", times)
        left = [each.name() for each in family_of(web_ui.process.pid)]
        assert "tritonserver" not in left
        web_ui.until_at_rest(times)
    assert not (tmp_path / "runs").exists()
    web_ui.end()
    assert "bug of radslo" not in web_ui.log.read_text()
