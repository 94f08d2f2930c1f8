"""What is wrong with PeerAuthentications and AuthorizationPolicies that types cannot say. Source: Istio's webhook."""

import re
from collections.abc import Iterator
from typing import Final

from tulle.dialects.istio import schema_security as written
from tulle.dialects.istio.check_words import cidr_problems, is_cidr, selector_problems
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

_KEYS: Final = frozenset(
    [
        "source.ip",
        "remote.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "destination.ip",
        "destination.port",
        "connection.sni",
    ]
)
_KEYED: Final = re.compile(r"(request\.headers|request\.auth\.claims|experimental\.[a-z0-9.]+)\[.+\]\Z")
_IP_KEYS: Final = ("source.ip", "remote.ip", "destination.ip")
_TEMPLATE: Final = re.compile(r"(?:[^{}*]|\{\*\})*(?:\{\*\*\})?[^{}*]*\Z")
_MAX_PORT: Final = 65535


def peer_authentication_problems(spec: written.PeerAuthentication, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one PeerAuthentication; `origin` is that of its spec."""
    return tuple(_peer(spec, origin))


def _peer(spec: written.PeerAuthentication, origin: Origin) -> Iterator[Problem]:
    yield from selector_problems(spec.selector, origin.at("selector"))
    if spec.port_level_mtls and not (spec.selector and spec.selector.match_labels):
        yield problem("TUL0601", origin.at("portLevelMtls"))
    for port in spec.port_level_mtls:
        if not _is_port(port):
            yield problem("TUL0602", origin.at("portLevelMtls", port), value=port[:40])


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _MAX_PORT


def authorization_problems(spec: written.AuthorizationPolicy, origin: Origin) -> tuple[Problem, ...]:
    """Every problem of one AuthorizationPolicy; `origin` is that of its spec."""
    return tuple(_authorization(spec, origin))


def _authorization(spec: written.AuthorizationPolicy, origin: Origin) -> Iterator[Problem]:
    yield from selector_problems(spec.selector, origin.at("selector"))
    if spec.selector is not None and (spec.target_ref is not None or spec.target_refs):
        yield problem("TUL0619", origin)
    if spec.provider is not None and spec.action != "CUSTOM":
        yield problem("TUL0620", origin.at("provider"))
    if spec.action == "CUSTOM" and (spec.provider is None or not spec.provider.name):
        yield problem("TUL0610", origin)
    if spec.action != "ALLOW" and not spec.rules:
        yield problem("TUL0621", origin, action=spec.action)
    for index, rule in enumerate(spec.rules or ()):
        yield from _rule(rule, origin.at("rules", index))


def _rule(rule: written.Rule, origin: Origin) -> Iterator[Problem]:
    if rule.from_ == ():
        yield problem("TUL0611", origin.at("from"), field="source")
    if rule.to == ():
        yield problem("TUL0611", origin.at("to"), field="operation")
    for index, one in enumerate(rule.from_ or ()):
        yield from _source(one.source, origin.at("from", index))
    for index, other in enumerate(rule.to or ()):
        yield from _operation(other.operation, origin.at("to", index))
    for index, when in enumerate(rule.when):
        yield from _when(when, origin.at("when", index))


def _source(source: written.Source | None, origin: Origin) -> Iterator[Problem]:
    if source is None or source == written.Source():
        yield problem("TUL0611", origin, field="source")
        return
    place = origin.at("source")
    yield from _not_empty(source, place)
    for name, blocks in (
        ("ipBlocks", source.ip_blocks),
        ("notIpBlocks", source.not_ip_blocks),
        ("remoteIpBlocks", source.remote_ip_blocks),
        ("notRemoteIpBlocks", source.not_remote_ip_blocks),
    ):
        yield from cidr_problems(blocks, place.at(name))
    accounts = source.service_accounts or source.not_service_accounts
    if accounts and (source.principals or source.not_principals or source.namespaces or source.not_namespaces):
        yield problem("TUL0618", place)
    for name, values in (("principals", source.principals), ("notPrincipals", source.not_principals)):
        for index, value in enumerate(values):
            if value.startswith("spiffe://"):
                yield problem(
                    "TUL0623", place.at(name, index), value=value[:120], instead=value.removeprefix("spiffe://")
                )


def _operation(operation: written.Operation | None, origin: Origin) -> Iterator[Problem]:
    if operation is None or operation == written.Operation():
        yield problem("TUL0611", origin, field="operation")
        return
    place = origin.at("operation")
    yield from _not_empty(operation, place)
    for name, ports in (("ports", operation.ports), ("notPorts", operation.not_ports)):
        for index, port in enumerate(ports):
            if not _is_port(port):
                yield problem("TUL0602", place.at(name, index), value=port[:40])
    for name, paths in (("paths", operation.paths), ("notPaths", operation.not_paths)):
        for index, path in enumerate(paths):
            if ("{" in path or "}" in path) and not _TEMPLATE.match(path):
                yield problem("TUL0617", place.at(name, index), value=path[:120])
    for name, methods in (("methods", operation.methods), ("notMethods", operation.not_methods)):
        for index, method in enumerate(methods):
            if method != method.upper():
                yield problem("TUL0624", place.at(name, index), value=method[:40], instead=method.upper()[:40])


def _not_empty(part: written.Source | written.Operation, origin: Origin) -> Iterator[Problem]:
    for attribute, name in zip(part.__struct_fields__, part.__struct_encode_fields__, strict=True):
        for index, value in enumerate(getattr(part, attribute)):
            if not value:
                yield problem("TUL0122", origin.at(name, index))


def _when(when: written.When, origin: Origin) -> Iterator[Problem]:
    if when.key not in _KEYS and not _KEYED.match(when.key):
        yield problem("TUL0613", origin.at("key"), key=when.key[:120])
    if not when.values and not when.not_values:
        yield problem("TUL0614", origin)
    for name, values in (("values", when.values), ("notValues", when.not_values)):
        for index, value in enumerate(values):
            if when.key in _IP_KEYS and not is_cidr(value):
                yield problem("TUL0435", origin.at(name, index), value=value[:80])
            if when.key == "destination.port" and not _is_port(value):
                yield problem("TUL0602", origin.at(name, index), value=value[:40])
            if not value:
                yield problem("TUL0122", origin.at(name, index))
