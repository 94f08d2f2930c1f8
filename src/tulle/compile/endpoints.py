"""The endpoint lane: load assignments glued from fragments, one per endpoint, so that churn costs what changed.

Protobuf messages concatenate: a repeated field is a run of (tag, length, bytes). Nothing here is a graph node per
endpoint.
"""

from functools import lru_cache

from tulle.compile.addresses import is_ip
from tulle.compile.envoy import series
from tulle.compile.envoy.observing import ENDPOINT, METADATA
from tulle.dialects.kubernetes import endpoints
from tulle.engine import Database, query
from tulle.model.intent import Endpoint
from tulle.model.keys import Labels, ServiceKey, selects
from tulle.xds import api
from tulle.xds.glue import field, number
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource
from tulle.xds.schema import to_bytes


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


@lru_cache(maxsize=2_048)
def fragment(endpoint: Endpoint) -> bytes:
    """One `lb_endpoints` entry of `LocalityLbEndpoints`, tag included; its bytes are those of the message.

    Remembered are those of the services that change; one takes about 1.5 kB, also of an endpoint that is long gone.
    """
    socket = field(2, endpoint.address.encode()) + number(3, endpoint.port)
    place = field(1, field(1, field(1, socket)))
    weight = field(4, number(1, max(endpoint.weight, 1)))
    return field(2, place + _metadata(endpoint) + weight)


def forget_fragments() -> None:
    """Let go of what was remembered for the next change of the same services."""
    fragment.cache_clear()


def _metadata(endpoint: Endpoint) -> bytes:
    """What metrics call the endpoint, and how it is reached."""
    labels = dict(endpoint.labels)
    workload = endpoint.workload
    told = {
        "app": labels.get("app", ""),
        "canonical": endpoint.canonical_service,
        "cluster": workload.cluster if workload else "",
        "namespace": workload.namespace if workload else "",
        "revision": endpoint.canonical_revision,
        "version": labels.get("version", ""),
        "workload": endpoint.owner,
    }
    return _described(series.told(told), endpoint.has_sidecar)


@lru_cache(maxsize=1_024)
def _described(told: str, has_sidecar: bool) -> bytes:
    """The same for all endpoints of one workload."""
    return field(3, (_IN_MESH if has_sidecar else b"") + _entry(METADATA, _word(ENDPOINT, told)))


def _word(name: str, value: str) -> bytes:
    """An entry of `google.protobuf.Struct.fields`."""
    return _entry(name, field(3, value.encode()))


def _entry(key: str, value: bytes) -> bytes:
    """An entry of a map that is field 1, of messages by name; in order of names, as a serialiser writes them."""
    return field(1, field(1, key.encode()) + field(2, value))


_IN_MESH = _entry("envoy.transport_socket_match", _word("tlsMode", "istio"))


def _locality(locality: str) -> bytes:
    if not locality:
        return b""
    region, zone, sub_zone = (*locality.split("/"), "", "")[:3]
    return field(1, to_bytes(api.Locality(region=region, zone=zone, sub_zone=sub_zone)))
