"""What stays of a recording that is given up, and that no run touches what another left."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from loadtests.recorder import Recorder
from loadtests.recording import RecordingError
from loadtests.target import Kubernetes, Target
from tests.unit.api_server import api_server, pod
from tests.unit.recordings import answers, recording
from tests.unit.test_watch_cluster import rows
from tests.unit.test_watcher import Page, serving


def target_of(kubernetes: Kubernetes) -> Target:
    return Target(name="k", grpc="dns:///triton:8001", kubernetes=kubernetes)


def test_a_recording_that_is_given_up_before_its_plan_leaves_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "runs" / "run")
    recorder.event("started", "one load process")
    recorder.abandon()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_recording_that_is_given_up_after_its_plan_keeps_all(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    recorder.write_plan(recording(answers(1)).plan)
    recorder.event("started", "one load process")
    recorder.abandon()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"plan.json", "events.jsonl"}


def test_what_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("another run's")
    with pytest.raises(RecordingError, match="exists already"):
        Recorder(tmp_path)
    assert (tmp_path / "plan.json").read_text() == "another run's"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match=r"cannot write to .*/file/run: Not a directory"):
        Recorder(tmp_path / "file" / "run")


def test_pods_are_watched_while_the_run_is_recorded(tmp_path: Path) -> None:
    with serving({"metrics": Page()}) as url_of, api_server(tmp_path, [pod("a", address="127.0.0.1")]) as api:
        port = urlsplit(url_of("metrics")).port
        recorder = Recorder(tmp_path / "run")
        recorder.start_watcher(target_of(api.kubernetes.model_copy(update={"metrics_port": port})))
        assert {row["server"] for row in rows(tmp_path / "run" / "triton.jsonl")} == {"a"}
        recorder.abandon()


def test_pods_that_cannot_be_watched_end_it_with_the_reason(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run")
    with pytest.raises(RecordingError, match=r"^there is no kubeconfig at \S+/gone: set KUBECONFIG"):
        recorder.start_watcher(target_of(Kubernetes(kubeconfig=tmp_path / "gone")))
    recorder.abandon()
