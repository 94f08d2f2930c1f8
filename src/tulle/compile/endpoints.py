"""The endpoint lane: load assignments glued from fragments, one per endpoint, so that churn costs what changed.

Protobuf messages concatenate: a repeated field is a run of (tag, length, bytes). Nothing here is a graph node per
endpoint.
"""

from functools import lru_cache

from tulle.compile.addresses import is_ip
from tulle.compile.envoy.clusters import NAMESPACE
from tulle.dialects.kubernetes import endpoints
from tulle.engine import Database, query
from tulle.model.intent import Endpoint
from tulle.model.keys import Labels, ServiceKey, selects
from tulle.xds import api
from tulle.xds.glue import field
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource
from tulle.xds.schema import struct, to_bytes


@query
def load_assignment(db: Database, name: str, key: ServiceKey, port: int, labels: Labels) -> Resource:
    """The endpoints of one cluster that are ready and of its subset; names among addresses cannot be sent (Envoy)."""
    groups: dict[str, list[bytes]] = {}
    for endpoint in endpoints(db, key, port):
        if endpoint.is_ready and selects(labels, endpoint.labels) and is_ip(endpoint.address):
            groups.setdefault(endpoint.locality, []).append(fragment(endpoint))
    value = field(1, name.encode())
    for locality, fragments in sorted(groups.items()):
        value += field(2, _locality(locality) + b"".join(fragments))
    return Resource.glued(TypeUrl.EDS, name, value, is_empty=not groups)


@lru_cache(maxsize=200_000)
def fragment(endpoint: Endpoint) -> bytes:
    """One `lb_endpoints` entry of `LocalityLbEndpoints`, tag included."""
    destination = {
        "workload": endpoint.owner,
        "namespace": endpoint.workload.namespace if endpoint.workload else "",
        "canonical": endpoint.canonical_service,
        "revision": endpoint.canonical_revision,
        "app": dict(endpoint.labels).get("app", ""),
        "version": dict(endpoint.labels).get("version", ""),
        "cluster": endpoint.workload.cluster if endpoint.workload else "",
    }
    fields = {NAMESPACE: struct({name: value or "unknown" for name, value in destination.items()})}
    if endpoint.has_sidecar:
        fields["envoy.transport_socket_match"] = struct({"tlsMode": "istio"})
    message = api.LbEndpoint(
        endpoint=api.Endpoint(
            address=api.Address(socket_address=api.SocketAddress(address=endpoint.address, port_value=endpoint.port))
        ),
        metadata=api.Metadata(filter_metadata=fields),
        load_balancing_weight=api.UInt32Value(value=max(endpoint.weight, 1)),
    )
    return field(2, to_bytes(message))


def _locality(locality: str) -> bytes:
    if not locality:
        return b""
    region, zone, sub_zone = (*locality.split("/"), "", "")[:3]
    return field(1, to_bytes(api.Locality(region=region, zone=zone, sub_zone=sub_zone)))
