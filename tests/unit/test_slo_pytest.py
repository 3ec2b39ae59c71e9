"""`pytest slo_checks --run DIR` and `radslo check` say the same of one recording."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.recording import Recording, read_recording
from reports.markdown import EMOJI
from slo_checks.verdict import evaluate, exit_code
from tests.unit.recordings import answers, ended_in_warm_up, recording, write_recording

ROOT = Path(__file__).parents[2]
GOOD = recording(answers(3_000), must_pass=("availability", "latency_p95"))
BAD = recording(answers(3_000, misses=dict.fromkeys(range(100), "shed")), must_pass=("availability",))
UNSEALED = recording(answers(3_000), manifest=None)
ENDED_EARLY = ended_in_warm_up()
HANG_S = 180  # a busy machine takes its time to start Python, pandas and scipy


def pytest_on(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "slo_checks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
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


def test_a_run_that_ended_before_anything_was_judged_is_red_and_says_so(tmp_path: Path) -> None:
    directory = write_recording(ENDED_EARLY, tmp_path / "run")
    code, told = pytest_on("--run", str(directory))
    assert (code, "Traceback" in told) == (1, False)
    assert "inconclusive: could not be checked: the run ended before a judged phase began" in told


def test_what_is_no_recording_is_an_error_of_usage(tmp_path: Path) -> None:
    code, told = pytest_on("--run", str(tmp_path))
    assert (code, "has no plan.json" in told) == (pytest.ExitCode.USAGE_ERROR, True)


@pytest.mark.parametrize(
    ("run", "code"),
    [(GOOD, 0), (BAD, 1), (UNSEALED, 3), (ENDED_EARLY, 3)],
    ids=["good", "bad", "unsealed", "ended early"],
)
def test_radslo_check_says_the_same_with_its_exit_code_and_in_every_file(
    run: Recording, code: int, tmp_path: Path
) -> None:
    directory = write_recording(run, tmp_path / "run")
    verdict, junit, markdown = (tmp_path / name for name in ("verdict.json", "junit.xml", "summary.md"))
    files = ["--json", str(verdict), "--junit", str(junit), "--markdown", str(markdown)]
    command = [sys.executable, "-m", "loadtests.cli", "check", str(directory), *files]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert checked.returncode == code, checked.stdout + checked.stderr
    told, judged = json.loads(verdict.read_text()), evaluate(read_recording(directory))
    assert (told["outcome"], told["reason"], told["exit_code"]) == (judged.outcome, judged.reason, code)
    assert f'name="outcome" value="{judged.outcome.value}"' in junit.read_text()
    assert markdown.read_text().startswith(f"## {EMOJI[judged.outcome]} ")


@pytest.mark.parametrize("run", [GOOD, BAD, UNSEALED], ids=["good", "bad", "unsealed"])
def test_a_recording_says_the_same_once_it_was_on_disk(run: Recording, tmp_path: Path) -> None:
    back = read_recording(write_recording(run, tmp_path / "run"))
    assert evaluate(back) == evaluate(run)
