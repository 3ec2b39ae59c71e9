"""The usual Locust user for Triton, as tutorials have it: tritonclient's `infer`, Locust's own statistics."""

from __future__ import annotations

import random
import time
from typing import ClassVar

import gevent
import numpy as np
from locust import User, constant_pacing, task
from locust.env import Environment
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput

from benchmarks.slices import SETTLE_S, Clock, Order, Slice
from benchmarks.workloads import Workload
from loadtests.messages import MODEL

# Ten users, as many as gevent's default thread pool lets wait for grpcio at once.
_USERS_AT_A_RATE = 10
_DRAIN_S = 10.0


class UsualUser(User):  # type: ignore[misc]
    """Builds the tensors, asks, reads the tensors, tells Locust."""

    workload: ClassVar[Workload]
    address: ClassVar[str]
    period_s: ClassVar[float]

    def on_start(self) -> None:
        # Else all users ask at the same moments for ever, which is cheap for the client and nobody's traffic.
        gevent.sleep(random.random() * self.period_s)  # noqa: S311 - spreads load, guards nothing
        self.client = InferenceServerClient(self.address)
        self.image = self.workload.image()

    @task  # type: ignore[untyped-decorator]
    def ask(self) -> None:
        tensor = InferInput("image", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[self.image]], dtype=object))
        outputs = [InferRequestedOutput(name) for name in self.workload.outputs]
        began_s = time.perf_counter()
        result = self.client.infer(MODEL, [tensor], outputs=outputs, client_timeout=30)
        took_s = time.perf_counter() - began_s
        answer = [result.as_numpy(name) for name in self.workload.outputs]
        self.environment.events.request.fire(
            request_type="gRPC",
            name=MODEL,
            response_time=took_s * 1e3,
            response_length=sum(array.nbytes for array in answer),
            exception=None,
            context={},
        )


class UsualClient:
    """Locust's local runner with usual users."""

    def __init__(self, address: str, workload: Workload) -> None:
        UsualUser.address, UsualUser.workload = address, workload
        self._environment = Environment(user_classes=[UsualUser], stop_timeout=_DRAIN_S)
        self._runner = self._environment.create_local_runner()

    def play(self, order: Order) -> Slice:
        """Send the load of one order; a rate is what the users try to keep together."""
        users = order.users or _USERS_AT_A_RATE
        UsualUser.period_s = users / order.rate_per_s if order.rate_per_s else 0.0
        UsualUser.wait_time = constant_pacing(UsualUser.period_s)
        self._runner.start(users, 100)
        self._runner.spawning_greenlet.join()
        gevent.sleep(SETTLE_S + UsualUser.period_s)
        # What Locust tells at the end covers the settling too.
        total = self._environment.stats.total
        clock, before = Clock(), total.num_requests
        gevent.sleep(order.seconds)
        requests, (wall_s, cpu_s) = total.num_requests - before, clock.read()
        self._runner.stop()
        failed = total.num_failures + len(self._runner.exceptions)
        return Slice(requests, failed, wall_s, cpu_s, latency_p95_ms=total.get_response_time_percentile(0.95))
