"""Virtual hosts of servers that routes bind to by name (listeners of the Gateway API), in the tables that gateways have.

A request is for the server with the most specific hostname that covers its host, and for no other on that port. Servers that
routes reach by their gateway's name are the neighbour's (`gateways`), as are the tables themselves.
"""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from tulle.compile.precedence import ordered
from tulle.compile.scope import gateway_routes
from tulle.dialects.routing import route_set
from tulle.engine import Database
from tulle.model.intent import HttpMatch, PortProtocol, Respond, RouteSet, Server, Target
from tulle.model.keys import ObjectKey, covers
from tulle.model.origin import Origin
from tulle.model.plan import Route

_MISDIRECTED = 421
"""RFC 9110: the connection's certificate is not for this host; the client is to open another."""


class Around(Struct, frozen=True):
    """The servers of a table, and all that share its port: what belongs to another is not answered here."""

    own: tuple[Server, ...]
    all: tuple[Server, ...]


def host_of(server: Server) -> str:
    """The hostname of a server that routes bind to: it has one, `*` for any."""
    return server.hosts[0].partition("/")[2]


def intersection(allowed: str, host: str) -> str:
    """The narrower of two hosts where one covers the other; empty where neither does."""
    if covers(allowed, host):
        return host
    return allowed if covers(host, allowed) else ""


def hosts_bound(db: Database, cluster: str, around: Around) -> Iterator[str]:
    """Hosts a table answers for: its servers' own, those of their routes, and those of others that it must turn away."""
    yield from (host_of(server) for server in around.all)
    for server in around.own:
        routes = gateway_routes(db, cluster, server.binding)
        for host in (*routes.exact, *(wildcard for wildcard, _ in routes.wildcards)):
            if narrow := intersection(host_of(server), host):
                yield narrow


def routes_bound(
    db: Database, cluster: str, around: Around, host: str, place: Callable[[Target], str]
) -> tuple[tuple[Route, ...], tuple[Origin, ...]]:
    """Routes of one host, by precedence, and the objects they are of. Nobody's: none, so that the answer is 404."""
    covering = [server for server in around.all if covers(host_of(server), host)]
    if not covering:
        return (), ()
    best = min((host_of(server) for server in covering), key=_specific)
    chosen = [server for server in around.own if host_of(server) == best]
    if not chosen:
        other = next(server for server in covering if host_of(server) == best)
        turned_away = Route("misdirected", HttpMatch(), Respond(_MISDIRECTED, ""), None, (), other.origin)
        return (turned_away,), (other.origin,)
    found: dict[ObjectKey, tuple[RouteSet, str]] = {}
    for server in chosen:
        for name, key in _keys(db, cluster, server, host):
            routes = route_set(db, key)
            if routes is not None and routes.http:
                found.setdefault(key, (routes, name))
    scheme = "https" if chosen[0].protocol is PortProtocol.HTTPS else "http"
    made = ordered(found.values(), place, chosen[0].port, scheme)
    return made, tuple(routes.origin for routes, _ in found.values()) or (chosen[0].origin,)


def names_bound(
    db: Database, cluster: str, around: Around, server: Server
) -> Iterator[tuple[RouteSet, tuple[str, ...]]]:
    """Route sets of connections bound to a server, oldest first, with the names (SNI) that are theirs."""
    others = [host_of(one) for one in around.all if one.binding != server.binding]
    own = host_of(server)
    routes = gateway_routes(db, cluster, server.binding)
    keys = {key for held in (*routes.exact.values(), *(held for _, held in routes.wildcards)) for key in held}
    found = [one for key in keys if (one := route_set(db, key)) is not None]
    for one in sorted(found, key=lambda one: (one.created, one.key)):
        met = dict.fromkeys(name for host in one.hosts if (name := intersection(own, host)))
        names = tuple(name for name in met if not any(covers(other, name) and covers(own, other) for other in others))
        if names:
            yield one, names


def _keys(db: Database, cluster: str, server: Server, host: str) -> Iterable[tuple[str, ObjectKey]]:
    """Route sets that claim a host, by the most specific of their names first."""
    routes = gateway_routes(db, cluster, server.binding)
    for key in routes.exact.get(host, ()):
        yield host, key
    for wildcard, keys in routes.wildcards:
        if covers(wildcard, host):
            for key in keys:
                yield wildcard, key


def _specific(host: str) -> tuple[bool, int]:
    return host.startswith("*"), -len(host)
