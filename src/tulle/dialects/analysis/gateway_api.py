"""What the status of Gateway API objects says is wrong, as problems: for those who have no status to look at."""

from collections.abc import Iterator

from tulle.dialects.analysis.gateways import printed
from tulle.dialects.gateway_api.attaching import attachments
from tulle.dialects.gateway_api.backend_tls import judge
from tulle.dialects.gateway_api.gateways import gateway
from tulle.dialects.gateway_api.listeners import client_certificate, gateway_listeners, parent_of
from tulle.dialects.gateway_api.route_sets import routed
from tulle.dialects.kubernetes import workloads_selected
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem


@query
def listener_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """Listeners of a Gateway that do not serve, or not all that they say; a Gateway without workload."""
    return tuple(_listeners(db, key, key))


@query
def listener_set_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """The same of a ListenerSet."""
    parent = parent_of(db, key)
    return tuple(_listeners(db, parent, key)) if parent else ()


@query
def route_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """Parents that do not take the route, references that lead to nothing, and what is not supported."""
    found = [
        problem(
            "TUL0642",
            Origin(key, "spec").at("parentRefs", one.index),
            parent=f"{one.ref.kind} {one.ref.name}",
            reason=one.refused.message,
        )
        for one in attachments(db, key)
        if one.refused is not None
    ]
    rules = routed(db, key)
    found += [problem("TUL0643", Origin(key, "spec.rules"), reason=one.message) for one in rules.unresolved]
    found += [
        problem("TUL0647", rule.rule.origin, reason=rule.refused.message)
        for rule in rules.http
        if rule.refused is not None
    ]
    return tuple(found)


@query
def backend_policy_problems(db: Database, key: ObjectKey) -> tuple[Problem, ...]:
    """A policy for backends that cannot be kept, or that another one stands before."""
    found = judge(db, key)
    origin = Origin(key, "spec.validation")
    if found.refused is not None and found.refused.reason == "Conflicted":
        return (problem("TUL0649", Origin(key, "spec.targetRefs"), reason=found.refused.message),)
    if found.refused is not None:
        return (problem("TUL0648", origin, reason=(found.unresolved or found.refused).message),)
    if found.unresolved is not None:
        return (problem("TUL0650", origin, reason=found.unresolved.message),)
    return ()


def _listeners(db: Database, parent: ObjectKey, key: ObjectKey) -> Iterator[Problem]:
    found = gateway(db, parent) if key == parent else None
    if found is not None:
        selected = workloads_selected(db, key.cluster, key.namespace, found.selector)
        if not selected:
            yield problem("TUL0721", Origin(key, "spec"), selector=printed(found.selector))
        _, unshown = client_certificate(db, key)
        if unshown is not None:
            yield problem("TUL0651", Origin(key, "spec.tls.backend"), reason=unshown.message)
    for one in gateway_listeners(db, parent):
        wrong = one.refused or one.unresolved
        if one.holder == key and wrong is not None:
            yield problem("TUL0644", one.origin, name=one.written.name, reason=wrong.message)
