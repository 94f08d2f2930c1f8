"""VirtualService as written. Fields without a docstring mean what Istio's reference says of their YAML name."""

from typing import Annotated, Literal

from msgspec import Meta, field

from tulle.dialects.istio.schema_wire import Labels, OptionalDuration, PortSelector, StringMatch, Unused, Wire
from tulle.dialects.kinds import UNENFORCED, Percent, PortNumber

Weight = Annotated[int, Meta(ge=0, le=2147483647)]


class Destination(Wire, frozen=True):
    """Where traffic goes."""

    host: str
    subset: str = ""
    port: PortSelector | None = None


class HeaderOperations(Wire, frozen=True):
    """What happens to headers."""

    set: dict[str, str] = field(default_factory=dict)
    add: dict[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


class Headers(Wire, frozen=True):
    """Header operations in both directions."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class HttpMatch(Wire, frozen=True):
    """HTTPMatchRequest."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = field(default_factory=dict)
    port: PortNumber | None = None
    source_labels: Labels = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    query_params: dict[str, StringMatch] = field(default_factory=dict)
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch] = field(default_factory=dict)
    source_namespace: str = ""
    stat_prefix: Annotated[str, UNENFORCED] = ""


class HttpDestination(Wire, frozen=True):
    """HTTPRouteDestination."""

    destination: Destination
    weight: Weight = 0
    headers: Headers | None = None


class HttpRedirect(Wire, frozen=True):
    """HTTPRedirect."""

    uri: str = ""
    authority: str = ""
    port: PortNumber | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: str = ""
    redirect_code: int = 0


class ResponseBody(Wire, frozen=True):
    """HTTPBody: one of them."""

    string: str | None = None
    bytes: str | None = None
    """Base64."""


class HttpDirectResponse(Wire, frozen=True):
    """HTTPDirectResponse."""

    status: Annotated[int, Meta(ge=200, le=599)]
    body: ResponseBody | None = None


class RegexRewrite(Wire, frozen=True):
    """Replaces what the expression matches."""

    match: str = ""
    rewrite: str = ""


class HttpRewrite(Wire, frozen=True):
    """HTTPRewrite."""

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HttpRetry(Wire, frozen=True):
    """HTTPRetry."""

    attempts: Annotated[int, Meta(ge=0, le=2147483647)] = 0
    per_try_timeout: OptionalDuration = None
    retry_on: str = ""
    retry_remote_localities: Annotated[bool | None, UNENFORCED] = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: OptionalDuration = None


class MirrorPercent(Wire, frozen=True):
    """Percent."""

    value: Percent = 0.0


GrpcStatus = Literal[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
]
"""Canonical codes in order: the first is 0."""


class FaultDelay(Wire, frozen=True):
    """HTTPFaultInjection.Delay."""

    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    """Deprecated."""
    fixed_delay: OptionalDuration = None
    percentage: MirrorPercent | None = None
    exponential_delay: Annotated[str, UNENFORCED] = ""


class FaultAbort(Wire, frozen=True):
    """HTTPFaultInjection.Abort."""

    http_status: Annotated[int, Meta(ge=200, le=599)] | None = None
    grpc_status: GrpcStatus | None = None
    http2_error: Annotated[str, UNENFORCED] = ""
    percentage: MirrorPercent | None = None


class HttpFault(Wire, frozen=True):
    """HTTPFaultInjection."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HttpMirror(Wire, frozen=True):
    """HTTPMirrorPolicy."""

    destination: Destination
    percentage: MirrorPercent | None = None


class CorsPolicy(Wire, frozen=True):
    """CorsPolicy."""

    allow_origin: tuple[str, ...] = ()
    """Deprecated: exact origins."""
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: OptionalDuration = None
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"


class HttpRoute(Wire, frozen=True):
    """HTTPRoute."""

    name: str = ""
    match: tuple[HttpMatch, ...] = ()
    route: tuple[HttpDestination, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Unused = None
    rewrite: HttpRewrite | None = None
    timeout: OptionalDuration = None
    retries: HttpRetry | None = None
    fault: HttpFault | None = None
    mirror: Destination | None = None
    mirrors: tuple[HttpMirror, ...] = ()
    mirror_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    """Deprecated."""
    mirror_percentage: MirrorPercent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class TlsMatch(Wire, frozen=True):
    """TLSMatchAttributes."""

    sni_hosts: tuple[str, ...] = ()
    destination_subnets: tuple[str, ...] = ()
    port: PortNumber | None = None
    source_labels: Labels = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class TcpMatch(Wire, frozen=True):
    """L4MatchAttributes."""

    destination_subnets: tuple[str, ...] = ()
    port: PortNumber | None = None
    source_subnet: Annotated[str, UNENFORCED] = ""
    source_labels: Labels = field(default_factory=dict)
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class TcpDestination(Wire, frozen=True):
    """RouteDestination."""

    destination: Destination
    weight: Weight = 0


class TlsRoute(Wire, frozen=True):
    """TLSRoute."""

    match: tuple[TlsMatch, ...] = ()
    route: tuple[TcpDestination, ...] = ()


class TcpRoute(Wire, frozen=True):
    """TCPRoute."""

    match: tuple[TcpMatch, ...] = ()
    route: tuple[TcpDestination, ...] = ()


class VirtualService(Wire, frozen=True):
    """Routes of some hosts."""

    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[TlsRoute, ...] = ()
    tcp: tuple[TcpRoute, ...] = ()
    export_to: tuple[str, ...] = ()
