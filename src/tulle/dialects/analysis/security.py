"""What of a security policy fails closed, does nothing, or selects nobody."""

from collections.abc import Iterator

from tulle.dialects.analysis.gateways import printed
from tulle.dialects.inputs import objects, settings
from tulle.dialects.istio import schema_security as written
from tulle.dialects.istio.security import authorizations, peer_authentication, targets_of, written_rules
from tulle.dialects.istio.unenforceable import unenforceable
from tulle.dialects.kubernetes import EVERYWHERE, services_in, workload, workloads_selected
from tulle.engine import Database, query
from tulle.model.intent import PortProtocol
from tulle.model.keys import Labels, ObjectKey, selects
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem
from tulle.policies.authorization.spec import Action, Operation, Rule, Values

_DENIES = "always matching"
_IGNORED = "never matching"


@query
def peer_authentication_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """A selector that selects nobody."""
    found = peer_authentication(db, key)
    return () if found is None else tuple(_selects_nobody(db, key, found.selector))


@query
def authorization_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """What fails closed, what does nothing, HTTP fields on TCP ports, a selector that selects nobody."""
    found = objects(db, key)
    if found is None:
        return ()
    spec: written.AuthorizationPolicy = found.spec
    return (
        *_action(spec, Origin(key, "spec")),
        *_fails_closed(spec, key),
        *(one for chosen in authorizations(db, key) for one in _selects_nobody(db, key, chosen.selector)),
        *_on_tcp(db, key),
    )


def _action(spec: written.AuthorizationPolicy, origin: Origin) -> Iterator[Problem]:
    if spec.action == "CUSTOM":
        yield problem("TUL0625", origin.at("action"))
    if spec.action == "AUDIT":
        yield problem("TUL0627", origin.at("action"))
    for index, target in enumerate(targets_of(spec)):
        if target.kind != "Gateway":
            place = origin.at("targetRef") if spec.target_ref and index == 0 else origin.at("targetRefs", index)
            yield problem("TUL0628", place, kind=target.kind)


def _fails_closed(spec: written.AuthorizationPolicy, key: ObjectKey) -> Iterator[Problem]:
    if spec.action == "AUDIT":
        return
    consequence = _IGNORED if spec.action == "ALLOW" else _DENIES
    for rule in written_rules(spec, key):
        for place, what in unenforceable(rule):
            yield problem("TUL0626", place, what=what, consequence=consequence)


def _selects_nobody(db: Database, key: ObjectKey, selector: Labels) -> Iterator[Problem]:
    if selector and not workloads_selected(db, key.cluster, _scope(db, key), selector):
        yield problem("TUL0631", Origin(key, "spec.selector"), selector=printed(selector))


def _scope(db: Database, key: ObjectKey) -> str:
    return EVERYWHERE if key.namespace == settings(db).root_namespace else key.namespace


def _on_tcp(db: Database, key: ObjectKey) -> Iterator[Problem]:
    for chosen in authorizations(db, key):
        tcp_ports = tcp_ports_of(db, key.cluster, key.namespace, chosen.selector)
        action = chosen.policy.action
        consequence = "the rule never allows there" if action is Action.ALLOW else "the field is left out there"
        for rule in chosen.policy.rules:
            for port, protocol in tcp_ports:
                field = _http_field(rule, port)
                if field is not None:
                    arguments = {
                        "field": field[1],
                        "port": port,
                        "protocol": protocol.value,
                        "consequence": consequence,
                    }
                    yield problem("TUL0630", field[0], **arguments)


@query
def tcp_ports_of(db: Database, cluster: str, namespace: str, selector: Labels) -> tuple[tuple[int, PortProtocol], ...]:
    """Declared TCP or TLS ports (numbers at the workload) of the selected workloads of a namespace, by its services."""
    found: dict[int, PortProtocol] = {}
    for service in services_in(db, cluster, namespace):
        ports = [port for port in service.ports if port.protocol is PortProtocol.TCP or port.protocol.is_tls]
        if not ports or service.selector is None:
            continue
        wanted = tuple(sorted({*selector, *service.selector}))
        for name in workloads_selected(db, cluster, namespace, wanted)[:1]:
            one = workload(db, name)
            if one is None or not selects(selector, one.labels):
                continue
            declared = {port.name: port.number for port in one.ports}
            for port in ports:
                number = port.target if isinstance(port.target, int) else declared.get(port.target)
                if number is not None:
                    found[number] = port.protocol
    return tuple(sorted(found.items()))


def _http_field(rule: Rule, port: int) -> tuple[Origin, str] | None:
    """A field of the rule that needs HTTP and may be asked at the port."""
    for index, operation in enumerate(rule.operations):
        if operation.ports.any_of and str(port) not in operation.ports.any_of:
            continue
        name = _http_part(operation)
        if name is not None:
            return rule.origin.at("to", index, "operation", name), name
    if rule.operations and all(one.ports.any_of and str(port) not in one.ports.any_of for one in rule.operations):
        return None
    for index, condition in enumerate(rule.conditions):
        if condition.key.startswith("request."):
            return rule.origin.at("when", index, "key"), condition.key
    return None


def _http_part(operation: Operation) -> str | None:
    parts = (("paths", operation.paths), ("methods", operation.methods), ("hosts", operation.hosts))
    return next((name for name, values in parts if values != Values()), None)
