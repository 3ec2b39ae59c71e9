"""deploy/kubernetes: pods start, are replaced and go without a request being lost to the manifests."""

from __future__ import annotations

import sys

from slo_checks.objectives import load_objectives
from tests.unit.manifests import (
    AGE_JITTER,
    CHECKOUT,
    ENDPOINT_S,
    RESOLVER_S,
    all_of,
    container,
    for_each_overlay,
    one,
    pod,
)

sys.path.insert(0, str(CHECKOUT / "triton"))

from serve import parse_arguments

OBJECTIVES = load_objectives().objectives
MARGIN_S = 5
"""For tritonserver to unload its models and end."""


def pre_stop_s(overlay: str) -> int:
    found: int = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    return found


@for_each_overlay
def test_the_probes_make_a_start_no_more_than_a_tenth_of_its_objective_longer(overlay: str) -> None:
    startup, readiness = container(overlay)["startupProbe"], container(overlay)["readinessProbe"]
    assert startup.get("initialDelaySeconds", 0) == readiness.get("initialDelaySeconds", 0) == 0
    assert startup["periodSeconds"] + readiness["periodSeconds"] <= OBJECTIVES["pod_start"].bound / 10


@for_each_overlay
def test_a_pod_that_misses_the_objective_is_still_let_start(overlay: str) -> None:
    startup = container(overlay)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 2 * OBJECTIVES["pod_start"].bound


@for_each_overlay
def test_readiness_covers_all_models_and_liveness_none(overlay: str) -> None:
    paths = {name: container(overlay)[f"{name}Probe"]["httpGet"]["path"] for name in ("readiness", "liveness")}
    assert paths == {"readiness": "/v2/health/ready", "liveness": "/v2/health/live"}


@for_each_overlay
def test_a_dead_server_is_replaced_within_the_promised_recovery(overlay: str) -> None:
    liveness = container(overlay)["livenessProbe"]
    noticed_s = liveness["periodSeconds"] * liveness["failureThreshold"] + liveness["timeoutSeconds"]
    ended_s = noticed_s + pod(overlay)["terminationGracePeriodSeconds"]
    assert ended_s + OBJECTIVES["pod_start"].bound < OBJECTIVES["recovery"].bound


@for_each_overlay
def test_the_grace_period_has_room_for_the_hook_and_the_exit_timeout(overlay: str) -> None:
    options = parse_arguments(container(overlay)["args"])
    needed_s = pre_stop_s(overlay) + options.exit_timeout_s + MARGIN_S
    assert pod(overlay)["terminationGracePeriodSeconds"] >= needed_s


@for_each_overlay
def test_clients_have_left_before_the_server_is_told_to_end(overlay: str) -> None:
    age_s = parse_arguments(container(overlay)["args"]).max_connection_age_ms / 1000
    assert pre_stop_s(overlay) > ENDPOINT_S + RESOLVER_S[overlay] + AGE_JITTER * age_s


def test_a_request_that_may_still_be_answered_in_time_is_let_finish() -> None:
    assert parse_arguments(container("eks")["args"]).exit_timeout_s >= OBJECTIVES["latency_p95"].bound


@for_each_overlay
def test_a_rollout_gives_up_no_capacity_and_goes_on(overlay: str) -> None:
    assert one(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@for_each_overlay
def test_nodes_can_be_drained(overlay: str) -> None:
    budget = one(overlay, "PodDisruptionBudget")["spec"]
    assert "minAvailable" not in budget
    assert budget["maxUnavailable"] >= 1
    assert len(all_of(overlay, "PodDisruptionBudget")) == 1


def test_while_a_node_is_drained_a_pod_serves() -> None:
    least = one("eks", "ScaledObject")["spec"]["minReplicaCount"]
    assert least - one("eks", "PodDisruptionBudget")["spec"]["maxUnavailable"] >= 1


@for_each_overlay
def test_a_pod_that_finds_no_ideal_place_runs_somewhere(overlay: str) -> None:
    """One node, or a zone without GPUs, is no reason to miss the promise."""
    spread = pod(overlay)["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}
