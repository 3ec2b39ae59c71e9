"""The proof that this cluster scales: more load than one pod can serve, and a real HPA makes more of them.

One run is recorded from outside the cluster by `radslo run --target local`; each test looks at one thing in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deploy.local.cluster import Cluster
from loadtests.recording import Recording
from tests.cluster.clusters import inside, kubectl
from tests.integration.runs import radslo_run, write_scenario

POD_CAPACITY_PER_S = 10
"""1000 ms over the 20 + 50 + 30 ms that a study takes of a pod's one device (overlays/local/deployment.yaml)."""
MOST_PODS = 4
PHASES: list[dict[str, Any]] = [
    {"name": "calm", "duration_s": 8, "rate": {"requests_per_s": 4}},
    {"name": "step", "duration_s": 50, "rate": {"requests_per_s": 2.5 * POD_CAPACITY_PER_S}},
    # Long enough for pods to be given up meanwhile: window 10 s, then preStop 15 s and the end.
    {"name": "after", "duration_s": 50, "rate": {"requests_per_s": 4}},
]
STEP_US = 8_000_000
AFTER_US = 58_000_000


@dataclass(frozen=True)
class Grown:
    recording: Recording
    output: str
    first_pod: str
    events: list[dict[str, Any]]

    @property
    def answers(self) -> pd.DataFrame:
        requests = self.recording.requests
        return requests[requests["status"] == "ok"]


@pytest.fixture(scope="module")
def grown(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    directory = tmp_path_factory.mktemp("grown")
    (pod,) = kubectl(cluster.name, "get", "pods", "--selector=app.kubernetes.io/name=triton")["items"]
    scenario = write_scenario(
        directory, PHASES, objectives={"must_pass": ["latency_p95"], "must_not_fail": []}, in_flight_cap=1000
    )
    run = radslo_run(scenario, directory / "run", "--target", "local")
    code, output = run.end()
    assert code in {0, 1, 3}, output
    # `kubectl wait` ends when it is so, or fails.
    inside(
        cluster.name, "kubectl", "wait", "deployment/triton", "--namespace=radstream", "--timeout=120s",
        "--for=jsonpath={.status.replicas}=1",
    )  # fmt: skip
    events = kubectl(cluster.name, "get", "events")["items"]
    return Grown(run.recording(), output, pod["metadata"]["name"], events)


def test_the_hpa_goes_from_one_pod_to_all_and_back_to_one(grown: Grown) -> None:
    told = [event for event in grown.events if event["reason"] == "SuccessfulRescale"]
    sizes = [int(event["message"].split("New size: ")[1].split(";")[0]) for event in sorted(told, key=_seen_at)]
    assert max(sizes) == MOST_PODS
    assert sizes[-1] == 1
    peak = sizes.index(MOST_PODS)
    assert all(before < after for before, after in pairwise(sizes[: peak + 1]))


def test_every_new_pod_serves_and_the_first_answer_of_each_is_known(grown: Grown) -> None:
    first_done_us = grown.answers.groupby("served_by")["done_us"].min()
    new = first_done_us.drop(grown.first_pod)
    assert len(new) == MOST_PODS - 1
    # None can have served before the load was there, each has to while it still was.
    assert new.between(STEP_US, AFTER_US).all(), new


def test_once_all_serve_each_has_its_share(grown: Grown) -> None:
    """Jain's index: 1 when all serve the same, 1/n when one serves alone."""
    late = grown.answers[grown.answers["sent_us"].between(AFTER_US - 8_000_000, AFTER_US)]
    counts = late.groupby("served_by").size()
    assert len(counts) == MOST_PODS
    assert counts.sum() ** 2 / (len(counts) * (counts**2).sum()) > 0.8


def test_what_one_pod_could_not_serve_is_served_by_all(grown: Grown) -> None:
    """More answers than the first pod alone could have given, and none in the first pod's share beyond its capacity."""
    step = grown.answers[grown.answers["done_us"].between(STEP_US, AFTER_US)]
    seconds = (AFTER_US - STEP_US) / 1e6
    assert len(step) > 1.2 * POD_CAPACITY_PER_S * seconds
    assert (step.groupby("served_by").size() <= 1.05 * POD_CAPACITY_PER_S * seconds + 8).all()


def test_scaling_loses_no_request(grown: Grown) -> None:
    """Refused while the queue was full, but never lost: not when pods come, not when they go under load."""
    requests = grown.recording.requests
    assert set(requests["status"].dropna()) <= {"ok", "shed"}, requests["status"].value_counts()
    assert (requests[requests["intended_us"] >= AFTER_US]["status"] == "ok").all()


def test_the_watcher_followed_the_pods_as_they_came_and_went(grown: Grown) -> None:
    seen = {sample["server"]: sample["at"] for sample in grown.recording.triton}
    assert set(seen) == set(grown.answers["served_by"])
    last = max(seen.values())
    assert sum(last - at < 3 for at in seen.values()) < MOST_PODS


def test_the_image_was_really_pulled_once_and_then_was_there(grown: Grown) -> None:
    pulled = [event["message"] for event in grown.events if event["reason"] == "Pulled"]
    assert sum("Successfully pulled image" in message for message in pulled) == 1, pulled
    assert sum("already present on machine" in message for message in pulled) >= MOST_PODS - 1, pulled


def test_the_run_knows_what_it_ran_against(grown: Grown) -> None:
    target = grown.recording.plan.target
    assert target["emulated"] is True
    assert target["capacity_per_s"] == POD_CAPACITY_PER_S
    assert "HPA every 2 s" in target["name"]
    assert "PRIVATE KEY" not in Path(grown.recording.directory, "plan.json").read_text()
    assert "client-key-data" not in Path(grown.recording.directory, "plan.json").read_text()


def _seen_at(event: dict[str, Any]) -> str:
    return str(event.get("eventTime") or event["lastTimestamp"])
