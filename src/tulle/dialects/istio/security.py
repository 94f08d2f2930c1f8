"""PeerAuthentications and AuthorizationPolicies to intent, each with the workloads it selects.

What cannot be enforced fails closed (`unenforceable` has the rules): a DENY matches more, an ALLOW matches less, CUSTOM denies.
Knows no workload: which of them a policy applies to is the compiler's question.
"""

from collections.abc import Iterable

from msgspec import Struct

from tulle.dialects.inputs import by_namespace, objects
from tulle.dialects.istio import schema_security as written
from tulle.dialects.istio.unenforceable import closed
from tulle.engine import Database, query
from tulle.model.intent import MtlsMode, PeerAuthentication
from tulle.model.keys import Labels, ObjectKey, labels_of
from tulle.model.origin import Origin
from tulle.policies.authorization.spec import (
    Action,
    Authorization,
    Condition,
    Operation,
    Rule,
    Source,
    Values,
)

GROUP = "security.istio.io"
GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"


class Selected(Struct, frozen=True):
    """A policy and the workloads of its namespace it is for; in the root namespace: of every namespace."""

    selector: Labels
    """Empty: all of them."""
    policy: Authorization


@query
def peer_authentications_in(db: Database, cluster: str, namespace: str) -> tuple[PeerAuthentication, ...]:
    """The PeerAuthentications of a namespace, oldest first (by creation, then name): of several the oldest counts."""
    keys = by_namespace(db, (cluster, "PeerAuthentication", namespace))
    found = [one for key in keys if key.group == GROUP and (one := peer_authentication(db, key)) is not None]
    return tuple(sorted(found, key=lambda one: (one.created, one.key.name)))


@query
def peer_authentication(db: Database, key: ObjectKey) -> PeerAuthentication | None:
    """One PeerAuthentication's meaning; None where there is no such object."""
    found = objects(db, key)
    if found is None:
        return None
    spec: written.PeerAuthentication = found.spec
    return PeerAuthentication(
        key=key,
        selector=labels_of(spec.selector.match_labels) if spec.selector else (),
        mode=_mode(spec.mtls),
        ports=tuple(
            (int(port), mode)
            for port, mtls in sorted(spec.port_level_mtls.items(), key=lambda pair: int(pair[0]))
            if (mode := _mode(mtls)) is not None
        ),
        origin=Origin(key),
        created=found.created,
    )


def _mode(mtls: written.MutualTls | None) -> MtlsMode | None:
    return None if mtls is None or mtls.mode == "UNSET" else MtlsMode(mtls.mode)


@query
def authorizations_in(db: Database, cluster: str, namespace: str) -> tuple[Selected, ...]:
    """The authorization policies of a namespace by name, each once per selector. AUDIT policies decide nothing."""
    keys = by_namespace(db, (cluster, "AuthorizationPolicy", namespace))
    return tuple(one for key in keys if key.group == GROUP for one in authorizations(db, key))


@query
def authorizations(db: Database, key: ObjectKey) -> tuple[Selected, ...]:
    """One AuthorizationPolicy's meaning. Empty: no such object, AUDIT, or for targets the mesh does not have."""
    found = objects(db, key)
    if found is None:
        return ()
    spec: written.AuthorizationPolicy = found.spec
    if spec.action == "AUDIT":
        return ()
    action = Action.ALLOW if spec.action == "ALLOW" else Action.DENY
    kept = tuple(fit for rule in written_rules(spec, key) if (fit := closed(rule, action)) is not None)
    policy = Authorization(key, action, kept, Origin(key))
    return tuple(Selected(selector, policy) for selector in _selectors(spec))


def targets_of(spec: written.AuthorizationPolicy) -> tuple[written.TargetRef, ...]:
    """The targets a policy names, in either spelling."""
    return (*((spec.target_ref,) if spec.target_ref else ()), *spec.target_refs)


def written_rules(spec: written.AuthorizationPolicy, key: ObjectKey) -> tuple[Rule, ...]:
    """The rules as they are written, whether enforceable or not."""
    origin = Origin(key, "spec")
    return tuple(_rule(rule, origin.at("rules", index)) for index, rule in enumerate(spec.rules or ()))


def _selectors(spec: written.AuthorizationPolicy) -> Iterable[Labels]:
    """Targets that are no Gateway (services, for waypoints) select no sidecar, as in Istio."""
    targets = targets_of(spec)
    if targets:
        return tuple(((GATEWAY_NAME_LABEL, target.name),) for target in targets if target.kind == "Gateway")
    return (labels_of(spec.selector.match_labels) if spec.selector else (),)


def _rule(rule: written.Rule, origin: Origin) -> Rule:
    return Rule(
        sources=tuple(_source(one.source or written.Source(), origin.object.namespace) for one in rule.from_ or ()),
        operations=tuple(_operation(one.operation or written.Operation()) for one in rule.to or ()),
        conditions=tuple(Condition(one.key, Values(one.values, one.not_values)) for one in rule.when),
        origin=origin,
    )


def _source(source: written.Source, namespace: str) -> Source:
    """Service accounts without a namespace are of the policy's own."""
    return Source(
        principals=Values(source.principals, source.not_principals),
        namespaces=Values(source.namespaces, source.not_namespaces),
        service_accounts=Values(
            _full_accounts(source.service_accounts, namespace), _full_accounts(source.not_service_accounts, namespace)
        ),
        ip_blocks=Values(source.ip_blocks, source.not_ip_blocks),
        remote_ip_blocks=Values(source.remote_ip_blocks, source.not_remote_ip_blocks),
        request_principals=Values(source.request_principals, source.not_request_principals),
    )


def _full_accounts(names: tuple[str, ...], namespace: str) -> tuple[str, ...]:
    return tuple(name if "/" in name else f"{namespace}/{name}" for name in names)


def _operation(operation: written.Operation) -> Operation:
    return Operation(
        hosts=Values(operation.hosts, operation.not_hosts),
        ports=Values(operation.ports, operation.not_ports),
        methods=Values(operation.methods, operation.not_methods),
        paths=Values(operation.paths, operation.not_paths),
    )
