"""What asks for configuration when it is needed: the filters around Envoy's on-demand lookup, and the TCP proxy that asks.

A virtual host is looked up by `:authority` alone, so for as long as the lookup takes it is the destination's address and port;
then the client's own word is put back. No filter after that may clear the route (docs/facts/envoy.md §9).
"""

from datetime import timedelta
from functools import cache
from typing import Any

from tulle.compile.envoy import observing
from tulle.compile.envoy.clusters import BLACK_HOLE
from tulle.compile.envoy.filters import http, network
from tulle.compile.keyed import STREAMS
from tulle.xds import api
from tulle.xds.schema import to_any

AUTHORITY_HEADER = "x-tulle-authority"
"""Keeps what the client called `:authority`, until its route is chosen."""
_DESTINATION_HEADER = "x-tulle-destination"
LONGEST_LOOKUP = timedelta(seconds=15)
"""How long a first request or connection waits for configuration that does not come."""

_BY_DESTINATION = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace(":authority", headers:get("{_DESTINATION_HEADER}"))
  handle:clearRouteCache()
end
"""
_BY_AUTHORITY = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:replace(":authority", headers:get("{AUTHORITY_HEADER}") or "")
  headers:remove("{AUTHORITY_HEADER}")
  headers:remove("{_DESTINATION_HEADER}")
end
"""


@cache
def filters() -> tuple["api.HttpFilter", ...]:
    """In front of all others: name the destination, wait for its virtual host, give the request its name back."""
    ahead = api.Lua(default_source_code=api.DataSource(inline_string=_BY_DESTINATION))
    after = api.Lua(
        default_source_code=api.DataSource(inline_string=_BY_AUTHORITY), clear_route_cache=api.BoolValue(value=False)
    )
    return (
        http("tulle.by-destination", ahead),
        http("envoy.filters.http.on_demand", api.OnDemand()),
        http("tulle.by-authority", after),
    )


def manager() -> dict[str, Any]:
    """Fields of the connection manager. Once there is a route, nothing but the route bounds the request (`unbounded`)."""
    kept = [(AUTHORITY_HEADER, "%REQ(:authority)%"), (_DESTINATION_HEADER, "%DOWNSTREAM_LOCAL_ADDRESS%")]
    mutations = [
        {
            "append": api.HeaderValueOption(
                header=api.HeaderValue(key=key, value=value), append_action="OVERWRITE_IF_EXISTS_OR_ADD"
            )
        }
        for key, value in kept
    ]
    return {
        "early_header_mutation_extensions": [
            api.TypedExtensionConfig(
                name="tulle.keep-authority", typed_config=to_any(api.EarlyHeaderMutation(mutations=mutations))
            )
        ],
        "common_http_protocol_options": api.CoreHttpProtocolOptions(max_stream_duration=LONGEST_LOOKUP),
        "local_reply_config": _too_late(),
    }


def unbounded(host: "api.VirtualHost") -> "api.VirtualHost":
    """Its forwarded requests may last: the bound of the lookup ends where the lookup ends. Changes and returns `host`."""
    for route in host.routes:
        if route.HasField("route"):
            route.route.max_stream_duration.CopyFrom(
                api.RouteAction.MaxStreamDuration(max_stream_duration=timedelta(0))
            )
    return host


def asking_proxy() -> list["api.Filter"]:
    """Relay bytes to the cluster of the destination, asked for where it is not there."""
    name = api.FilterStateValue(
        object_key="envoy.tcp_proxy.cluster",
        format_string=api.SubstitutionFormatString(
            text_format_source=api.DataSource(inline_string=f"{STREAMS}%DOWNSTREAM_LOCAL_ADDRESS%")
        ),
    )
    source = api.ConfigSource(ads={}, resource_api_version="V3")
    proxy = api.TcpProxy(
        stat_prefix="on-demand",
        cluster=BLACK_HOLE,
        access_log=observing.tcp(observing.SOURCE, None),
        access_log_options=api.TcpProxy.TcpAccessLogOptions(flush_access_log_on_connected=True),
        on_demand=api.TcpProxy.OnDemand(odcds_config=source, timeout=LONGEST_LOOKUP),
    )
    return [
        network("envoy.filters.network.set_filter_state", api.NetworkSetFilterState(on_new_connection=[name])),
        network("envoy.filters.network.tcp_proxy", proxy),
    ]


@cache
def _too_late() -> "api.LocalReplyConfig":
    is_late = api.AccessLogFilter(response_flag_filter=api.ResponseFlagFilter(flags=["DT"]))
    body = api.DataSource(inline_string="tulle: the control plane did not say in time what is there\n")
    return api.LocalReplyConfig(
        mappers=[api.ResponseMapper(filter=is_late, status_code=api.UInt32Value(value=504), body=body)]
    )
