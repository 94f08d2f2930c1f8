"""VirtualServices to route sets. One query per object, so that an edit translates one VirtualService.

Knows no DestinationRule and no service: what the routes name is resolved by the compiler, and judged by `analysis`.
"""

import base64
from collections.abc import Mapping

from tulle.dialects.inputs import by_namespace, objects, settings
from tulle.dialects.istio import schema_virtual_service as written
from tulle.dialects.istio.http_policies import header_policies, route_policies
from tulle.dialects.istio.names import MESH, full_host, gateway_names, visible_in
from tulle.dialects.istio.schema_wire import StringMatch as WrittenMatch
from tulle.dialects.istio.targets import Scope, target_of
from tulle.engine import Database, query
from tulle.model.intent import (
    Forward,
    HttpMatch,
    HttpRule,
    MatchKind,
    Redirect,
    Respond,
    Rewrite,
    RouteSet,
    StringMatch,
    Target,
    TcpMatch,
    TcpRule,
)
from tulle.model.keys import ObjectKey, labels_of
from tulle.model.origin import Origin

KIND = "VirtualService"
GROUP = "networking.istio.io"
REQUEST_PORT = 0
"""`Redirect.port`: the port the request came to (derivePort FROM_REQUEST_PORT)."""
_PREFIX_MARK = "%PREFIX()%"


@query
def route_sets_in(db: Database, cluster: str, namespace: str) -> tuple[RouteSet, ...]:
    """The route sets of a namespace, oldest first (by creation, then name), as Istio lets the oldest win."""
    keys = by_namespace(db, (cluster, KIND, namespace))
    found = [one for key in keys if key.group == GROUP and (one := route_set(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.name)))


@query
def route_set(db: Database, key: ObjectKey) -> RouteSet | None:
    """One VirtualService's meaning; None where there is no such object."""
    found = objects(db, key)
    if found is None:
        return None
    spec: written.VirtualService = found.spec
    origin = Origin(key, "spec")
    scope = Scope(key.namespace, settings(db).cluster_domain)
    return RouteSet(
        key=key,
        hosts=tuple(dict.fromkeys(full_host(host, scope.namespace, scope.domain) for host in spec.hosts)),
        gateways=gateway_names(spec.gateways, key.namespace) or (MESH,),
        exported_to=visible_in(spec.export_to, key.namespace),
        http=tuple(
            rule
            for index, route in enumerate(spec.http)
            if (rule := _http_rule(route, scope, origin.at("http", index))) is not None
        ),
        tls=tuple(_tls_rule(route, scope, origin.at("tls", index)) for index, route in enumerate(spec.tls)),
        tcp=tuple(_tcp_rule(route, scope, origin.at("tcp", index)) for index, route in enumerate(spec.tcp)),
        origin=Origin(key),
        created=found.created,
    )


def _http_rule(route: written.HttpRoute, scope: Scope, origin: Origin) -> HttpRule | None:
    """None for a rule that only delegates: Istio leaves out a root rule whose delegate it does not find."""
    action = _action(route, scope, origin)
    if action is None:
        return None
    return HttpRule(
        name=route.name,
        matches=tuple(_http_match(match, scope) for match in route.match),
        action=action,
        rewrite=_rewrite(route.rewrite),
        policies=route_policies(route, scope, origin),
        origin=origin,
    )


def _action(route: written.HttpRoute, scope: Scope, origin: Origin) -> Forward | Redirect | Respond | None:
    if route.redirect is not None:
        return _redirect(route.redirect)
    if route.direct_response is not None:
        body = route.direct_response.body
        return Respond(
            route.direct_response.status, "" if body is None else body.string or _from_base64(body.bytes or "")
        )
    if not route.route:
        return None
    return Forward(tuple(_http_target(one, scope, origin.at("route", index)) for index, one in enumerate(route.route)))


def _http_target(one: written.HttpDestination, scope: Scope, origin: Origin) -> Target:
    return target_of(one.destination, one.weight, scope, origin, header_policies(one.headers, origin.at("headers")))


def _from_base64(text: str) -> str:
    return base64.b64decode(text).decode("utf-8", "replace")


def _redirect(redirect: written.HttpRedirect) -> Redirect:
    is_prefix = redirect.uri.startswith(_PREFIX_MARK)
    port = redirect.port
    if redirect.derive_port == "FROM_REQUEST_PORT":
        port = REQUEST_PORT
    elif redirect.derive_port == "FROM_PROTOCOL_DEFAULT":
        port = {"http": 80, "https": 443}.get(redirect.scheme)
    return Redirect(
        path=redirect.uri.removeprefix(_PREFIX_MARK),
        prefix_path=is_prefix,
        authority=redirect.authority,
        scheme=redirect.scheme,
        port=port,
        code=redirect.redirect_code or 301,
    )


def _rewrite(rewrite: written.HttpRewrite | None) -> Rewrite | None:
    if rewrite is None:
        return None
    regex = rewrite.uri_regex_rewrite
    return Rewrite(
        path=rewrite.uri,
        authority=rewrite.authority,
        regex=regex.match if regex else "",
        regex_to=regex.rewrite if regex else "",
    )


def string_match(match: WrittenMatch | None, *, ignore_case: bool = False) -> StringMatch | None:
    """A comparison; None where nothing was asked."""
    if match is None:
        return None
    for kind, value in (
        (MatchKind.EXACT, match.exact),
        (MatchKind.PREFIX, match.prefix),
        (MatchKind.REGEX, match.regex),
    ):
        if value is not None:
            return StringMatch(kind, value, ignore_case)
    return None


def _named(matches: Mapping[str, WrittenMatch]) -> tuple[tuple[str, StringMatch], ...]:
    return tuple(
        (name, string_match(match) or StringMatch(MatchKind.PRESENT)) for name, match in sorted(matches.items())
    )


def _http_match(match: written.HttpMatch, scope: Scope) -> HttpMatch:
    return HttpMatch(
        path=string_match(match.uri, ignore_case=match.ignore_uri_case),
        method=string_match(match.method),
        scheme=string_match(match.scheme),
        authority=string_match(match.authority),
        headers=tuple((name.lower(), one) for name, one in _named(match.headers)),
        without_headers=tuple((name.lower(), one) for name, one in _named(match.without_headers)),
        query=_named(match.query_params),
        port=match.port,
        source_labels=labels_of(match.source_labels),
        source_namespace=match.source_namespace,
        gateways=gateway_names(match.gateways, scope.namespace),
        name=match.name,
    )


def _tls_rule(route: written.TlsRoute, scope: Scope, origin: Origin) -> TcpRule:
    matches = tuple(
        TcpMatch(
            port=match.port,
            sni_hosts=tuple(host.lower() for host in match.sni_hosts),
            destination_cidrs=match.destination_subnets,
            source_labels=labels_of(match.source_labels),
            source_namespace=match.source_namespace,
            gateways=gateway_names(match.gateways, scope.namespace),
        )
        for match in route.match
    )
    return TcpRule(matches, _tcp_targets(route.route, scope, origin), origin)


def _tcp_rule(route: written.TcpRoute, scope: Scope, origin: Origin) -> TcpRule:
    matches = tuple(
        TcpMatch(
            port=match.port,
            destination_cidrs=match.destination_subnets,
            source_labels=labels_of(match.source_labels),
            source_namespace=match.source_namespace,
            gateways=gateway_names(match.gateways, scope.namespace),
        )
        for match in route.match
    )
    return TcpRule(matches, _tcp_targets(route.route, scope, origin), origin)


def _tcp_targets(targets: tuple[written.TcpDestination, ...], scope: Scope, origin: Origin) -> tuple[Target, ...]:
    return tuple(
        target_of(one.destination, one.weight, scope, origin.at("route", index)) for index, one in enumerate(targets)
    )
