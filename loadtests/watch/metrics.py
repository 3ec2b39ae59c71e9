"""Prometheus text of Triton and of DCGM exporters to rows of the recording [pure].

The row formats are `loadtests.recording.TRITON_SAMPLE` and `GPU_SAMPLE`. What a server does not say is null.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

_TRITON: Final = {
    "success": "nv_inference_request_success",
    "failure": "nv_inference_request_failure",
    "inference": "nv_inference_count",
    "queue_us": "nv_inference_queue_duration_us",
    "pending": "nv_inference_pending_request_count",
}
_DCGM: Final = {
    "util_ratio": ("DCGM_FI_DEV_GPU_UTIL", 100.0),
    "engine_active_ratio": ("DCGM_FI_PROF_GR_ENGINE_ACTIVE", 1.0),
    "power_watts": ("DCGM_FI_DEV_POWER_USAGE", 1.0),
    "busy_s": ("radstream_emulated_device_busy_seconds", 1.0),
}


def triton_row(text: str, server: str, at: float) -> dict[str, Any]:
    """One sample of one server; each counter as ``{model: value}``, null where the server has no such metric.

    Raises:
        ValueError: the text is no Prometheus text.
    """
    samples = _by_name(text_string_to_metric_families(text))
    row: dict[str, Any] = {"at": at, "server": server}
    for column, name in _TRITON.items():
        found = samples.get(name)
        row[column] = None if found is None else _sum_by_model(found)
    return row


def gpu_rows(text: str, server: str, at: float) -> list[dict[str, Any]]:
    """One row for each GPU of one exporter.

    Raises:
        ValueError: the text is no Prometheus text.
    """
    samples = _by_name(text_string_to_metric_families(text))
    gpus: dict[str, dict[str, Any]] = {}
    for column, (name, divisor) in _DCGM.items():
        for sample in samples.get(name, ()):
            gpu = _gpu(sample.labels)
            row = gpus.setdefault(gpu, _empty_gpu_row(at, sample.labels.get("pod") or server, gpu))
            row[column] = sample.value / divisor if math.isfinite(sample.value) else None
            row["emulated"] = row["emulated"] or sample.labels.get("emulated") == "true"
    return list(gpus.values())


def _by_name(families: Iterable[Metric]) -> dict[str, list[Sample]]:
    """Samples by metric name; a counter's ``_total`` is dropped, as exporters disagree on it."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for family in families:
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name.removesuffix("_total")].append(sample)
    return found


def _sum_by_model(samples: Iterable[Sample]) -> dict[str, float]:
    """Versions and failure reasons of a model added up."""
    total: dict[str, float] = defaultdict(float)
    for sample in samples:
        if math.isfinite(sample.value):
            total[sample.labels.get("model", "")] += sample.value
    return dict(total)


def _gpu(labels: Mapping[str, str]) -> str:
    """A GPU's identity; a MIG slice is a GPU of its own."""
    instance = labels.get("GPU_I_ID")
    name = labels.get("UUID") or labels.get("gpu") or "unnamed"
    return f"{name}/{instance}" if instance else name


def _empty_gpu_row(at: float, server: str, gpu: str) -> dict[str, Any]:
    return {"at": at, "server": server, "gpu": gpu, "emulated": False, **dict.fromkeys(_DCGM)}
