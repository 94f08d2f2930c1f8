"""Connections as streams of one connection between two sidecars: HTTP/2 CONNECT over mesh mTLS (docs/decisions/0015).

The client's side is a TCP proxy that opens streams (`listeners`); this is what both sides agree on, and the server's side.
"""

from datetime import timedelta

from tulle.compile.envoy import observing
from tulle.compile.envoy.filters import network, router
from tulle.model.objects import MeshSettings
from tulle.model.plan import ServiceName
from tulle.xds import api

_STREAM_WINDOW = 1 << 20
_CONNECTION_WINDOW = 24 << 20
"""Bytes on their way to one who does not read; what is more waits at the sender, as TCP's would."""


def http2() -> "api.Http2ProtocolOptions":
    """What both sides allow one another."""
    return api.Http2ProtocolOptions(
        allow_connect=True,
        initial_stream_window_size=api.UInt32Value(value=_STREAM_WINDOW),
        initial_connection_window_size=api.UInt32Value(value=_CONNECTION_WINDOW),
    )


def ending(cluster: str, service: ServiceName | None, settings: MeshSettings) -> "api.Filter":
    """Each stream becomes a connection to the workload; it is told of as one."""
    connect = api.RouteAction.UpgradeConfig(
        upgrade_type="CONNECT", connect_config=api.RouteAction.UpgradeConfig.ConnectConfig()
    )
    route = api.Route(
        match=api.RouteMatch(connect_matcher=api.RouteMatch.ConnectMatcher()),
        route=api.RouteAction(cluster=cluster, timeout=timedelta(0), upgrade_configs=[connect]),
    )
    host = api.VirtualHost(name=cluster, domains=["*"], routes=[route])
    manager = api.HttpConnectionManager(
        stat_prefix=cluster,
        codec_type="HTTP2",
        route_config=api.RouteConfiguration(
            name=cluster, virtual_hosts=[host], validate_clusters=api.BoolValue(value=False)
        ),
        http_filters=[router()],
        access_log=observing.streams(service, settings),
        access_log_options=api.HttpConnectionManager.HcmAccessLogOptions(
            flush_log_on_tunnel_successfully_established=True
        ),
        upgrade_configs=[api.HttpConnectionManager.UpgradeConfig(upgrade_type="CONNECT")],
        http2_protocol_options=http2(),
        server_header_transformation="PASS_THROUGH",
        stream_idle_timeout=timedelta(0),
        generate_request_id=api.BoolValue(value=False),
        use_remote_address=api.BoolValue(value=False),
        skip_xff_append=True,
        forward_client_cert_details="SANITIZE",
    )
    return network("envoy.filters.network.http_connection_manager", manager)
