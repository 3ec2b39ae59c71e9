"""A load process starts its watcher and its null server while grpcio's threads run; none may be lost on the way."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

# As the load process does it: Locust first, then this project, in the order in which the locustfile imports it.
SCRIPT = """
import locust, subprocess, sys
from loadtests import leader
from loadtests.infer import GrpcioTransport, under_gevent
under_gevent()
pipe = subprocess.PIPE
server = subprocess.Popen([sys.executable, "-m", "loadtests.null_server"], stdin=pipe, stdout=pipe, text=True)
transport = GrpcioTransport(server.stdout.readline().strip())
assert transport.infer(b"", 20).code == "OK"
for _ in range(30):
    child = subprocess.Popen([sys.executable, "-c", "print('ready')"], stdout=subprocess.PIPE, text=True)
    print(child.stdout.readline().strip(), child.wait())
transport.close()
server.stdin.close()
server.wait()
"""


def test_no_child_of_a_load_process_is_lost_between_fork_and_exec() -> None:
    # With grpcio's fork support on, about one in four is.
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["ready 0"] * 30, done.stderr
