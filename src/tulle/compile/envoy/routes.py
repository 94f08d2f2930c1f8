"""Route configurations and virtual hosts. Virtual hosts are resources of their own (docs/facts/envoy.md §1)."""

import re
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from tulle.compile.envoy import on_demand
from tulle.compile.envoy.filters import enforced
from tulle.compile.envoy.observing import DENIED_HEADER, PEER_HEADER
from tulle.compile.envoy.values import ADS
from tulle.model.intent import SAFE_METHODS, HttpMatch, MatchKind, Redirect, Respond, Rewrite, StringMatch
from tulle.model.objects import MeshSettings
from tulle.model.plan import UNRESOLVED, Route, RouteTable, Send, VirtualHost, WeightedTarget
from tulle.policies import KINDS
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.xds import api
from tulle.xds.schema import to_any

_MAX_BODY = 1 << 20
"""Bytes of a direct response, as Istio allows; Envoy alone takes 4096."""
_MISSING_CODES = {503: "SERVICE_UNAVAILABLE", 404: "NOT_FOUND", 500: "INTERNAL_SERVER_ERROR"}
_REDIRECT_CODES = {301: 0, 302: 1, 303: 2, 307: 3, 308: 4}


def table(plan: RouteTable, settings: MeshSettings) -> "api.RouteConfiguration":
    """The route configuration of a port: its catch-all only; everything else comes as virtual hosts."""
    return api.RouteConfiguration(
        name=plan.name,
        virtual_hosts=_inline_hosts(plan, settings),
        vhds=api.Vhds(config_source=ADS),
        request_headers_to_remove=[PEER_HEADER],
        response_headers_to_remove=[DENIED_HEADER] if plan.answers_outside else [],
        ignore_port_in_host_matching=not plan.is_by_address,
        vhost_header=on_demand.DESTINATION_HEADER if plan.is_by_address else None,
        validate_clusters=api.BoolValue(value=False),
        max_direct_response_body_size_bytes=api.UInt32Value(value=_MAX_BODY),
    )


def _inline_hosts(plan: RouteTable, settings: MeshSettings) -> list["api.VirtualHost"]:
    if plan.is_by_address:
        return [on_demand.asking_host()]
    return [virtual_host(plan.catch_all, settings, _no_targets)] if plan.catch_all else []


def inline_table(plan: RouteTable, hosts: list["api.VirtualHost"], settings: MeshSettings) -> "api.RouteConfiguration":
    """The same with its virtual hosts inside, for clients without VHDS (state of the world)."""
    made = table(plan, settings)
    made.ClearField("vhds")
    made.virtual_hosts.extend(hosts)
    return made


def virtual_host(plan: VirtualHost, settings: MeshSettings, cluster_of: ClusterOf, name: str = "") -> "api.VirtualHost":
    """One virtual host; `name` is its resource name where it travels alone."""
    return api.VirtualHost(
        name=name or plan.name,
        domains=list(plan.domains),
        routes=[made for item in plan.routes for made in routes(item, settings, cluster_of)],
        require_tls="ALL" if plan.require_tls else "NONE",
        include_request_attempt_count=False,
        typed_per_filter_config=enforced(plan.policies),
    )


def waiting_host(table_name: str, name: str) -> "api.VirtualHost":
    """A virtual host nobody can ask for: it ends the warming of a table without others (docs/facts/envoy.md §1)."""
    return api.VirtualHost(name=name, domains=[f"_.{table_name.replace(':', '.').replace('|', '.')}.invalid"])


def routes(plan: Route, settings: MeshSettings, cluster_of: ClusterOf) -> list["api.Route"]:
    """One route with its policies; where these ask for it, in front of it another one for methods that are not safe."""
    fragments = _fragments(plan, settings, cluster_of)
    made = _route(plan, fragments)
    safer = {name: value for fragment in fragments for name, value in fragment.safe_action.items()}
    if not (safer and made.HasField("route")):
        return [made]
    safe = api.Route()
    safe.CopyFrom(made)
    for name, value in safer.items():
        getattr(safe.route, name).CopyFrom(value)
    method = plan.match.method
    if method is not None and method.kind is MatchKind.EXACT:
        return [safe if method.value in SAFE_METHODS else made]
    exact = (StringMatch(MatchKind.EXACT, method) for method in SAFE_METHODS)
    made.match.headers.extend(_header(":method", one, invert=True) for one in exact)
    return [made, safe]


def _route(plan: Route, fragments: list[RouteFragment]) -> "api.Route":
    fields: dict[str, Any] = {"name": plan.name, "match": _match(plan.match)}
    filters: dict[str, Message] = {}
    for fragment in fragments:
        for name, value in fragment.route.items():
            fields[name] = [*fields.get(name, ()), *value] if isinstance(value, list) else value
        filters.update(fragment.filters)
    match plan.action:
        case Send():
            fields["route"] = _forward(plan, plan.action, fragments)
        case Redirect():
            fields["redirect"] = _redirect(plan.match, plan.action)
        case Respond():
            body = api.DataSource(inline_string=plan.action.body) if plan.action.body else None
            fields["direct_response"] = api.DirectResponseAction(status=plan.action.status, body=body)
    if filters:
        fields["typed_per_filter_config"] = {name: to_any(filters[name]) for name in sorted(filters)}
    return api.Route(**fields)


def _fragments(plan: Route, settings: MeshSettings, cluster_of: ClusterOf) -> list[RouteFragment]:
    made = []
    for kind in KINDS:
        if kind.on_route is None:
            continue
        specs = [policy for policy in plan.policies if isinstance(policy, kind.spec)]
        is_declared = plan.origin is not None  # what nobody declared passes as it is
        if not specs and kind.default is not None and isinstance(plan.action, Send) and is_declared:
            standard = kind.default(settings)
            specs = [standard] if standard is not None else []
        made += [kind.on_route(spec, cluster_of) for spec in specs]
    return made


def _forward(plan: Route, send: Send, fragments: list[RouteFragment]) -> "api.RouteAction":
    action: dict[str, Any] = {"timeout": timedelta(0)}  # Istio: no bound unless a route says so (Envoy: 15 s)
    for fragment in fragments:
        for name, value in fragment.action.items():
            action[name] = [*action.get(name, ()), *value] if isinstance(value, list) else value
    if len(send.targets) == 1 and not send.targets[0].policies:
        action["cluster"] = send.targets[0].cluster
    else:
        action["weighted_clusters"] = api.WeightedCluster(clusters=[_weighted(target) for target in send.targets])
    if any(target.cluster == UNRESOLVED for target in send.targets):
        action["cluster_not_found_response_code"] = _MISSING_CODES[send.missing]
    if plan.rewrite:
        action.update(_rewrite(plan.match, plan.rewrite))
    return api.RouteAction(**action)


def _weighted(target: WeightedTarget) -> "api.WeightedCluster.ClusterWeight":
    fields: dict[str, Any] = {}
    for kind in KINDS:
        for policy in target.policies:
            if kind.on_target and isinstance(policy, kind.spec):
                fields.update(kind.on_target(policy))
    return api.WeightedCluster.ClusterWeight(name=target.cluster, weight=api.UInt32Value(value=target.weight), **fields)


def _match(match: HttpMatch) -> "api.RouteMatch":
    fields: dict[str, Any] = _path(match.path)
    headers = [
        _header(name, value)
        for name, value in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme))
        if value
    ]
    headers += [_header(name, value) for name, value in match.headers]
    headers += [_header(name, value, invert=True) for name, value in match.without_headers]
    fields["headers"] = headers
    fields["query_parameters"] = [_parameter(name, value) for name, value in match.query]
    return api.RouteMatch(**fields)


def _path(path: StringMatch | None) -> dict[str, Any]:
    if path is None:
        return {"prefix": "/"}
    case = None if not path.ignore_case else api.BoolValue(value=False)
    match path.kind:
        case MatchKind.EXACT:
            return {"path": path.value, "case_sensitive": case}
        case MatchKind.REGEX:
            return {"safe_regex": _regex(path)}
        case MatchKind.SEGMENTS if path.value != "/":
            return {"path_separated_prefix": path.value, "case_sensitive": case}
        case _:
            return {"prefix": path.value, "case_sensitive": case}


def _regex(value: StringMatch) -> "api.RegexMatcher":
    return api.RegexMatcher(regex=f"(?i){value.value}" if value.ignore_case else value.value)


def string_matcher(value: StringMatch) -> "api.StringMatcher":
    """A comparison in Envoy's words."""
    if value.kind is MatchKind.REGEX:
        return api.StringMatcher(safe_regex=_regex(value))
    if value.kind is MatchKind.PREFIX:
        return api.StringMatcher(prefix=value.value, ignore_case=value.ignore_case)
    return api.StringMatcher(exact=value.value, ignore_case=value.ignore_case)


def _header(name: str, value: StringMatch, *, invert: bool = False) -> "api.HeaderMatcher":
    if value.kind is MatchKind.PRESENT:
        return api.HeaderMatcher(name=name, present_match=True, invert_match=invert)
    # an absent header satisfies "without": Envoy must treat it as empty rather than as no match
    return api.HeaderMatcher(
        name=name, string_match=string_matcher(value), invert_match=invert, treat_missing_header_as_empty=invert
    )


def _parameter(name: str, value: StringMatch) -> "api.QueryParameterMatcher":
    if value.kind is MatchKind.PRESENT:
        return api.QueryParameterMatcher(name=name, present_match=True)
    return api.QueryParameterMatcher(name=name, string_match=string_matcher(value))


def _rewrite(match: HttpMatch, rewrite: Rewrite) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if rewrite.authority:
        fields["host_rewrite_literal"] = rewrite.authority
    if rewrite.regex:
        fields["regex_rewrite"] = api.RegexMatchAndSubstitute(
            pattern=api.RegexMatcher(regex=rewrite.regex), substitution=rewrite.regex_to
        )
    elif rewrite.path and match.path is not None and match.path.kind is MatchKind.REGEX:
        fields["regex_rewrite"] = api.RegexMatchAndSubstitute(
            pattern=api.RegexMatcher(regex=match.path.value), substitution=rewrite.path
        )
    elif rewrite.path:
        fields.update(_other_prefix(match, rewrite.path))
    return fields


def _other_prefix(match: HttpMatch, to: str) -> dict[str, Any]:
    """Another prefix. Where segments were matched the slash after them stays one slash, whichever side it was written on."""
    path = match.path
    if path is None or path.kind is not MatchKind.SEGMENTS:
        return {"prefix_rewrite": to}
    kept = to.rstrip("/")
    if path.value == "/":
        return {"prefix_rewrite": f"{kept}/"}
    if kept:
        return {"prefix_rewrite": kept}
    pattern = api.RegexMatcher(regex=f"^{re.escape(path.value)}/*")
    return {"regex_rewrite": api.RegexMatchAndSubstitute(pattern=pattern, substitution="/")}


def _redirect(match: HttpMatch, plan: Redirect) -> "api.RedirectAction":
    fields: dict[str, Any] = {"response_code": _REDIRECT_CODES.get(plan.code, 0)}
    if plan.path and plan.prefix_path:
        fields.update(_other_prefix(match, plan.path))
    elif plan.path:
        fields["path_redirect"] = plan.path
    if plan.authority:
        fields["host_redirect"] = plan.authority
    if plan.scheme:
        fields["scheme_redirect"] = plan.scheme
    if plan.port is not None:
        fields["port_redirect"] = plan.port
    return api.RedirectAction(**fields)


def _no_targets(_: object) -> str:
    return ""
