"""DestinationRule as written. Fields without a docstring mean what Istio's reference says of their YAML name."""

from typing import Annotated, Any, Literal

from msgspec import Meta, field

from tulle.dialects.istio.schema_wire import Labels, OptionalDuration, PortSelector, Unused, Wire, WorkloadSelector
from tulle.dialects.kinds import UNENFORCED, Unsigned

Count = Annotated[int, Meta(ge=0, le=2147483647)]
PercentWhole = Annotated[int, Meta(ge=0, le=100)]


class HttpCookie(Wire, frozen=True):
    """A cookie that is hashed, and made where it is missing if it has a ttl."""

    name: str
    path: str = ""
    ttl: OptionalDuration = None
    attributes: Annotated[tuple[dict[str, Any], ...], UNENFORCED] = ()


class RingHash(Wire, frozen=True):
    """RingHash."""

    minimum_ring_size: Annotated[int, Meta(ge=0, le=8388608)] | None = None


class Maglev(Wire, frozen=True):
    """MagLev."""

    table_size: Annotated[int, Meta(ge=0)] | None = None


class ConsistentHash(Wire, frozen=True):
    """ConsistentHashLB."""

    http_header_name: str = ""
    http_cookie: HttpCookie | None = None
    use_source_ip: bool = False
    http_query_parameter_name: str = ""
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Meta(ge=0, le=8388608)] | None = None
    """Deprecated: ringHash.minimumRingSize."""


class Warmup(Wire, frozen=True):
    """WarmupConfiguration."""

    duration: OptionalDuration = None
    minimum_percent: Annotated[float | None, UNENFORCED] = None
    aggression: Annotated[float | None, UNENFORCED] = None


class LoadBalancer(Wire, frozen=True):
    """LoadBalancerSettings."""

    simple: Literal["UNSPECIFIED", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST", "LEAST_CONN"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: Unused = None
    warmup_duration_secs: OptionalDuration = None
    """Deprecated: warmup.duration."""
    warmup: Warmup | None = None


class TcpKeepalive(Wire, frozen=True):
    """TcpKeepalive."""

    probes: Unsigned | None = None
    time: OptionalDuration = None
    interval: OptionalDuration = None


class TcpPool(Wire, frozen=True):
    """TCPSettings."""

    max_connections: Count | None = None
    connect_timeout: OptionalDuration = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: OptionalDuration = None
    idle_timeout: Annotated[OptionalDuration, UNENFORCED] = None


class HttpPool(Wire, frozen=True):
    """HTTPSettings."""

    http1_max_pending_requests: Count | None = None
    http2_max_requests: Count | None = None
    max_requests_per_connection: Count | None = None
    max_retries: Count | None = None
    idle_timeout: OptionalDuration = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: Annotated[bool, UNENFORCED] = False
    max_concurrent_streams: Annotated[int | None, UNENFORCED] = None


class ConnectionPool(Wire, frozen=True):
    """ConnectionPoolSettings."""

    tcp: TcpPool = TcpPool()
    http: HttpPool = HttpPool()


class OutlierDetection(Wire, frozen=True):
    """OutlierDetection."""

    consecutive_errors: Count | None = None
    """Deprecated; Istio counts gateway errors for it and stops counting other 5xx answers."""
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: Unsigned | None = None
    consecutive_gateway_errors: Unsigned | None = None
    consecutive_5xx_errors: Unsigned | None = field(default=None, name="consecutive5xxErrors")
    interval: OptionalDuration = None
    base_ejection_time: OptionalDuration = None
    max_ejection_percent: PercentWhole | None = None
    min_health_percent: PercentWhole = 0


class ClientTls(Wire, frozen=True):
    """ClientTLSSettings."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    client_certificate: Annotated[str, UNENFORCED] = ""
    private_key: Annotated[str, UNENFORCED] = ""
    ca_certificates: str = ""
    ca_crl: Annotated[str, UNENFORCED] = ""
    credential_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure_skip_verify: bool | None = None


class PortPolicy(Wire, frozen=True):
    """PortTrafficPolicy."""

    port: PortSelector | None = None
    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


class TrafficPolicy(Wire, frozen=True):
    """TrafficPolicy."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None
    port_level_settings: tuple[PortPolicy, ...] = ()
    tunnel: Unused = None
    proxy_protocol: Unused = None
    retry_budget: Unused = None


class Subset(Wire, frozen=True):
    """Subset."""

    name: str
    labels: Labels = field(default_factory=dict)
    traffic_policy: TrafficPolicy | None = None


class DestinationRule(Wire, frozen=True):
    """How a host is called."""

    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: WorkloadSelector | None = None
