"""One load process in a process of its own, under Locust and gevent, with this test as its leader or its server."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from tests.integration.runs import CHECKOUT

pytestmark = pytest.mark.integration

PREAMBLE = """
import locust, gevent, os, subprocess, sys, time
from locust.env import Environment
from loadtests.crew import Crew, CrewError
from loadtests.infer import GrpcioTransport, under_gevent
from loadtests.preparation import Prepared
from loadtests.target import Target
from loadtests.worker import LoadWorker
from scenarios.scenario import load_scenario
under_gevent()
environment = Environment(user_classes=[])
runner = environment.create_local_runner()

def assignment(address):
    return Prepared(load_scenario("smoke"), Target(name="test", grpc=address), {}, {}, None, {}).assignment()
"""


def under_locust(script: str) -> list[str]:
    """The lines that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + dedent(script)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_load_process_without_a_way_to_the_target_is_named_before_the_run() -> None:
    (said,) = under_locust(
        """
        worker = LoadWorker(environment)
        crew = Crew(runner)
        for kind in ("ready", "time"):
            hear = getattr(crew, f"on_{kind}")
            runner.register_message(f"radslo_{kind}", lambda msg, hear=hear, **_: hear(msg.data))
        try:
            crew.assign(assignment("127.0.0.1:1"))
        except CrewError as error:
            print(error)
        """
    )
    assert said.startswith("load process 0 on ")
    assert "cannot take part: no server answers at 127.0.0.1:1" in said


def test_a_mistake_that_nobody_foresaw_is_told_the_leader_at_once() -> None:
    told, raised = under_locust(
        """
        worker = LoadWorker(environment)
        runner.register_message("radslo_ready", lambda msg, **_: print("shows why" in msg.data["error"]))
        try:
            runner.send_message("radslo_assign", {"run": "1", "worker": 0})
        except KeyError as error:
            print(error)
        """
    )
    assert (told, raised) == ("True", "'scenario'")


def test_each_load_process_starts_by_its_own_clock() -> None:
    (off_s,) = under_locust(
        """
        # Both processes have this machine's name, and one has a clock that is 5 s ahead.
        crew = Crew(runner)
        def on_assign(msg, **_):
            crew.on_ready({"worker": 0, "host": "here", "error": None})
        def on_clock(msg, **_):
            crew.on_time(msg.data | {"at": time.time() + 5})
        def on_begin(msg, **_):
            print(msg.data["started_at"] - 1000)
        for kind, listener in {"assign": on_assign, "clock": on_clock, "begin": on_begin}.items():
            runner.register_message(f"radslo_{kind}", listener)
        crew.assign({})
        crew.begin(1000.0)
        """
    )
    assert float(off_s) == pytest.approx(5, abs=0.01)


def test_messages_of_another_run_are_dropped() -> None:
    lines = under_locust(
        """
        with subprocess.Popen([sys.executable, "-m", "loadtests.null_server"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as server:
            worker = LoadWorker(environment)
            worker.check = lambda *_: None
            for kind in ("ready", "rows", "final"):
                runner.register_message(f"radslo_{kind}", lambda msg, kind=kind, **_: print(kind, msg.data["run"]))
            def send(kind, run, **data):
                runner.send_message(f"radslo_{kind}", data | {"run": run, "worker": 0})
            address = server.stdout.readline().strip()
            send("assign", "1", workers=1, **assignment(address))
            send("begin", "1", started_at=time.time() + 60)
            first = worker.generator
            send("assign", "2", workers=1, **assignment(address))
            send("begin", "1", started_at=time.time() + 60)
            print(first.finished.is_set(), worker.generator)
            gevent.sleep(0.2)
            worker._close_transport()
            server.kill()
        """
    )
    # The first run is given up, and its last words are not taken for the second's.
    assert lines == ["ready 1", "ready 2", "True None", "rows 1", "final 1"]


def test_however_many_calls_wait_a_quick_answer_is_heard_at_once() -> None:
    codes, took_s = under_locust(
        """
        with subprocess.Popen([sys.executable, "-m", "benchmarks.sleepy_server"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as server:
            transport = GrpcioTransport(server.stdout.readline().strip())
            slow = [gevent.spawn(transport.infer, b"8", 30) for _ in range(500)]
            gevent.sleep(1)
            begin_s = time.monotonic()
            quick = transport.infer(b"0", 30)
            took_s = time.monotonic() - begin_s
            gevent.joinall(slow)
            print({call.value.code for call in slow} | {quick.code})
            print(took_s)
            transport.close()
            server.stdin.close()
        """
    )
    assert codes == "{'OK'}"
    assert float(took_s) < 3  # in a pool of fewer threads it would be heard once the slow ones are
