"""Keeps servers: starts them, tells what happens to them, obeys commands, and leaves nothing behind."""

import asyncio
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import NoReturn

from deploy.embedded import EmbeddedError, leftovers, ports
from deploy.embedded.install import ServerInstallation
from deploy.embedded.names import SERVICE_NAME, NameServer
from deploy.embedded.server import SERVE, Ports, Server, State

MOST_SERVERS = 250
Report = Callable[[dict[str, object]], None]


class Keeper:
    """The servers of one embedded target."""

    def __init__(
        self,
        installation: ServerInstallation,
        state_dir: Path,
        record: leftovers.KeeperRecord,
        server_ports: Ports,
        device_times: str,
        report: Report,
    ) -> None:
        """Keep servers whose logs and files go to `state_dir`; tell `report` of every event."""
        self._installation = installation
        self._state_dir = state_dir
        self._ports = server_ports
        self._record = record
        self._servers: list[Server] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._device_times = device_times
        self._report = report

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self, count: int) -> None:
        """Start servers and keep them until the standard input closes or a signal comes.

        Raises:
            EmbeddedError: a server did not become ready.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: NameServer(self.addresses), local_addr=("127.0.0.1", 0)
        )
        dns_port = transport.get_extra_info("sockname")[1]
        self._begin(self._start(count, dns_port), self._work)
        threading.Thread(target=_read_commands, args=(loop, self._command, self._stop.set), daemon=True).start()
        try:
            await self._stop.wait()
        finally:
            await self._close()
            transport.close()
        if self._failure is not None:
            raise self._failure

    async def _start(self, count: int, dns_port: int) -> None:
        await asyncio.gather(*(self._launch() for _ in range(count)))
        self._publish_target(dns_port)

    async def _close(self) -> None:
        """End every server at once: they hold nothing that would be lost."""
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for server in self._servers:
            if server.state is not State.EXITED:
                server.ending = server.ending or "close"
                server.kill()
        await asyncio.gather(*self._watches)

    def _begin(self, work: Coroutine[None, None, None], kept_in: set[asyncio.Task[None]]) -> None:
        """Run `work` beside everything else; should it fail, the keeper ends with that failure."""
        task = asyncio.ensure_future(work)
        kept_in.add(task)
        task.add_done_callback(kept_in.discard)
        task.add_done_callback(self._note_failure)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._stop.set()

    # -- servers ------------------------------------------------------------------------------------------------

    def addresses(self) -> list[str]:
        """Return the addresses that the name stands for. A frozen server is among them: nobody has noticed yet."""
        return [server.address for server in self._servers if server.state in {State.READY, State.FROZEN}]

    async def _launch(self) -> None:
        """Start one more server and return when it is ready.

        Raises:
            EmbeddedError: it did not become ready.
        """
        index = len(self._servers)
        if index >= MOST_SERVERS:
            message = f"{MOST_SERVERS} servers is the limit; start another keeper"
            raise EmbeddedError(message)
        name = f"triton-{index}"
        server = Server(name, ports.address_of(index), self._ports, self._state_dir / f"{name}.log")
        self._record.note(server.token)
        self._servers.append(server)
        await server.start(self._installation, self._device_times)
        self._changed("starting", server)
        self._begin(self._watch(server), self._watches)
        await server.until_ready()
        server.state = State.READY
        self._changed("ready", server, start_s=round(time.time() - server.started_at, 3))

    async def _watch(self, server: Server) -> None:
        code = await server.until_exited()
        how = {
            "exit_code": code if code >= 0 else None,
            "signal": signal.Signals(-code).name if code < 0 else None,
            "expected": server.ending is not None,
        }
        self._changed("stopped" if server.ending in {"stop", "close"} else "exited", server, **how)

    def _changed(self, event: str, server: Server, **details: object) -> None:
        """Publish the new state, then tell of it."""
        rows = {"servers": [each.row() for each in self._servers]}
        write_atomically(self._state_dir / "servers.json", rows)
        self._tell(event, server=server.name, address=server.address, pid=server.pid, **details)

    def _publish_target(self, dns_port: int) -> None:
        target = {
            "name": "embedded",
            "grpc": f"dns://127.0.0.1:{dns_port}/{SERVICE_NAME}:{self._ports.grpc}",
            "servers_file": str(self._state_dir / "servers.json"),
            "emulated": True,
        }
        write_atomically(self._state_dir / "target.json", target)
        self._tell("target", target=target)

    def _tell(self, event: str, **details: object) -> None:
        try:
            self._report({"event": event, "at": round(time.time(), 6), **details})
        except BrokenPipeError:  # whoever listened has ended, and the cleaning up still has to be done
            self._report = lambda _: None
            self._stop.set()

    # -- commands -----------------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        """Obey one line; a line that makes no sense is told and changes nothing."""
        if not self._stop.is_set():
            self._begin(self._obey(line), self._work)

    async def _obey(self, line: str) -> None:
        try:
            match line.split():
                case []:
                    pass
                case ["add"]:
                    await self._launch()
                case ["stop", name]:
                    self._end(name, "stop", Server.terminate)
                case ["kill", name]:
                    self._end(name, "kill", Server.kill)
                case ["freeze", name, seconds]:
                    await self._freeze(self._alive(name), _positive_s(seconds))
                case ["device", name, times]:
                    await self._set_device_times(name, times)
                case _:
                    _refuse(line)
        except EmbeddedError as error:
            self._tell("error", message=str(error), command=line.strip())

    def _alive(self, name: str) -> Server:
        for server in self._servers:
            if server.name == name and server.state is not State.EXITED:
                return server
        names = ", ".join(server.name for server in self._servers if server.state is not State.EXITED)
        message = f"no server {name} is running; running are: {names or 'none'}"
        raise EmbeddedError(message)

    def _end(self, name: str, ending: str, end: Callable[[Server], None]) -> None:
        server = self._alive(name)
        server.ending = ending
        end(server)

    async def _freeze(self, server: Server, duration_s: float) -> None:
        if server.state is not State.READY:
            message = f"{server.name} is {server.state}; only a ready server can be frozen"
            raise EmbeddedError(message)
        server.freeze()
        self._changed("frozen", server, duration_s=duration_s)
        await asyncio.sleep(duration_s)
        if server.thaw():
            self._changed("thawed", server)

    async def _set_device_times(self, name: str, times: str) -> None:
        servers = [each for each in self._servers if each.state is not State.EXITED]
        for server in servers if name == "all" else [self._alive(name)]:
            process = await asyncio.create_subprocess_exec(
                *(self._installation.python, "-m", "radstream.device", server.device_file, times),
                cwd=SERVE.parent,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, words = await process.communicate()
            if process.returncode != 0:
                raise EmbeddedError(words.decode(errors="replace").strip())
            self._tell("device", server=server.name, device_times=times)


def _refuse(line: str) -> NoReturn:
    message = (
        f"no such command: {line.strip()!r}; there are: add, stop NAME, kill NAME, "
        "freeze NAME SECONDS, device NAME|all TIMES"
    )
    raise EmbeddedError(message)


def _positive_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        message = f"{text!r} is no duration; write seconds, for example 3"
        raise EmbeddedError(message)
    return seconds


def write_atomically(path: Path, content: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=2) + "\n")
    fresh.rename(path)


def _read_commands(loop: asyncio.AbstractEventLoop, obey: Callable[[str], None], closed: Callable[[], object]) -> None:
    """Hand over lines of the standard input, then its end. In a thread: a file or /dev/null cannot be polled."""
    rest = b""
    while chunk := os.read(sys.stdin.fileno(), 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(obey, line.decode(errors="replace"))
    loop.call_soon_threadsafe(closed)
