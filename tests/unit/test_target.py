"""What names a target, and what a person is told who names it wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.target import LOCAL_TARGET_VARIABLE, Kubernetes, Target, TargetError, read_target


def target_file(directory: Path, text: str) -> str:
    path = directory / "target.yaml"
    path.write_text(f"name: eks\ngrpc: triton:8001\n{text}")
    return str(path)


def test_a_file_with_a_mistake_names_the_field_and_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"target\.yaml: unknown key 'metric_urls': did you mean 'metrics_urls'\?"):
        read_target(target_file(tmp_path, "metric_urls: []\n"))


def test_a_file_that_is_not_there_or_no_yaml_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"gone\.yaml: No such file"):
        read_target(str(tmp_path / "gone.yaml"))
    with pytest.raises(TargetError, match=r"target\.yaml: "):
        read_target(target_file(tmp_path, "metrics_urls: [\n"))


@pytest.mark.parametrize("address", ["triton.radstream", "dns:///triton.radstream", "127.0.0.1"])
def test_an_address_needs_a_port(address: str) -> None:
    with pytest.raises(TargetError, match="has no port"):
        read_target(address)
    assert read_target(f"grpc://{address}:8001").grpc == f"{address}:8001"


def test_metrics_addresses_carry_the_names_of_their_servers(tmp_path: Path) -> None:
    by_name = read_target(target_file(tmp_path, "metrics_urls: {pod-a: 'http://10.0.0.1:8002/metrics'}\n"))
    assert by_name.metrics_urls == {"pod-a": "http://10.0.0.1:8002/metrics"}
    listed = read_target(target_file(tmp_path, "metrics_urls: ['http://10.0.0.1:8002/metrics']\n"))
    assert listed.metrics_urls == {"10.0.0.1:8002": "http://10.0.0.1:8002/metrics"}


def test_addresses_of_the_command_line_are_added_to_those_of_the_file(tmp_path: Path) -> None:
    file = target_file(tmp_path, "metrics_urls: {pod-a: 'http://10.0.0.1:8002/metrics'}\n")
    target = read_target(file, ("pod-b=http://10.0.0.2:8002/metrics?x=1",), ("http://10.0.0.9:9400/metrics",))
    assert list(target.metrics_urls) == ["pod-a", "pod-b"]
    assert target.metrics_urls["pod-b"] == "http://10.0.0.2:8002/metrics?x=1"
    assert target.gpu_metrics_urls == {"10.0.0.9:9400": "http://10.0.0.9:9400/metrics"}


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        (("10.0.0.1:8002",), "is no address of metrics"),
        (("http://user:secret@10.0.0.1/metrics",), "user name or password"),
        (("a=http://x/1", "a=http://x/2"), "the same name"),
    ],
)
def test_metrics_addresses_that_cannot_be_used_are_refused(urls: tuple[str, ...], says: str) -> None:
    with pytest.raises(TargetError, match=says) as refused:
        read_target("triton:8001", urls)
    assert "secret" not in str(refused.value)


def test_a_certificate_is_found_beside_the_file_that_names_it(tmp_path: Path) -> None:
    target = read_target(target_file(tmp_path, "tls: true\nroot_certificates_file: ca.pem\n"))
    assert target.root_certificates_file == tmp_path / "ca.pem"


def test_a_target_survives_the_channel_between_processes(tmp_path: Path) -> None:
    text = "root_certificates_file: ca.pem\ncapacity_per_s: 40\nmetrics_urls: {a: 'http://x/m'}\n"
    target = read_target(target_file(tmp_path, text))
    assert Target.model_validate(target.model_dump(mode="json")) == target
    assert Target.model_validate_json(target.model_dump_json()) == target


KUBERNETES = """
kubernetes:
  kubeconfig: admin.conf
  context: staging
  namespace: vision
  selector: app=triton
  metrics_port: 9002
  gpu_metrics_port: 9400
capacity_per_s: 10
emulated: true
device_times: classifier=20+5,detector=60+10
"""


def test_a_target_file_says_which_pods_serve(tmp_path: Path) -> None:
    target = read_target(target_file(tmp_path, KUBERNETES))
    assert target.kubernetes == Kubernetes(
        kubeconfig=tmp_path / "admin.conf",
        context="staging",
        namespace="vision",
        selector="app=triton",
        metrics_port=9002,
        gpu_metrics_port=9400,
    )
    assert (target.capacity_per_s, target.emulated, target.device_times) == (10, True, "classifier=20+5,detector=60+10")
    assert Target.model_validate(target.model_dump(mode="json")) == target
    assert Target.model_validate_json(target.model_dump_json()) == target
    assert target.is_watched


def test_a_target_file_that_names_no_pods_is_of_no_cluster(tmp_path: Path) -> None:
    target = read_target(target_file(tmp_path, "kubernetes: null\n"))
    assert target.kubernetes is None
    assert not target.is_watched
    assert read_target(target_file(tmp_path, "kubernetes: {}\n")).kubernetes == Kubernetes()


@pytest.mark.parametrize(("kubeconfig", "found"), [("/etc/k", "/etc/k"), ("~/k", str(Path.home() / "k"))])
def test_a_kubeconfig_may_lie_elsewhere(tmp_path: Path, kubeconfig: str, found: str) -> None:
    kubernetes = read_target(target_file(tmp_path, f"kubernetes: {{kubeconfig: {kubeconfig}}}\n")).kubernetes
    assert kubernetes == Kubernetes(kubeconfig=Path(found))


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{name_space: x}", r"unknown key 'name_space': did you mean 'namespace'\?"),
        ("{metrics_port: 70000}", "metrics_port: should be less than 65536"),
        ("{selector: ''}", "selector: should have at least 1 character"),
        ("yes", "kubernetes: should be a group of named values"),
    ],
)
def test_a_mistake_about_pods_names_the_field(tmp_path: Path, section: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        read_target(target_file(tmp_path, f"kubernetes: {section}\n"))


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("kubeconfig", None),
        ("kubeconfig:staging", "staging"),
        ("kubeconfig:arn:aws:eks:eu-central-1:1:cluster/x", "arn:aws:eks:eu-central-1:1:cluster/x"),
    ],
)
def test_any_cluster_of_a_kubeconfig_is_a_target(text: str, context: str | None) -> None:
    target = read_target(text)
    assert (target.name, target.kubernetes) == (text, Kubernetes(context=context))
    assert target.grpc == "dns:///triton-headless.radstream.svc.cluster.local:8001"


def test_a_context_has_a_name() -> None:
    with pytest.raises(TargetError, match="has no port"):
        read_target("kubeconfig:")


def test_the_local_cluster_is_a_target_inside_it_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCAL_TARGET_VARIABLE, raising=False)
    with pytest.raises(TargetError, match="start this command with 'radslo cluster exec', or use 'radslo run"):
        read_target("local")
    monkeypatch.setenv(LOCAL_TARGET_VARIABLE, target_file(tmp_path, "kubernetes: {kubeconfig: k}\n"))
    assert read_target("local").kubernetes == Kubernetes(kubeconfig=tmp_path / "k")
