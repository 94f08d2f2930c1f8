"""The inbound capture listener: per port, what a connection must be (mTLS, plain, sniffed), and who may use it.

Chains are chosen by original destination port, then transport protocol and ALPN; there is no back-tracking, so each
port has every chain it needs (docs/facts/envoy.md). Authorization of HTTP ports is on their route tables, so that an
edit of a policy drains no connection.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from tulle.compile.envoy import clusters, observing, tls, tunnels
from tulle.compile.envoy.filters import enforced, inbound_filters, inbound_network, network
from tulle.compile.envoy.listeners import HELLO_TIMEOUT, SNIFFED_HTTP, SNIFFING_TIMEOUT, address, tcp_proxy
from tulle.compile.envoy.values import ADS
from tulle.model.intent import Depth, MtlsMode, PortProtocol
from tulle.model.objects import MeshSettings
from tulle.model.plan import BLACK_HOLE, Inbound, InboundPort, Upstream, WeightedTarget
from tulle.xds import api
from tulle.xds.names import inbound as inbound_name
from tulle.xds.schema import to_any

INBOUND_CAPTURE_PORT = 15006
_OTHER = "inbound|other||"
_PLAIN = "raw_buffer"
_TLS = "tls"


def listener(plan: Inbound, settings: MeshSettings) -> "api.Listener":
    """The listener of a view; it holds no address and no name of the workload."""
    other = InboundPort(0, PortProtocol.AUTO, plan.other_mode, None, plan.other_policies, plan.origins)
    chains = [chain for port in (*plan.ports, other) for chain in _chains(port, settings)]
    is_strict = all(chain.filter_chain_match.transport_protocol == _TLS for chain in chains)
    return api.Listener(
        name="virtualInbound",
        address=address("0.0.0.0", INBOUND_CAPTURE_PORT),  # noqa: S104 - inside the workload's own network namespace
        traffic_direction="INBOUND",
        listener_filters=[_original_dst(), _tls_inspector(), _http_inspector(plan)],
        listener_filters_timeout=HELLO_TIMEOUT if is_strict else SNIFFING_TIMEOUT,
        continue_on_listener_filters_timeout=True,
        filter_chains=[_black_hole(settings), *chains],
        access_log=observing.refused_connections(),
    )


def tables(plan: Inbound) -> Iterator["api.RouteConfiguration"]:
    """The route tables of ports that may carry HTTP."""
    for port in plan.ports:
        if _may_be_http(port.protocol):
            yield _table(table_name(port.port), port.protocol, inbound_name(port.port), port.policies)
    yield _table(_OTHER, PortProtocol.AUTO, clusters.INBOUND_PASSTHROUGH, plan.other_policies)


def local_clusters(plan: Inbound) -> Iterator["api.Cluster"]:
    """The clusters of the workload's own ports: HTTP/1.1 or HTTP/2 as the port's protocol says, gRPC always HTTP/2."""
    for port in plan.ports:
        yield from _local(port.port, port.protocol)
    yield from _local(None, PortProtocol.AUTO)


def table_name(port: int) -> str:
    """The route table of an inbound port."""
    return str(inbound_name(port))


def _may_be_http(protocol: PortProtocol) -> bool:
    return protocol.is_http or protocol is PortProtocol.AUTO


def _local(port: int | None, protocol: PortProtocol) -> Iterator["api.Cluster"]:
    if protocol in (PortProtocol.HTTP2, PortProtocol.GRPC):
        yield clusters.local(port, Upstream.HTTP2)
    elif _may_be_http(protocol):
        yield clusters.local(port, Upstream.HTTP1)
        yield clusters.local(port, Upstream.HTTP2)
    else:
        yield clusters.local(port, Upstream.TCP)


def _table(name: str, protocol: PortProtocol, cluster: str, policies: tuple[Any, ...]) -> "api.RouteConfiguration":
    config = enforced(policies)
    http2 = f"{cluster}h2"
    routes = []
    if protocol in (PortProtocol.HTTP2, PortProtocol.GRPC):
        routes.append(_route(http2, None, config))
    else:
        grpc = api.HeaderMatcher(name="content-type", string_match=api.StringMatcher(prefix="application/grpc"))
        routes += [_route(http2, grpc, config), _route(cluster, None, config)]
    host = api.VirtualHost(name=name, domains=["*"], routes=routes)
    return api.RouteConfiguration(
        name=name,
        virtual_hosts=[host],
        request_headers_to_remove=[observing.PEER_HEADER],
        validate_clusters=api.BoolValue(value=False),
    )


def _route(cluster: str, header: "api.HeaderMatcher | None", config: dict[str, "api.Any"]) -> "api.Route":
    return api.Route(
        name="default",
        match=api.RouteMatch(prefix="/", headers=[header] if header else []),
        route=api.RouteAction(cluster=cluster, timeout=timedelta(0)),
        typed_per_filter_config=config,
    )


def _chains(port: InboundPort, settings: MeshSettings) -> Iterator["api.FilterChain"]:
    """Every chain of one port, by what it accepts."""
    mtls = tls.mesh_downstream((settings.trust_domain, *settings.trust_domain_aliases))
    http, auto = port.protocol.is_http, port.protocol is PortProtocol.AUTO
    if port.mode is not MtlsMode.DISABLE:
        mesh_alpn = (*tls.MESH_HTTP_ALPN, *tls.MESH_TCP_ALPN)
        strict = port.mode is MtlsMode.STRICT
        if auto:
            yield _http_chain(port, settings, _TLS, tls.MESH_HTTP_ALPN, mtls)
            yield _tcp_chain(port, settings, _TLS, () if strict else tls.MESH_TCP_ALPN, mtls)
        elif http:
            yield from _declared_http(port, settings, mtls, strict=strict)
        else:
            yield _tcp_chain(port, settings, _TLS, () if strict else mesh_alpn, mtls)
        if port.ends_tunnels:
            yield _tunnel_chain(port, settings, mtls)
        if strict:
            return
    yield _tcp_chain(port, settings, _TLS, (), None)  # the workload's own TLS
    if auto:
        yield _http_chain(port, settings, _PLAIN, SNIFFED_HTTP, None)
        yield _tcp_chain(port, settings, _PLAIN, (), None)
    elif http:
        yield _http_chain(port, settings, _PLAIN, (), None)
    else:
        yield _tcp_chain(port, settings, _PLAIN, (), None)


def _declared_http(
    port: InboundPort, settings: MeshSettings, mtls: "api.TransportSocket", *, strict: bool
) -> Iterator["api.FilterChain"]:
    """A port that is declared HTTP, over mTLS. What arrives as bytes is parsed all the same where something needs HTTP.

    The chain of HTTP is the same whether bytes are relayed or parsed beside it, so that a policy which comes or goes
    drains only connections that it is about.
    """
    if port.depth in (None, Depth.FULL):
        yield _http_chain(port, settings, _TLS, () if strict else (*tls.MESH_HTTP_ALPN, *tls.MESH_TCP_ALPN), mtls)
        return
    yield _http_chain(port, settings, _TLS, tls.MESH_HTTP_ALPN, mtls)
    if port.relays:
        yield _tcp_chain(port, settings, _TLS, tls.MESH_TCP_ALPN, mtls)
    else:
        yield _http_chain(port, settings, _TLS, tls.MESH_TCP_ALPN, mtls, kind="raised")
    if strict:
        yield _http_chain(port, settings, _TLS, (), mtls, kind="other")


def _match(port: InboundPort, transport: str, alpn: tuple[str, ...]) -> "api.FilterChainMatch":
    return api.FilterChainMatch(
        destination_port=api.UInt32Value(value=port.port) if port.port else None,
        transport_protocol=transport,
        application_protocols=list(alpn),
    )


def _http_chain(
    port: InboundPort,
    settings: MeshSettings,
    transport: str,
    alpn: tuple[str, ...],
    socket: "api.TransportSocket | None",
    *,
    kind: str = "http",
) -> "api.FilterChain":
    table = table_name(port.port) if port.port else _OTHER
    age = timedelta(seconds=settings.max_connection_age_seconds)
    is_mesh = socket is not None
    manager = api.HttpConnectionManager(
        stat_prefix=table,
        rds=api.Rds(route_config_name=table, config_source=ADS),
        http_filters=inbound_filters(observing.hearing_filters() if is_mesh else ()),
        access_log=observing.http(observing.DESTINATION, port.service, settings, is_mesh=is_mesh),
        local_reply_config=observing.denials() if is_mesh and settings.http_trust_denials else None,
        upgrade_configs=[api.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        http2_protocol_options=api.Http2ProtocolOptions(allow_connect=True),
        common_http_protocol_options=api.CoreHttpProtocolOptions(max_connection_duration=age) if is_mesh else None,
        server_header_transformation="PASS_THROUGH",
        normalize_path=api.BoolValue(value=True),
        stream_idle_timeout=timedelta(0),
        generate_request_id=api.BoolValue(value=False),
        use_remote_address=api.BoolValue(value=False),
        skip_xff_append=True,
        forward_client_cert_details="APPEND_FORWARD" if is_mesh else "SANITIZE",
        set_current_client_cert_details=api.HttpConnectionManager.SetCurrentClientCertDetails(
            subject=api.BoolValue(value=True), dns=True, uri=True
        )
        if is_mesh
        else None,
    )
    hcm = network("envoy.filters.network.http_connection_manager", manager)
    return api.FilterChain(
        name=_chain_name(port, kind, is_mesh=is_mesh),
        filter_chain_match=_match(port, transport, alpn),
        filters=[hcm],
        transport_socket=socket,
    )


def _tcp_chain(
    port: InboundPort,
    settings: MeshSettings,
    transport: str,
    alpn: tuple[str, ...],
    socket: "api.TransportSocket | None",
) -> "api.FilterChain":
    cluster = _tcp_cluster(port)
    is_mesh = socket is not None
    proxy = tcp_proxy((WeightedTarget(cluster, 1),), port.service, observing.DESTINATION, settings, is_mesh=is_mesh)
    name = _chain_name(port, "tls" if transport == _TLS and not is_mesh else "tcp", is_mesh=is_mesh)
    return api.FilterChain(
        name=name,
        filter_chain_match=_match(port, transport, alpn),
        filters=[*inbound_network(port.policies), proxy],
        transport_socket=socket,
    )


def _tunnel_chain(port: InboundPort, settings: MeshSettings, socket: "api.TransportSocket") -> "api.FilterChain":
    """Connections that come as streams of one, which must be allowed to be there as each of them must be."""
    return api.FilterChain(
        name=_chain_name(port, observing.TUNNEL, is_mesh=True),
        filter_chain_match=_match(port, _TLS, (tls.TUNNEL_ALPN,)),
        filters=[*inbound_network(port.policies), tunnels.ending(_tcp_cluster(port), port.service, settings)],
        transport_socket=socket,
    )


def _tcp_cluster(port: InboundPort) -> str:
    if not port.port:
        return clusters.INBOUND_PASSTHROUGH
    name = str(inbound_name(port.port))
    return f"{name}h2" if port.protocol in (PortProtocol.HTTP2, PortProtocol.GRPC) else name


def _chain_name(port: InboundPort, kind: str, *, is_mesh: bool) -> str:
    return f"{port.port or 'other'}-{'mtls' if is_mesh else 'plain'}-{kind}"


def _black_hole(settings: MeshSettings) -> "api.FilterChain":
    """Calls of the capture port itself go nowhere; anything else would call itself for ever."""
    return api.FilterChain(
        name="virtualInbound-blackhole",
        filter_chain_match=api.FilterChainMatch(destination_port=api.UInt32Value(value=INBOUND_CAPTURE_PORT)),
        filters=[tcp_proxy((WeightedTarget(BLACK_HOLE, 1),), None, observing.DESTINATION, settings)],
    )


def _original_dst() -> "api.ListenerFilter":
    return api.ListenerFilter(name="envoy.filters.listener.original_dst", typed_config=to_any(api.OriginalDst()))


def _tls_inspector() -> "api.ListenerFilter":
    return api.ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=to_any(api.TlsInspector()))


def _http_inspector(plan: Inbound) -> "api.ListenerFilter":
    """Only ports of unknown protocol are sniffed."""
    known = [port.port for port in plan.ports if port.protocol is not PortProtocol.AUTO]
    ranges = [
        api.ListenerFilterChainMatchPredicate(destination_port_range=api.Int32Range(start=port, end=port + 1))
        for port in known
    ]
    disabled = None
    if len(ranges) == 1:
        disabled = ranges[0]
    elif ranges:
        disabled = api.ListenerFilterChainMatchPredicate(
            or_match=api.ListenerFilterChainMatchPredicate.MatchSet(rules=ranges)
        )
    return api.ListenerFilter(
        name="envoy.filters.listener.http_inspector",
        typed_config=to_any(api.HttpInspector()),
        filter_disabled=disabled,
    )
