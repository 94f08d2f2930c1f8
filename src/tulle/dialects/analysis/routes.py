"""What a VirtualService or DestinationRule names that is not there, and who else is for the same host."""

from collections.abc import Iterable, Iterator

from tulle.dialects.analysis.visible import destinations_seen, route_sets_naming, service_seen, wider
from tulle.dialects.istio.destination_rule import destination
from tulle.dialects.istio.gateway import gateway, gateways
from tulle.dialects.istio.names import MESH
from tulle.dialects.istio.virtual_service import route_set
from tulle.engine import Database, query
from tulle.model.intent import Destination, Forward, Gateway, RouteSet, Service, Target
from tulle.model.keys import ObjectKey, covers
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem
from tulle.policies.mirror.spec import Mirror

GROUP = "networking.istio.io"


@query
def route_set_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """Unknown targets, subsets, ports and gateways; hosts nobody asks for; other routes of the same host."""
    routes = route_set(db, key)
    if routes is None:
        return ()
    return (
        *_gateway_names(db, routes),
        *_mesh_hosts(db, routes),
        *_overlaps(db, routes),
        *(found for target, place in _targets(routes) for found in _target(db, routes, target, place)),
    )


@query
def destination_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """An unknown host, or another rule for the same one."""
    rule = destination(db, key)
    return () if rule is None else tuple(_destination(db, rule))


def gateway_key(cluster: str, name: str) -> ObjectKey:
    """The object of a gateway named `namespace/name`."""
    place, _, bare = name.partition("/")
    return ObjectKey(cluster, GROUP, "Gateway", place, bare)


def _gateway_names(db: Database, routes: RouteSet) -> Iterator[Problem]:
    place = Origin(routes.key, "spec.gateways")
    for index, name in enumerate(routes.gateways):
        if name == MESH:
            continue
        found = gateway(db, gateway_key(routes.key.cluster, name))
        if found is None:
            yield problem("TUL0463", place.at(index), gateway=name)
            continue
        for position, host in enumerate(routes.hosts):
            if not serves(found, host, routes.key.namespace):
                yield problem("TUL0470", Origin(routes.key, f"spec.hosts[{position}]"), host=host, gateway=name)


def serves(found: Gateway, host: str, namespace: str) -> bool:
    """Whether a server of the gateway is for a host (or part of it) as routed by a namespace."""
    for server in found.servers:
        for one in server.hosts:
            place, _, pattern = one.partition("/")
            if place in ("*", namespace) and (covers(pattern, host) or covers(host, pattern)):
                return True
    return False


def _mesh_hosts(db: Database, routes: RouteSet) -> Iterator[Problem]:
    """Hosts that no sidecar asks for; with no gateway named, the one they enter through was probably forgotten."""
    if MESH not in routes.gateways:
        return
    is_mesh_only = routes.gateways == (MESH,)
    for index, host in enumerate(routes.hosts):
        if host.startswith("*") or service_seen(db, routes.key.cluster, host, routes.key.namespace) is not None:
            continue
        place = Origin(routes.key, f"spec.hosts[{index}]")
        entered = _entering(db, routes, host) if is_mesh_only else None
        if entered is not None:
            name = entered.name if entered.namespace == routes.key.namespace else f"{entered.namespace}/{entered.name}"
            yield problem("TUL0464", place, host=host, gateway=name)
        elif is_mesh_only:
            yield problem("TUL0471", place, host=host)


def _entering(db: Database, routes: RouteSet, host: str) -> ObjectKey | None:
    """A gateway that is for the host; one that names it comes before one for everything."""
    found = [one for one in gateways(db, routes.key.cluster) if serves(one, host, routes.key.namespace)]
    named = [one for one in found if any(name.endswith(f"/{host}") for server in one.servers for name in server.hosts)]
    return next((one.key for one in (*named, *found)), None)


def _overlaps(db: Database, routes: RouteSet) -> Iterator[Problem]:
    for index, host in enumerate(routes.hosts):
        for other in route_sets_naming(db, routes.key.cluster, host):
            shared = next((name for name in routes.gateways if name in other.gateways), None)
            if other.key == routes.key or shared is None or _rank(other) > _rank(routes):
                continue
            if shared == MESH and not _meets(routes, other):
                continue
            place = Origin(routes.key, f"spec.hosts[{index}]")
            yield problem("TUL0465", place, other=other.key, host=host, gateway=shared)


def _meets(one: RouteSet | Destination, other: RouteSet | Destination) -> bool:
    """Whether some namespace sees both."""
    seen, others = set(one.exported_to), set(other.exported_to)
    return ("*" in seen and bool(others)) or ("*" in others and bool(seen)) or bool(seen & others)


def _rank(one: RouteSet | Destination) -> tuple[str, str, str]:
    return one.created, one.key.namespace, one.key.name


def _targets(routes: RouteSet) -> Iterator[tuple[Target, Origin]]:
    for rule in routes.http:
        if isinstance(rule.action, Forward):
            yield from ((target, target.origin.at("destination")) for target in rule.action.targets)
        for policy in rule.policies:
            if isinstance(policy, Mirror):
                is_plain = policy.origin.path.endswith(".mirror")
                yield policy.target, policy.origin if is_plain else policy.origin.at("destination")
    for connection_rule in (*routes.tls, *routes.tcp):
        yield from ((target, target.origin.at("destination")) for target in connection_rule.targets)


def _target(db: Database, routes: RouteSet, target: Target, place: Origin) -> Iterator[Problem]:
    cluster, namespace = routes.key.cluster, routes.key.namespace
    found = service_seen(db, cluster, target.host, namespace)
    if found is None:
        yield problem("TUL0461", place.at("host"), host=target.host)
        return
    yield from _port(found, target, place)
    if target.subset and not any(
        subset.name == target.subset
        for rule in _rules_for(db, cluster, target.host, namespace)
        for subset in rule.subsets
    ):
        yield problem("TUL0462", place.at("subset"), subset=target.subset, host=target.host)


def _rules_for(db: Database, cluster: str, host: str, namespace: str) -> Iterable[Destination]:
    for name in wider(host):
        yield from destinations_seen(db, cluster, name, namespace)


def _port(found: Service, target: Target, place: Origin) -> Iterator[Problem]:
    ports = ", ".join(str(port.number) for port in found.ports)
    if target.port is not None and found.ports and all(port.number != target.port for port in found.ports):
        yield problem("TUL0468", place.at("port", "number"), host=target.host, port=target.port, ports=ports)
    if target.port is None and len(found.ports) > 1:
        yield problem("TUL0469", place, host=target.host, ports=ports)


def _destination(db: Database, rule: Destination) -> Iterator[Problem]:
    place = Origin(rule.key, "spec.host")
    if not rule.host.startswith("*") and service_seen(db, rule.key.cluster, rule.host, rule.key.namespace) is None:
        yield problem("TUL0466", place, host=rule.host)
    for other in destinations_seen(db, rule.key.cluster, rule.host, rule.key.namespace):
        is_rival = (
            other.key != rule.key and other.key.namespace == rule.key.namespace and other.selector == rule.selector
        )
        if is_rival and _rank(other) < _rank(rule) and _meets(rule, other):
            yield problem("TUL0467", place, other=other.key, host=rule.host)
