"""Triton's own load generator, a C++ program, as a yardstick for ours.

tritonclient 2.51.0 is the newest wheel whose perf_analyzer runs on Debian 12. The wheel lacks two libraries: the
CUDA runtime, which another wheel has and no GPU is needed for, and libb64, which is a Debian package.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import BUILD
from benchmarks.servers import BenchmarkError, EchoServer
from benchmarks.slices import Slice
from benchmarks.workloads import Workload
from deploy.embedded import EmbeddedError
from deploy.embedded.install import find_uv
from loadtests.messages import MODEL

_WHEELS: Final = ("tritonclient==2.51.0", "nvidia-cuda-runtime-cu12==12.9.79")
_DEBIAN_PACKAGE: Final = "libb64-0d"
_DIRECTORY: Final = BUILD / "perf_analyzer"
_LIMIT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """An unpacked perf_analyzer."""

    program: Path
    libraries: str

    def play(self, server: EchoServer, workload: Workload, count: int, *load: str) -> Slice:
        """Send at least ``count`` requests under ``load``, for example ``--concurrency-range=8``.

        The requests are counted by the server; CPU is that of the whole process, so the caller has to subtract a run
        of a few requests. Wall time follows from the rate that it reports.
        """
        with tempfile.TemporaryDirectory(dir=BUILD) as directory:
            data, report = Path(directory) / "data.json", Path(directory) / "report.csv"
            data.write_text(_input_data(workload))
            before = server.inferences()
            cpu_s = self._run(
                *("-m", MODEL, "-i", "grpc", "-u", server.grpc, "--input-data", str(data), "-f", str(report)),
                *("--request-count", str(count), *load),
            )
            requests = server.inferences() - before
            rate_per_s, p95_ms = _read_report(report)
        return Slice(requests, 0, requests / rate_per_s, cpu_s, latency_p95_ms=p95_ms)

    def _run(self, *arguments: str) -> float:
        """CPU seconds of one run to its end."""
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                [str(self.program), *arguments],
                env=os.environ | {"LD_LIBRARY_PATH": self.libraries},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                message = f"perf_analyzer failed ({process.returncode}): {' '.join(output.read().split())[:300]}"
                raise BenchmarkError(message)
        return usage.ru_utime + usage.ru_stime


def _input_data(workload: Workload) -> str:
    image = workload.image()
    element = base64.b64encode(struct.pack("<I", len(image)) + image).decode()
    return json.dumps({"data": [{"image": {"b64": element}}]})


def _read_report(report: Path) -> tuple[float, float]:
    """Requests per second and 95th percentile in milliseconds."""
    with report.open(newline="") as file:
        row = next(csv.DictReader(file))
    return float(row["Inferences/Second"]), float(row["p95 latency"]) / 1e3


def ensure_perf_analyzer() -> PerfAnalyzer:
    """Fetch it once into ``build/``.

    Raises:
        BenchmarkError: it cannot be had here; the message says what is missing.
    """
    if not _DIRECTORY.is_dir():
        BUILD.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as unfinished:
            target = Path(unfinished) / "perf_analyzer"
            _fetch(target)
            target.rename(_DIRECTORY)
    libraries = [next(_DIRECTORY.rglob(name)).parent for name in ("libcudart.so.12", "libb64.so.0d")]
    return PerfAnalyzer(_DIRECTORY / "bin/perf_analyzer", os.pathsep.join(map(str, libraries)))


def _fetch(target: Path) -> None:
    try:
        uv = find_uv()
    except EmbeddedError as error:
        raise BenchmarkError(str(error)) from error
    install = ("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--python", sys.executable)
    _command([*uv, *install, "--target", str(target), *_WHEELS], target.parent)
    _command(["apt-get", "download", "--quiet", _DEBIAN_PACKAGE], target.parent)
    package = next(target.parent.glob(f"{_DEBIAN_PACKAGE}_*.deb"))
    _command(["dpkg-deb", "--extract", str(package), str(target)], target.parent)
    (target / "bin/perf_analyzer").chmod(0o755)


def _command(command: list[str], directory: Path) -> None:
    if shutil.which(command[0]) is None:
        message = f"perf_analyzer needs Debian's {_DEBIAN_PACKAGE}, and there is no {command[0]} to fetch it with"
        raise BenchmarkError(message)
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode:
        message = f"{' '.join(command[:3])} failed: {' '.join(done.stderr.split())[-200:]}"
        raise BenchmarkError(message)
