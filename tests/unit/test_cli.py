"""The exit code is the verdict, whoever listens."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from loadtests.cli import _complete_target
from loadtests.recording import Recording
from tests.unit.api_server import api_server
from tests.unit.recordings import answers, recording, write_recording

RADSLO = (sys.executable, "-m", "loadtests.cli")
RUNS: dict[str, tuple[Recording, int]] = {
    "pass": (recording(answers(3_000)), 0),
    "fail": (recording(answers(3_000, misses=dict.fromkeys(range(30), "shed"))), 1),
    "inconclusive": (recording(answers(300)), 3),
}


def exit_code_unheard(*arguments: object) -> int:
    """What ``radslo ...`` exits with when nobody reads what it prints."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [*RADSLO, *map(str, arguments)]
        return subprocess.run(command, stdout=writer, stderr=writer, check=False, timeout=60).returncode
    finally:
        os.close(writer)


@pytest.mark.parametrize("outcome", RUNS)
def test_a_closed_pipe_changes_neither_the_exit_code_nor_the_files(tmp_path: Path, outcome: str) -> None:
    run, code = RUNS[outcome]
    directory, files = write_recording(run, tmp_path / "run"), [tmp_path / name for name in ("j.xml", "v.json", "s.md")]
    asked = zip(("--junit", "--json", "--markdown"), files, strict=True)
    assert exit_code_unheard("check", directory, *(word for option in asked for word in option)) == code
    assert all(file.stat().st_size for file in files)
    suite = ET.parse(files[0]).getroot()  # noqa: S314 - our own file
    assert suite.get("failures") == ("2" if outcome == "fail" else "0")


def test_a_closed_pipe_does_not_make_a_mistake_a_missed_objective(tmp_path: Path) -> None:
    assert exit_code_unheard("check", tmp_path / "nowhere") == 2
    assert exit_code_unheard("check", "--no-such-option") == 2


def test_a_report_that_nobody_hears_of_is_written(tmp_path: Path) -> None:
    directory = write_recording(RUNS["pass"][0], tmp_path / "run")
    assert exit_code_unheard("report", directory) == 0
    assert (directory / "report" / "report.html").is_file()


def test_the_verdict_is_printed_and_is_the_exit_code(tmp_path: Path) -> None:
    run, code = RUNS["fail"]
    command = [*RADSLO, "check", str(write_recording(run, tmp_path / "run"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
    assert "FAIL: missed: Availability" in done.stdout


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("kubeconfig", "error: the API server http://127.0.0.1:{port} refuses to tell of pods (HTTP 403: no); this"),
        ("kubeconfig:staging", "error: kubeconfig {file} has no context 'staging': 'kubectl config"),
    ],
)
def test_a_cluster_that_cannot_be_read_is_one_sentence_before_anything_begins(
    tmp_path: Path, target: str, says: str
) -> None:
    with api_server(tmp_path, []) as api:
        api.refusal = (403, "no")
        done = subprocess.run(
            [*RADSLO, "run", "smoke", "--target", target, "--recording", str(tmp_path / "run")],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | {"KUBECONFIG": str(api.kubernetes.kubeconfig)},
        )
    expected = says.format(port=api.port, file=api.kubernetes.kubeconfig)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_targets_complete_themselves() -> None:
    assert [name for name, _ in _complete_target("")] == ["embedded", "local", "k3s", "kubeconfig"]
    assert [name for name, _ in _complete_target("k")] == ["k3s", "kubeconfig"]
