"""What one shape of proxy must do: listeners, routes and clusters, said without Envoy's messages and readable as YAML.

A plan belongs to a view, never to a proxy: nothing here is a pod's name or address of its own. `compile.envoy` turns
each piece into one resource; `explain` prints the pieces with their origins.
"""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from tulle.model.intent import Depth, HttpMatch, MtlsMode, PortProtocol, Redirect, Respond, Rewrite
from tulle.model.keys import Labels, ServiceKey
from tulle.model.origin import Origin

PASSTHROUGH = "PassthroughCluster"
"""Where unknown destinations go: to the address the client chose (Istio's name)."""
BLACK_HOLE = "BlackHoleCluster"
"""Where nothing is: under REGISTRY_ONLY unknown destinations end here (Istio's name)."""

UNRESOLVED = "UnresolvedBackend"
"""Where nothing was found that a route could mean: no cluster has this name."""


class ServiceName(Struct, frozen=True):
    """How metrics and logs name a service."""

    host: str
    name: str
    namespace: str


class Discovery(StrEnum):
    """How a cluster finds its endpoints."""

    EDS = "eds"
    DNS = "dns"
    """Every address of the names given."""
    DNS_FIRST = "dns-first"
    """One address at a time (DNS_ROUND_ROBIN)."""
    ORIGINAL_DST = "original-dst"
    """Where the client was going."""
    LOCAL = "local"
    """The workload's own port, at the address the client used."""
    STATIC = "static"
    """The addresses given."""


class Upstream(StrEnum):
    """Which HTTP the cluster speaks."""

    HTTP2 = "http2"
    HTTP1 = "http1"
    SAME = "same"
    """What the downstream spoke."""
    TCP = "tcp"


class MeshTls(StrEnum):
    """Mesh mTLS of a cluster."""

    ALWAYS = "always"
    NEVER = "never"
    BY_ENDPOINT = "by-endpoint"
    """To endpoints with a sidecar only."""


class OriginateTls(Struct, frozen=True, omit_defaults=True):
    """TLS that the user configured at the client side (DestinationRule SIMPLE, BackendTLSPolicy)."""

    sni: str
    """Empty: the host of each request."""
    subject_alt_names: tuple[str, ...]
    insecure_skip_verify: bool
    roots: str = ""
    """PEM of the authorities; empty: those everybody trusts."""
    is_demanded: bool = False
    """By a policy of the destination: a gateway shows its own certificate if it has one."""
    certificate: str = ""
    """Name of the secret resource with it."""


class DnsEndpoint(Struct, frozen=True):
    """An address or name to resolve."""

    address: str
    port: int
    weight: int = 1


class Cluster(Struct, frozen=True):
    """One cluster."""

    name: str
    discovery: Discovery
    upstream: Upstream
    mesh_tls: MeshTls
    service: ServiceName | None
    origins: tuple[Origin, ...]
    """The service, then what shaped it."""
    originate: OriginateTls | None = None
    sni: str = ""
    subject_alt_names: tuple[str, ...] = ()
    """Exact URI SANs the endpoints must prove; empty: any of the trust domain."""
    endpoints: tuple[DnsEndpoint, ...] = ()
    source: tuple[ServiceKey, int, Labels] | None = None
    """EDS: the service, its port and the subset's labels."""
    policies: tuple[Any, ...] = ()
    is_relayed: bool = False
    """HTTP towards sidecars that do not parse it: the workload's own protocol inside mTLS."""


class WeightedTarget(Struct, frozen=True):
    """A cluster and its share."""

    cluster: str
    weight: int
    policies: tuple[Any, ...] = ()


class Send(Struct, frozen=True, tag=True):
    """Forward to clusters."""

    targets: tuple[WeightedTarget, ...]
    missing: int = 503
    """Status where the cluster is not there."""


class Route(Struct, frozen=True):
    """One route of a virtual host; first match wins."""

    name: str
    match: HttpMatch
    action: Send | Redirect | Respond
    rewrite: Rewrite | None
    policies: tuple[Any, ...]
    origin: Origin | None


class VirtualHost(Struct, frozen=True):
    """The routes of some names on one port."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    origins: tuple[Origin, ...]
    require_tls: bool = False
    policies: tuple[Any, ...] = ()
    """In force for all its requests (gateways)."""


class RouteTable(Struct, frozen=True):
    """A route configuration: its virtual hosts are resources of their own."""

    name: str
    hosts: tuple[str, ...]
    """Names of the virtual hosts, for readers."""
    catch_all: VirtualHost | None
    is_by_address: bool = False
    """Its virtual hosts are for an address and port each, not for names (on-demand sidecars)."""
    answers_outside: bool = False
    """Its clients are not of the mesh: what the mesh tells its own is taken off responses (gateways)."""


class ServerCertificate(Struct, frozen=True, omit_defaults=True):
    """TLS that a gateway terminates."""

    credential: str
    """Name of the secret resource."""
    validation: str
    """Name of the validation resource (MUTUAL); empty: no client certificate."""
    min_version: str
    max_version: str
    cipher_suites: tuple[str, ...]
    subject_alt_names: tuple[str, ...] = ()
    client_roots: str = ""
    """PEM of who may vouch for clients; empty: `validation` says, or nobody need."""
    takes_anybody: bool = False
    """With `client_roots`: a client that cannot prove who it is comes in all the same."""


class HttpChain(Struct, frozen=True, tag=True):
    """Parse HTTP and route by a route table."""

    table: str
    server_names: tuple[str, ...] = ()
    tls: ServerCertificate | None = None
    only_plain_http: bool = False
    """This chain is for what the HTTP inspector recognised."""
    is_mesh_tls: bool = False
    destination_cidrs: tuple[str, ...] = ()
    is_on_demand: bool = False
    """The virtual host of the connection's destination is asked for when it is needed."""


class TcpChain(Struct, frozen=True, tag=True):
    """Relay bytes to clusters by weight."""

    targets: tuple[WeightedTarget, ...]
    service: ServiceName | None
    server_names: tuple[str, ...] = ()
    destination_cidrs: tuple[str, ...] = ()
    tls: ServerCertificate | None = None
    origin: Origin | None = None
    is_mesh_tls: bool = False
    policies: tuple[Any, ...] = ()
    """In force for its connections (gateways)."""
    carries_http: bool = False
    """Its clusters are of a port of HTTP, which this client relays."""
    is_on_demand: bool = False
    """The cluster of the connection's destination is asked for when it is needed; there are no targets."""
    tunnels_to: str = ""
    """`host:port` for which streams of one connection are opened; empty: each has a connection of its own."""


class Listener(Struct, frozen=True):
    """An outbound or gateway listener."""

    name: str
    address: str
    port: int
    binds: bool
    """False: reached through the capture port by original destination."""
    chains: tuple[HttpChain | TcpChain, ...]
    origins: tuple[Origin, ...]
    is_gateway: bool = False
    is_leaving: bool = False
    """The gateway was told to end: each answer tells the client to go elsewhere."""


class Asking(Struct, frozen=True):
    """What the capture listener of an on-demand sidecar asks for, of destinations that have no listener of their own."""

    cidrs: tuple[str, ...]
    """Where destinations are asked for; anything else is unknown."""
    http_ports: tuple[int, ...]
    """There, ports that speak HTTP; all others carry bytes."""
    streams: tuple[tuple[str, tuple[int, ...]], ...]
    """(CIDR, ports): of these ports the ones that carry bytes at an address all the same."""


class InboundPort(Struct, frozen=True):
    """One port of a workload as its sidecar must treat it."""

    port: int
    protocol: PortProtocol
    mode: MtlsMode
    service: ServiceName | None
    policies: tuple[Any, ...]
    """In force at this port."""
    origins: tuple[Origin, ...]
    depth: Depth | None = None
    """How deep the sidecar was asked to look; None: not declared as HTTP, there is nothing to choose."""
    raised_by: Origin | None = None
    """What needs HTTP all the same."""

    @property
    def relays(self) -> bool:
        """HTTP from sidecars passes as bytes."""
        return self.depth not in (None, Depth.FULL) and self.raised_by is None

    @property
    def ends_tunnels(self) -> bool:
        """Connections may come as streams of one. What is or may be HTTP could not be parsed in them."""
        return self.protocol is PortProtocol.TCP and self.mode is not MtlsMode.DISABLE


class Inbound(Struct, frozen=True):
    """The capture port of a workload."""

    ports: tuple[InboundPort, ...]
    other_mode: MtlsMode
    """Ports no service names."""
    other_policies: tuple[Any, ...]
    origins: tuple[Origin, ...]
