"""Commands that a user runs in a cluster's network, and what of it is seen from outside."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from deploy.local.cluster import Cluster
from tests.cluster.clusters import RADSLO, inside, radslo
from tests.integration.runs import BIN, environment, free_port
from tests.integration.web_ui import WebUi


def test_kubectl_is_on_the_path_and_knows_the_cluster(cluster: Cluster) -> None:
    assert inside(cluster.name, "kubectl", "get", "nodes", "--output=name") == "node/node1\n"


def test_the_exit_code_is_that_of_the_command(cluster: Cluster) -> None:
    command = [RADSLO, "cluster", "exec", "--name", cluster.name, "--port", "0", "sh", "-c"]
    assert subprocess.run([*command, "exit 7"], check=False).returncode == 7
    assert subprocess.run([*command, "kill -TERM $$"], check=False).returncode == 128 + signal.SIGTERM


def test_a_program_that_is_not_there_is_one_sentence(cluster: Cluster) -> None:
    result = subprocess.run(
        [RADSLO, "cluster", "exec", "--name", cluster.name, "--port", "0", "no-such-program"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 127
    assert "no-such-program" in result.stderr
    assert "Traceback" not in result.stderr


def test_there_is_no_way_out_and_no_proxy_to_go_by(cluster: Cluster) -> None:
    told = inside(
        cluster.name,
        "sh",
        "-c",
        "ip route show default && ! env | grep -i _proxy=",
        HTTPS_PROXY="http://127.0.0.1:1",
    )
    assert told == ""


def test_nothing_of_it_is_reached_from_outside(cluster: Cluster) -> None:
    assert inside(cluster.name, "kubectl", "get", "--raw", "/readyz") == "ok"
    with socket.socket() as outside:
        outside.settimeout(2)
        assert outside.connect_ex(("127.0.0.1", 26443)) != 0


def test_the_locust_web_ui_in_there_is_seen_here(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(RADSLO, "cluster", "exec", "--name", cluster.name, "--port", str(port)),
                *(str(BIN / "locust"), "--target", "local", "--web-port", str(port)),
                *("--runs-dir", str(tmp_path / "runs")),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )
    page = WebUi(process, f"http://127.0.0.1:{port}", log)
    page.until_it_answers()
    assert b"Locust" in page.ask("")
    page.start()
    page.until_said("recording to")
    assert page.state() in {"spawning", "running"}
    assert page.end(signal.SIGTERM) is not None
    with socket.socket() as outside:
        assert outside.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_said_and_the_command_runs_all_the_same(cluster: Cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = radslo("cluster", "exec", "--name", cluster.name, "--port", port, "echo", "ran")
    assert f"port {port} of this machine is taken" in told
    assert told.endswith("ran\n")


def test_locust_for_this_target_outside_says_how_to_get_in() -> None:
    result = subprocess.run(
        [str(BIN / "locust"), "--headless", "--target", "local"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert result.returncode != 0
    assert "radslo cluster exec" in result.stderr + result.stdout


@pytest.mark.usefixtures("cluster")
def test_a_mistake_in_the_scenario_is_told_before_the_cluster_is_entered() -> None:
    told = radslo("run", "no-such-scenario", "--target", "local", check=False)
    assert "no-such-scenario" in told
    assert "Traceback" not in told
