"""Outbound and gateway listeners, and the capture listener in front of the outbound ones."""

from datetime import timedelta
from typing import Any

from tulle.compile.envoy import observing, on_demand, tls
from tulle.compile.envoy.filters import gateway_filters, inbound_network, network, route_filters
from tulle.compile.envoy.values import ADS, text_format
from tulle.compile.keyed import TABLE
from tulle.model.objects import MeshSettings
from tulle.model.plan import BLACK_HOLE, PASSTHROUGH, Asking, HttpChain, Listener, ServiceName, TcpChain, WeightedTarget
from tulle.xds import api
from tulle.xds.schema import to_any

OUTBOUND_CAPTURE_PORT = 15001
SNIFFED_HTTP = ("http/1.0", "http/1.1", "h2c")
"""What the HTTP inspector calls the plain-text protocols it recognises."""
SNIFFING_TIMEOUT = timedelta(milliseconds=200)
"""How long a connection whose client says nothing waits before it counts as TCP (server-first protocols)."""
HELLO_TIMEOUT = timedelta(seconds=10)
"""The same where every client must speak first: a busy machine's TLS hello may be late, and nothing else would do."""
_TUNNEL_ATTEMPTS = 2
"""An endpoint that takes no streams may be heard of before the listener says so: then it is another's turn."""
_HTTP_ALPN = ("h2", "http/1.1")


def listener(plan: Listener, settings: MeshSettings) -> "api.Listener":
    """One outbound listener (reached by original destination) or one port of a gateway."""
    chains = [_chain(plan, item, settings) for item in plan.chains]
    return api.Listener(
        name=plan.name,
        address=address(plan.address, plan.port),
        bind_to_port=None if plan.binds else api.BoolValue(value=False),
        filter_chains=[chain for chain in chains if chain.HasField("filter_chain_match")],
        default_filter_chain=next((chain for chain in chains if not chain.HasField("filter_chain_match")), None),
        listener_filters=_inspectors(plan, chains),
        listener_filters_timeout=HELLO_TIMEOUT if _clients_speak_first(plan) else SNIFFING_TIMEOUT,
        continue_on_listener_filters_timeout=True,
        traffic_direction="OUTBOUND",
        access_log=observing.refused_connections() if plan.is_gateway else [],
        per_connection_buffer_limit_bytes=api.UInt32Value(value=1 << 15) if plan.is_gateway else None,
    )


def capture(settings: MeshSettings) -> "api.Listener":
    """Everything the workload opens lands here and goes on to the listener of its destination, if there is one."""
    blackhole, unknown = _ends(settings)
    blackhole.filter_chain_match.destination_port.value = OUTBOUND_CAPTURE_PORT
    return _capture([blackhole], unknown, None)


def asking_capture(plan: Asking, settings: MeshSettings) -> "api.Listener":
    """The same, and what has no listener of its own is asked for: as HTTP at ports that are declared so, else as bytes.

    Nothing is sniffed here: a client that waits for the server's first word must not wait for us. What is asked for, and
    how, is said by a matcher, so that ports come and go without touching a connection (docs/facts/envoy.md §9).
    """
    blackhole, unknown = _ends(settings)
    asked = HttpChain(TABLE, is_on_demand=True)
    whole = Listener("virtualOutbound", "", OUTBOUND_CAPTURE_PORT, binds=True, chains=(asked,), origins=())
    http = api.FilterChain(name=on_demand.HTTP, filters=[_parsing(whole, asked, settings)])
    streams = api.FilterChain(name=on_demand.STREAMS, filters=on_demand.asking_proxy(settings))
    ends_here = {OUTBOUND_CAPTURE_PORT: blackhole.name}
    return _capture([blackhole, http, streams], unknown, on_demand.chain_of(plan, ends_here))


def asked_again(settings: MeshSettings) -> "api.Listener":
    """Where a first request goes on when its virtual host is there."""
    chain = HttpChain(TABLE)
    whole = Listener(on_demand.AGAIN, "", 0, binds=False, chains=(chain,), origins=())
    return on_demand.again(_parsing(whole, chain, settings))


def _ends(settings: MeshSettings) -> tuple["api.FilterChain", "api.FilterChain"]:
    """For connections to the capture port itself, and for those nobody knows."""
    unknown = BLACK_HOLE if settings.registry_only else PASSTHROUGH
    return (
        api.FilterChain(
            name="virtualOutbound-blackhole",
            filters=[tcp_proxy((WeightedTarget(BLACK_HOLE, 1),), None, observing.SOURCE, settings)],
        ),
        api.FilterChain(
            name="virtualOutbound-catchall-tcp",
            filters=[tcp_proxy((WeightedTarget(unknown, 1),), None, observing.SOURCE, settings)],
        ),
    )


def _capture(
    chains: list["api.FilterChain"], unknown: "api.FilterChain", chain_of: "api.Matcher | None"
) -> "api.Listener":
    return api.Listener(
        name="virtualOutbound",
        address=address("0.0.0.0", OUTBOUND_CAPTURE_PORT),  # noqa: S104 - inside the workload's own network namespace
        use_original_dst=api.BoolValue(value=True),
        traffic_direction="OUTBOUND",
        filter_chains=chains,
        filter_chain_matcher=chain_of,
        default_filter_chain=unknown,
    )


def address(ip: str, port: int) -> "api.Address":
    """A TCP address."""
    return api.Address(socket_address=api.SocketAddress(address=ip, port_value=port))


def tcp_proxy(
    targets: tuple[WeightedTarget, ...],
    service: ServiceName | None,
    reporter: str,
    settings: MeshSettings,
    *,
    is_mesh: bool = False,
    has_peer: bool = False,
    tunnels_to: str = "",
) -> "api.Filter":
    """Relay bytes by weight, with connection metrics and log.

    Behind mesh mTLS, and any TLS that is terminated (`has_peer`), nothing is dialled before the handshake is done
    (docs/facts/envoy.md §6).
    """
    is_lost = all(target.cluster == BLACK_HOLE for target in targets)
    fields: dict[str, Any] = {
        "stat_prefix": targets[0].cluster,
        "access_log": observing.going_nowhere(reporter, settings)
        if is_lost
        else observing.tcp(reporter, service, settings, is_mesh=is_mesh),
        "access_log_options": api.TcpProxy.TcpAccessLogOptions(flush_access_log_on_connected=True),
    }
    if is_mesh or has_peer:
        fields["upstream_connect_mode"] = "ON_DOWNSTREAM_TLS_HANDSHAKE"
        fields["max_early_data_bytes"] = api.UInt32Value(value=1 << 16)
    if tunnels_to:
        fields["tunneling_config"] = api.TcpProxy.TunnelingConfig(hostname=tunnels_to)
        fields["max_connect_attempts"] = api.UInt32Value(value=_TUNNEL_ATTEMPTS)
    if len(targets) == 1:
        fields["cluster"] = targets[0].cluster
    else:
        fields["weighted_clusters"] = api.TcpProxy.WeightedCluster(
            clusters=[
                api.TcpProxy.WeightedCluster.ClusterWeight(name=target.cluster, weight=target.weight)
                for target in targets
            ]
        )
    return network("envoy.filters.network.tcp_proxy", api.TcpProxy(**fields))


def _chain(plan: Listener, item: HttpChain | TcpChain, settings: MeshSettings) -> "api.FilterChain":
    match = _match(plan, item)
    socket = None
    if item.is_mesh_tls:
        socket = tls.mesh_downstream((settings.trust_domain, *settings.trust_domain_aliases))
    elif item.tls:
        socket = tls.server(item.tls, alpn=_HTTP_ALPN if isinstance(item, HttpChain) else ())
    if isinstance(item, TcpChain) and item.is_on_demand:
        return api.FilterChain(filter_chain_match=match, filters=on_demand.asking_proxy(settings))
    if isinstance(item, TcpChain):
        proxy = tcp_proxy(
            item.targets,
            item.service,
            observing.SOURCE,
            settings,
            has_peer=socket is not None,
            tunnels_to=item.tunnels_to,
        )
        filters = [*inbound_network(item.policies), *_offering(plan, item), proxy]
        return api.FilterChain(filter_chain_match=match, filters=filters, transport_socket=socket)
    hcm = _parsing(plan, item, settings)
    return api.FilterChain(name=item.table, filter_chain_match=match, filters=[hcm], transport_socket=socket)


def _offering(plan: Listener, item: TcpChain) -> list["api.Filter"]:
    """What is offered to the server's sidecar instead of what the cluster says."""
    if not item.tunnels_to and not _carries_both(plan):
        return []
    protocol = tls.TUNNEL_ALPN if item.tunnels_to else tls.MESH_TCP_ALPN[0]
    offer = api.FilterStateValue(object_key="envoy.network.application_protocols", format_string=text_format(protocol))
    config = api.NetworkSetFilterState(on_new_connection=[offer])
    return [network("envoy.filters.network.set_filter_state", config)]


def _carries_both(plan: Listener) -> bool:
    """Where one cluster carries HTTP and bytes, what is not parsed must not offer HTTP to the server's sidecar."""
    if any(isinstance(item, TcpChain) and item.carries_http for item in plan.chains):
        return True
    declared = [item for item in plan.chains if isinstance(item, HttpChain) and not item.is_on_demand]
    return not plan.is_gateway and any(item.table != str(plan.port) for item in declared)


def _clients_speak_first(plan: Listener) -> bool:
    """At a gateway that serves HTTP and TLS only: a connection that waits is late, not one of another protocol."""
    return plan.is_gateway and all(
        isinstance(item, HttpChain) or item.tls or item.is_mesh_tls or item.server_names for item in plan.chains
    )


def _match(plan: Listener, item: HttpChain | TcpChain) -> "api.FilterChainMatch | None":
    """None for the chain of everything else."""
    match = api.FilterChainMatch(server_names=list(item.server_names))
    if item.server_names:
        match.transport_protocol = "tls"
    match.prefix_ranges.extend(_prefixes(item.destination_cidrs))
    if isinstance(item, TcpChain):
        return match if match.ByteSize() else None
    if item.only_plain_http:
        match.transport_protocol = "raw_buffer"
        match.application_protocols.extend(SNIFFED_HTTP)
    elif plan.is_gateway and item.tls is None and not item.is_mesh_tls and len(plan.chains) > 1:
        match.transport_protocol = "raw_buffer"
    return match if match.ByteSize() else None


def _prefixes(cidrs: tuple[str, ...]) -> list["api.CidrRange"]:
    parts = (cidr.partition("/") for cidr in cidrs)
    return [
        api.CidrRange(address_prefix=prefix, prefix_len=api.UInt32Value(value=int(bits))) for prefix, _, bits in parts
    ]


def _inspectors(plan: Listener, chains: list["api.FilterChain"]) -> list["api.ListenerFilter"]:
    found = []
    if any(chain.filter_chain_match.transport_protocol for chain in chains):
        found.append(
            api.ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=to_any(api.TlsInspector()))
        )
    if any(isinstance(item, HttpChain) and item.only_plain_http for item in plan.chains):
        found.append(
            api.ListenerFilter(name="envoy.filters.listener.http_inspector", typed_config=to_any(api.HttpInspector()))
        )
    return found


def _parsing(plan: Listener, item: HttpChain, settings: MeshSettings) -> "api.Filter":
    return network("envoy.filters.network.http_connection_manager", _manager(plan, item, settings))


def _manager(plan: Listener, item: HttpChain, settings: MeshSettings) -> "api.HttpConnectionManager":
    fields: dict[str, Any] = {
        "stat_prefix": item.table,
        "rds": api.Rds(route_config_name=item.table, config_source=ADS),
        "http_filters": gateway_filters() if plan.is_gateway else route_filters(),
        "access_log": observing.http(
            observing.SOURCE, None, settings, passes_on=on_demand.AGAIN_HEADER if item.is_on_demand else ""
        ),
        "upgrade_configs": [api.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        "http2_protocol_options": api.Http2ProtocolOptions(allow_connect=True),
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": api.BoolValue(value=True),
        "stream_idle_timeout": timedelta(0),
        "generate_request_id": api.BoolValue(value=plan.is_gateway),
    }
    if plan.is_gateway:
        fields |= {
            "use_remote_address": api.BoolValue(value=True),
            "forward_client_cert_details": "SANITIZE_SET",
            "set_current_client_cert_details": api.HttpConnectionManager.SetCurrentClientCertDetails(
                subject=api.BoolValue(value=True), uri=True
            ),
            "common_http_protocol_options": api.CoreHttpProtocolOptions(
                headers_with_underscores_action="REJECT_REQUEST",
                # Another manager also drains the connections that were made before (docs/decisions/0013, "Drain").
                max_requests_per_connection=api.UInt32Value(value=1) if plan.is_leaving else None,
            ),
        }
    else:
        fields |= {
            "use_remote_address": api.BoolValue(value=False),
            "skip_xff_append": True,
        }
    if item.is_on_demand:
        fields |= on_demand.manager()
        fields["http_filters"] = [*on_demand.filters(), *fields["http_filters"]]
    return api.HttpConnectionManager(**fields)
