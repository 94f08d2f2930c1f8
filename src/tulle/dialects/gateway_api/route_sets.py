"""HTTPRoutes, GRPCRoutes, TLSRoutes and TCPRoutes to route sets of the intent, and what is wrong with their references.

One query per object. Which listeners and services a route is for, `attaching` says; Gateways begin in `gateways`.
"""

from msgspec import Struct

from tulle.dialects.gateway_api import schema_routes as written
from tulle.dialects.gateway_api.attaching import Attachment, attachments
from tulle.dialects.gateway_api.backends import resolved, target_of
from tulle.dialects.gateway_api.http_rules import Rule, grpc_rule, http_rule
from tulle.dialects.gateway_api.names import ANY_HOST, ROUTE_KINDS, host_of
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import by_kind, by_namespace, objects, settings
from tulle.dialects.istio.names import MESH
from tulle.dialects.kubernetes.services import service_host
from tulle.engine import Database, query
from tulle.model.intent import Forward, Parent, RouteSet, TcpMatch, TcpRule
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin

EVERYBODY = ("*",)


class Routed(Struct, frozen=True):
    """A route's rules, and what is wrong with them."""

    http: tuple[Rule, ...] = ()
    streams: tuple[TcpRule, ...] = ()
    unresolved: tuple[Verdict, ...] = ()
    refused: Verdict | None = None


@query
def routed(db: Database, key: ObjectKey) -> Routed:
    """The rules of a route, whoever its parents are."""
    found = objects(db, key)
    if found is None:
        return Routed()
    route: written.AnyRoute = found.spec
    origin = Origin(key, "spec")
    rules: list[Rule] = []
    streams: list[TcpRule] = []
    unresolved: list[Verdict] = []
    for index, rule in enumerate(route.rules):
        place = origin.at("rules", index)
        if isinstance(rule, written.StreamRule):
            streams.append(_stream(db, key, rule, place))
            unresolved += [one for ref in rule.backend_refs if (one := resolved(db, key, ref).missing) is not None]
        elif isinstance(rule, written.GrpcRule):
            rules.append(grpc_rule(db, key, rule, place))
        elif isinstance(rule, written.HttpRule):
            rules.append(http_rule(db, key, rule, place))
    unresolved += [one for rule in rules for one in rule.unresolved]
    refused = next((rule.refused for rule in rules if rule.refused), None)
    return Routed(tuple(rules), tuple(streams), tuple(unresolved), refused)


def _stream(db: Database, key: ObjectKey, rule: written.StreamRule, origin: Origin) -> TcpRule:
    targets = (
        target_of(db, key, ref, (), origin.at("backendRefs", index)) for index, ref in enumerate(rule.backend_refs)
    )
    return TcpRule((), tuple(one for one in targets if one.weight), origin)


@query
def called_by_grpc(db: Database, cluster: str) -> frozenset[tuple[str, int | None]]:
    """Hosts and ports that GRPCRoutes lead to. Fan-in of GRPCRoutes alone."""
    keys = (key for key in by_kind(db, (cluster, "GRPCRoute")) if key.group == GROUP)
    rules = (rule for key in keys if (found := route_set(db, key)) is not None for rule in found.http)
    actions = (rule.action for rule in rules)
    return frozenset(
        (target.host, target.port) for action in actions if isinstance(action, Forward) for target in action.targets
    )


@query
def route_sets_in(db: Database, cluster: str, namespace: str) -> tuple[RouteSet, ...]:
    """The route sets of a namespace, oldest first."""
    keys = (key for kind in ROUTE_KINDS for key in by_namespace(db, (cluster, kind, namespace)) if key.group == GROUP)
    found = [one for key in keys if (one := route_set(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.name, one.key.kind)))


@query
def route_set(db: Database, key: ObjectKey) -> RouteSet | None:
    """One route's meaning; None where there is none, or it has no parent that is ours."""
    found = objects(db, key)
    reached = [one for one in attachments(db, key) if one.refused is None]
    if found is None or not reached:
        return None
    route: written.AnyRoute = found.spec
    rules = routed(db, key)
    parents = tuple(_parent(db, one) for one in reached if one.service is not None)
    bindings = tuple(dict.fromkeys(binding for one in reached for binding in one.bindings))
    is_tls = isinstance(route, written.TLSRoute)
    streams = tuple(_for_ports(rule, parents) for rule in rules.streams)
    return RouteSet(
        key=key,
        hosts=tuple(dict.fromkeys(host_of(name) for name in getattr(route, "hostnames", ()))) or (ANY_HOST,),
        gateways=(*bindings, *([MESH] if parents else ())),
        exported_to=EVERYBODY,
        http=tuple(one.rule for one in rules.http),
        tls=streams if is_tls else (),
        tcp=() if is_tls else streams,
        origin=Origin(key),
        created=found.created,
        by_precedence=True,
        parents=parents,
    )


def _parent(db: Database, one: Attachment) -> Parent:
    namespace, name = one.service or ("", "")
    return Parent(service_host(namespace, name, settings(db).cluster_domain), namespace, one.ref.port)


def _for_ports(rule: TcpRule, parents: tuple[Parent, ...]) -> TcpRule:
    """Towards services the parent's port is a condition; at listeners there is none."""
    if not parents:
        return rule
    return TcpRule(tuple(TcpMatch(port=one.port, gateways=(MESH,)) for one in parents), rule.targets, rule.origin)
