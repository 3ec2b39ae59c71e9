"""The name server's answers, message by message."""

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from deploy.embedded.names import SERVICE_NAME, answer

TWO = ["127.0.0.1", "127.0.0.3"]


def asked(name: str, kind: str = "A", addresses: list[str] = TWO) -> DNSRecord:
    reply = answer(bytes(DNSRecord.question(name, kind).pack()), addresses)
    assert reply is not None
    return DNSRecord.parse(reply)


@pytest.mark.parametrize("name", [SERVICE_NAME, SERVICE_NAME.upper(), SERVICE_NAME + "."])
def test_the_service_name_stands_for_every_address(name: str) -> None:
    reply = asked(name)
    assert [str(row.rdata) for row in reply.rr] == TWO
    assert {row.ttl for row in reply.rr} == {1}


def test_there_are_no_ipv6_addresses_but_the_name_exists() -> None:
    reply = asked(SERVICE_NAME, "AAAA")
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


def test_without_servers_the_name_exists_and_stands_for_nothing() -> None:
    reply = asked(SERVICE_NAME, addresses=[])
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


def test_other_names_do_not_exist() -> None:
    assert asked("_grpc_config." + SERVICE_NAME, "TXT").header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"rubbish", id="rubbish"),
        pytest.param(bytes(DNSRecord.question(SERVICE_NAME).reply().pack()), id="an answer"),
        pytest.param(bytes(DNSRecord().pack()), id="no question"),
    ],
)
def test_what_is_not_a_question_is_not_answered(message: bytes) -> None:
    assert answer(message, TWO) is None


def test_the_reply_repeats_the_question() -> None:
    question = DNSRecord.question(SERVICE_NAME)
    reply = answer(bytes(question.pack()), TWO)
    assert reply is not None
    parsed = DNSRecord.parse(reply)
    assert parsed.header.id == question.header.id
    assert (str(parsed.q.qname), parsed.q.qtype) == (SERVICE_NAME + ".", QTYPE.A)
