"""Requests are read the same, the short way of acknowledgements or the long one."""

import random

from google.protobuf.message import DecodeError

from tulle.xds import api
from tulle.xds.events import DeltaRequest
from tulle.xds.names import TypeUrl
from tulle.xds.wire import read_delta

ACKNOWLEDGED = api.DeltaDiscoveryRequest(type_url=TypeUrl.CDS, response_nonce="17.3").SerializeToString()
ROUNDS = 20_000


def by_protobuf(received: bytes) -> DeltaRequest | None:
    try:
        parsed = api.DeltaDiscoveryRequest.FromString(received)
    except DecodeError:
        return None
    return DeltaRequest(
        parsed.type_url,
        tuple(parsed.resource_names_subscribe),
        tuple(parsed.resource_names_unsubscribe),
        dict(parsed.initial_resource_versions),
        parsed.response_nonce,
        parsed.error_detail.message if parsed.HasField("error_detail") else None,
    )


def by_us(received: bytes) -> DeltaRequest | None:
    try:
        return read_delta(received)[0]
    except DecodeError:
        return None


def test_an_acknowledgement_is_its_type_and_nonce() -> None:
    assert read_delta(ACKNOWLEDGED) == (DeltaRequest(TypeUrl.CDS, nonce="17.3"), None)


def test_whatever_comes_is_read_as_protobuf_reads_it() -> None:
    dice = random.Random(4)
    for _ in range(ROUNDS):
        received = bytearray(ACKNOWLEDGED)
        for _ in range(dice.choice((0, 1, 1, 2, 3))):
            match dice.randrange(3):
                case 0 if received:
                    received[dice.randrange(len(received))] = dice.randrange(256)
                case 1 if received:
                    del received[dice.randrange(len(received)) :]
                case _:
                    received += bytes((dice.choice((0x12, 0x32, 0x1A, 0x0A, 3)), dice.randrange(4), 65, 66, 67))
        content = bytes(received)
        assert by_us(content) == by_protobuf(content), content
