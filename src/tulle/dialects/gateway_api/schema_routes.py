"""HTTPRoute, GRPCRoute, TLSRoute, TCPRoute and UDPRoute as written. What they may refer to is judged in `attaching` and `backends`.

Types of filters and of matches are text: one that a later version of the API adds is answered in status, not refused when read.
"""

from typing import Annotated, Any

from msgspec import Meta

from tulle.dialects.gateway_api.schema import GROUP, Unused, Wire
from tulle.dialects.kinds import UNENFORCED, Duration, PortNumber

Weight = Annotated[int, Meta(ge=0, le=1_000_000)]


class ParentRef(Wire, frozen=True):
    """What a route attaches to."""

    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str | None = None
    section_name: str | None = None
    port: PortNumber | None = None


class BackendRef(Wire, frozen=True):
    """Where connections go."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None
    weight: Weight = 1


class Header(Wire, frozen=True):
    """A header and its value."""

    name: str
    value: str = ""


class HeaderFilter(Wire, frozen=True):
    """Header operations."""

    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[str, ...] = ()


class Fraction(Wire, frozen=True):
    """A share of requests."""

    numerator: int
    denominator: Annotated[int, Meta(ge=1)] = 100


class MirrorBackend(Wire, frozen=True):
    """Where copies go."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str | None = None
    port: PortNumber | None = None


class MirrorFilter(Wire, frozen=True):
    """Copies of requests."""

    backend_ref: MirrorBackend
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


class PathModifier(Wire, frozen=True):
    """Another path."""

    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RedirectFilter(Wire, frozen=True):
    """An answer that sends elsewhere."""

    scheme: str | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: int = 302


class RewriteFilter(Wire, frozen=True):
    """What the backend sees instead."""

    hostname: str | None = None
    path: PathModifier | None = None


class CorsFilter(Wire, frozen=True):
    """Cross-origin requests."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool | None = None
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class Filter(Wire, frozen=True):
    """One filter: the field that its type names."""

    type: str
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CorsFilter | None = None
    extension_ref: dict[str, Any] | None = None
    external_auth: dict[str, Any] | None = None


class HttpBackendRef(BackendRef, frozen=True):
    """Where requests go, and what is done on the way."""

    filters: tuple[Filter, ...] = ()


class PathMatch(Wire, frozen=True):
    """A comparison of the path."""

    type: str = "PathPrefix"
    value: str = "/"


class ValueMatch(Wire, frozen=True):
    """A comparison of a header or parameter."""

    name: str
    value: str
    type: str = "Exact"


class HttpMatch(Wire, frozen=True):
    """All of these."""

    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str | None = None


class Timeouts(Wire, frozen=True):
    """Bounds; 0 is none."""

    request: Duration | None = None
    backend_request: Duration | None = None


class RetryRule(Wire, frozen=True):
    """When to try again."""

    codes: tuple[int, ...] = ()
    attempts: Annotated[int, Meta(ge=0)] | None = None
    backoff: Duration | None = None


class HttpRule(Wire, frozen=True):
    """One rule."""

    name: str = ""
    matches: tuple[HttpMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[HttpBackendRef, ...] = ()
    timeouts: Timeouts | None = None
    retry: RetryRule | None = None
    session_persistence: Unused = None


class Route(Wire, frozen=True):
    """What all routes have."""

    parent_refs: tuple[ParentRef, ...] = ()
    use_default_gateways: Annotated[str, UNENFORCED] = ""


class HTTPRoute(Route, frozen=True):
    """Routes of HTTP requests."""

    hostnames: tuple[str, ...] = ()
    rules: tuple[HttpRule, ...] = (HttpRule(),)


class GrpcMethod(Wire, frozen=True):
    """A comparison of service and method."""

    type: str = "Exact"
    service: str | None = None
    method: str | None = None


class GrpcMatch(Wire, frozen=True):
    """All of these."""

    method: GrpcMethod | None = None
    headers: tuple[ValueMatch, ...] = ()


class GrpcRule(Wire, frozen=True):
    """One rule."""

    name: str = ""
    matches: tuple[GrpcMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backend_refs: tuple[HttpBackendRef, ...] = ()
    session_persistence: Unused = None


class GRPCRoute(Route, frozen=True):
    """Routes of gRPC calls."""

    hostnames: tuple[str, ...] = ()
    rules: tuple[GrpcRule, ...] = (GrpcRule(),)


class StreamRule(Wire, frozen=True):
    """One rule for connections."""

    name: str = ""
    backend_refs: tuple[BackendRef, ...] = ()


class TLSRoute(Route, frozen=True):
    """Routes of TLS connections, by SNI."""

    hostnames: tuple[str, ...] = ()
    rules: tuple[StreamRule, ...] = ()


class TCPRoute(Route, frozen=True):
    """Routes of TCP connections."""

    rules: tuple[StreamRule, ...] = ()


class UDPRoute(Route, frozen=True):
    """Routes of datagrams."""

    rules: tuple[StreamRule, ...] = ()


AnyRoute = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute
WithBackends = HttpRule | GrpcRule | StreamRule
