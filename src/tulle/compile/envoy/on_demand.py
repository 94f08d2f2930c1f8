"""What asks for configuration when it is needed: the filters around Envoy's on-demand lookup, and the TCP proxy that asks.

A virtual host is looked up by `:authority` alone, so for as long as the lookup takes it is the destination's address and port;
then the client's own word is put back. No filter after that may clear the route (docs/facts/envoy.md §9).
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

from google.protobuf.message import Message

from tulle.compile.envoy import observing
from tulle.compile.envoy.filters import http, network
from tulle.compile.keyed import STREAMS as CLUSTER
from tulle.model.objects import MeshSettings
from tulle.model.plan import BLACK_HOLE, Asking
from tulle.xds import api
from tulle.xds.schema import to_any

AUTHORITY_HEADER = "x-tulle-authority"
"""Keeps what the client called `:authority`, until its route is chosen."""
_DESTINATION_HEADER = "x-tulle-destination"
HTTP = "on-demand-http"
STREAMS = "on-demand-tcp"
"""The two chains of the capture listener that ask."""
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


def asking_proxy(settings: MeshSettings) -> list["api.Filter"]:
    """Relay bytes to the cluster of the destination, asked for where it is not there."""
    name = api.FilterStateValue(
        object_key="envoy.tcp_proxy.cluster",
        format_string=api.SubstitutionFormatString(
            text_format_source=api.DataSource(inline_string=f"{CLUSTER}%DOWNSTREAM_LOCAL_ADDRESS%")
        ),
    )
    source = api.ConfigSource(ads={}, resource_api_version="V3")
    proxy = api.TcpProxy(
        stat_prefix="on-demand",
        cluster=BLACK_HOLE,
        access_log=observing.tcp(observing.SOURCE, None, settings),
        access_log_options=api.TcpProxy.TcpAccessLogOptions(flush_access_log_on_connected=True),
        on_demand=api.TcpProxy.OnDemand(odcds_config=source, timeout=LONGEST_LOOKUP),
    )
    return [
        network("envoy.filters.network.set_filter_state", api.NetworkSetFilterState(on_new_connection=[name])),
        network("envoy.filters.network.tcp_proxy", proxy),
    ]


def chain_of(plan: Asking, ends_here: Mapping[int, str]) -> "api.Matcher":
    """Which chain a connection belongs to: by its port in `ends_here`, else by its address, then its port.

    Of two ranges the narrower decides; where it says nothing about the port, the wider does (IPMatcher).
    """
    speaks_http = _by_port(dict.fromkeys(plan.http_ports, HTTP), _chain(STREAMS))
    ranges = [_range(plan.cidrs, speaks_http)]
    ranges += [_range((cidr,), _by_port(dict.fromkeys(ports, STREAMS), None)) for cidr, ports in plan.streams]
    by_address = api.Matcher(
        matcher_tree=api.Matcher.MatcherTree(
            input=_extension("destination", api.DestinationIPInput()),
            custom_match=_extension("ranges", api.IPMatcher(range_matchers=ranges)),
        )
    )
    return _by_port(ends_here, api.Matcher.OnMatch(matcher=by_address)).matcher


def _by_port(chains: Mapping[int, str], otherwise: "api.Matcher.OnMatch | None") -> "api.Matcher.OnMatch":
    ports = {str(port): _chain(name) for port, name in chains.items()}
    if not ports and otherwise is not None:
        return otherwise
    tree = api.Matcher.MatcherTree(
        input=_extension("port", api.DestinationPortInput()),
        exact_match_map=api.Matcher.MatcherTree.MatchMap(map=ports),
    )
    return api.Matcher.OnMatch(matcher=api.Matcher(matcher_tree=tree, on_no_match=otherwise))


def _range(cidrs: tuple[str, ...], then: "api.Matcher.OnMatch") -> "api.IPMatcher.IPRangeMatcher":
    parts = (cidr.partition("/") for cidr in cidrs)
    ranges = [
        api.XdsCidrRange(address_prefix=prefix, prefix_len=api.UInt32Value(value=int(bits)))
        for prefix, _, bits in parts
    ]
    return api.IPMatcher.IPRangeMatcher(ranges=ranges, on_match=then)


def _chain(name: str) -> "api.Matcher.OnMatch":
    return api.Matcher.OnMatch(action=_extension(name, api.StringValue(value=name)))


def _extension(name: str, config: Message) -> "api.XdsTypedExtensionConfig":
    return api.XdsTypedExtensionConfig(name=name, typed_config=to_any(config))


@cache
def _too_late() -> "api.LocalReplyConfig":
    is_late = api.AccessLogFilter(response_flag_filter=api.ResponseFlagFilter(flags=["DT"]))
    body = api.DataSource(inline_string="tulle: the control plane did not say in time what is there\n")
    return api.LocalReplyConfig(
        mappers=[api.ResponseMapper(filter=is_late, status_code=api.UInt32Value(value=504), body=body)]
    )
