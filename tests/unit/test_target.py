"""What names a target, and what a person is told who names it wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.target import Target, TargetError, read_target


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
