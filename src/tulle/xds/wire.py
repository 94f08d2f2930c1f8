"""Bytes of the discovery service to events, and answers to bytes. Knows the messages, not the conversation.

A gRPC server uses identity serialisers and these functions; it needs no generated code:
the methods are `/envoy.service.discovery.v3.AggregatedDiscoveryService/{Delta,Stream}AggregatedResources`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tulle.xds import api, schema
from tulle.xds.events import DeltaRequest, SotwRequest
from tulle.xds.glue import field
from tulle.xds.names import Nonce, ResourceName, Version

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA = "DeltaAggregatedResources"
STATE_OF_THE_WORLD = "StreamAggregatedResources"
_TYPE_URL, _NONCE = 2 << 3 | 2, 6 << 3 | 2
"""Tags of a DeltaDiscoveryRequest's fields."""
_SHORT = 128
"""Lengths below it are one byte."""
_LEAST = 4


@dataclass(frozen=True, slots=True)
class ClientNode:
    """What the first request of a stream says about the client. It proves nothing: identity comes from the socket."""

    id: str
    cluster: str
    metadata: dict[str, Any]


def _node(request: "api.DeltaDiscoveryRequest | api.DiscoveryRequest") -> ClientNode | None:
    if not request.HasField("node"):
        return None
    return ClientNode(request.node.id, request.node.cluster, schema.to_dict(request.node.metadata))


def _error(request: "api.DeltaDiscoveryRequest | api.DiscoveryRequest") -> str | None:
    return request.error_detail.message if request.HasField("error_detail") else None


def read_delta(received: bytes) -> tuple[DeltaRequest, ClientNode | None]:
    """Parse a DeltaDiscoveryRequest; `google.protobuf.message.DecodeError` when it is none."""
    acknowledged = _acknowledgement(received)
    if acknowledged is not None:
        return acknowledged, None
    request = api.DeltaDiscoveryRequest.FromString(received)
    return (
        DeltaRequest(
            type_url=request.type_url,
            subscribe=tuple(map(ResourceName, request.resource_names_subscribe)),
            unsubscribe=tuple(map(ResourceName, request.resource_names_unsubscribe)),
            initial_versions={ResourceName(n): Version(v) for n, v in request.initial_resource_versions.items()},
            nonce=Nonce(request.response_nonce),
            error=_error(request),
        ),
        _node(request),
    )


def _acknowledgement(received: bytes) -> DeltaRequest | None:
    """A request that holds a type URL (field 2) and a nonce (field 6) and nothing else, as nearly all do; None for others."""
    if len(received) < _LEAST or received[0] != _TYPE_URL or received[1] >= _SHORT:
        return None
    end = 2 + received[1]
    if len(received) < end + 2 or received[end] != _NONCE or received[end + 1] != len(received) - end - 2:
        return None  # a length of two bytes is more than what is left of so short a message, and fails the test, too
    if received[end + 1] >= _SHORT:
        return None
    try:
        return DeltaRequest(received[2:end].decode(), nonce=Nonce(received[end + 2 :].decode()))
    except UnicodeDecodeError:
        return None


def read_sotw(received: bytes) -> tuple[SotwRequest, ClientNode | None]:
    """Parse a DiscoveryRequest; `google.protobuf.message.DecodeError` when it is none."""
    request = api.DiscoveryRequest.FromString(received)
    names = tuple(map(ResourceName, request.resource_names))
    return (
        SotwRequest(request.type_url, names, Nonce(request.response_nonce), _error(request)),
        _node(request),
    )


def delta_response(type_url: str, nonce: str, frames: bytes, removed: Iterable[str]) -> tuple[bytes, bytes]:
    """A serialised DeltaDiscoveryResponse in two parts; the first is `frames`: `framed` resources, joined."""
    gone = (field(6, name.encode()) for name in removed)
    return frames, b"".join((field(4, type_url.encode()), field(5, nonce.encode()), *gone))


def sotw_response(type_url: str, nonce: str, version: str, bodies: Iterable[bytes]) -> bytes:
    """A serialised DiscoveryResponse; `bodies` are serialised `Any`s."""
    resources = (field(2, body) for body in bodies)
    return b"".join((field(1, version.encode()), *resources, field(4, type_url.encode()), field(5, nonce.encode())))
