"""Runs real Triton servers on this machine until its standard input closes: `python -m deploy.embedded`."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.embedded import STATE_ROOT, EmbeddedError, leftovers, ports
from deploy.embedded.install import ensure_installed
from deploy.embedded.keeper import MOST_SERVERS, Keeper, Report
from deploy.embedded.server import Ports

EXAMPLES = """\
examples:
  python -m deploy.embedded                         one server with its configured device times
  python -m deploy.embedded --servers 3             triton-0 on 127.0.0.1, triton-1 on 127.0.0.2, ...
  python -m deploy.embedded --device-times "classifier=20+5,detector=60+10,encoder=30+5"
                                                    a batch of n takes a+b*n milliseconds of the one device; with
                                                    a = 0 a server does 1000/(sum of b) whole studies a second

commands on standard input, one a line:
  add                       one more server, on the next address
  stop NAME                 drain and end it, as Kubernetes does (SIGTERM)
  kill NAME                 end it at once (SIGKILL)
  freeze NAME SECONDS       stop all its processes from running, then let them go on
  device NAME|all TIMES     change device times now, for example: device all detector=600+100

Events come on standard output, one JSON object a line (sentences on a terminal): starting, ready, target, frozen,
thawed, device, stopped, exited, error. servers.json in the state directory always shows the present state.
"""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.embedded",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--servers", type=int, default=1, metavar="N", help="how many to start (default: 1)")
    parser.add_argument("--grpc-port", type=int, metavar="P", help="gRPC port on every address (default: a free one)")
    parser.add_argument("--device-times", default="", metavar="MODEL=a+b,...", help="default: as configured in triton/")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="for target.json, servers.json and logs")
    options = parser.parse_args(arguments)
    if not 1 <= options.servers <= MOST_SERVERS:
        parser.error(f"--servers {options.servers}: from 1 to {MOST_SERVERS}")
    return options


def choose_ports(servers: int, grpc_port: int | None) -> Ports:
    """Choose the ports of all servers; a gRPC port that was asked for is checked.

    Raises:
        EmbeddedError: it is taken, or too few are free.
    """
    addresses = [ports.address_of(index) for index in range(servers)]
    if grpc_port is not None:
        ports.require_free(addresses, grpc_port)
    http, grpc, metrics, gpu_metrics = ports.choose_free(4, addresses)
    return Ports(http, grpc if grpc_port is None else grpc_port, metrics, gpu_metrics)


def report_json(event: dict[str, object]) -> None:
    """Print an event for a program."""
    print(json.dumps(event), flush=True)


def report_sentence(event: dict[str, object]) -> None:
    """Print an event for a person."""
    match event:
        case {"event": "target", "target": {"grpc": grpc, "servers_file": servers_file}}:
            print(f"target  {grpc}\nservers {servers_file}\nCommands: add, stop, kill, freeze, device; Ctrl-C ends.")
        case {"event": "error", "message": message}:
            print(f"error: {message}")
        case {"event": name, "at": _, "server": server, **details}:
            print(f"{server} {name}  " + "  ".join(f"{key}={value}" for key, value in details.items()))
    sys.stdout.flush()


def keep(options: argparse.Namespace, report: Report) -> None:
    """Install if need be, clean up after killed keepers, then keep servers.

    Raises:
        EmbeddedError: they cannot be started.
    """
    installation = ensure_installed()
    run_root = STATE_ROOT / "run"
    swept = leftovers.sweep(run_root)
    if swept:
        print(f"embedded: ended {swept} processes that a killed keeper left behind", file=sys.stderr)
    leftovers.become_reaper()
    server_ports = choose_ports(options.servers, options.grpc_port)
    record = leftovers.KeeperRecord(run_root)
    state_dir = (options.state_dir or record.directory).resolve()
    state_dir.mkdir(parents=True, exist_ok=True)

    async def keep_servers() -> None:
        keeper = Keeper(installation, state_dir, record, server_ports, options.device_times, report)
        await keeper.run(options.servers)

    asyncio.run(keep_servers())
    record.discard()


def main(arguments: Sequence[str] | None = None) -> int:
    """Keep servers; return 2 with one error when that cannot be."""
    options = parse_arguments(arguments)
    report = report_sentence if sys.stdout.isatty() else report_json
    try:
        keep(options, report)
    except EmbeddedError as error:
        if not sys.stdout.isatty():
            report_json({"event": "error", "at": round(time.time(), 6), "message": str(error)})
        print(f"embedded: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
