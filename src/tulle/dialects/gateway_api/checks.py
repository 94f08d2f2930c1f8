"""What types cannot say of one Gateway API object, and what would make Envoy refuse its routes. Others' objects are not looked at.

A cluster's API server checks most of this itself (the CRDs' rules); files have only us.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tulle.dialects.gateway_api import schema, schema_routes
from tulle.dialects.istio.check_words import is_header, regex_problems
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

EXACT: Final = "Exact"
PREFIX: Final = "PathPrefix"
REGEX: Final = "RegularExpression"
FIELDS: Final = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "CORS": "cors",
    "ExtensionRef": "extension_ref",
    "ExternalAuth": "external_auth",
}
"""Which attribute holds what a filter of a type says."""


def listener_problems(found: schema.Gateway, origin: Origin) -> tuple[Problem, ...]:
    """Names of listeners that stand twice."""
    return tuple(_twice(found.listeners, origin))


def listener_set_problems(found: schema.ListenerSet, origin: Origin) -> tuple[Problem, ...]:
    """The same of a ListenerSet."""
    return tuple(_twice(found.listeners, origin))


def _twice(listeners: Iterable[schema.Listener], origin: Origin) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, listener in enumerate(listeners):
        if listener.name in seen:
            yield problem("TUL0645", origin.at("listeners", index, "name"), name=listener.name)
        seen.add(listener.name)


def http_route_problems(found: schema_routes.HTTPRoute, origin: Origin) -> tuple[Problem, ...]:
    """Paths, regular expressions, header names and filters."""
    problems: list[Problem] = []
    for index, rule in enumerate(found.rules):
        place = origin.at("rules", index)
        for number, match in enumerate(rule.matches):
            problems += _match(match, place.at("matches", number))
        problems += _filters(rule, place)
    return tuple(problems)


def grpc_route_problems(found: schema_routes.GRPCRoute, origin: Origin) -> tuple[Problem, ...]:
    """Regular expressions, header names and filters."""
    problems: list[Problem] = []
    for index, rule in enumerate(found.rules):
        place = origin.at("rules", index)
        for number, match in enumerate(rule.matches):
            at = place.at("matches", number)
            if match.method and match.method.type == REGEX:
                for name in ("service", "method"):
                    if expression := getattr(match.method, name):
                        problems += regex_problems(expression, at.at("method", name))
            problems += _values(match.headers, at.at("headers"))
        problems += _filters(rule, place)
    return tuple(problems)


def _match(match: schema_routes.HttpMatch, origin: Origin) -> Iterator[Problem]:
    if match.path.type == REGEX:
        yield from regex_problems(match.path.value, origin.at("path", "value"))
    elif not match.path.value.startswith("/"):
        yield problem("TUL0640", origin.at("path", "value"), value=match.path.value[:80])
    yield from _values(match.headers, origin.at("headers"))
    for index, parameter in enumerate(match.query_params):
        if parameter.type == REGEX:
            yield from regex_problems(parameter.value, origin.at("queryParams", index, "value"))


def _values(matches: Iterable[schema_routes.ValueMatch], origin: Origin) -> Iterator[Problem]:
    for index, match in enumerate(matches):
        if not is_header(match.name):
            yield problem("TUL0415", origin.at(index, "name"), name=match.name[:80])
        if match.type == REGEX:
            yield from regex_problems(match.value, origin.at(index, "value"))


def _filters(rule: schema_routes.HttpRule | schema_routes.GrpcRule, origin: Origin) -> Iterator[Problem]:
    places = [(origin.at("filters"), rule.filters)]
    places += [
        (origin.at("backendRefs", index, "filters"), backend.filters) for index, backend in enumerate(rule.backend_refs)
    ]
    for place, filters in places:
        for index, one in enumerate(filters):
            field = FIELDS.get(one.type, "")
            if field and getattr(one, field) is None:
                yield problem("TUL0641", place.at(index), type=one.type, field=_camel(field))
    types = {one.type for one in rule.filters}
    if {"RequestRedirect", "URLRewrite"} <= types or ("RequestRedirect" in types and rule.backend_refs):
        yield problem("TUL0646", origin.at("filters"))


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.upper() if word == "url" else word.capitalize() for word in rest)
