"""What has to be known before a run begins: the target, its answers and capacity, what our own client costs here.

The order is always the same: target, checks, known answers, capacity, calibration; then the plan.
"""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from ruamel.yaml import YAML

from loadtests import messages, payloads, preflight
from loadtests.embedded import EmbeddedServers
from loadtests.infer import CONNECTION_POLICY
from loadtests.recorder import require_new
from loadtests.recording import PayloadRecord, Plan
from loadtests.target import EMBEDDED, Target, TargetError, read_target
from loadtests.worker import open_transport
from scenarios.arrivals import arrival_count, schedule_digest
from scenarios.scenario import Scenario

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

OBJECTIVES_FILE: Final = Path(__file__).parents[1] / "slo_checks" / "objectives.yaml"
LEAD_S: Final = 1.0
"""From the plan to the first request: what it takes to write the one and to tell every process."""
_PACKAGES: Final = ("radslo", "locust", "gevent", "grpcio", "tritonclient", "numpy", "pyarrow", "pandas", "pydicom")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run needs; ``scenario`` has absolute rates only."""

    scenario: Scenario
    target: Target
    images: dict[str, payloads.Payload]
    golden: preflight.Golden
    capacity: preflight.Capacity | None
    calibration: dict[str, float]

    def assignment(self) -> dict[str, Any]:
        """What every load process is told, as plain values for Locust's channel."""
        return {
            "scenario": self.scenario.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "images": {name: image.data for name, image in self.images.items()},
            "golden": [
                (name, with_text, messages.pack_golden(tensors)) for (name, with_text), tensors in self.golden.items()
            ],
        }

    def plan(self, run: str, workers: int) -> Plan:
        """The plan of a run that starts `LEAD_S` from now."""
        open_loop = self.scenario.loop == "open"
        count = arrival_count(self.scenario) if open_loop else None
        digest = schedule_digest(self.scenario) if open_loop else None
        objectives = YAML(typ="safe", pure=True).load(OBJECTIVES_FILE.read_text(encoding="utf-8"))
        git_commit = _git_commit()
        started_at = time.time() + LEAD_S  # only now: the digest of a long schedule takes seconds
        return Plan(
            run=run,
            scenario=self.scenario,
            objectives=objectives,
            target=self.target.model_dump(mode="json"),
            loop=self.scenario.loop,
            seed=self.scenario.seed,
            scheduled_count=count,
            schedule_digest=digest,
            started_at=started_at,
            planned_end_at=started_at + self.scenario.duration_s,
            workers=workers,
            transport="grpcio",
            connection_policy=CONNECTION_POLICY,
            payloads={
                name: PayloadRecord(media_type=image.media_type, size_bytes=len(image.data), sha256=image.sha256)
                for name, image in self.images.items()
            },
            capacity_per_s=self.capacity.per_s if self.capacity else None,
            capacity_measured=self.capacity.measured if self.capacity else None,
            calibration=self.calibration,
            git_commit=git_commit,
            packages={name: version(name) for name in _PACKAGES},
            host=_host(),
        )


class Preparation:
    """Prepares one run after the other, and keeps embedded servers between them.

    ``options`` are those of `loadtests.options`; ``say`` tells a person what is going on.
    """

    def __init__(
        self,
        options: Namespace,
        scenario: Scenario,
        say: Callable[[str], None],
        on_server_event: Callable[[str, str], None],
    ) -> None:
        self._options = options
        self._scenario = scenario
        self._say = say
        self._on_server_event = on_server_event
        self._embedded: EmbeddedServers | None = None

    def directory(self) -> Path:
        """Where the run will be recorded.

        Raises:
            RecordingError: something is there already.
        """
        if self._options.recording:
            directory = Path(self._options.recording)
        else:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            directory = Path(self._options.runs_dir) / f"{stamp}-{self._scenario.name}"
        require_new(directory)
        return directory

    def prepare(self, workers: int) -> Prepared:
        """Find out all there is to know for a run with that many load processes."""
        with preflight.null_server() as null_server:
            target = self._target()
            self._say(f"checking the models at {target.grpc}")
            images = {share.id: payloads.load_payload(share.id) for share in self._scenario.payloads}
            data = {name: image.data for name, image in images.items()}
            golden, capacity = self._ask_target(target, data)
            scenario = self._scenario.resolved(capacity.per_s) if capacity else self._scenario
            self._say("calibrating the load generator")
            calibration = preflight.calibrate_client(null_server, scenario, data, workers)
        self._warn_of_peak(scenario, calibration)
        return Prepared(scenario, target, images, golden, capacity, calibration)

    def _target(self) -> Target:
        options = self._options
        if options.target == EMBEDDED:
            target = self._embedded_target()
        else:
            urls = (tuple(options.metrics_url or ()), tuple(options.gpu_metrics_url or ()))
            target = read_target(options.target, *urls)
        return target.model_copy(update={"capacity_per_s": options.capacity_per_s or target.capacity_per_s})

    def _embedded_target(self) -> Target:
        options = self._options
        if options.metrics_url or options.gpu_metrics_url:
            msg = "metrics addresses are for a --target of yours; those of embedded servers are known: leave them out"
            raise TargetError(msg)
        if self._embedded is None:
            self._say(f"starting {options.servers} Triton server(s) on this machine")
            self._embedded = EmbeddedServers(options.servers, options.device_times or None, self._on_server_event)
        return self._embedded.target.model_copy(
            update={"embedded_servers": options.servers, "device_times": options.device_times or None}
        )

    def _ask_target(
        self, target: Target, images: dict[str, bytes]
    ) -> tuple[preflight.Golden, preflight.Capacity | None]:
        """The target's known answers and, if the scenario asks for it, its capacity."""
        transport = open_transport(target)
        try:
            preflight.check_model(transport, target.grpc)
            golden = preflight.known_answers(transport, self._scenario, images)
            return golden, preflight.find_capacity(transport, self._scenario, images, target, self._say)
        finally:
            transport.close()

    def _warn_of_peak(self, scenario: Scenario, calibration: dict[str, float]) -> None:
        peak_ratio = calibration.get("peak_ratio")
        if peak_ratio is not None and peak_ratio > preflight.SAFE_PEAK_RATIO:
            self._say(
                f"warning: the peak of {scenario.peak_rate_per_s:.0f} requests/s is {peak_ratio:.0%} of what this "
                "generator can send; add load processes (--processes)"
            )

    def close(self) -> None:
        """Stop the embedded servers; returns when they are gone."""
        if self._embedded is not None:
            self._embedded.close()
            self._embedded = None


def _host() -> dict[str, str | int]:
    return {
        "name": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cores": psutil.cpu_count() or 0,
    }


def _git_commit() -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    where = Path(__file__).parent
    found = subprocess.run(  # noqa: S603
        [git, "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or None
