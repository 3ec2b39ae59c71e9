"""Back-pressure at the front door: images wait in preprocessing's own queue while the models behind it are full.

In production the ensemble's `max_inflight_requests` does this. tritonserver 2.51 does not know it, and crashes when one
of an ensemble's parallel models refuses a request. Refused by preprocessing, the only first step, it survives.
"""

import re
import time
import urllib.request
from http import HTTPStatus

_POLL_S = 0.05
_PENDING = re.compile(r'^nv_inference_pending_request_count\{model="(\w+)".*\} (\S+)$', re.MULTILINE)
_FRONT = {"radstream_ensemble", "radstream_preprocess"}


def most_pending(metrics: str) -> int:
    """Return how many requests wait for the fullest of the models behind preprocessing; 0 if the text tells of none."""
    waiting = [float(count) for model, count in _PENDING.findall(metrics) if model not in _FRONT]
    return int(max(waiting, default=0))


class Admission:
    """Waits until no model has more than `limit` requests pending, by the server's own metrics."""

    def __init__(self, metrics_url: str, limit: int, answer_s: float = 1.0) -> None:
        """Take the address of this server's metrics, how many requests may wait, how long the metrics may take."""
        self._url = metrics_url
        self._limit = limit
        self._answer_s = answer_s
        self._next_look_s = 0.0

    def wait(self) -> None:
        """Return once there is room; a server that is still starting has room."""
        while time.monotonic() >= self._next_look_s:
            full = self._pending() > self._limit
            self._next_look_s = time.monotonic() + _POLL_S
            if not full:
                return
            time.sleep(_POLL_S)

    def _pending(self) -> int:
        try:
            with urllib.request.urlopen(self._url, timeout=self._answer_s) as response:  # noqa: S310 - this server's own http address
                return most_pending(response.read().decode()) if response.status == HTTPStatus.OK else 0
        except OSError:
            return 0  # warm-up comes before the metrics' port opens
