"""Makes a port inside a cluster's network answer on this machine's 127.0.0.1, such as that of the Locust web UI."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Final

from deploy.local.network import enter

_CHUNK_BYTES: Final = 65536


def listen(port: int) -> socket.socket | None:
    """A socket on 127.0.0.1, or None when the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        return None
    listener.listen()
    return listener


def forward(listener: socket.socket, network: int, port: int) -> None:
    """Pass connections on until this process is ended; `network` is a file descriptor of the namespace.

    The listening socket stays in the network that it was made in, those made from now on are in the other.
    """
    enter(network)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(listener, port))


async def _serve(listener: socket.socket, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()  # nothing listens inside, or not yet
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        for end in (writer, far_writer):
            end.close()

    async with await asyncio.start_server(connected, sock=listener) as server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on all that comes, then that no more will; what goes the other way goes on."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


if __name__ == "__main__":
    # python -m deploy.local.forward LISTENER_FD NETWORK_FD PORT; ends when standard input closes, so with its parent.
    import threading

    listening = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    forward(listening, int(sys.argv[2]), int(sys.argv[3]))
