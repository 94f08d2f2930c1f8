"""Who may call what, as two RBAC filters: DENY first, then ALLOW.

The filters stand in every inbound chain, empty and switched off; the rules come with the route, so that an edit drains no
connection. What Envoy cannot check here (HTTP fields on a TCP port, end-user tokens, nonsense) fails closed: such a value
never matches in an ALLOW and always matches in a DENY. Which policies apply to a workload is not decided here.
Source: Envoy `config.rbac.v3`; Istio's AuthorizationPolicy reference for patterns, and its policy names in logs.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_network
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message
from msgspec import Struct

from tulle.policies.authorization.spec import Action, Authorization, Condition, Operation, Rule, Source, Values
from tulle.policies.fragments import RouteFragment
from tulle.xds import api, schema

DENY: Final = "tulle.rbac.deny"
ALLOW: Final = "tulle.rbac.allow"
_ACTIONS: Final = ((DENY, Action.DENY), (ALLOW, Action.ALLOW))
_SPIFFE: Final = "spiffe://"
_TEMPLATE_CONFIG: Final = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_TEMPLATE: Final = re.compile(r"(?:/(?:\{\*\}|\{\*\*\}|[A-Za-z0-9\-._~%!$&'()+,;:@]+))+/?\Z")
_HEADER_KEY: Final = re.compile(r"request\.headers\[([^\]]+)\]\Z")
_RULE_PLACE: Final = re.compile(r"rules\[(\d+)\]")
_PORTS: Final = range(1, 65536)
_KEYS_OF_CONNECTIONS: Final = frozenset(
    (
        *("source.ip", "source.namespace", "source.principal", "source.serviceAccount"),
        *("destination.ip", "destination.port", "connection.sni"),
    )
)
"""Conditions that are known before a request is; any other needs one, or fails closed."""

T = TypeVar("T")
Term = Callable[[str], T | None]
"""One value as Envoy compares it; None where it cannot."""


def inbound_http_filters() -> Sequence[tuple[str, Message]]:
    """Both filters without rules."""
    return tuple((name, api.HttpRBAC()) for name, _ in _ACTIONS)


def on_inbound_route(specs: Sequence[Authorization]) -> RouteFragment:
    """The rules of every policy for one workload port. Denials carry the name of policy and rule in Envoy's details."""
    filters = {name: api.RBACPerRoute(rbac=api.HttpRBAC(rules=rules)) for name, rules in _rules(specs, is_tcp=False)}
    return RouteFragment(filters=filters)


def inbound_network_filters(specs: Sequence[Authorization]) -> Sequence[tuple[str, Message]]:
    """The same for a port that speaks TCP: only the filters that have rules. Checked at the client's first byte."""
    return [(name, api.NetworkRBAC(stat_prefix=f"{name}.", rules=rules)) for name, rules in _rules(specs, is_tcp=True)]


def needs_http(spec: Authorization) -> bool:
    """Whether any rule asks for something that only a request has."""
    of_request = (
        *((source.remote_ip_blocks, source.request_principals) for rule in spec.rules for source in rule.sources),
        *((one.hosts, one.methods, one.paths) for rule in spec.rules for one in rule.operations),
    )
    return any(values != Values() for found in of_request for values in found) or any(
        one.key not in _KEYS_OF_CONNECTIONS for rule in spec.rules for one in rule.conditions
    )


def _rules(specs: Sequence[Authorization], *, is_tcp: bool) -> Iterator[tuple[str, "api.RBAC"]]:
    """Per filter. ALLOW policies whose rules never match still stand for "nobody"; DENY policies of that kind do nothing."""
    for name, action in _ACTIONS:
        chosen = [spec for spec in specs if spec.action is action]
        policies: dict[str, api.Policy] = {}
        for spec in chosen:
            for index, rule in enumerate(spec.rules):
                policy = _Reader(spec, is_tcp).policy(rule)
                if policy is not None:
                    policies[_name(spec, rule, index)] = policy
        if policies or (chosen and action is Action.ALLOW):
            yield name, api.RBAC(action="DENY" if action is Action.DENY else "ALLOW", policies=policies)


def _name(spec: Authorization, rule: Rule, index: int) -> str:
    """Istio's name of a rule, with its index as written: rules that never match are gone from the spec."""
    place = _RULE_PLACE.search(rule.origin.path)
    return f"ns[{spec.key.namespace}]-policy[{spec.key.name}]-rule[{place[1] if place else index}]"


class _Logic(Struct, Generic[T], frozen=True):
    """How terms of one of Envoy's two languages are put together."""

    anything: Callable[[], T]
    negated: Callable[[T], T]
    either: Callable[[list[T]], T]
    every: Callable[[list[T]], T]


_PRINCIPALS: "Final[_Logic[api.Principal]]" = _Logic(
    anything=lambda: api.Principal(any=True),
    negated=lambda one: api.Principal(not_id=one),
    either=lambda many: api.Principal(or_ids=api.Principal.Set(ids=many)),
    every=lambda many: api.Principal(and_ids=api.Principal.Set(ids=many)),
)
_PERMISSIONS: "Final[_Logic[api.Permission]]" = _Logic(
    anything=lambda: api.Permission(any=True),
    negated=lambda one: api.Permission(not_rule=one),
    either=lambda many: api.Permission(or_rules=api.Permission.Set(rules=many)),
    every=lambda many: api.Permission(and_rules=api.Permission.Set(rules=many)),
)


class _Reader:
    """Reads the rules of one policy for one kind of port. None stands for "never matches"."""

    def __init__(self, spec: Authorization, is_tcp: bool) -> None:
        self.spec = spec
        self.is_tcp = is_tcp
        self.is_deny = spec.action is Action.DENY

    def policy(self, rule: Rule) -> "api.Policy | None":
        """One rule: any source with all conditions on it, and any operation with all conditions on it."""
        of_source = self._conditions(rule.conditions, _PRINCIPALS, self._principal_of)
        of_target = self._conditions(rule.conditions, _PERMISSIONS, self._permission_of)
        if of_source is None or of_target is None:
            return None
        principals = _alternatives(_PRINCIPALS, rule.sources, self._source, of_source)
        permissions = _alternatives(_PERMISSIONS, rule.operations, self._operation, of_target)
        return api.Policy(principals=principals, permissions=permissions) if principals and permissions else None

    def _source(self, source: Source) -> "list[api.Principal] | None":
        return self._all(
            _PRINCIPALS,
            (
                (source.principals, _principal),
                (source.namespaces, _namespace),
                (source.service_accounts, self._service_account),
                (source.ip_blocks, _direct_ip),
                (source.remote_ip_blocks, _remote_ip),
                (source.request_principals, _unknown),
            ),
        )

    def _operation(self, operation: Operation) -> "list[api.Permission] | None":
        return self._all(
            _PERMISSIONS,
            (
                (operation.hosts, self._http(_host)),
                (operation.methods, self._http(_method)),
                (operation.paths, self._http(_path)),
                (operation.ports, _port),
            ),
        )

    def _principal_of(self, key: str) -> "Term[api.Principal] | None":
        """The term of a condition on the caller; None for keys of the other language."""
        header = _HEADER_KEY.match(key)
        if header:
            return self._http(lambda value: api.Principal(header=_header(header[1], value)))
        terms: dict[str, Term[api.Principal]] = {
            "source.ip": _direct_ip,
            "remote.ip": _remote_ip,
            "source.namespace": _namespace,
            "source.principal": _principal,
            "source.serviceAccount": self._service_account,
        }
        return terms.get(key) or (None if self._permission_of(key) else _unknown)

    def _permission_of(self, key: str) -> "Term[api.Permission] | None":
        """The term of a condition on what is called; None for any other key."""
        terms: dict[str, Term[api.Permission]] = {
            "destination.ip": _destination_ip,
            "destination.port": _port,
            "connection.sni": lambda value: api.Permission(requested_server_name=_matcher(value)),
        }
        return terms.get(key)

    def _conditions(
        self, conditions: Iterable[Condition], logic: _Logic[T], term_of: "Callable[[str], Term[T] | None]"
    ) -> list[T] | None:
        known = ((one.values, term) for one in conditions if (term := term_of(one.key)))
        return self._all(logic, known)

    def _all(self, logic: _Logic[T], fields: "Iterable[tuple[Values, Term[T]]]") -> list[T] | None:
        """Everything that must hold; None if it never can."""
        parts: list[T] = []
        for values, term in fields:
            found = self._clause(logic, values, term)
            if found is None:
                return None
            parts += found
        return parts

    def _clause(self, logic: _Logic[T], values: Values, term: "Term[T]") -> list[T] | None:
        """Any of the one list, none of the other. A value that cannot be compared fails closed."""
        wanted, is_whole = _known(values.any_of, term)
        refused, is_refusal_whole = _known(values.none_of, term)
        parts: list[T] = []
        if self.is_deny:
            if values.any_of and is_whole:
                parts.append(_one(logic, wanted))
        elif (values.any_of and not wanted) or not is_refusal_whole:
            return None
        elif wanted:
            parts.append(_one(logic, wanted))
        if refused:
            parts.append(logic.negated(_one(logic, refused)))
        return parts

    def _http(self, term: "Term[T]") -> "Term[T]":
        return _unknown if self.is_tcp else term

    def _service_account(self, value: str) -> "api.Principal | None":
        """`namespace/name`; a bare name is one of the policy's own namespace."""
        namespace, _, name = value.rpartition("/")
        account = f"{re.escape(namespace or self.spec.key.namespace)}/sa/{re.escape(name)}"
        return _authenticated(_regex(f"{_SPIFFE}[^/]+/ns/{account}"))


def _alternatives(
    logic: _Logic[T], parts: Sequence[object], read: Callable[..., list[T] | None], also: list[T]
) -> list[T]:
    """One term per part that can match; without parts, one for everything."""
    read_parts = [read(part) for part in parts] if parts else [[]]
    conjunctions = [[*found, *also] for found in read_parts if found is not None]
    return [logic.every(many) if len(many) > 1 else (many[0] if many else logic.anything()) for many in conjunctions]


def _one(logic: _Logic[T], terms: list[T]) -> T:
    return terms[0] if len(terms) == 1 else logic.either(terms)


def _known(values: Iterable[str], term: "Term[T]") -> tuple[list[T], bool]:
    """The terms of the values that can be compared, and whether those are all."""
    found = [term(value) for value in values]
    known = [one for one in found if one is not None]
    return known, len(known) == len(found)


def _unknown(_: str) -> None:
    return None


def _principal(value: str) -> "api.Principal":
    return _authenticated(_matcher(value, _SPIFFE))


def _namespace(value: str) -> "api.Principal":
    name = re.escape(value).replace(r"\*", "[^/]*")
    return _authenticated(_regex(f"{_SPIFFE}[^/]+/ns/{name}/sa/[^/]+"))


def _authenticated(name: "api.StringMatcher") -> "api.Principal":
    return api.Principal(authenticated=api.Principal.Authenticated(principal_name=name))


def _direct_ip(value: str) -> "api.Principal | None":
    block = _cidr(value)
    return api.Principal(direct_remote_ip=block) if block else None


def _remote_ip(value: str) -> "api.Principal | None":
    block = _cidr(value)
    return api.Principal(remote_ip=block) if block else None


def _destination_ip(value: str) -> "api.Permission | None":
    block = _cidr(value)
    return api.Permission(destination_ip=block) if block else None


def _port(value: str) -> "api.Permission | None":
    is_port = value.isascii() and value.isdecimal() and int(value[:6]) in _PORTS
    return api.Permission(destination_port=int(value)) if is_port else None


def _method(value: str) -> "api.Permission":
    return api.Permission(header=_header(":method", value))


def _host(value: str) -> "api.Permission":
    """Case does not count; a host without a port matches at every port."""
    return api.Permission(header=api.HeaderMatcher(name=":authority", string_match=_host_matcher(value)))


def _host_matcher(value: str) -> "api.StringMatcher":
    if value == "*":
        return _regex(".+")
    if value.endswith("*") and not value.startswith("*"):
        return api.StringMatcher(prefix=value[:-1], ignore_case=True)
    name = f".*{re.escape(value[1:])}" if value.startswith("*") else re.escape(value)
    has_port = re.search(r":\d+\Z", value)
    return _regex(f"(?i){name}" if has_port else f"(?i){name}(:[0-9]+)?")


def _path(value: str) -> "api.Permission | None":
    if "{" not in value and "}" not in value:
        return api.Permission(url_path=api.PathMatcher(path=_matcher(value)))
    operators = re.findall(r"\{\*+\}", value)
    if not _TEMPLATE.match(value) or "{**}" in operators[:-1]:
        return None  # Envoy would refuse the whole route
    template = value.replace("{**}", "**").replace("{*}", "*")
    config = schema.message(_TEMPLATE_CONFIG)(path_template=template)
    return api.Permission(
        uri_template=api.TypedExtensionConfig(
            name="envoy.path.match.uri_template.uri_template_matcher", typed_config=schema.to_any(config)
        )
    )


def _header(name: str, value: str) -> "api.HeaderMatcher":
    if value == "*":
        return api.HeaderMatcher(name=name, present_match=True)
    return api.HeaderMatcher(name=name, string_match=_matcher(value))


def _matcher(value: str, prefix: str = "") -> "api.StringMatcher":
    """Istio's patterns: `*` anything but nothing, `*suffix`, `prefix*`, exact. `prefix` stands before the value."""
    if value == "*":
        return _regex(f"{re.escape(prefix)}.+")
    if value.startswith("*"):
        return _regex(f"{re.escape(prefix)}.*{re.escape(value[1:])}") if prefix else api.StringMatcher(suffix=value[1:])
    if value.endswith("*"):
        return api.StringMatcher(prefix=prefix + value[:-1])
    return api.StringMatcher(exact=prefix + value)


def _regex(pattern: str) -> "api.StringMatcher":
    return api.StringMatcher(safe_regex=api.RegexMatcher(regex=pattern))


def _cidr(text: str) -> "api.CidrRange | None":
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None  # fails closed, as everything that cannot be compared
    prefix = api.UInt32Value(value=network.prefixlen)
    return api.CidrRange(address_prefix=str(network.network_address), prefix_len=prefix)
