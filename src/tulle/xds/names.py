"""Names on the wire: resource type URLs and their order, and Istio-compatible names of clusters and SNI.

Pure strings. What a name stands for is the compiler's business; how subscriptions to it are answered is
`conversation.py`'s.
"""

from enum import StrEnum
from typing import NamedTuple, NewType

ResourceName = NewType("ResourceName", str)
"""The name a resource is asked for: a cluster, a listener, a route configuration, a secret, `route/vhost`."""
ClusterName = NewType("ClusterName", str)
"""A cluster, and the ClusterLoadAssignment of the same name."""
Version = NewType("Version", str)
"""Sixteen hex digits of the hash of a resource's bytes; equal bytes, equal version, on every replica."""
Nonce = NewType("Nonce", str)
"""Names one response on one stream."""

WILDCARD = "*"


class TypeUrl(StrEnum):
    """The resource types a sidecar subscribes to. Members are declared in the order that breaks no traffic.

    Clusters before their endpoints, both before the listeners and routes that point at them (Envoy docs, "xDS REST and
    gRPC protocol", eventual consistency considerations). Secrets go first: a cluster or listener that waits for its
    secret is not warm.
    """

    SDS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
    RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
    VHDS = "type.googleapis.com/envoy.config.route.v3.VirtualHost"


PUSH_ORDER: tuple[TypeUrl, ...] = tuple(TypeUrl)
"""Additions and changes go out in this order, each type after the one before it is acknowledged."""
REMOVAL_ORDER: tuple[TypeUrl, ...] = (
    TypeUrl.VHDS,
    TypeUrl.RDS,
    TypeUrl.LDS,
    TypeUrl.EDS,
    TypeUrl.CDS,
    TypeUrl.SDS,
)
"""Removals go the other way: nobody points at a cluster by the time it goes."""


class Endpointed(NamedTuple):
    """What a cluster name says (`outbound|80|v1|reviews.default.svc.cluster.local`)."""

    direction: str
    port: int
    subset: str
    host: str


def outbound(port: int, host: str, subset: str = "") -> ClusterName:
    """`outbound|80|v1|host`: the cluster of a service port, as Istio, Kiali and Grafana's dashboards know it."""
    return ClusterName(f"outbound|{port}|{subset}|{host}")


def inbound(port: int) -> ClusterName:
    """`inbound|8080||`: the cluster of the workload's own port."""
    return ClusterName(f"inbound|{port}||")


def sni(port: int, host: str, subset: str = "") -> str:
    """`outbound_.80_.v1_.host`: the server name of mTLS between sidecars and through gateways."""
    return f"outbound_.{port}_.{subset}_.{host}"


def parse_cluster(name: str) -> Endpointed | None:
    """The parts of an `outbound|…` or `inbound|…` name, or None for any other (`BlackHoleCluster`)."""
    parts = name.split("|")
    if len(parts) != 4 or parts[0] not in {"outbound", "inbound"} or not parts[1].isdecimal():
        return None
    return Endpointed(parts[0], int(parts[1]), parts[2], parts[3])


def parse_sni(name: str) -> Endpointed | None:
    """The parts of an `outbound_.…` server name, or None for any other."""
    parts = name.split("_.", 3)
    if len(parts) != 4 or parts[0] != "outbound" or not parts[1].isdecimal():
        return None
    return Endpointed(parts[0], int(parts[1]), parts[2], parts[3])


def virtual_host(route_configuration: str, key: str) -> ResourceName:
    """`9080/10.96.0.7:9080`: the VHDS name of one virtual host of a route configuration (Envoy docs, VHDS)."""
    return ResourceName(f"{route_configuration}/{key}")
