"""What the local cluster costs: time to build, to come up, to start a pod and to scale out; memory and disk.

Seconds and bytes, no ratios: there is nothing on the same machine to compare with. They are printed, never asserted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from benchmarks.figures import Figure, Limit, Result, median_of, not_measured
from benchmarks.servers import BenchmarkError
from deploy.image import cache_directory
from deploy.local.preflight import why_not
from deploy.local.products import PRODUCTS
from loadtests.recording import read_recording

_RADSLO: Final = str(Path(sys.executable).parent / "radslo")
_PODS: Final = ("--namespace=radstream", "pods", "--selector=app.kubernetes.io/name=triton")
_STEP: Final = {
    "name": "scale-out",
    "purpose": "From a load that one pod serves to one that takes all of them.",
    "expected_verdict": "none: it is measured",
    "phases": [
        {"name": "calm", "duration_s": 10, "rate": {"requests_per_s": 4}},
        {"name": "step", "duration_s": 45, "rate": {"requests_per_s": 25}},
    ],
    "mix": {"ensemble": 1},
    "payloads": [{"id": "chest-jpeg-20kb", "images": 2}],
    "in_flight_cap": 1000,
    "objectives": {"must_pass": ["latency_p95"], "must_not_fail": []},
}


def measure(*, quick: bool) -> Result:
    obstacle = why_not()
    if obstacle:
        return Result("cluster", obstacle, (not_measured("all of it", "no local cluster can run here"),))
    with tempfile.TemporaryDirectory(prefix="radslo-benchmark-") as name:
        os.environ["RADSLO_STATE_DIR"] = str(Path(name) / "clusters")
        _radslo("cluster", "build")
        try:
            figures = [*_builds(), *_rise(), *_starts(2 if quick else 5), _scale_out(Path(name))]
        finally:
            _radslo("cluster", "down", "--force")
    meaning = (
        "Building is timed when it is done, with the sources downloaded. The cluster comes up from nothing but built "
        "programs. Pods are timed by the API server's stamps, which are whole seconds."
    )
    return Result("cluster", meaning, tuple(figures))


def _builds() -> list[Figure]:
    figures, seconds = [], []
    for product in PRODUCTS:
        directory = cache_directory() / product.directory_name
        size_mb = (directory / product.name).stat().st_size / 1e6
        record = directory / "build.json"
        if record.is_file():
            seconds.append(float(json.loads(record.read_text())["seconds"]))
            figures.append(Figure(f"build of {product.name}", seconds[-1], "s", note=f"{size_mb:.0f} MB"))
    total = sum(seconds) if len(seconds) == len(PRODUCTS) else None
    files = [path.lstat() for path in cache_directory().rglob("*") if path.is_file()]
    disk = sum({found.st_ino: found.st_size for found in files}.values())  # a layer may have two names
    return [
        *figures,
        Figure("build of all of them", total, "s", limit=Limit("at most", 900)),
        Figure("disk that stays in the cache", disk / 1e9, "GB", limit=Limit("at most", 1.5)),
    ]


def _rise() -> list[Figure]:
    """From nothing: `up` to a node that is Ready, to the ensemble; the first pod pulls its image meanwhile."""
    started_s = time.monotonic()
    told = subprocess.Popen([_RADSLO, "cluster", "up"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert told.stderr is not None
    node_s = None
    for line in told.stderr:
        if "uploading" in line and node_s is None:  # what comes after the node
            node_s = time.monotonic() - started_s
    if told.wait() != 0:
        message = "the cluster did not come up; see: radslo cluster up"
        raise BenchmarkError(message)
    up_s = time.monotonic() - started_s
    (pod,) = _pods()
    status = json.loads(_radslo("cluster", "status", "--json"))
    memory = sum(each["pss_bytes"] for each in status["components"])
    return [
        Figure("up to a Ready node, programs in the cache", node_s, "s", limit=Limit("at most", 20)),
        Figure("up to the ensemble and its HPA", up_s, "s"),
        Figure("pod created to Ready, image pulled", _start_s(pod), "s", note="the stamps are whole seconds"),
        Figure("memory of all components at rest", memory / 1e9, "GB", limit=Limit("at most", 1.2)),
    ]


def _starts(times: int) -> list[Figure]:
    """A pod that is deleted has a successor, which finds the image on the node."""
    taken = []
    for _ in range(times):
        (pod,) = _pods()
        _kubectl("delete", "pod", pod["metadata"]["name"], "--namespace=radstream", "--wait=true")
        _kubectl("wait", "deployment/triton", "--namespace=radstream", "--for=condition=Available", "--timeout=120s")
        taken += [_start_s(each) for each in _pods()]
    return [median_of("pod created to Ready, image on the node", taken, "s", note="the stamps are whole seconds")]


def _scale_out(directory: Path) -> Figure:
    scenario = directory / "scale-out.yaml"
    with scenario.open("w") as file:
        YAML(typ="safe", pure=True).dump(_STEP, file)
    # The verdict does not matter here; without one the exit code is 0.
    _radslo("run", str(scenario), "--target", "local", "--no-check", "--recording", str(directory / "run"))
    requests = read_recording(directory / "run").requests
    step_us = requests.loc[requests["phase"] == "step", "intended_us"].min()
    first_us = requests[requests["status"] == "ok"].groupby("served_by")["done_us"].min()
    pods = len(first_us)
    seconds = (int(first_us.max()) - int(step_us)) / 1e6
    return Figure(
        "load step to first answer of the last pod", seconds if pods > 1 else None, "s",
        limit=Limit("at most", 25), note=f"1 to {pods} pods, HPA every 2 s",
    )  # fmt: skip


def _pods() -> list[dict[str, Any]]:
    found = json.loads(_kubectl("get", *_PODS, "--output=json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def _start_s(pod: dict[str, Any]) -> float:
    (ready,) = (each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    created_at, ready_at = (
        datetime.fromisoformat(stamp) for stamp in (pod["metadata"]["creationTimestamp"], ready["lastTransitionTime"])
    )
    return (ready_at - created_at).total_seconds()


def _kubectl(*arguments: str) -> str:
    return _radslo("cluster", "exec", "--port", "0", "kubectl", *arguments)


def _radslo(*arguments: str) -> str:
    result = subprocess.run([_RADSLO, *arguments], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        message = f"radslo {' '.join(arguments)}: {result.stderr[-600:]}"
        raise BenchmarkError(message)
    return result.stdout
