"""Fast calls beside slow ones through one transport: ``python -m benchmarks.head_of_line ADDRESS THREADS``.

Prints the 95th percentile of the fast calls in milliseconds, as JSON: alone, and beside the slow ones. THREADS is the
size of gevent's pool, in which each waiting call takes a thread; ten is gevent's default.
"""

# Locust patches the process, so it comes before everything else.
import locust  # noqa: F401  # isort: skip

import json
import sys
import time
from typing import Final

import gevent
import numpy as np

from loadtests.infer import GrpcioTransport, under_gevent

SLOW_USERS: Final = 20
FAST_USERS: Final = 5
_SLOW_S: Final = 1.0
_FAST_S: Final = 0.010
_LASTS_S: Final = 5.0
_DEADLINE_S: Final = 30.0


class _FixedPool(GrpcioTransport):
    """Ours, were it to leave the pool as it is."""

    def _make_room(self) -> None:
        pass


def fast_p95_ms(transport: GrpcioTransport, slow_users: int) -> float:
    took_ms: list[float] = []
    until = time.monotonic() + _LASTS_S

    def ask(server_s: float, found: list[float]) -> None:
        request = str(server_s).encode()
        while time.monotonic() < until:
            reply = transport.infer(request, _DEADLINE_S)
            assert reply.code == "OK", reply
            found.append((reply.done_ns - reply.sent_ns) / 1e6)

    users = [gevent.spawn(ask, _SLOW_S, []) for _ in range(slow_users)]
    users += [gevent.spawn(ask, _FAST_S, took_ms) for _ in range(FAST_USERS)]
    gevent.joinall(users, raise_error=True)
    return float(np.percentile(took_ms, 95))


def main() -> None:
    under_gevent()
    gevent.get_hub().threadpool.maxsize = int(sys.argv[2])
    transport = _FixedPool(sys.argv[1])
    fast_p95_ms(transport, 0)
    print(json.dumps({"alone_ms": fast_p95_ms(transport, 0), "beside_slow_ms": fast_p95_ms(transport, SLOW_USERS)}))
    transport.close()


if __name__ == "__main__":
    main()
