"""`pytest slo_checks --run runs/DIR`: the same verdict as `radslo check`, one test for each thing that was judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.recording import Recording, RecordingError, read_recording
from slo_checks.objectives import ObjectiveError
from slo_checks.verdict import RunVerdict, evaluate

_JUDGED = pytest.StashKey[tuple[Recording, RunVerdict]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run", metavar="DIR", help="recording to judge, a directory under runs/")


def pytest_configure(config: pytest.Config) -> None:
    """Judge once, before collection: without a readable recording there is nothing to collect, exit code 4."""
    given = config.getoption("--run")
    if given is None:
        raise pytest.UsageError("name the recording to judge: pytest slo_checks --run runs/DIR")
    try:
        recording = read_recording(Path(given))
        config.stash[_JUDGED] = (recording, evaluate(recording))
    except (RecordingError, ObjectiveError) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    _, judged = metafunc.config.stash[_JUDGED]
    if "verdict" in metafunc.fixturenames:
        names = [verdict.objective.name for verdict in judged.verdicts]
        metafunc.parametrize("verdict", judged.verdicts, ids=names)
    if "check" in metafunc.fixturenames:
        metafunc.parametrize("check", judged.validity, ids=[check.name for check in judged.validity])


@pytest.fixture
def run_verdict(request: pytest.FixtureRequest) -> RunVerdict:
    _, judged = request.config.stash[_JUDGED]
    return judged
