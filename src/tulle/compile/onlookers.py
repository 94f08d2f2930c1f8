"""Whose eyes another namespace's services are seen with: an ordinary client's view of them is everybody's, and made once.

A namespace is ordinary when nothing in it or about it changes how it sees others: it keeps nothing to itself, claims nobody
else's hosts, and no rule names it. Knows no resources; `snapshot` asks for each namespace of services.
"""

from msgspec import structs

from tulle.compile.routes import aliased_in, contested_names, names_of
from tulle.compile.scope import (
    MESH,
    NOBODY,
    destination_claims_in,
    route_claims_in,
    service_ports_in,
    service_table,
    source_namespaces,
)
from tulle.compile.views import OutboundView
from tulle.dialects.kubernetes import namespaces
from tulle.engine import Database, gate, query

_EVERYBODY = ("*",)


def onlooker(db: Database, view: OutboundView, place: str) -> OutboundView:
    """The view that the services of `place` are made for, with the same bytes as for `view` itself."""
    if place != view.namespace and is_ordinary(db, view):
        return structs.replace(view, namespace=NOBODY)
    return view


@query
def is_ordinary(db: Database, view: OutboundView) -> bool:
    """Whether a client in the view's namespace sees the services of others as anybody does."""
    own, cluster = view.namespace, view.cluster
    if own in named_namespaces(db, cluster) or not _keeps_to_itself(db, cluster, own):
        return False
    mine, all_others = service_table(db, cluster, own), service_table(db, cluster, NOBODY)
    if mine.hosts != all_others.hosts:
        return False
    aliased = [key for place in mine.places if place != own for key in aliased_in(db, cluster, place)]
    if any(names_of(db, key, own) != names_of(db, key, NOBODY) for key in aliased):
        return False
    anybody = structs.replace(view, namespace=NOBODY)
    return all(contested_names(db, view, port) == contested_names(db, anybody, port) for port in mine.ports)


@query
def named_namespaces(db: Database, cluster: str) -> frozenset[str]:
    """Namespaces that something of another namespace is for: by exportTo, or by a rule's source."""
    return frozenset(name for place in namespaces(db, cluster) for name in _named_in(db, cluster, place))


@gate
def _named_in(db: Database, cluster: str, place: str) -> frozenset[str]:
    exports = {name for item in service_ports_in(db, cluster, place) for name in item.exported_to}
    routes = route_claims_in(db, cluster, place)
    for claim in (*routes, *destination_claims_in(db, cluster, place)):
        exports.update(claim.exported_to)
    sources = {name for claim in routes for name in source_namespaces(db, claim.key)}
    return frozenset((exports - {"*", place}) | sources)


@query
def _keeps_to_itself(db: Database, cluster: str, own: str) -> bool:
    """Whether all it has is for everybody, and none of it is about services of others."""
    services = service_ports_in(db, cluster, own)
    routes = [claim for claim in route_claims_in(db, cluster, own) if MESH in claim.gateways]
    claims = (*routes, *destination_claims_in(db, cluster, own))
    exports = [item.exported_to for item in services] + [claim.exported_to for claim in claims]
    if any(words != _EVERYBODY for words in exports):
        return False
    # a wildcard of its own may be about services of others
    hosts = {item.key.host for item in services if not item.key.host.startswith("*")}
    return all(host in hosts for claim in claims for host in claim.hosts)
