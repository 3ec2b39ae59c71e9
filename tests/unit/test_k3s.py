"""K3s in Docker, as far as it can be proven without: overlay, command, ports, target file, what a user is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
from docker.utils import convert_port_bindings
from ruamel.yaml import YAML

from deploy.image import ImageError
from deploy.image.contents import content_tag
from deploy.image.pin import checked_tag
from deploy.k3s.server import (
    API_PORT,
    DEVICE_TIMES,
    GRPC_PORT,
    K3S_IMAGE,
    KEDA_MANIFEST,
    published_ports,
    server_command,
)
from deploy.k3s.target import write_target
from deploy.local.components import HPA_FLAGS
from deploy.local.products import KEDA_VERSION, KUBERNETES_VERSION, PROMETHEUS_VERSION
from deploy.local.target import capacity_per_s
from loadtests.target import Kubernetes, TargetError, read_target
from tests.unit.docker_api import REFUSAL, docker_api
from tests.unit.manifests import CHECKOUT, KUBERNETES, Object, container, kubectl, one, pod, ports, rendered
from tests.unit.test_manifests_overlays import leaves

K3S: Final = "k3s"
ADDED: Final = {
    "ConfigMap/prometheus",
    "Deployment/prometheus",
    "Namespace/monitoring",
    "Role/prometheus",
    "RoleBinding/prometheus",
    "Service/prometheus",
    "Service/triton-nodeport",
    "ServiceAccount/prometheus",
}
CHANGED: Final = {
    "NetworkPolicy/triton/spec/ingress",
    *(
        f"ScaledObject/triton/spec/triggers/{name}/metadata/serverAddress"
        for name in ("in-flight", "pending", "worst-queue-ms")
    ),
}


def by_name(overlay: str) -> dict[str, Object]:
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in rendered(overlay)}


# --- the overlay -----------------------------------------------------------------------------------------------------


def test_every_object_is_valid_in_the_pinned_kubernetes_and_has_no_unknown_field() -> None:
    for each in rendered(K3S):
        if each["kind"] != "ScaledObject":
            kubernetes_validate.validate(each, KUBERNETES, strict=True)
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "radstream"


def test_it_is_the_local_overlay_but_for_what_is_listed_here() -> None:
    here, local = by_name(K3S), by_name("local")
    assert set(here) - set(local) == ADDED
    assert not set(local) - set(here)
    ours, theirs = (dict(leaf for name in local for leaf in leaves(those[name], name)) for those in (here, local))
    assert {path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path)} == CHANGED


def test_the_autoscaler_asks_the_prometheus_that_is_there() -> None:
    service = one(K3S, "Service", "prometheus")
    (port,) = service["spec"]["ports"]
    address = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{port['port']}"
    triggers = one(K3S, "ScaledObject")["spec"]["triggers"]
    assert {each["metadata"]["serverAddress"] for each in triggers} == {address}
    assert service["spec"]["selector"].items() <= template(one(K3S, "Deployment", "prometheus"))["labels"].items()
    assert port["targetPort"] in {each["name"] for each in container(K3S, "prometheus")["ports"]}


def template(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["metadata"]
    return found


def test_prometheus_labels_what_it_finds_as_the_local_one_does() -> None:
    """The queries of the ScaledObject name these labels."""
    yaml = YAML(typ="safe", pure=True)
    local: Any = yaml.load((CHECKOUT / "deploy/local/config/prometheus.yml").read_text())
    ours: Any = yaml.load(one(K3S, "ConfigMap", "prometheus")["data"]["prometheus.yml"])
    for scrapes in (local, ours):
        (discovery,) = scrapes["scrape_configs"][0]["kubernetes_sd_configs"]
        discovery.pop("kubeconfig_file", None)
        discovery.pop("namespaces", None)
    assert ours == local


def test_prometheus_may_list_the_pods_of_the_ensemble_and_nothing_else() -> None:
    role, binding = one(K3S, "Role", "prometheus"), one(K3S, "RoleBinding", "prometheus")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "radstream"
    (subject,) = binding["subjects"]
    account = one(K3S, "ServiceAccount", "prometheus")["metadata"]
    assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    assert pod(K3S, "prometheus")["serviceAccountName"] == account["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_prometheus_has_the_security_settings_that_its_namespace_enforces() -> None:
    namespace = one(K3S, "Namespace", "monitoring")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    settings = pod(K3S, "prometheus")["securityContext"]
    assert settings["runAsNonRoot"] is True
    assert settings["runAsUser"] > 0
    assert settings["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod(K3S, "prometheus"))
    assert container(K3S, "prometheus")["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"]: mount["mountPath"] for mount in container(K3S, "prometheus")["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in pod(K3S, "prometheus")["volumes"]}
    arguments = container(K3S, "prometheus")["args"]
    assert f"--config.file={mounted['config']}/prometheus.yml" in arguments
    assert f"--storage.tsdb.path={mounted['data']}" in arguments


def test_requests_come_in_by_the_port_that_is_published_and_metrics_stay_with_prometheus() -> None:
    service = one(K3S, "Service", "triton-nodeport")["spec"]
    assert service["type"] == "NodePort"
    assert service["selector"].items() <= template(one(K3S, "Deployment"))["labels"].items()
    (port,) = service["ports"]
    assert (port["nodePort"], ports(K3S)[port["targetPort"]]) == (GRPC_PORT, 8001)
    requests, metrics = one(K3S, "NetworkPolicy")["spec"]["ingress"]
    assert {"ipBlock": {"cidr": "0.0.0.0/0"}} in requests["from"]
    assert requests["ports"] == [{"port": "grpc"}]
    assert metrics == one("local", "NetworkPolicy")["spec"]["ingress"][1]
    assert "monitoring" in str(metrics["from"])


# --- the container ---------------------------------------------------------------------------------------------------


def test_the_autoscaler_of_k3s_has_the_flags_of_the_local_one() -> None:
    prefix = "--kube-controller-manager-arg="
    for profile, flags in HPA_FLAGS.items():
        given = [each.removeprefix(prefix) for each in server_command(profile) if each.startswith(prefix)]
        assert [f"--{each}" for each in given] == list(flags)
    assert "--disable=traefik" in server_command("fast")


def test_ports_are_published_on_loopback_only() -> None:
    assert convert_port_bindings(published_ports()) == {
        f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in (API_PORT, GRPC_PORT)
    }


def test_versions_are_those_of_the_local_cluster() -> None:
    assert f"rancher/k3s:{KUBERNETES_VERSION}-k3s1" == K3S_IMAGE
    assert KEDA_MANIFEST.endswith(f"/{KEDA_VERSION}/keda-{KEDA_VERSION[1:]}.yaml")
    module = re.fullmatch(r"v0\.(\d)(\d\d)\.(\d+)", PROMETHEUS_VERSION)  # of the module; the release is 3.16.0
    assert module is not None
    assert container(K3S, "prometheus")["image"] == f"prom/prometheus:v{module[1]}.{module[2]}.{module[3]}"


def test_the_device_times_are_found_where_they_are_looked_for() -> None:
    command = [kubectl(), "label", "--local", "--filename=-", "a=b", f"--output={DEVICE_TIMES}"]
    text = json.dumps(one(K3S, "Deployment"))
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    assert capacity_per_s(found) == 10


def test_an_image_other_than_the_manifests_name_is_told(tmp_path: Path) -> None:
    overlay, lock = "deploy/kubernetes/overlays/local/kustomization.yaml", "deploy/embedded/requirements.lock"
    for name in (overlay, lock, "triton/serve.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    with pytest.raises(
        ImageError, match=rf"name image {checked_tag('local')}, but .* makes {content_tag(tmp_path)}; run"
    ):
        checked_tag("local", tmp_path)


def test_docker_is_asked_for_a_privileged_k3s_on_loopback_and_what_it_made_is_removed_when_it_does_not_start() -> None:
    with docker_api({}) as docker:
        done = subprocess.run(
            [sys.executable, "-c", "from deploy.k3s.cluster import _started\nwith _started(): pass"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=os.environ
            | {
                "DOCKER_HOST": docker.host,
                "TESTCONTAINERS_RYUK_DISABLED": "true",
                "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
            },
        )
    (asked,) = docker.created
    assert (asked["Image"], asked["Cmd"]) == (K3S_IMAGE, server_command("fast"))
    assert asked["HostConfig"]["Privileged"] is True
    assert {each["HostIp"] for bindings in asked["HostConfig"]["PortBindings"].values() for each in bindings} == {
        "127.0.0.1"
    }
    assert asked["ExposedPorts"].keys() == {"6443/tcp", "30801/tcp"}
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"deploy.k3s.K3sError: Docker does not start {K3S_IMAGE}: ")
    assert REFUSAL in said
    assert len(docker.removed) == 1


# --- the target ------------------------------------------------------------------------------------------------------


def test_the_target_file_is_one_and_leads_to_the_published_ports(tmp_path: Path) -> None:
    inside = "clusters: [{cluster: {server: https://127.0.0.1:6443}}]"
    target = read_target(
        str(write_target(tmp_path, inside, 40001, 40002, "classifier=0+20,detector=0+50,encoder=0+30"))
    )
    assert (target.grpc, target.capacity_per_s, target.emulated) == ("127.0.0.1:40002", 10, True)
    assert target.kubernetes == Kubernetes(
        kubeconfig=tmp_path / "kubeconfig", gpu_metrics_port=9400, through_api_server=True
    )
    assert "kube-proxy" in target.name
    assert (tmp_path / "kubeconfig").read_text() == inside.replace("6443", "40001")
    assert (tmp_path / "kubeconfig").stat().st_mode & 0o077 == 0


def test_elsewhere_than_in_a_run_it_is_no_target() -> None:
    with pytest.raises(TargetError, match=r"only for the run that starts it: use 'radslo run SCENARIO --target k3s'"):
        read_target("k3s")


def radslo_run(directory: Path, *interpreter: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *interpreter, "run", "smoke", "--target", "k3s", "--recording", str(directory / "run")]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | environment
    )


def test_without_a_docker_daemon_it_is_one_sentence_that_names_other_targets(tmp_path: Path) -> None:
    done = radslo_run(tmp_path, "-m", "loadtests.cli", DOCKER_HOST="unix:///nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: K3s in Docker cannot be started here: no Docker daemon answers at unix:///nonexistent (No such file "
        "or directory); use --target embedded (no Docker, no root), --target local (root on Linux, no Docker), or "
        "--target kubeconfig for a cluster that you have\n"
    )
    assert not (tmp_path / "run").exists()


def test_without_testcontainers_it_is_one_sentence_that_says_what_to_install(tmp_path: Path) -> None:
    """An interpreter that finds no such package, as without the extra `docker`."""
    hidden = (
        "import sys, importlib.machinery as m; find = m.PathFinder.find_spec; "
        "m.PathFinder.find_spec = classmethod(lambda cls, name, path=None, target=None: "
        "None if name.split('.')[0] == 'testcontainers' else find(name, path, target)); "
        "from loadtests.cli import main; main()"
    )
    done = radslo_run(tmp_path, "-c", hidden)
    assert done.returncode == 2
    assert "the package testcontainers is missing (pip install 'radslo[docker]'); use --target" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_daemon_on_another_machine_or_of_another_kind_is_told(tmp_path: Path) -> None:
    with docker_api({"OSType": "linux", "Architecture": "aarch64"}) as docker:
        done = radslo_run(tmp_path, "-m", "loadtests.cli", DOCKER_HOST=docker.host)
    assert "its Docker runs containers of linux aarch64, and the ensemble's image is of linux x86_64" in done.stderr
    with docker_api({"OSType": "linux", "Architecture": "x86_64"}) as docker:
        override = {"DOCKER_HOST": docker.host, "TESTCONTAINERS_HOST_OVERRIDE": "docker.example"}
        elsewhere = radslo_run(tmp_path, "-m", "loadtests.cli", **override)
    assert "its Docker daemon runs elsewhere (docker.example), and K3s is reached by 127.0.0.1 only" in elsewhere.stderr
    assert (done.returncode, elsewhere.returncode) == (2, 2)


def test_the_extra_is_what_the_message_names() -> None:
    text = (CHECKOUT / "pyproject.toml").read_text()
    assert re.search(r'^docker = \["testcontainers>=', text, re.MULTILINE)
