"""What a sidecar's own admin interface says, taken apart: clusters, listeners, routes, endpoints, secrets, filters.

Pure. Knows Envoy's `/config_dump` and `/clusters` (admin API v3) and no mesh: whose lines are behind what is joined elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tulle.model.intent import SAFE_METHODS

Json = Mapping[str, Any]
REDACTED = "[redacted]"
_HCM = "HttpConnectionManager"


class RouteRow(NamedTuple):
    """One route as the sidecar has it."""

    table: str
    host: str
    """Name of the virtual host: `9080/reviews.shop.svc.cluster.local` where it came by itself."""
    domains: Sequence[str]
    number: int
    """Of the route within its host, from 0."""
    route: Json


class FilterRow(NamedTuple):
    """One filter of one chain, or its rules for one route."""

    listener: str
    chain: str
    name: str
    route: str
    """Where rules come with a route: its table; empty for the chain's own."""
    is_disabled: bool
    """Waits for a route that switches it on."""
    config: Json


def section(dump: Json, name: str) -> Json:
    """One part of a dump, e.g. `ClustersConfigDump`; empty where the sidecar has none."""
    found = (one for one in dump.get("configs", ()) if one.get("@type", "").endswith(f".{name}"))
    return next(found, {})


def clusters(dump: Json) -> Iterator[Json]:
    """Every cluster the mesh sent."""
    for one in section(dump, "ClustersConfigDump").get("dynamic_active_clusters", ()):
        yield one["cluster"]


def listeners(dump: Json) -> Iterator[Json]:
    """Every listener in force."""
    for one in section(dump, "ListenersConfigDump").get("dynamic_listeners", ()):
        state = one.get("active_state") or one.get("draining_state")
        if state:
            yield state["listener"]


def tables(dump: Json) -> Iterator[Json]:
    """Every route configuration, virtual hosts that came by themselves inside."""
    found = section(dump, "RoutesConfigDump")
    for one in (*found.get("dynamic_route_configs", ()), *found.get("static_route_configs", ())):
        yield one["route_config"]


def routes(dump: Json) -> Iterator[RouteRow]:
    """Every route, in the order they are tried within a virtual host.

    What stands in front of a route for methods that are not safe, and differs in what is tried again, is left out.
    """
    for table in tables(dump):
        for host in table.get("virtual_hosts", ()):
            shown = (route for route in host.get("routes", ()) if not _is_for_the_unsafe(route))
            for index, route in enumerate(shown):
                yield RouteRow(table.get("name", ""), host["name"], host.get("domains", ()), index, route)


def _is_for_the_unsafe(route: Json) -> bool:
    headers = route.get("match", {}).get("headers", ())
    unlike = {one.get("string_match", {}).get("exact") for one in headers if one.get("invert_match")}
    return unlike.issuperset(SAFE_METHODS)


def secrets(dump: Json) -> Iterator[Json]:
    """Every secret, without private bytes."""
    found = section(dump, "SecretsConfigDump")
    for state in ("dynamic_active_secrets", "dynamic_warming_secrets", "static_secrets"):
        for one in found.get(state, ()):
            secret = {key: value for key, value in one.get("secret", {}).items() if key != "@type"}
            yield {"name": one.get("name", ""), "isWarming": "warming" in state, "secret": _redacted(secret)}


def endpoints(statuses: Json) -> Iterator[tuple[str, Json]]:
    """(cluster, host status) of `/clusters?format=json`."""
    for cluster in statuses.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()):
            yield cluster["name"], host


def chains(listener: Json) -> Iterator[tuple[str, Json]]:
    """(name or match, chain) of a listener, its default chain last."""
    for chain in listener.get("filter_chains", ()):
        yield chain.get("name") or match_of_chain(chain), chain
    if listener.get("default_filter_chain"):
        yield "default", listener["default_filter_chain"]


def filters(dump: Json) -> Iterator[FilterRow]:
    """Every network and HTTP filter of every chain, and what routes add to them."""
    by_table = {table.get("name", ""): table for table in tables(dump)}
    for listener in listeners(dump):
        for name, chain in chains(listener):
            for one in chain.get("filters", ()):
                config = one.get("typed_config", {})
                if not config.get("@type", "").endswith(f".{_HCM}"):
                    yield FilterRow(listener["name"], name, one["name"], "", False, config)
                    continue
                table = by_table.get(_table_of(config), {})
                for inner in config.get("http_filters", ()):
                    yield from _http_filter(listener["name"], name, inner, table)


def _http_filter(listener: str, chain: str, one: Json, table: Json) -> Iterator[FilterRow]:
    is_disabled = bool(one.get("disabled"))
    added = []
    for host in table.get("virtual_hosts", ()):
        for route in host.get("routes", ()):
            config = route.get("typed_per_filter_config", {}).get(one["name"])
            if config is not None and config not in added:
                added.append(config)
                yield FilterRow(listener, chain, one["name"], f"{table.get('name', '')}", False, config)
    if not (added and is_disabled):
        yield FilterRow(listener, chain, one["name"], "", is_disabled, one.get("typed_config", {}))


def _table_of(manager: Json) -> str:
    return str(manager.get("rds", {}).get("route_config_name") or manager.get("route_config", {}).get("name", ""))


def address_of(address: Json) -> str:
    """`10.0.0.1:80` or a pipe's path."""
    socket = address.get("socket_address")
    if socket:
        return f"{socket.get('address', '')}:{socket.get('port_value', '')}"
    return str(
        address.get("pipe", {}).get("path") or address.get("envoy_internal_address", {}).get("server_listener_name", "")
    )


def match_of_chain(chain: Json) -> str:
    """Which connections a chain takes, in words."""
    match = chain.get("filter_chain_match", {})
    parts = []
    if match.get("destination_port"):
        parts.append(f"port {match['destination_port']}")
    if match.get("server_names"):
        parts.append(f"SNI {','.join(match['server_names'])}")
    if match.get("transport_protocol"):
        parts.append(str(match["transport_protocol"]))
    if match.get("application_protocols"):
        parts.append(f"ALPN {','.join(match['application_protocols'])}")
    if match.get("prefix_ranges"):
        parts.append(",".join(f"{one['address_prefix']}/{one.get('prefix_len', 0)}" for one in match["prefix_ranges"]))
    return " ".join(parts) or "everything"


def goal_of_chain(chain: Json) -> str:
    """Where a chain's connections go, in words."""
    for one in chain.get("filters", ()):
        config = one.get("typed_config", {})
        kind = config.get("@type", "").rpartition(".")[2]
        if kind == _HCM:
            return f"route {_table_of(config)}"
        if kind == "TcpProxy":
            weighted = config.get("weighted_clusters", {}).get("clusters", ())
            return _weights(weighted) if weighted else str(config.get("cluster", ""))
    return "-"


def match_of_route(route: Json) -> str:
    """Which requests a route takes, in words."""
    match = route.get("match", {})
    regex = match.get("safe_regex", {}).get("regex")
    path = (
        f"{match['prefix']}*"
        if "prefix" in match
        else str(match.get("path") or "")
        or (f"{match['path_separated_prefix']}/*" if "path_separated_prefix" in match else "")
        or (f"~{regex}" if regex else "*")
    )
    parts = [path]
    parts += [_named(one) for one in match.get("headers", ())]
    parts += [f"?{_named(one)}" for one in match.get("query_parameters", ())]
    return " ".join(parts)


def goal_of_route(route: Json) -> str:
    """What a route does, in words."""
    if "redirect" in route:
        redirect = route["redirect"]
        where = redirect.get("host_redirect", "") + str(
            redirect.get("path_redirect") or redirect.get("prefix_rewrite") or ""
        )
        return f"redirect {'https ' if redirect.get('https_redirect') else ''}{where}".strip()
    if "direct_response" in route:
        return f"answer {route['direct_response'].get('status')}"
    action = route.get("route", {})
    weighted = action.get("weighted_clusters", {}).get("clusters", ())
    if "cluster_header" in action:
        return f"cluster by {action['cluster_header']}"
    return _weights(weighted) if weighted else str(action.get("cluster", "-"))


def _weights(weighted: Sequence[Json]) -> str:
    return ", ".join(f"{one['name']} {one.get('weight', 0)}" for one in weighted)


def _named(one: Json) -> str:
    name, sign = str(one.get("name", "")), "!" if one.get("invert_match") else ""
    text = one.get("string_match")
    if text is None:
        return f"{sign}{name}"
    for kind, mark in (("exact", "="), ("prefix", "^="), ("suffix", "$="), ("contains", "*=")):
        if kind in text:
            return f"{sign}{name}{mark}{text[kind]}"
    return f"{sign}{name}~{text.get('safe_regex', {}).get('regex', '')}"


def _redacted(value: Any) -> Any:
    """Keys and passwords never leave, whatever the sidecar says itself."""
    if isinstance(value, dict):
        private = ("private_key", "password", "private_key_provider", "session_ticket_keys", "generic_secret")
        return {key: REDACTED if key in private else _redacted(item) for key, item in value.items()}
    return [_redacted(item) for item in value] if isinstance(value, list) else value
