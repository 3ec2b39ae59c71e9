"""A name server for one name, so that clients discover servers as they do through a headless Kubernetes service."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from dnslib import QTYPE, RCODE, RR, A, DNSError, DNSRecord

SERVICE_NAME = "triton.radstream.test"
_TTL_S = 1


def answer(question: bytes, addresses: Sequence[str]) -> bytes | None:
    """Answer one DNS message: A records for SERVICE_NAME, nothing for its other types, NXDOMAIN for other names.

    Returns None when the message is not a question that can be answered.
    """
    try:
        request = DNSRecord.parse(question)
    except DNSError:
        return None
    if request.header.qr or not request.questions:
        return None
    reply = request.reply()
    if str(request.q.qname).rstrip(".").lower() != SERVICE_NAME:
        reply.header.rcode = RCODE.NXDOMAIN
    elif request.q.qtype in {QTYPE.A, QTYPE.ANY}:
        for address in addresses:
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=_TTL_S))
    return bytes(reply.pack())


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP with the addresses that hold at that moment."""

    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        """Take the function that tells the present addresses."""
        self._addresses = addresses

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the socket to answer on."""
        # Python 3.11's own datagram transport is no instance of DatagramTransport.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a question."""
        reply = answer(data, self._addresses())
        if reply is not None:
            self._transport.sendto(reply, addr)
