"""`pytest slo_checks --run DIR` and `radslo check` say the same of one recording."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.recording import Recording, read_recording
from slo_checks.verdict import Outcome, evaluate, exit_code
from tests.unit.recordings import answers, recording, write_recording

ROOT = Path(__file__).parents[2]
GOOD = recording(answers(3_000), must_pass=("availability", "latency_p95"))
BAD = recording(answers(3_000, misses=dict.fromkeys(range(100), "shed")), must_pass=("availability",))


def pytest_on(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "slo_checks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_run_that_passed_is_green(tmp_path: Path) -> None:
    directory = write_recording(GOOD, tmp_path / "run")
    assert exit_code(evaluate(read_recording(directory)).outcome) == 0
    code, told = pytest_on("--run", str(directory))
    assert code == 0, told
    assert "not asked by the scenario" in told


def test_a_run_that_failed_is_red_and_says_why(tmp_path: Path) -> None:
    directory = write_recording(BAD, tmp_path / "run")
    assert exit_code(evaluate(read_recording(directory)).outcome) == 1
    code, told = pytest_on("--run", str(directory))
    assert code == 1
    assert "fail: missed: Availability" in told
    assert "fail: misses at least 99.9 %" in told
    assert "longest run of misses: 100 in a row" in told


def test_a_run_that_proves_too_little_is_red_and_says_so(tmp_path: Path) -> None:
    directory = write_recording(recording(answers(100), manifest=None), tmp_path / "run")
    assert exit_code(evaluate(read_recording(directory)).outcome) == 3
    code, told = pytest_on("--run", str(directory))
    assert code == 1
    assert "inconclusive: not proven: Availability" in told
    assert "inconclusive: there is no manifest.json" in told


def test_what_is_no_recording_is_an_error_of_usage(tmp_path: Path) -> None:
    code, told = pytest_on("--run", str(tmp_path))
    assert (code, "has no plan.json" in told) == (pytest.ExitCode.USAGE_ERROR, True)


@pytest.mark.parametrize("run", [GOOD, BAD, recording(answers(3_000), manifest=None)], ids=["good", "bad", "unsealed"])
def test_a_recording_says_the_same_once_it_was_on_disk(run: Recording, tmp_path: Path) -> None:
    back = read_recording(write_recording(run, tmp_path / "run"))
    assert evaluate(back) == evaluate(run)
    assert evaluate(back).outcome in Outcome
