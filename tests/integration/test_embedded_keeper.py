"""The keeper of real servers: what it tells, what it obeys, and that it leaves nothing behind."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
import tritonclient.grpc as triton
from dnslib import DNSRecord

from tests.integration.embedded import (
    CHECKOUT,
    PROCESSES,
    QUICK,
    STUBS,
    EmbeddedServers,
    embedded_servers,
    keeper_process,
    regions_of,
    still_alive,
    wait_gone,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


FREEZE_S = 6


@pytest.fixture(scope="module")
def keeper() -> Iterator[EmbeddedServers]:
    with embedded_servers(servers=2, device_times=QUICK) as running:
        yield running


def resolved(keeper: EmbeddedServers) -> set[str]:
    """Ask the keeper's name server for the addresses of the service."""
    authority, name = keeper.target["grpc"].removeprefix("dns://").split("/")
    host, port = authority.split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(10)
        asking.sendto(DNSRecord.question(name.rpartition(":")[0]).pack(), (host, int(port)))
        return {str(row.rdata) for row in DNSRecord.parse(asking.recv(4096)).rr}


def states(keeper: EmbeddedServers) -> dict[str, str]:
    return {row["name"]: row["state"] for row in keeper.servers()}


def family_of(keeper: EmbeddedServers) -> list[psutil.Process]:
    return psutil.Process(keeper.process.pid).children(recursive=True)


def test_the_target_file_says_what_the_event_said(keeper: EmbeddedServers) -> None:
    servers_file = Path(keeper.target["servers_file"])
    assert json.loads((servers_file.parent / "target.json").read_text()) == keeper.target
    assert keeper.target["emulated"] is True
    assert [(row["name"], row["address"]) for row in keeper.servers()] == [
        ("triton-0", "127.0.0.1"),
        ("triton-1", "127.0.0.2"),
    ]
    assert resolved(keeper) == {"127.0.0.1", "127.0.0.2"}


def test_every_socket_is_bound_to_a_loopback_address(keeper: EmbeddedServers) -> None:
    processes = [psutil.Process(keeper.process.pid), *family_of(keeper)]
    bound = [each.laddr for process in processes for each in process.net_connections() if each.laddr]
    assert bound
    assert all(address.ip.removeprefix("::ffff:").startswith("127.0.0.") for address in bound)


def test_servers_can_be_added_and_killed_and_the_name_follows(keeper: EmbeddedServers) -> None:
    keeper.command("add")
    added = keeper.until("ready")
    name = added["server"]
    assert added["address"] in resolved(keeper)
    keeper.command(f"kill {name}")
    gone = keeper.until("exited", name)
    assert (gone["signal"], gone["exit_code"], gone["expected"]) == ("SIGKILL", None, True)
    assert resolved(keeper) == {"127.0.0.1", "127.0.0.2"}
    assert states(keeper)[name] == "exited"


def test_a_server_that_dies_by_itself_is_told_at_once_and_leaves_nothing(keeper: EmbeddedServers) -> None:
    keeper.command("add")
    added = keeper.until("ready")
    name, server = added["server"], psutil.Process(added["pid"])
    family = [server, *server.children(recursive=True)]
    regions = regions_of(family)
    assert len(family) == PROCESSES
    assert len(regions) > STUBS
    family[0].send_signal(signal.SIGSEGV)
    gone = keeper.until("exited")
    assert (gone["server"], gone["signal"], gone["expected"]) == (name, "SIGSEGV", False)
    assert still_alive(family) == []
    assert not any(region.exists() for region in regions)
    assert name not in {row["name"] for row in keeper.servers() if row["state"] != "exited"}


def test_a_stopped_server_ends_in_order(keeper: EmbeddedServers) -> None:
    keeper.command("add")
    name = keeper.until("ready")["server"]
    keeper.command(f"stop {name}")
    # Its exit code is Triton's own: 0, or 1 if this machine stood still for longer than Triton is given to drain.
    stopped = keeper.until("stopped", name)
    assert (stopped["signal"], stopped["expected"]) == (None, True)


def test_a_frozen_server_answers_nothing_until_it_thaws(keeper: EmbeddedServers) -> None:
    keeper.command(f"freeze triton-1 {FREEZE_S}")
    frozen = keeper.until("frozen", "triton-1")
    assert states(keeper)["triton-1"] == "frozen"
    assert resolved(keeper) == {"127.0.0.1", "127.0.0.2"}
    with triton.InferenceServerClient(keeper.grpc_address("triton-1")) as client:
        assert client.is_model_ready("radstream_ensemble", client_timeout=60)
    answered_at = time.time()
    thawed = keeper.until("thawed", "triton-1")
    assert thawed["at"] - frozen["at"] >= FREEZE_S
    assert answered_at - frozen["at"] >= FREEZE_S - 0.01
    assert states(keeper)["triton-1"] == "ready"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("dance", "no such command: 'dance'; there are: add, stop NAME"),
        ("kill triton-99", "no server triton-99 is running; running are: triton-0, triton-1"),
        ("freeze triton-0 soon", "'soon' is no duration; write seconds"),
        ("freeze triton-0 -1", "'-1' is no duration"),
        ("device triton-0 detector=fast", "'fast' is not a+b in milliseconds"),
    ],
)
def test_a_wrong_command_is_told_and_changes_nothing(keeper: EmbeddedServers, command: str, reason: str) -> None:
    keeper.command(command)
    assert reason in keeper.until("error")["message"]
    assert states(keeper)["triton-0"] == "ready"


def test_a_grpc_client_follows_the_name_to_servers_added_later() -> None:
    options = [
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ]
    with (
        embedded_servers(device_times=QUICK) as keeper,
        grpc.insecure_channel(keeper.target["grpc"], options) as channel,
    ):
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        assert b"triton-0" in ask(b"", timeout=30)
        keeper.command("add")
        keeper.until("ready")
        keeper.command("kill triton-0")
        keeper.until("exited", "triton-0")
        assert b"triton-1" in ask(b"", timeout=30, wait_for_ready=True)


@pytest.mark.parametrize("ending", ["stdin", signal.SIGTERM, signal.SIGINT], ids=["stdin", "SIGTERM", "SIGINT"])
def test_however_the_keeper_is_asked_to_end_nothing_is_left(ending: signal.Signals | str) -> None:
    with embedded_servers(device_times=QUICK) as keeper:
        family = family_of(keeper)
        regions = regions_of(family)
        assert len(family) == PROCESSES
        assert regions
        if isinstance(ending, signal.Signals):
            keeper.process.send_signal(ending)
            assert keeper.wait() == 0
        else:
            assert keeper.close() == 0
        assert [event["event"] for event in keeper.remaining()] == ["stopped"]
    assert still_alive(family) == []
    assert not any(region.exists() for region in regions)
    assert not Path(keeper.target["servers_file"]).parent.exists()


def test_after_kill_9_of_the_keeper_the_next_one_cleans_up_only_what_is_its_own(keeper: EmbeddedServers) -> None:
    with embedded_servers(device_times=QUICK) as killed:
        family = family_of(killed)
        regions = regions_of(family)
        killed.process.kill()
        killed.wait()
    assert any(region.exists() for region in regions), "the killed keeper cannot have cleaned up"
    with embedded_servers(device_times=QUICK):
        assert wait_gone(family) == []
        assert not any(region.exists() for region in regions)
    assert states(keeper)["triton-0"] == "ready"
    assert len(family_of(keeper)) == 2 * PROCESSES


def test_wrong_device_times_end_the_start_with_the_reason() -> None:
    with keeper_process(device_times="detectr=1+2") as keeper:
        error = keeper.until("error")
        assert "'detectr=1+2' is not MODEL=a+b with MODEL one of classifier, detector, encoder" in error["message"]
        assert keeper.close() == 2


def test_a_taken_grpc_port_ends_the_start_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with keeper_process("--grpc-port", str(port)) as keeper:
            assert keeper.until("error")["message"].startswith(f"port {port} on 127.0.0.1 is taken")
            assert keeper.close() == 2


def test_a_state_directory_of_ones_own_keeps_the_logs(tmp_path: Path) -> None:
    with embedded_servers(device_times=QUICK, arguments=["--state-dir", str(tmp_path)]) as keeper:
        assert keeper.target["servers_file"] == str(tmp_path / "servers.json")
    assert "Started GRPCInferenceService" in (tmp_path / "triton-0.log").read_text()
    assert json.loads((tmp_path / "servers.json").read_text())["servers"][0]["state"] == "exited"


def test_a_keeper_whose_listener_has_gone_still_cleans_up() -> None:
    """Both pipes close at once, as when the process that started the keeper is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.embedded", "--device-times", QUICK],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    events = (json.loads(line) for line in process.stdout)
    assert any(event["event"] == "target" for event in events)
    family = psutil.Process(process.pid).children(recursive=True)
    process.stdout.close()
    process.stdin.close()
    process.wait(timeout=120)
    assert len(family) == PROCESSES
    assert wait_gone(family) == []
