"""What asks for configuration when it is needed: the virtual host of all others, the door it waits for, and the TCP proxy that asks.

A request finds its virtual host by its destination's address and port (`vhost_header`). Who finds none is held up by Envoy's
on-demand lookup of a cluster, the *door*, which the control plane gives away behind the virtual host; it leads to a listener
inside the proxy, where the request is looked at again. What is known costs one header; no filter is there that a route does
not switch on (docs/facts/envoy.md §9).
"""

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

from google.protobuf.message import Message

from tulle.compile.envoy import observing
from tulle.compile.envoy.filters import http, network
from tulle.compile.envoy.values import ADS, text_format
from tulle.compile.keyed import STREAMS as CLUSTER
from tulle.compile.keyed import TABLE
from tulle.model.objects import MeshSettings
from tulle.model.plan import BLACK_HOLE, Asking
from tulle.xds import api
from tulle.xds.schema import to_any

DESTINATION_HEADER = "x-tulle-destination"
"""`vip/10.96.3.7:80`, the names of the virtual host and of its door; of no client's making."""
AGAIN_HEADER = "x-tulle-again"
"""The request came through its door."""
AGAIN = "on-demand-again"
"""The listener behind all doors."""
HTTP = "on-demand-http"
STREAMS = "on-demand-tcp"
"""The two chains of the capture listener that ask."""
LONGEST_LOOKUP = timedelta(seconds=15)
"""How long a first request or connection waits for configuration that does not come."""

_FILTER = "envoy.filters.http.on_demand"
_STATE_FILTER = "envoy.filters.http.set_filter_state"
_ASKING = "asked-for"
_ORIGINAL_DST = "envoy.filters.listener.original_dst"


@cache
def filters() -> tuple["api.HttpFilter", ...]:
    """In front of all others; nothing to requests of a known destination."""
    return (http(_FILTER, api.OnDemand(), disabled=True), http(_STATE_FILTER, api.HttpSetFilterState(), disabled=True))


def manager() -> dict[str, Any]:
    """Fields of the connection manager: say where the request goes, and say in time that nobody knows what is there."""
    named = api.HeaderValue(key=DESTINATION_HEADER, value=f"{TABLE}/%DOWNSTREAM_LOCAL_ADDRESS%")
    mutations: list[dict[str, Any]] = [
        {"append": api.HeaderValueOption(header=named, append_action="OVERWRITE_IF_EXISTS_OR_ADD")},
        {"remove": AGAIN_HEADER},
    ]
    return {
        "early_header_mutation_extensions": [
            api.TypedExtensionConfig(
                name="tulle.destination", typed_config=to_any(api.EarlyHeaderMutation(mutations=mutations))
            )
        ],
        "local_reply_config": _too_late(),
    }


@cache
def asking_host() -> "api.VirtualHost":
    """For every destination without a virtual host: wait for its door. What comes through one and is lost again has no answer."""
    anything = api.RouteMatch(prefix="")
    again = api.RouteMatch(prefix="", headers=[api.HeaderMatcher(name=AGAIN_HEADER, present_match=True)])
    lookup = api.OnDemandPerRoute(odcds=api.OnDemandCds(source=ADS, timeout=LONGEST_LOOKUP))
    lost = api.DataSource(inline_string="tulle: what the control plane said is there was refused by this sidecar\n")
    marked = api.HeaderValueOption(header=api.HeaderValue(key=AGAIN_HEADER, value="1"))
    return api.VirtualHost(
        name=_ASKING,
        domains=["*"],
        routes=[
            api.Route(name="lost", match=again, direct_response=api.DirectResponseAction(status=503, body=lost)),
            api.Route(
                name=_ASKING,
                match=anything,
                route=api.RouteAction(cluster_header=DESTINATION_HEADER, timeout=timedelta(0)),
                request_headers_to_add=[marked],
                typed_per_filter_config={_FILTER: to_any(lookup), _STATE_FILTER: to_any(_addresses())},
            ),
        ],
    )


def _addresses() -> "api.HttpSetFilterState":
    """What comes out behind a door has the addresses of the client's connection.

    Nothing else is told so: connections to servers are shared by those alone that tell the same.
    """
    kept = [("local_ip", "%DOWNSTREAM_LOCAL_ADDRESS%"), ("remote_ip", "%DOWNSTREAM_REMOTE_ADDRESS%")]
    values = [
        api.FilterStateValue(
            object_key=f"{_ORIGINAL_DST}.{name}", format_string=text_format(text), shared_with_upstream="ONCE"
        )
        for name, text in kept
    ]
    return api.HttpSetFilterState(on_request_headers=values)


def unmarked(host: "api.VirtualHost") -> "api.VirtualHost":
    """Its requests leave without our headers. Changes and returns `host`."""
    host.request_headers_to_remove.extend((DESTINATION_HEADER, AGAIN_HEADER))
    return host


def again(manager: "api.Filter") -> "api.Listener":
    """Behind the doors: the connection manager that requests pass whose virtual host is there."""
    return api.Listener(
        name=AGAIN,
        internal_listener=api.Listener.InternalListenerConfig(),
        listener_filters=[api.ListenerFilter(name=_ORIGINAL_DST, typed_config=to_any(api.OriginalDst()))],
        filter_chains=[api.FilterChain(filters=[manager])],
        traffic_direction="OUTBOUND",
    )


def asking_proxy(settings: MeshSettings) -> list["api.Filter"]:
    """Relay bytes to the cluster of the destination, asked for where it is not there."""
    name = api.FilterStateValue(
        object_key="envoy.tcp_proxy.cluster", format_string=text_format(f"{CLUSTER}%DOWNSTREAM_LOCAL_ADDRESS%")
    )
    proxy = api.TcpProxy(
        stat_prefix="on-demand",
        cluster=BLACK_HOLE,
        access_log=observing.tcp(observing.SOURCE, None, settings),
        access_log_options=api.TcpProxy.TcpAccessLogOptions(flush_access_log_on_connected=True),
        on_demand=api.TcpProxy.OnDemand(odcds_config=ADS, timeout=LONGEST_LOOKUP),
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
    is_late = observing.when(f"xds.route_name == '{_ASKING}' && response.code_details == 'cluster_not_found'")
    body = api.DataSource(inline_string="tulle: the control plane did not say in time what is there\n")
    return api.LocalReplyConfig(
        mappers=[api.ResponseMapper(filter=is_late, status_code=api.UInt32Value(value=504), body=body)]
    )
