"""The emulated device seen through the metrics of NVIDIA's dcgm-exporter. A process of its own, standard library only.

Names, types, help texts and labels are those of dcgm-exporter, so that whatever reads real GPUs reads this too. Every
sample carries `emulated="true"`, and `modelName` says so as well. The gauges are averages over the last collect
interval; `radstream_emulated_device_*` are exact at the moment of the scrape.

Started by serve.py, whose process becomes tritonserver; it dies with that process.
"""

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from radstream import RadstreamError
from radstream.device import Device, DeviceState
from radstream.lifetime import die_with_parent

# The emulated board: figures like those of a T4, made up as the labels say.
_IDLE_W, _BUSY_W = 12.0, 70.0
_MEMORY_MIB, _MEMORY_USED_MIB = 15_360, 4_096

_GAUGES = {
    "DCGM_FI_DEV_POWER_USAGE": "Power draw (in W).",
    "DCGM_FI_DEV_GPU_UTIL": "GPU utilization (in %).",
    "DCGM_FI_DEV_XID_ERRORS": "Value of the last XID error encountered.",
    "DCGM_FI_DEV_FB_FREE": "Framebuffer memory free (in MiB).",
    "DCGM_FI_DEV_FB_USED": "Framebuffer memory used (in MiB).",
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": "Ratio of time the graphics engine is active.",
    "DCGM_FI_PROF_SM_ACTIVE": "The ratio of cycles an SM has at least 1 warp assigned.",
}
_COUNTERS = {
    "radstream_emulated_device_busy_seconds_total": "Time the emulated device has been busy until now (in s, exact).",
    "radstream_emulated_device_batches_total": "Batches submitted to the emulated device.",
    "radstream_emulated_device_items_total": "Items in the batches submitted to the emulated device.",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """The device's state and the monotonic time at which it was read."""

    at_ns: int
    state: DeviceState

    @property
    def busy_ns(self) -> int:
        """Busy time until this reading."""
        return self.state.elapsed_busy_ns(self.at_ns)


def busy_ratio(earlier: Reading, later: Reading) -> float:
    """Return the part of the time between two readings in which the device was busy, 0..1."""
    return (later.busy_ns - earlier.busy_ns) / (later.at_ns - earlier.at_ns)


def samples(utilisation_ratio: float, now: Reading) -> dict[str, float]:
    """Return the value of each metric."""
    return {
        "DCGM_FI_DEV_POWER_USAGE": _IDLE_W + (_BUSY_W - _IDLE_W) * utilisation_ratio,
        "DCGM_FI_DEV_GPU_UTIL": round(100 * utilisation_ratio),
        "DCGM_FI_DEV_XID_ERRORS": 0,
        "DCGM_FI_DEV_FB_FREE": _MEMORY_MIB - _MEMORY_USED_MIB,
        "DCGM_FI_DEV_FB_USED": _MEMORY_USED_MIB,
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": utilisation_ratio,
        "DCGM_FI_PROF_SM_ACTIVE": utilisation_ratio,
        "radstream_emulated_device_busy_seconds_total": now.busy_ns / 1e9,
        "radstream_emulated_device_batches_total": now.state.batches,
        "radstream_emulated_device_items_total": now.state.items,
    }


def exposition(values: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """Write the values in the Prometheus text format, each with all labels."""
    label_text = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return "".join(_lines(_GAUGES, "gauge", values, label_text)) + "".join(
        _lines(_COUNTERS, "counter", values, label_text)
    )


def _lines(helps: Mapping[str, str], kind: str, values: Mapping[str, float], label_text: str) -> Iterable[str]:
    for name, text in helps.items():
        yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name}{{{label_text}}} {values[name]:.9g}\n"


def device_labels(pod: str) -> dict[str, str]:
    """Return the labels of dcgm-exporter for the one device of a pod, and `emulated`."""
    return {
        "gpu": "0",
        "UUID": f"GPU-emulated-{pod}",
        "pci_bus_id": "00000000:00:00.0",
        "device": "nvidia0",
        "modelName": "emulated (RadStream stand-in)",
        "Hostname": socket.gethostname(),
        "container": "triton",
        "namespace": os.environ.get("POD_NAMESPACE", "embedded"),
        "pod": pod,
        "emulated": "true",
    }


class Collector(threading.Thread):
    """Reads the device once an interval, as DCGM does, and keeps the utilisation of the last whole interval."""

    def __init__(self, device: Device, interval_s: float) -> None:
        """Take the first reading; `start` then takes the others."""
        super().__init__(daemon=True)
        self.device = device
        self.utilisation_ratio = 0.0
        self._interval_s = interval_s
        self._last = self.reading()

    def reading(self) -> Reading:
        """Read the device now."""
        state = self.device.read()
        return Reading(time.monotonic_ns(), state)

    def run(self) -> None:
        """Collect for as long as the process lives."""
        while True:
            time.sleep(self._interval_s)
            now = self.reading()
            self.utilisation_ratio = busy_ratio(self._last, now)
            self._last = now


def handler_for(collector: Collector, labels: Mapping[str, str]) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP handler that answers `GET /metrics` and `GET /health`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in {"/metrics", "/health"}:
                self.send_error(404, "only /metrics and /health exist here")
                return
            values = samples(collector.utilisation_ratio, collector.reading())
            body = exposition(values, labels).encode() if self.path == "/metrics" else b"OK"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: a scrape a second would fill the server's log."""

    return Handler


def main(arguments: list[str] | None = None) -> None:
    """Serve the metrics until the parent dies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device-file", type=Path, required=True)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9400)
    parser.add_argument("--pod", required=True, help="name of the pod or server, for the labels")
    parser.add_argument("--interval-s", type=float, default=1.0, help="collect interval (default: 1)")
    parser.add_argument("--parent-pid", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent_pid)
    try:
        collector = Collector(Device(options.device_file), options.interval_s)
        server = ThreadingHTTPServer(
            (options.address, options.port), handler_for(collector, device_labels(options.pod))
        )
    except OSError as error:
        where = f"{options.address}:{options.port}"
        sys.exit(f"GPU metrics on {where}: {error.strerror}; choose another --gpu-metrics-port")
    except RadstreamError as error:
        sys.exit(str(error))
    collector.start()
    server.serve_forever()


if __name__ == "__main__":
    main()
