"""A process that holds one client under Locust and sends load when told to, one JSON line a slice.

``python -m benchmarks.load_process ours study 127.0.0.1:8001`` reads lines such as
``{"users": 8, "seconds": 2}`` (closed loop) or ``{"rate_per_s": 100, "seconds": 20}`` and answers each with a
`benchmarks.slices.Slice`. It ends when its standard input closes.
"""

# Locust patches the process, so it comes before everything else.
import locust  # noqa: F401  # isort: skip

import json
import sys
from typing import Final

import grpc.experimental.gevent

from benchmarks.our_client import OurClient
from benchmarks.slices import Client, Order
from benchmarks.usual_client import UsualClient
from benchmarks.workloads import WORKLOADS

_CLIENTS: Final[dict[str, type[Client]]] = {"ours": OurClient, "usual": UsualClient}


def main() -> None:
    kind, workload, address = sys.argv[1:]
    grpc.experimental.gevent.init_gevent()
    client = _CLIENTS[kind](address, WORKLOADS[workload])
    for line in sys.stdin:
        print(client.play(Order(**json.loads(line))).to_json(), flush=True)


if __name__ == "__main__":
    main()
