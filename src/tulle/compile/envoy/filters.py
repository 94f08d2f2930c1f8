"""Filter chains: the kinds' filters in `KINDS` order, switched off until a route's policy enables them."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from tulle.policies import KINDS
from tulle.policies.fragments import Kind
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
    """Chain of an outbound listener."""
    kinds = [kind.http_filters() for kind in KINDS if kind.http_filters]
    return [*(http(name, config, disabled=True) for filters in kinds for name, config in filters), router()]


def gateway_filters() -> list["api.HttpFilter"]:
    """Chain of a gateway: what routes ask for, and what is enforced where requests enter."""
    made = []
    for kind in KINDS:
        filters = (*(kind.http_filters() if kind.http_filters else ()), *_entering(kind))
        made += [http(name, config, disabled=True) for name, config in filters]
    return [*made, router()]


def inbound_filters(first: Sequence["api.HttpFilter"]) -> list["api.HttpFilter"]:
    """Chain of an inbound port: `first`, then the kinds', then the router."""
    kinds = [_entering(kind) for kind in KINDS]
    return [*first, *(http(name, config, disabled=True) for filters in kinds for name, config in filters), router()]


def enforced(policies: Sequence[Any]) -> dict[str, "api.Any"]:
    """Per-filter configuration of a route or virtual host through which requests enter: switches the filters on."""
    found: dict[str, Message] = {}
    for kind in KINDS:
        specs = [policy for policy in policies if isinstance(policy, kind.spec)]
        if specs and kind.on_inbound_route:
            found.update(kind.on_inbound_route(specs).filters)
    return {name: to_any(found[name]) for name in sorted(found)}


def _entering(kind: Kind) -> Sequence[tuple[str, Message]]:
    return kind.inbound_http_filters() if kind.inbound_http_filters else ()


def inbound_network(policies: Sequence[Any]) -> list["api.Filter"]:
    """Network filters of an inbound TCP port."""
    made: list[api.Filter] = []
    for kind in KINDS:
        specs = [policy for policy in policies if isinstance(policy, kind.spec)]
        if specs and kind.inbound_network_filters:
            made += [network(name, config) for name, config in kind.inbound_network_filters(specs)]
    return made
