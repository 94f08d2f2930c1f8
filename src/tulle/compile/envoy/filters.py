"""Filter chains: the kinds' filters in `KINDS` order, switched off until a route's policy enables them."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from tulle.policies import KINDS
from tulle.xds import api
from tulle.xds.schema import to_any


def network(name: str, config: Message) -> "api.Filter":
    """A network filter."""
    return api.Filter(name=name, typed_config=to_any(config))


def http(name: str, config: Message, *, disabled: bool = False) -> "api.HttpFilter":
    """An HTTP filter; a disabled one costs nothing until a route enables it."""
    return api.HttpFilter(name=name, typed_config=to_any(config), disabled=disabled)


def router() -> "api.HttpFilter":
    """The last filter. Envoy's own headers are suppressed: nobody asked for them."""
    config = api.Router(suppress_envoy_headers=True, dynamic_stats=api.BoolValue(value=False))
    return http("envoy.filters.http.router", config)


def route_filters() -> list["api.HttpFilter"]:
    """Chain of an outbound or gateway listener."""
    kinds = [kind.http_filters() for kind in KINDS if kind.http_filters]
    return [*(http(name, config, disabled=True) for filters in kinds for name, config in filters), router()]


def inbound_filters(first: Sequence["api.HttpFilter"]) -> list["api.HttpFilter"]:
    """Chain of an inbound port: `first`, then the kinds', then the router."""
    kinds = [kind.inbound_http_filters() for kind in KINDS if kind.inbound_http_filters]
    return [*first, *(http(name, config, disabled=True) for filters in kinds for name, config in filters), router()]


def inbound_network(policies: Sequence[Any]) -> list["api.Filter"]:
    """Network filters of an inbound TCP port."""
    made: list[api.Filter] = []
    for kind in KINDS:
        specs = [policy for policy in policies if isinstance(policy, kind.spec)]
        if specs and kind.inbound_network_filters:
            made += [network(name, config) for name, config in kind.inbound_network_filters(specs)]
    return made
