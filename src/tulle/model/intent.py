"""What was meant: services, routes, destinations, gateways and their security, in no dialect and for no proxy.

Types only. A route's or destination's policies are values of `tulle.policies.<kind>.spec`; this page does not name them.
"""

from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from tulle.model.keys import Labels, ObjectKey, ServiceKey, WorkloadKey
from tulle.model.origin import Origin


@runtime_checkable
class Policy(Protocol):
    """A value of one policy kind; its class lives in `policies/<kind>/spec.py`."""

    @property
    def origin(self) -> Origin:
        """The field that asked for it."""


class PortProtocol(StrEnum):
    """What a port speaks (Istio's protocol selection)."""

    HTTP = "HTTP"
    HTTP2 = "HTTP2"
    GRPC = "GRPC"
    TCP = "TCP"
    TLS = "TLS"
    HTTPS = "HTTPS"
    UDP = "UDP"
    AUTO = "AUTO"
    """Not declared: sniffed."""

    def __init__(self, word: str) -> None:
        self.is_http = word in ("HTTP", "HTTP2", "GRPC")
        """Plain-text HTTP of any version."""
        self.is_tls = word in ("TLS", "HTTPS")
        """The application's own TLS: routed by SNI."""


class Resolution(StrEnum):
    """How a service's endpoints are found."""

    STATIC = "STATIC"
    """Endpoints are known to the mesh."""
    DNS = "DNS"
    """Every address of a DNS name."""
    DNS_ROUND_ROBIN = "DNS_ROUND_ROBIN"
    """The first address of a DNS name at each new connection."""
    NONE = "NONE"
    """Wherever the client was going (ServiceEntry NONE)."""
    HEADLESS = "HEADLESS"
    """The pod IP the client chose (clusterIP: None)."""


class ServicePort(Struct, frozen=True):
    """One port of a service."""

    number: int
    name: str
    protocol: PortProtocol
    target: int | str
    """Port of the workload, or the name of its container port."""


class Service(Struct, frozen=True):
    """Something with a host name that can be called."""

    key: ServiceKey
    ports: tuple[ServicePort, ...]
    addresses: tuple[str, ...]
    """VIPs or CIDRs; allocated ones included."""
    resolution: Resolution
    is_external: bool
    """MESH_EXTERNAL: no mTLS by itself."""
    selector: Labels | None
    """Selects workloads of the namespace; None where endpoints are given otherwise."""
    exported_to: tuple[str, ...]
    """Namespaces that see it; `*` all, resolved (`.` is already the namespace's name)."""
    aliases: tuple[str, ...]
    """Other full names of the same service (ExternalName services pointing here)."""
    subject_alt_names: tuple[str, ...]
    origin: Origin
    auto_addresses: tuple[str, ...] = ()
    """The part of `addresses` that the mesh allocated (answered by the mesh's DNS)."""
    external_name: str = ""
    """ExternalName: the CNAME this service stands for."""
    is_kubernetes: bool = True
    """A Kubernetes Service (short names work) rather than a ServiceEntry host."""


class Depth(StrEnum):
    """How much of HTTP the sidecars of the mesh parse (docs/decisions/0009)."""

    FULL = "full"
    """Client's and server's sidecar both."""
    ONCE = "once"
    """The client's; the server's relays unless something in force there needs HTTP."""
    L4 = "l4"
    """Neither, unless something needs it."""


class WorkloadPort(Struct, frozen=True):
    """A declared container port."""

    name: str
    number: int


class Workload(Struct, frozen=True):
    """A running instance."""

    key: WorkloadKey
    address: str
    """IP, or a host name for DNS endpoints."""
    labels: Labels
    service_account: str
    has_sidecar: bool
    """It understands mesh mTLS at its inbound ports."""
    is_ready: bool
    is_gateway: bool
    ports: tuple[WorkloadPort, ...]
    owner: str
    """Name of the Deployment, StatefulSet, Job or bare pod: the metrics' workload name."""
    canonical_service: str
    canonical_revision: str
    origin: Origin
    locality: str = ""
    network: str = ""
    depth: Depth | None = None
    """What it asks for itself; None: as its namespace or the mesh says."""


class Endpoint(Struct, frozen=True):
    """One address behind one port of one service."""

    address: str
    port: int
    workload: WorkloadKey | None
    labels: Labels
    """For subsets."""
    has_sidecar: bool
    is_ready: bool
    service_account: str
    owner: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    locality: str = ""
    weight: int = 1
    depth: Depth | None = None
    """What its workload asks for."""


class MatchKind(StrEnum):
    """How a string is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"
    PRESENT = "present"
    SEGMENTS = "segments"
    """A prefix of whole segments of a path: `/a` covers `/a` and `/a/b`, and not `/ab`."""


class StringMatch(Struct, frozen=True):
    """A comparison with a string; `value` is empty for PRESENT."""

    kind: MatchKind
    value: str = ""
    ignore_case: bool = False


SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Of requests that change nothing (RFC 9110 §9.2.1), as far as applications use them."""


class HttpMatch(Struct, frozen=True):
    """All of these must hold (Istio's HTTPMatchRequest)."""

    path: StringMatch | None = None
    method: StringMatch | None = None
    scheme: StringMatch | None = None
    authority: StringMatch | None = None
    headers: tuple[tuple[str, StringMatch], ...] = ()
    without_headers: tuple[tuple[str, StringMatch], ...] = ()
    query: tuple[tuple[str, StringMatch], ...] = ()
    port: int | None = None
    """The service's (sidecar) or the server's (gateway) port."""
    source_labels: Labels = ()
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()
    """`namespace/name` or `mesh`; empty: those of the whole route."""
    name: str = ""


class Target(Struct, frozen=True):
    """A place a request may go."""

    host: str
    """Fully qualified; empty: what was meant is not there, and its share of the requests gets an error."""
    port: int | None
    """None: the service's only port, or the port the request came for."""
    subset: str
    weight: int
    policies: tuple[Any, ...]
    """Policies of this target only (header operations)."""
    origin: Origin


class Forward(Struct, frozen=True, tag=True):
    """Send to one of the targets, by weight. Weights that sum to 0 with one target mean that target."""

    targets: tuple[Target, ...]
    missing: int = 503
    """Status for the share of targets that are not there."""


class Redirect(Struct, frozen=True, tag=True):
    """Answer with a redirect."""

    path: str
    prefix_path: bool
    """`path` replaces the matched prefix only."""
    authority: str
    scheme: str
    port: int | None
    code: int


class Respond(Struct, frozen=True, tag=True):
    """Answer directly."""

    status: int
    body: str


class Rewrite(Struct, frozen=True):
    """What the target sees instead."""

    path: str
    """Replaces the matched prefix (or whole path of an exact match); empty: unchanged."""
    authority: str
    regex: str = ""
    regex_to: str = ""


class HttpRule(Struct, frozen=True):
    """First match wins. No matches: everything."""

    name: str
    matches: tuple[HttpMatch, ...]
    action: Forward | Redirect | Respond
    rewrite: Rewrite | None
    policies: tuple[Any, ...]
    origin: Origin


class TcpMatch(Struct, frozen=True):
    """Istio's L4MatchAttributes and TLSMatchAttributes."""

    port: int | None = None
    sni_hosts: tuple[str, ...] = ()
    destination_cidrs: tuple[str, ...] = ()
    source_labels: Labels = ()
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


class TcpRule(Struct, frozen=True):
    """A route of connections."""

    matches: tuple[TcpMatch, ...]
    targets: tuple[Target, ...]
    origin: Origin


class Parent(Struct, frozen=True):
    """A service that a route set is for, by destination rather than by name (a Service as parent)."""

    host: str
    namespace: str
    port: int | None
    """None: every port."""


class RouteSet(Struct, frozen=True):
    """The routes of some hosts (a VirtualService, an HTTPRoute)."""

    key: ObjectKey
    hosts: tuple[str, ...]
    """Fully qualified or wildcards."""
    gateways: tuple[str, ...]
    """`namespace/name`, and `mesh` for sidecars."""
    exported_to: tuple[str, ...]
    http: tuple[HttpRule, ...]
    tls: tuple[TcpRule, ...]
    tcp: tuple[TcpRule, ...]
    origin: Origin
    created: str = ""
    by_precedence: bool = False
    """Its rules are in no order of their own: matches are sorted by how specific they are, across route sets (Gateway API)."""
    parents: tuple[Parent, ...] = ()
    """Services whose clients it is for; its hosts are not read there."""


class TlsMode(StrEnum):
    """How a client opens connections (DestinationRule trafficPolicy.tls.mode)."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class ClientTls(Struct, frozen=True):
    """Explicit TLS of a destination; absent means automatic mTLS to workloads with a sidecar."""

    mode: TlsMode
    sni: str
    subject_alt_names: tuple[str, ...]
    insecure_skip_verify: bool
    origin: Origin
    roots: str | None = ""
    """PEM of the authorities that may prove the destination; empty: those everybody trusts; None: what was asked for is not there, so nothing can."""


class TrafficPolicy(Struct, frozen=True):
    """How a destination is treated."""

    policies: tuple[Any, ...] = ()
    tls: ClientTls | None = None
    ports: tuple[tuple[int, "TrafficPolicy"], ...] = ()
    """Port-level settings replace the whole policy for that port (Istio)."""


class Subset(Struct, frozen=True):
    """A named part of a destination's endpoints."""

    name: str
    labels: Labels
    policy: TrafficPolicy | None
    origin: Origin


class Destination(Struct, frozen=True):
    """How a host is called (a DestinationRule)."""

    key: ObjectKey
    host: str
    """Fully qualified or wildcard."""
    exported_to: tuple[str, ...]
    selector: Labels
    """Only for clients with these labels (workloadSelector)."""
    policy: TrafficPolicy
    subsets: tuple[Subset, ...]
    origin: Origin
    created: str = ""


class ServerTlsMode(StrEnum):
    """TLS of a gateway's server."""

    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"


class ServerTls(Struct, frozen=True):
    """How a gateway's server terminates TLS."""

    mode: ServerTlsMode
    credential: str
    """`namespace/name` of a Secret, resolved to the gateway workload's namespace by the compiler when it has no `/`."""
    https_redirect: bool
    subject_alt_names: tuple[str, ...]
    min_version: str
    max_version: str
    cipher_suites: tuple[str, ...]
    credential_namespace: str = ""
    """Where the credential is; empty: as `credential` says."""
    client_roots: str = ""
    """PEM of who may vouch for clients, where it stands in no Secret."""
    takes_anybody: bool = False
    """A client without a valid certificate comes in all the same."""


class Server(Struct, frozen=True):
    """One server of a gateway."""

    port: int
    name: str
    protocol: PortProtocol
    hosts: tuple[str, ...]
    """`namespace/host`, namespace `*` for any."""
    bind: str
    tls: ServerTls | None
    origin: Origin
    binding: str = ""
    """The name by which routes bind to this server alone (a listener of the Gateway API); empty: by its gateway's name."""


class Gateway(Struct, frozen=True):
    """Servers on the gateway workloads that the selector selects."""

    key: ObjectKey
    selector: Labels
    servers: tuple[Server, ...]
    origin: Origin
    created: str = ""
    is_local: bool = False
    """Only workloads of its own namespace."""
    client_certificate: tuple[str, str] | None = None
    """(namespace, name) of the Secret that it shows to backends whose policy demands TLS."""


class MtlsMode(StrEnum):
    """What a workload accepts at an inbound port."""

    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


class PeerAuthentication(Struct, frozen=True):
    """mTLS of inbound ports."""

    key: ObjectKey
    selector: Labels
    mode: MtlsMode | None
    """None: as the wider scope says."""
    ports: tuple[tuple[int, MtlsMode], ...]
    """By workload port."""
    origin: Origin
    created: str = ""


class InboundMtls(Struct, frozen=True):
    """The effective mode of one workload."""

    mode: MtlsMode
    ports: tuple[tuple[int, MtlsMode], ...]
    origin: Origin | None

    def at(self, port: int) -> MtlsMode:
        """The mode of one workload port."""
        return dict(self.ports).get(port, self.mode)
