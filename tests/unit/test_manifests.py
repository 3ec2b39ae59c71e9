"""deploy/kubernetes: what is applied is valid, and its parts name each other by the right names."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import kubernetes_validate
import pytest

from tests.unit.manifests import (
    CHECKOUT,
    KUBERNETES,
    MANIFESTS,
    MODELS,
    Object,
    all_of,
    bytes_of,
    container,
    for_each_overlay,
    one,
    pod,
    ports,
    rendered,
)

sys.path.insert(0, str(CHECKOUT / "triton"))

from radstream.service_time import MODELS as SHARERS
from radstream.service_time import parse_device_times
from serve import parse_arguments

CUSTOM = {"ScaledObject", "PodMonitor"}
"""Kinds that are not Kubernetes' own; a cluster with their definitions is needed to validate them."""

# --- valid -----------------------------------------------------------------------------------------------------------


@for_each_overlay
def test_every_object_is_valid_in_the_pinned_kubernetes_and_has_no_unknown_field(overlay: str) -> None:
    for each in rendered(overlay):
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_a_misspelt_field_would_be_seen() -> None:
    service = one("local", "Service", "triton-headless")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**service, "spec": {**service["spec"], "clusterIp": "None"}}, KUBERNETES, strict=True
        )


@for_each_overlay
def test_everything_lies_in_the_one_namespace_and_says_what_it_is_part_of(overlay: str) -> None:
    for each in rendered(overlay):
        assert each["metadata"].get("namespace") == (
            None if each["kind"] in {"Namespace", "PriorityClass"} else "radstream"
        )
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "radstream"
    assert [each["metadata"]["name"] for each in all_of(overlay, "Namespace")] == ["radstream"]
    for each in all_of(overlay, "Deployment"):
        assert each["spec"]["template"]["metadata"]["labels"] == each["metadata"]["labels"]


# --- names that refer to each other ----------------------------------------------------------------------------------


@for_each_overlay
def test_every_selector_selects_the_pods_it_is_meant_for_and_no_others(overlay: str) -> None:
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"].items()
        for each in all_of(overlay, "Deployment")
    }
    spread = [each["labelSelector"] for each in pod(overlay)["topologySpreadConstraints"]]
    selectors = [
        one(overlay, "Service", "triton-headless")["spec"]["selector"],
        one(overlay, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["matchLabels"] for each in spread),
        *(each["spec"]["selector"]["matchLabels"] for each in all_of(overlay, "PodMonitor")),
    ]
    for selector in selectors:
        assert [name for name in labels if selector.items() <= labels[name]] == ["triton"], selector
    for each in all_of(overlay, "Deployment"):
        own = each["spec"]["selector"]["matchLabels"].items()
        assert [name for name in labels if own <= labels[name]] == [each["metadata"]["name"]]


@for_each_overlay
def test_every_port_that_is_referred_to_is_a_named_port_of_the_container(overlay: str) -> None:
    probes = [container(overlay)[f"{name}Probe"]["httpGet"]["port"] for name in ("startup", "readiness", "liveness")]
    (service_port,) = one(overlay, "Service", "triton-headless")["spec"]["ports"]
    monitored = [
        each["port"] for monitor in all_of(overlay, "PodMonitor") for each in monitor["spec"]["podMetricsEndpoints"]
    ]
    admitted = [each["port"] for each in admitted_ports(overlay)]
    assert set(probes) == {"http"}
    assert {service_port["targetPort"], *monitored, *admitted, *probes} <= set(ports(overlay))
    assert monitored == (["metrics"] if overlay == "eks" else [])
    assert set(admitted) == set(ports(overlay)) - {"http"}


def admitted_ports(overlay: str) -> Iterator[Object]:
    for rule in one(overlay, "NetworkPolicy")["spec"]["ingress"]:
        yield from rule["ports"]


@for_each_overlay
def test_clients_reach_each_pod_on_the_port_that_the_readme_names(overlay: str) -> None:
    service = one(overlay, "Service", "triton-headless")
    assert service["spec"]["clusterIP"] == "None"
    (port,) = service["spec"]["ports"]
    # There is no proxy before a headless service: its port is the pod's.
    assert port["port"] == ports(overlay)[port["targetPort"]]
    address = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local:{port['port']}"
    assert address in (CHECKOUT / "README.md").read_text()


@for_each_overlay
def test_requests_may_come_from_the_cluster_and_metrics_be_read_from_monitoring_alone(overlay: str) -> None:
    policy = one(overlay, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    requests, metrics = policy["ingress"]
    assert {"namespaceSelector": {}} in requests["from"]
    assert requests["ports"] == [{"port": "grpc"}]
    assert metrics["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    (egress,) = policy["egress"]
    assert egress["ports"] == [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]


@for_each_overlay
def test_the_autoscaler_has_the_deployment_to_itself(overlay: str) -> None:
    deployment = one(overlay, "Deployment")
    assert one(overlay, "ScaledObject")["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"]


@for_each_overlay
def test_priorities_accounts_and_volumes_that_pods_name_exist(overlay: str) -> None:
    classes = {each["metadata"]["name"] for each in all_of(overlay, "PriorityClass")}
    accounts = {each["metadata"]["name"] for each in all_of(overlay, "ServiceAccount")}
    for each in all_of(overlay, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        assert {spec["priorityClassName"]} <= classes if classes else "priorityClassName" not in spec
        assert spec["serviceAccountName"] in accounts
        mounted = {mount["name"] for mount in spec["containers"][0].get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec.get("volumes", [])}


# --- what runs -------------------------------------------------------------------------------------------------------


@for_each_overlay
def test_the_entry_point_accepts_its_arguments_and_listens_on_the_named_ports(overlay: str) -> None:
    assert "command" not in container(overlay)
    options = parse_arguments(container(overlay)["args"])
    assert options.address == "0.0.0.0"  # noqa: S104 - that of a pod
    listens = {"http": options.http_port, "grpc": options.grpc_port, "metrics": options.metrics_port}
    if options.profile == "cpu":
        listens["gpu-metrics"] = options.gpu_metrics_port
    assert ports(overlay) == listens
    assert options.profile == {"eks": "gpu", "local": "cpu"}[overlay]


@for_each_overlay
def test_answers_carry_the_name_of_their_pod(overlay: str) -> None:
    fields = {each["name"]: each.get("valueFrom", {}).get("fieldRef") for each in container(overlay)["env"]}
    assert fields["POD_NAME"] == {"fieldPath": "metadata.name"}


def test_on_one_machine_a_pod_answers_exactly_10_studies_per_second() -> None:
    (text,) = [each["value"] for each in container("local")["env"] if each["name"] == "RADSTREAM_DEVICE_TIMES"]
    times = parse_device_times(text)
    assert set(times) == set(SHARERS)
    for batch in range(1, 9):
        assert sum(each.batch_ns(batch) for each in times.values()) / batch == 1e9 / 10


@for_each_overlay
def test_the_startup_probe_asks_for_a_model_of_the_repository(overlay: str) -> None:
    match = re.fullmatch(r"/v2/models/(\w+)/ready", container(overlay)["startupProbe"]["httpGet"]["path"])
    assert match is not None
    assert (MODELS / match[1] / "config.pbtxt").is_file()
    assert match[1] == "radstream_ensemble"


@for_each_overlay
def test_every_image_is_named_by_its_content(overlay: str) -> None:
    for each in all_of(overlay, "Deployment"):
        for part in each["spec"]["template"]["spec"]["containers"]:
            assert re.fullmatch(r"\S+/radstream-triton:[0-9a-f]{12}", part["image"]), part["image"]
            assert part["imagePullPolicy"] == "IfNotPresent"
    assert container("local")["image"].startswith("127.0.0.1:5000/")
    assert re.match(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/", container("eks")["image"])


@for_each_overlay
def test_the_tag_is_written_as_text_even_where_all_its_digits_are_decimal(overlay: str) -> None:
    text = (MANIFESTS / "overlays" / overlay / "kustomization.yaml").read_text()
    assert re.findall(r"^ *newTag: (.*)$", text, re.MULTILINE) == re.findall(r'"[0-9a-f]{12}"', text)


# --- security and resources ------------------------------------------------------------------------------------------


@for_each_overlay
def test_every_container_has_the_security_settings_that_the_namespace_enforces(overlay: str) -> None:
    namespace = one(overlay, "Namespace", "radstream")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for each in all_of(overlay, "Deployment"):
        spec = each["spec"]["template"]["spec"]
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec)
        for part in spec["containers"]:
            assert part["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    assert all(each["automountServiceAccountToken"] is False for each in all_of(overlay, "ServiceAccount"))


@for_each_overlay
def test_a_server_can_write_where_it_has_to_and_what_it_shares_fits_its_memory(overlay: str) -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in container(overlay)["volumeMounts"]}
    assert set(mounts) == {"/dev/shm", "/tmp"}  # noqa: S108 - of the container
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod(overlay)["volumes"]}
    shared = volumes[mounts["/dev/shm"]]  # noqa: S108 - of the container
    assert shared["medium"] == "Memory"
    assert bytes_of(shared["sizeLimit"]) < bytes_of(container(overlay)["resources"]["limits"]["memory"])


def test_only_on_eks_a_pod_has_a_gpu_to_itself_on_a_node_that_has_one() -> None:
    assert container("eks")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod("eks")["tolerations"]
    assert not {"nodeSelector", "tolerations", "priorityClassName"} & set(pod("local"))
    assert "nvidia.com/gpu" not in container("local")["resources"]["limits"]


def test_headroom_keeps_exactly_the_place_of_a_server_with_its_image_and_gives_way_at_once() -> None:
    spare, server = pod("eks", "headroom"), pod("eks")
    assert container("eks", "headroom")["resources"] == container("eks")["resources"]
    assert container("eks", "headroom")["image"] == container("eks")["image"]
    assert all(spare[field] == server[field] for field in ("nodeSelector", "tolerations"))
    value = {each["metadata"]["name"]: each["value"] for each in all_of("eks", "PriorityClass")}
    assert value[spare["priorityClassName"]] < 0 < value[server["priorityClassName"]]
    assert spare["terminationGracePeriodSeconds"] == 0
