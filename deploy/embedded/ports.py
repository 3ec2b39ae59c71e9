"""Chooses ports that are free on every address that servers may get."""

import random
import socket
from collections.abc import Sequence

from deploy.embedded import EmbeddedError

# Below the range from which the kernel takes ports for outgoing connections, so that none of those gets in the way.
_FIRST, _LAST = 20_000, 32_000
_ATTEMPTS = 200


def address_of(index: int) -> str:
    """Return the loopback address of server number `index`, from 0."""
    return f"127.0.0.{index + 1}"


def is_free(address: str, port: int) -> bool:
    """Tell whether a TCP port can be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def require_free(addresses: list[str], port: int) -> None:
    """Check a port that somebody asked for.

    Raises:
        EmbeddedError: it is taken on one of the addresses.
    """
    for address in addresses:
        if not is_free(address, port):
            message = f"port {port} on {address} is taken; choose another --grpc-port, or leave it out"
            raise EmbeddedError(message)


def choose_free(count: int, addresses: list[str], among: Sequence[int] = range(_FIRST, _LAST)) -> list[int]:
    """Choose `count` different ports out of `among` that are free on all addresses.

    Raises:
        EmbeddedError: too few are free.
    """
    chosen: set[int] = set()
    for _ in range(_ATTEMPTS):
        port = random.choice(among)  # noqa: S311 - a port, not a secret
        if all(is_free(address, port) for address in addresses):
            chosen.add(port)
        if len(chosen) == count:
            return list(chosen)
    message = (
        f"fewer than {count} free TCP ports from {min(among)} to {max(among)} on 127.0.0.x; end what occupies them"
    )
    raise EmbeddedError(message)
