"""Why a resource is what it is: the piece of plan behind it and the objects and fields it comes from.

Nothing is recorded while compiling: pieces are memoised queries, so asking for them again is cheap. Serving uses this for
refusals (NACKs), the command line for `explain` and `proxy config`.
"""

from typing import Any

from msgspec import Struct

from tulle.compile import gateways, outbound, routes
from tulle.compile.destinations import clusters_of, destinations_for, presenting
from tulle.compile.envoy.on_demand import AGAIN
from tulle.compile.keyed import STREAMS, TABLE, parse
from tulle.compile.ondemand import asked_cluster, asked_host, asked_table
from tulle.compile.scope import service_table
from tulle.compile.snapshot import WAITING
from tulle.compile.views import OutboundView, View
from tulle.engine import Database, query
from tulle.model.keys import ServiceKey
from tulle.model.origin import Origin
from tulle.model.plan import BLACK_HOLE, PASSTHROUGH, Cluster, HttpChain, Inbound, Listener, RouteTable, VirtualHost
from tulle.xds.names import TypeUrl, parse_cluster

Piece = Cluster | Listener | RouteTable | VirtualHost | Inbound

_FIXED = {
    "virtualOutbound": "captures everything the workload opens; destinations nobody declares pass through here",
    PASSTHROUGH: "where destinations that nobody declares go: to the address the client chose",
    BLACK_HOLE: "has no endpoints: where REGISTRY_ONLY and calls of the capture ports end",
    AGAIN: "where a first request goes on, when the virtual host of its address and port is there",
    TABLE: "answers for addresses and ports; their virtual hosts are asked for when they are needed",
    "InboundPassthroughCluster": "ports of the workload that no Service names",
}


_DOOR = "what first requests to this address and port waited for; it leads back into this proxy"


class Explanation(Struct, frozen=True):
    """A resource, the plan behind it, and where that comes from."""

    type_url: str
    name: str
    plan: Piece | None
    origins: tuple[Origin, ...]
    note: str = ""
    """For resources that no object asked for: why they are there."""


@query
def explain(db: Database, view: View, type_url: TypeUrl, name: str) -> Explanation:
    """The plan and the origins of one resource of a view. Unknown names explain to no plan and no origin."""
    plan: Piece | None = None
    match type_url:
        case TypeUrl.CDS | TypeUrl.EDS:
            plan = _cluster(db, view, name)
        case TypeUrl.LDS:
            plan = _listener(db, view, name)
        case TypeUrl.RDS:
            plan = _table(db, view, name)
        case TypeUrl.VHDS:
            plan = _host(db, view, name)
        case TypeUrl.SDS:
            pass  # secrets come from identity and from Secret objects, not from a plan
    origins = _origins(plan)
    if not origins and isinstance(plan, RouteTable | Listener):
        origins = _behind_table(db, view, plan)
    note = _DOOR if type_url is TypeUrl.CDS and name.startswith(f"{TABLE}/") else _FIXED.get(name, "")
    return Explanation(type_url.value, name, plan, origins, note)


def origins_of(db: Database, view: View, type_url: TypeUrl, name: str) -> tuple[Origin, ...]:
    """The objects and fields behind a resource, nearest first."""
    return explain(db, view, type_url, name).origins


def _origins(plan: Any) -> tuple[Origin, ...]:
    """Routes and ports first, as they are nearer than the objects around them; policies add the field that asked."""
    found: dict[Origin, None] = {}
    if isinstance(plan, VirtualHost):
        for item in plan.routes:
            if item.origin:
                found[item.origin] = None
            found.update(dict.fromkeys(policy.origin for policy in item.policies))
    if isinstance(plan, Cluster):
        found.update(dict.fromkeys(policy.origin for policy in plan.policies))
    if isinstance(plan, Inbound):
        for port in plan.ports:
            found.update(dict.fromkeys(port.origins))
    if isinstance(plan, Cluster | Listener | VirtualHost | Inbound):
        found.update(dict.fromkeys(plan.origins))
    return tuple(found)


def _behind_table(db: Database, view: View, plan: RouteTable | Listener) -> tuple[Origin, ...]:
    """What a shared table, and the listener before it, are there for: the hosts they answer for."""
    names = [plan.name]
    if isinstance(plan, Listener):
        names = [chain.table for chain in plan.chains if isinstance(chain, HttpChain)]
    found: dict[Origin, None] = {}
    for name in names:
        table = _table(db, view, name)
        for host in table.hosts if isinstance(table, RouteTable) else ():
            behind = _host(db, view, f"{name}/{host}")
            found.update(dict.fromkeys(behind.origins if behind else ()))
    return tuple(found)


def _cluster(db: Database, view: View, name: str) -> Cluster | Inbound | None:
    if name.startswith(STREAMS) and parse(name):
        return asked_cluster(db, view.outbound, name)
    parts = parse_cluster(name)
    if parts is None and name.startswith("inbound|"):
        return view.inbound
    if parts is None:
        return view.inbound if name.startswith("InboundPassthrough") else None
    if parts.direction == "inbound":
        return view.inbound
    key = _service(db, view.outbound, parts.host)
    if key is None:
        return None
    destinations = destinations_for(db, view.outbound, key)
    found = clusters_of(db, key, destinations, view.outbound.is_gateway)
    return next((presenting(item, view.outbound.client_certificate) for item in found if item.name == name), None)


def _listener(db: Database, view: View, name: str) -> Listener | Inbound | None:
    if name == "virtualInbound":
        return view.inbound
    address, _, port = name.rpartition("_")
    if not port.isdecimal():
        return None
    if view.gateway:
        return gateways.gateway_listener(db, view.gateway, view.outbound, int(port))
    if address == outbound.ANY_ADDRESS:
        return outbound.shared_listener(db, view.outbound, int(port))
    key = outbound.first_at(db, view.outbound, address, int(port))
    found = outbound.service_listeners(db, view.outbound, key) if key else ()
    return next((item for item in found if item.name == name), None)


def _table(db: Database, view: View, name: str) -> RouteTable | Inbound | None:
    if name.startswith("inbound|"):
        return view.inbound
    if view.gateway:
        return gateways.gateway_table(db, view.gateway, name)
    if name == TABLE:
        return asked_table(db)
    if name.isdecimal():
        return routes.route_table(db, view.outbound, int(name))
    host, _, port = name.rpartition(":")
    return outbound.sniffed_table(host, int(port)) if host and port.isdecimal() else None


def _host(db: Database, view: View, name: str) -> VirtualHost | None:
    table, _, host = name.partition("/")
    if host == WAITING:
        return None
    if view.gateway:
        return gateways.gateway_host(db, view.gateway, view.outbound, table, host)
    if table == TABLE:
        return asked_host(db, view.outbound, name) if parse(name) else None
    sniffed, _, port = table.rpartition(":")
    if sniffed:
        return routes.sniffed_host(db, view.outbound, int(port), host)
    return routes.virtual_host(db, view.outbound, int(table), host) if table.isdecimal() else None


def _service(db: Database, view: OutboundView, host: str) -> ServiceKey | None:
    return service_table(db, view.cluster, view.namespace).hosts.get(host)
