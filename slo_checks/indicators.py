"""Every indicator by the name that an objective calls it: a pure function of a recording.

To add one, write the function in a module of its own and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from loadtests.recording import Recording
from slo_checks.answers import availability, error_rate
from slo_checks.estimate import Estimate, unmeasured
from slo_checks.gpu import gpu_utilisation
from slo_checks.latency import latency
from slo_checks.objectives import IndicatorName, Objective, Objectives
from slo_checks.recovery import recovery

Indicator: TypeAlias = Callable[[Recording, Objective, Objectives], Estimate]


def pod_start(_recording: Recording, _objective: Objective, _objectives: Objectives) -> Estimate:
    """Recordings hold no rows about pods yet."""
    return unmeasured("nothing observed pods in this run (recordings hold no pod starts)")


def scale_out(_recording: Recording, _objective: Objective, _objectives: Objectives) -> Estimate:
    """Recordings hold no rows about pods yet."""
    return unmeasured("nothing observed pods in this run (recordings hold no scaling steps)")


INDICATORS: Final[dict[IndicatorName, Indicator]] = {
    "availability": availability,
    "error_rate": error_rate,
    "latency": latency,
    "pod_start": pod_start,
    "scale_out": scale_out,
    "gpu_utilisation": gpu_utilisation,
    "recovery": recovery,
}
FROM_REQUESTS: Final[frozenset[IndicatorName]] = frozenset({"availability", "error_rate", "latency", "recovery"})
"""Those made of request rows alone; all others rest on what the watcher saw."""


def estimate(recording: Recording, objective: Objective, objectives: Objectives) -> Estimate:
    """What the recording says about one objective."""
    return INDICATORS[objective.indicator](recording, objective, objectives)
