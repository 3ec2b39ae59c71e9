"""Prometheus texts of real servers to rows: what is not said stays null, what is emulated stays marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.target import Target
from loadtests.watch.endpoints import Endpoint, endpoints
from loadtests.watch.metrics import gpu_rows, triton_row

TRITON = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="radstream_ensemble",version="1"} 18
nv_inference_request_success{model="radstream_detector",version="1"} 9
nv_inference_request_success{model="radstream_detector",version="2"} 3
# HELP nv_inference_request_failure Number of failed inference requests, all batch sizes
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="radstream_ensemble",reason="REJECTED",version="1"} 2
nv_inference_request_failure{model="radstream_ensemble",reason="OTHER",version="1"} 4
"""
DCGM = """\
# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-a",device="nvidia0",modelName="Tesla T4",pod="triton-abc"} 83
DCGM_FI_DEV_GPU_UTIL{gpu="1",UUID="GPU-b",device="nvidia1",modelName="Tesla T4"} 0
# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a",device="nvidia0",modelName="Tesla T4",pod="triton-abc"} NaN
"""


def test_versions_and_reasons_of_a_model_are_added_up() -> None:
    row = triton_row(TRITON, "triton-0", 5.0)
    assert row["success"] == {"radstream_ensemble": 18, "radstream_detector": 12}
    assert row["failure"] == {"radstream_ensemble": 6}


def test_a_metric_that_the_server_does_not_have_is_null_and_not_zero() -> None:
    assert triton_row(TRITON, "triton-0", 5.0)["pending"] is None


def test_each_gpu_is_a_row_and_what_is_not_measured_is_null() -> None:
    first, second = gpu_rows(DCGM, "10.0.0.1:9400", 5.0)
    assert (first["gpu"], first["server"], first["util_ratio"]) == ("GPU-a", "triton-abc", 0.83)
    assert (second["gpu"], second["server"], second["util_ratio"]) == ("GPU-b", "10.0.0.1:9400", 0.0)
    assert first["power_watts"] is None  # NaN is no number
    assert first["engine_active_ratio"] is None
    assert not first["emulated"]


def test_one_emulated_sample_marks_the_gpu() -> None:
    (row,) = gpu_rows('DCGM_FI_DEV_GPU_UTIL{UUID="GPU-e",emulated="true"} 40\n', "triton-0", 5.0)
    assert row["emulated"]


def test_text_that_is_no_metrics_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid metric name:<html>"):
        triton_row("<html>", "triton-0", 5.0)


def test_servers_that_come_and_go_are_followed_through_the_servers_file(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    target = Target(name="embedded", grpc="dns:///x:1", servers_file=path)
    assert endpoints(target) == []
    server = {"name": "triton-0", "state": "ready", "metrics_url": "http://a/metrics", "gpu_metrics_url": "http://b/m"}
    path.write_text(json.dumps({"servers": [server, server | {"name": "triton-1", "state": "exited"}]}))
    assert endpoints(target) == [
        Endpoint("triton", "triton-0", "http://a/metrics"),
        Endpoint("gpu", "triton-0", "http://b/m"),
    ]
