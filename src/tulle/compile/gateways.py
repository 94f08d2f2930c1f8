"""Listeners and virtual hosts of gateways.

Servers of all Gateways that select a workload are merged by the port the workload really listens on. Plain HTTP servers
of one port share a table; each TLS server has a chain and a table of its own. A server whose certificate is missing
serves nothing, and the others go on.
"""

from collections.abc import Iterator

from msgspec import Struct, structs

from tulle.compile.bound_hosts import Around, host_of, hosts_bound, intersection, names_bound, routes_bound
from tulle.compile.outbound import server_names
from tulle.compile.routes import placer, rules_to_routes
from tulle.compile.scope import gateway_routes
from tulle.compile.sending import stream_targets
from tulle.compile.views import GatewayView, OutboundView, client_certificate, secret_resource
from tulle.dialects.kubernetes import secret_digest
from tulle.dialects.kubernetes.key_pairs import PAIRS, ROOTS
from tulle.dialects.routing import gateways, route_set
from tulle.engine import Database, query
from tulle.model.intent import (
    HttpMatch,
    MatchKind,
    PortProtocol,
    RouteSet,
    Server,
    ServerTls,
    ServerTlsMode,
    StringMatch,
    TcpMatch,
)
from tulle.model.keys import ObjectKey, selects
from tulle.model.origin import Origin
from tulle.model.plan import (
    UNRESOLVED,
    HttpChain,
    Listener,
    Route,
    RouteTable,
    ServerCertificate,
    TcpChain,
    VirtualHost,
    WeightedTarget,
)

_ANY = "0.0.0.0"  # noqa: S104 - a gateway serves every address
_EVERYTHING = (HttpMatch(), HttpMatch(path=StringMatch(MatchKind.PREFIX, "/")))


class Exposed(Struct, frozen=True):
    """A server and the Gateway it belongs to."""

    gateway: ObjectKey
    server: Server
    target: int
    """The port the workload listens on."""

    @property
    def full_name(self) -> str:
        """How routes name the gateway, or this server of it."""
        return self.server.binding or f"{self.gateway.namespace}/{self.gateway.name}"


@query
def exposed(db: Database, view: GatewayView) -> tuple[Exposed, ...]:
    """Every server of the workload, oldest Gateway first."""
    targets = dict(view.ports)
    found = [
        item
        for item in gateways(db, view.cluster)
        if item.selector
        and selects(item.selector, view.labels)
        and (not item.is_local or item.key.namespace == view.namespace)
    ]
    found.sort(key=lambda item: (item.created, item.key))
    return tuple(
        Exposed(item.key, server, targets.get(server.port, server.port)) for item in found for server in item.servers
    )


@query
def gateway_ports_used(db: Database, view: GatewayView) -> tuple[int, ...]:
    """Workload ports with at least one server."""
    return tuple(sorted({item.target for item in exposed(db, view)}))


@query
def gateway_listener(db: Database, view: GatewayView, outbound: OutboundView, port: int) -> Listener | None:
    """The listener of one workload port; None where no server of it can serve."""
    servers = [item for item in exposed(db, view) if item.target == port]
    chains: list[HttpChain | TcpChain] = []
    if any(_is_plain_http(item.server) for item in servers):
        chains.append(HttpChain(http_table(port)))
    taken: set[str] = set()
    for item in servers:
        for chain in _chains(db, view, outbound, item):
            names = tuple(name for name in chain.server_names or ("",) if name not in taken)
            if names:
                taken.update(names)
                chains.append(structs.replace(chain, server_names=tuple(filter(None, names))))
    origins = tuple(item.server.origin for item in servers)
    if not chains:
        return None
    return Listener(f"{_ANY}_{port}", _ANY, port, binds=True, chains=tuple(chains), origins=origins, is_gateway=True)


@query
def gateway_tables(db: Database, view: GatewayView) -> tuple[tuple[str, tuple[Exposed, ...]], ...]:
    """Route tables and the servers behind each."""
    tables: dict[str, list[Exposed]] = {}
    for item in exposed(db, view):
        name = table_name(item)
        if name:
            tables.setdefault(name, []).append(item)
    return tuple((name, tuple(items)) for name, items in sorted(tables.items()))


@query
def gateway_hosts(db: Database, view: GatewayView, table: str) -> tuple[str, ...]:
    """Hosts that a table answers for: those of the routes bound to its gateways which its servers let through."""
    around = _around(db, view, table)
    found: set[str] = set(hosts_bound(db, view.cluster, around))
    for item in _by_gateway_name(db, view, table):
        routes = gateway_routes(db, view.cluster, item.full_name)
        for host in (*routes.exact, *(wildcard for wildcard, _ in routes.wildcards)):
            found.update(
                narrow
                for key in routes.find(host)
                for allowed in _hosts_for(item.server, item.gateway.namespace, key.namespace)
                if (narrow := intersection(allowed, host))
            )
        if item.server.tls and item.server.tls.https_redirect:
            found.update(host for _, host in _split_hosts(item.server, item.gateway.namespace))
    return tuple(sorted(found))


@query
def gateway_table(db: Database, view: GatewayView, table: str) -> RouteTable:
    """A table without catch-all: a host nobody claims gets 404."""
    return RouteTable(table, gateway_hosts(db, view, table), None, answers_outside=True)


@query
def gateway_host(db: Database, view: GatewayView, outbound: OutboundView, table: str, host: str) -> VirtualHost:
    """One host of a table. Route sets that share a host are merged, oldest first (Istio, gateways only)."""
    routes: list[Route] = []
    origins: list[Origin] = []
    redirects = False
    for item in _by_gateway_name(db, view, table):
        allowed = [name for _, name in _split_hosts(item.server, item.gateway.namespace)]
        if not any(intersection(name, host) == host for name in allowed):
            continue
        redirects = redirects or bool(item.server.tls and item.server.tls.https_redirect)
        for key in gateway_routes(db, view.cluster, item.full_name).find(host):
            found = route_set(db, key)
            if found and found.origin not in origins and _may_bind(item, key):
                origins.append(found.origin)
                routes.extend(_routes(db, outbound, item, found))
    around = _around(db, view, table)
    bound, objects = routes_bound(db, view.cluster, around, host, placer(db, outbound, port_of_table(db, view, table)))
    origins.extend(objects)
    merged = (*_until_everything(routes), *bound)
    return VirtualHost(host, (host,), merged, tuple(origins), require_tls=redirects, policies=view.policies)


def _by_gateway_name(db: Database, view: GatewayView, table: str) -> list[Exposed]:
    """Servers of a table whose routes name their gateway."""
    return [item for item in dict(gateway_tables(db, view)).get(table, ()) if not item.server.binding]


def _around(db: Database, view: GatewayView, table: str) -> Around:
    """Servers of a table that routes bind to by name, and those told apart from them by their names only."""
    items = [item for item in dict(gateway_tables(db, view)).get(table, ()) if item.server.binding]
    return _beside(db, view, items) if items else Around((), ())


def _beside(db: Database, view: GatewayView, items: list[Exposed]) -> Around:
    first = items[0]
    sharing = (
        one.server
        for one in exposed(db, view)
        if one.server.binding and one.target == first.target and (one.server.tls is None) == (first.server.tls is None)
    )
    return Around(tuple(item.server for item in items), tuple(sharing))


def port_of_table(db: Database, view: GatewayView, table: str) -> int:
    """The server port of a table, for targets that name no port."""
    servers = dict(gateway_tables(db, view)).get(table, ())
    return servers[0].server.port if servers else 0


@query
def gateway_secrets(db: Database, view: GatewayView) -> tuple[str, ...]:
    """Names of the secrets that the gateway's servers need and that exist, and of what it shows to backends."""
    shown = client_certificate(db, view.cluster, view.namespace, view.labels)
    names = {shown} if shown else set[str]()
    for item in exposed(db, view):
        tls = item.server.tls
        if tls and tls.credential and _has_certificate(db, view, tls):
            names.add(secret_name(view, tls))
            if tls.mode is ServerTlsMode.MUTUAL:
                names.add(f"{secret_name(view, tls)}-cacert")
    return tuple(sorted(names))


def http_table(port: int) -> str:
    """Istio's name of the table of plain HTTP servers."""
    return f"http.{port}"


def table_name(item: Exposed) -> str:
    """Istio's name of a server's table; empty where the server does not speak HTTP."""
    if _is_plain_http(item.server):
        return http_table(item.target)
    if _terminates(item.server) and item.server.protocol is PortProtocol.HTTPS:
        return f"https.{item.server.port}.{item.server.name}.{item.gateway.name}.{item.gateway.namespace}"
    return ""


def secret_name(view: GatewayView, tls: ServerTls) -> str:
    """The secret resource of a server's credential: of the gateway workload's own namespace (Istio), unless it was granted."""
    name = tls.credential.rpartition("/")[2]
    return secret_resource(tls.credential_namespace or view.namespace, name)


def _is_plain_http(server: Server) -> bool:
    return server.protocol.is_http


def _terminates(server: Server) -> bool:
    return server.tls is not None and server.tls.mode not in (ServerTlsMode.PASSTHROUGH, ServerTlsMode.AUTO_PASSTHROUGH)


def _has_certificate(db: Database, view: GatewayView, tls: ServerTls) -> bool:
    name = tls.credential.rpartition("/")[2]
    place = tls.credential_namespace or view.namespace
    held = _usable(db, view.cluster, place, name)
    if not any(set(pair) <= held for pair in PAIRS):
        return False
    # roots may stand in a Secret of their own, which then counts (Istio; serve.vault gives it)
    roots = _usable(db, view.cluster, place, f"{name}-cacert") or held
    return tls.mode is not ServerTlsMode.MUTUAL or not roots.isdisjoint(ROOTS)


def _usable(db: Database, cluster: str, place: str, name: str) -> frozenset[str]:
    found = secret_digest(db, ObjectKey(cluster, "", "Secret", place, name))
    return found.usable if found else frozenset()


def _chains(db: Database, view: GatewayView, outbound: OutboundView, item: Exposed) -> Iterator[HttpChain | TcpChain]:
    server = item.server
    if _is_plain_http(server):
        return
    certificate = _certificate(db, view, server)
    if _terminates(server) and certificate is None:
        return  # the certificate is missing: this server serves nothing (reported on the Gateway by analysis)
    names = server_names(tuple(host for _, host in _split_hosts(server, item.gateway.namespace)))
    is_mesh = server.tls is not None and server.tls.mode is ServerTlsMode.ISTIO_MUTUAL
    if server.protocol is PortProtocol.HTTPS and certificate is not None:
        yield HttpChain(table_name(item), names, None if is_mesh else certificate, is_mesh_tls=is_mesh)
        return
    if server.binding:
        yield from _bound_streams(db, view, outbound, item, certificate)
        return
    for chain in _streams(db, outbound, item):
        if certificate is None:
            yield structs.replace(chain, policies=view.policies)
        else:
            own = None if is_mesh else certificate
            yield structs.replace(chain, server_names=names, tls=own, is_mesh_tls=is_mesh, policies=view.policies)


def _bound_streams(
    db: Database, view: GatewayView, outbound: OutboundView, item: Exposed, certificate: ServerCertificate | None
) -> Iterator[TcpChain]:
    """Connections of a server that routes bind to: by SNI where it speaks TLS; names of its own that no route has end here."""
    server = item.server
    around = _beside(db, view, [item])
    place = placer(db, outbound, server.port)
    taken: set[str] = set()
    for routes, names in names_bound(db, view.cluster, around, server):
        fresh = tuple(name for name in names if name not in taken) if server.tls else ()
        rules = (*routes.tls, *routes.tcp) if server.tls else routes.tcp
        if not rules or (server.tls and not fresh):
            continue
        taken.update(fresh)
        yield TcpChain(
            stream_targets(rules[0], place),
            None,
            server_names(fresh),
            tls=certificate,
            origin=rules[0].origin,
            policies=view.policies,
        )
        if not server.tls:
            return
    own = host_of(server)
    if server.tls and own not in taken and len(around.all) > 1:
        yield TcpChain((WeightedTarget(UNRESOLVED, 1),), None, server_names((own,)), origin=server.origin)


def _streams(db: Database, view: OutboundView, item: Exposed) -> Iterator[TcpChain]:
    """TCP and TLS rules bound to the server's gateway: TLS rules where TLS passes through."""
    routes = gateway_routes(db, view.cluster, item.full_name)
    place = placer(db, view, item.server.port)
    for key in sorted(
        {key for keys in (*routes.exact.values(), *(keys for _, keys in routes.wildcards)) for key in keys}
    ):
        found = route_set(db, key)
        if found is None or not any(
            intersection(allowed, host)
            for host in found.hosts
            for allowed in _hosts_for(item.server, item.gateway.namespace, key.namespace)
        ):
            continue
        rules = found.tls if item.server.tls and not _terminates(item.server) else found.tcp
        for rule in rules:
            for match in rule.matches or (TcpMatch(),):
                if match.port not in (None, item.server.port) or not _names(match.gateways, item):
                    continue
                names = server_names(match.sni_hosts)
                yield TcpChain(stream_targets(rule, place), None, names, origin=rule.origin)


def _certificate(db: Database, view: GatewayView, server: Server) -> ServerCertificate | None:
    tls = server.tls
    if tls is None or not _terminates(server):
        return None
    if tls.mode is ServerTlsMode.ISTIO_MUTUAL:
        return ServerCertificate("mesh", "", tls.min_version, tls.max_version, tls.cipher_suites)
    if not tls.credential or not _has_certificate(db, view, tls):
        return None
    name = secret_name(view, tls)
    validation = f"{name}-cacert" if tls.mode is ServerTlsMode.MUTUAL else ""
    return ServerCertificate(
        name,
        validation,
        tls.min_version,
        tls.max_version,
        tls.cipher_suites,
        tls.subject_alt_names,
        tls.client_roots,
        tls.takes_anybody,
    )


def _split_hosts(server: Server, own: str) -> tuple[tuple[str, str], ...]:
    """(namespace whose routes may bind, host): `*/host` any, `./host` the Gateway's own, a bare host any."""
    pairs = []
    for entry in server.hosts:
        place, slash, host = entry.partition("/")
        if not slash:
            place, host = "*", entry
        pairs.append((own if place == "." else place, host))
    return tuple(pairs)


def _hosts_for(server: Server, own: str, namespace: str) -> tuple[str, ...]:
    return tuple(host for place, host in _split_hosts(server, own) if place in ("*", namespace))


def _may_bind(item: Exposed, key: ObjectKey) -> bool:
    return bool(_hosts_for(item.server, item.gateway.namespace, key.namespace))


def _names(named: tuple[str, ...], item: Exposed) -> bool:
    return not named or item.full_name in named


def _routes(db: Database, view: OutboundView, item: Exposed, found: RouteSet) -> Iterator[Route]:
    def accepts(match: HttpMatch) -> bool:
        return match.port in (None, item.server.port) and _names(match.gateways, item)

    yield from rules_to_routes(found.http, accepts, placer(db, view, item.server.port))


def _until_everything(routes: list[Route]) -> Iterator[Route]:
    """What takes every request goes last, so that it hides no other route set's routes (Istio); once is enough."""
    yield from (route for route in routes if route.match not in _EVERYTHING)
    yield from [route for route in routes if route.match in _EVERYTHING][:1]
