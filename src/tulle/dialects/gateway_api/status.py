"""Statuses as the API has them: ordered dictionaries, conditions without their times, of what traffic rests on too.

A query per object. Whoever writes a status merges its conditions by type, keeps the time of what did not change, and keeps the
parents of other controllers. What only the outside knows comes in by `inputs.deployed`.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from tulle.dialects.gateway_api import schema
from tulle.dialects.gateway_api.attaching import Attachment, attached_routes, attachments
from tulle.dialects.gateway_api.backend_tls import gateways_of, judge
from tulle.dialects.gateway_api.features import FEATURES
from tulle.dialects.gateway_api.gateway_classes import is_our_class, our_gateway
from tulle.dialects.gateway_api.inputs import Deployed, deployed
from tulle.dialects.gateway_api.listeners import (
    Listener,
    client_certificate,
    gateway_listeners,
    listener_sets,
    parent_of,
)
from tulle.dialects.gateway_api.names import CONTROLLER, ROUTE_KINDS
from tulle.dialects.gateway_api.route_sets import routed
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey

Status = dict[str, Any]
_NOT_YET: Final = Deployed()
ADDRESS_TYPES: Final = ("IPAddress", "Hostname")
_MOST_ANCESTORS: Final = 16
"""The API takes no more."""


@query
def status_of(db: Database, key: ObjectKey) -> Status | None:
    """The status of an object of the Gateway API; None where it is not ours to say, or has none."""
    if key.group != GROUP:
        return None
    answer = _STATUSES.get(key.kind)
    found = answer(db, key) if answer else None
    return found or None


def _condition(db: Database, key: ObjectKey, name: str, verdict: Verdict | None, *, good: str = "") -> Status:
    """True with a good reason, or False with the verdict's."""
    found = objects(db, key)
    return {
        "type": name,
        "status": "True" if verdict is None else "False",
        "reason": (good or name) if verdict is None else verdict.reason,
        "message": "" if verdict is None else verdict.message,
        "observedGeneration": found.generation if found else 0,
    }


# --- classes and gateways ---------------------------------------------------------------------------------------------


def _class_status(db: Database, key: ObjectKey) -> Status | None:
    found = objects(db, key)
    if found is None or not is_our_class(db, key.cluster, key.name):
        return None
    spec: schema.GatewayClass = found.spec
    refused: Verdict | None = None
    if spec.parameters_ref is not None and (spec.parameters_ref.group, spec.parameters_ref.kind) != ("", "ConfigMap"):
        refused = Verdict("InvalidParameters", f"{spec.parameters_ref.kind} is no ConfigMap")
    conditions = [_condition(db, key, "Accepted", refused)]
    return {"conditions": conditions, "supportedFeatures": [{"name": name} for name in FEATURES]}


def _gateway_status(db: Database, key: ObjectKey) -> Status | None:
    spec = our_gateway(db, key)
    if spec is None:
        return None
    listeners = gateway_listeners(db, key)
    own = [one for one in listeners if one.holder == key]
    state = deployed(db, key) or _NOT_YET
    accepted = gateway_refused(db, key)
    all_well = not any(one.refused for one in own)
    conditions = [
        _condition(db, key, "Accepted", accepted, good="Accepted" if all_well else "ListenersNotValid"),
        _condition(db, key, "Programmed", _gateway_programmed(spec, accepted, state)),
    ]
    shown, wrong = client_certificate(db, key)
    if shown or wrong:
        conditions.append(_condition(db, key, "ResolvedRefs", wrong))
    if any(one.takes_anybody and one.serves for one in listeners):
        said = Verdict("ConfigurationChanged", "a listener takes clients that cannot prove who they are")
        conditions.append(_asserted(db, key, "InsecureFrontendValidationMode", said))
    attached = [one for one in listener_sets(db, key) if any(it.holder == one and it.serves for it in listeners)]
    return {
        "addresses": [{"type": one.type, "value": one.value} for one in state.addresses],
        "attachedListenerSets": len(attached),
        "conditions": conditions,
        "listeners": [_listener_status(db, one, state) for one in own],
    }


def gateway_refused(db: Database, key: ObjectKey) -> Verdict | None:
    """Why a Gateway that is ours is not accepted: parameters nobody reads, or no listener at all that is valid."""
    found = our_gateway(db, key)
    wrong = (_strange_address(found) or parameters_verdict(db, key, found)) if found else None
    if wrong is not None:
        return wrong
    listeners = gateway_listeners(db, key)
    if listeners and all(one.refused for one in listeners):
        return Verdict("ListenersNotValid", "no listener is valid")
    return None


def _strange_address(found: schema.Gateway) -> Verdict | None:
    strange = next((one for one in found.addresses if one.type not in ADDRESS_TYPES), None)
    return Verdict("UnsupportedAddress", f"addresses of type {strange.type} cannot be had") if strange else None


def asked_addresses(found: schema.Gateway) -> tuple[str, ...]:
    """IP addresses that a Gateway asks for."""
    return tuple(one.value for one in found.addresses if one.type == "IPAddress" and one.value)


def asks_too_much(found: schema.Gateway) -> Verdict | None:
    """Why no Service can have the addresses that are asked for: it is given one."""
    asked = asked_addresses(found)
    if len(asked) <= 1:
        return None
    return Verdict("AddressNotUsable", f"a Gateway's Service can ask for one address, not for {', '.join(asked)}")


def parameters_verdict(db: Database, key: ObjectKey, found: schema.Gateway) -> Verdict | None:
    """Why `infrastructure.parametersRef` cannot be read: it names a ConfigMap of the Gateway's namespace."""
    ref = found.infrastructure.parameters_ref
    if ref is None:
        return None
    if (ref.group, ref.kind) != ("", "ConfigMap"):
        return Verdict("InvalidParameters", f"parametersRef {ref.kind} is no ConfigMap")
    if objects(db, ObjectKey(key.cluster, "", "ConfigMap", key.namespace, ref.name)) is None:
        return Verdict("InvalidParameters", f"there is no ConfigMap {key.namespace}/{ref.name}")
    return None


def _gateway_programmed(found: schema.Gateway, accepted: Verdict | None, state: Deployed) -> Verdict | None:
    if accepted is not None:
        return Verdict("Invalid", accepted.message)
    if (too_much := asks_too_much(found)) is not None:
        return too_much
    given = {one.value for one in state.addresses}
    missing = [one for one in asked_addresses(found) if given and one not in given]
    if missing:
        return Verdict("AddressNotUsable", f"the cluster gave {', '.join(sorted(given))} and not {missing[0]}")
    if not state.addresses:
        return Verdict("AddressNotAssigned", "no address yet")
    return None if state.is_programmed else Verdict("Pending", "no proxy has acknowledged the configuration yet")


def _listener_status(db: Database, one: Listener, state: Deployed) -> Status:
    key = one.holder
    conditions = [
        _condition(db, key, "Accepted", one.refused),
        _condition(db, key, "Programmed", _listener_programmed(one, state)),
        _condition(db, key, "ResolvedRefs", one.unresolved),
        _conflicted(db, one),
    ]
    if one.overlaps:
        met = "another listener of the port covers the same names: a client may reuse one connection for both"
        conditions.append(_asserted(db, key, "OverlappingTLSConfig", Verdict("OverlappingHostnames", met)))
    counted = attached_routes(db, key)
    return {
        "name": one.written.name,
        "supportedKinds": [{"group": GROUP, "kind": kind} for kind in one.kinds] if not one.refused else [],
        "attachedRoutes": counted.get(one.binding, 0),
        "conditions": conditions,
    }


def _listener_programmed(one: Listener, state: Deployed) -> Verdict | None:
    if one.is_conflicted and one.refused is not None:
        return one.refused
    wrong = one.refused or one.unresolved
    if not one.serves and wrong is not None:
        return Verdict("Invalid", wrong.message)
    return None if state.is_programmed else Verdict("Pending", "no proxy has acknowledged the configuration yet")


def _conflicted(db: Database, one: Listener) -> Status:
    if one.is_conflicted and one.refused is not None:
        return _asserted(db, one.holder, "Conflicted", one.refused)
    return {**_condition(db, one.holder, "Conflicted", Verdict("NoConflicts", "")), "status": "False"}


def _asserted(db: Database, key: ObjectKey, name: str, verdict: Verdict) -> Status:
    """A condition whose being true is the trouble."""
    return {**_condition(db, key, name, verdict), "status": "True"}


def _set_status(db: Database, key: ObjectKey) -> Status | None:
    parent = parent_of(db, key)
    if parent is None or our_gateway(db, parent) is None:
        return None
    state = deployed(db, parent) or _NOT_YET
    own = [one for one in gateway_listeners(db, parent) if one.holder == key]
    refused: Verdict | None = None
    all_well = not any(one.refused for one in own)
    if key not in listener_sets(db, parent):
        refused = Verdict("NotAllowed", "the Gateway does not let ListenerSets of this namespace attach")
    elif gateway_refused(db, parent) is not None:
        refused = Verdict("ParentNotAccepted", "the Gateway is not accepted")
    elif not any(one.serves for one in own):
        refused = Verdict("ListenersNotValid", "no listener is valid")
    pending = None if state.is_programmed else Verdict("Pending", "no proxy has acknowledged the configuration yet")
    return {
        "conditions": [
            _condition(db, key, "Accepted", refused, good="Accepted" if all_well else "ListenersNotValid"),
            _condition(db, key, "Programmed", refused or pending),
        ],
        "listeners": [_listener_status(db, one, state) for one in own],
    }


# --- routes -----------------------------------------------------------------------------------------------------------


def _route_status(db: Database, key: ObjectKey) -> Status | None:
    parents = [_parent_status(db, key, one) for one in attachments(db, key)]
    return {"parents": parents} if parents else None


def _parent_status(db: Database, key: ObjectKey, one: Attachment) -> Status:
    found = routed(db, key)
    rules = found.http
    is_refused = found.refused is not None and all(rule.refused for rule in rules)
    conditions = [
        _condition(db, key, "Accepted", one.refused or (found.refused if is_refused else None)),
        _condition(db, key, "ResolvedRefs", found.unresolved[0] if found.unresolved else None),
    ]
    if found.refused is not None and not is_refused and one.refused is None:
        conditions.append(_asserted(db, key, "PartiallyInvalid", found.refused))
    return {"parentRef": dict(_written(one)), "controllerName": CONTROLLER, "conditions": conditions}


def _written(one: Attachment) -> Iterator[tuple[str, Any]]:
    """The reference as the API server holds it: with its defaults, and nothing that was not said."""
    ref = one.ref
    yield "group", ref.group
    yield "kind", ref.kind
    if ref.namespace is not None:
        yield "namespace", ref.namespace
    yield "name", ref.name
    if ref.section_name is not None:
        yield "sectionName", ref.section_name
    if ref.port is not None:
        yield "port", ref.port


# --- policies ---------------------------------------------------------------------------------------------------------


def _policy_status(db: Database, key: ObjectKey) -> Status | None:
    """One ancestor for each Gateway that calls what the policy is for."""
    found = judge(db, key)
    conditions = [
        _condition(db, key, "Accepted", found.refused),
        _condition(db, key, "ResolvedRefs", found.unresolved),
    ]
    ancestors = [
        {
            "ancestorRef": {"group": GROUP, "kind": "Gateway", "namespace": one.namespace, "name": one.name},
            "controllerName": CONTROLLER,
            "conditions": conditions,
        }
        for one in gateways_of(db, key)[:_MOST_ANCESTORS]
    ]
    return {"ancestors": ancestors} if ancestors else None


_STATUSES: Final[dict[str, Callable[[Database, ObjectKey], Status | None]]] = {
    "GatewayClass": _class_status,
    "Gateway": _gateway_status,
    "ListenerSet": _set_status,
    **dict.fromkeys(ROUTE_KINDS, _route_status),
    "BackendTLSPolicy": _policy_status,
}
