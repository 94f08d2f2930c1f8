"""BackendTLSPolicies: TLS from gateways to the Services that they name; which policy is in force for a port, and for whom it counts.

Of policies for the same thing the oldest is in force; one for a port goes before one for its whole Service. A policy whose roots
cannot be had stays in force: what must be proven and cannot be is not called. Source: Gateway API, BackendTLSPolicy; GEP-713, GEP-1897.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from tulle.dialects.gateway_api.attaching import attachments
from tulle.dialects.gateway_api.bundles import Bundle, bundle
from tulle.dialects.gateway_api.names import ROUTE_KINDS, gateway_key
from tulle.dialects.gateway_api.schema import GROUP, BackendTLSPolicy
from tulle.dialects.gateway_api.schema_routes import AnyRoute
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.intent import ClientTls, TlsMode
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.model.origin import Origin

KIND: Final = "BackendTLSPolicy"
SYSTEM: Final = "System"
_SERVICE: Final = ("", "Service")
Place = tuple[str, str, str]
"""(cluster, namespace, name) of a Service."""


class Judged(Struct, frozen=True):
    """A policy as it can be enforced."""

    roots: str = ""
    """PEM; empty: those everybody trusts, unless it is refused."""
    refused: Verdict | None = None
    unresolved: Verdict | None = None


def _target_buckets(key: ObjectKey, value: Object) -> Iterable[Place]:
    if (key.group, key.kind) == (GROUP, KIND):
        spec: BackendTLSPolicy = value.spec
        targets = {one.name for one in spec.target_refs if (one.group, one.kind) == _SERVICE}
        yield from ((key.cluster, key.namespace, name) for name in targets)


policies_by_target = objects.index("backend_tls_by_target", _target_buckets)
"""Service -> keys of the policies that name it."""


def _backend_buckets(key: ObjectKey, value: Object) -> Iterable[Place]:
    if key.group != GROUP or key.kind not in ROUTE_KINDS:
        return
    route: AnyRoute = value.spec
    places = {
        (key.cluster, ref.namespace or key.namespace, ref.name)
        for rule in route.rules
        for ref in rule.backend_refs
        if (ref.group, ref.kind) == _SERVICE
    }
    yield from places


routes_by_backend = objects.index("routes_by_backend", _backend_buckets)
"""Service -> keys of the routes that lead to it."""


def backend_tls(db: Database, place: Place, port: str) -> ClientTls | None:
    """How gateways call a port of a Service, by its name; None where no policy is in force for it: of nearly every Service."""
    return _demanded(db, place, port) if policies_by_target(db, place) else None


@query
def _demanded(db: Database, place: Place, port: str) -> ClientTls | None:
    found = in_force(db, place, port)
    policy = objects(db, found) if found else None
    if found is None or policy is None:
        return None
    validation = policy.spec.validation
    judged = judge(db, found)
    return ClientTls(
        mode=TlsMode.SIMPLE,
        sni=validation.hostname,
        subject_alt_names=tuple(one.hostname or one.uri for one in validation.subject_alt_names),
        insecure_skip_verify=False,
        origin=Origin(found, "spec.validation"),
        roots=judged.roots if judged.refused is None else None,
    )


def in_force(db: Database, place: Place, port: str) -> ObjectKey | None:
    """The policy that decides for a port."""
    return (_winner(db, place, port) if port else None) or _winner(db, place, "")


def _winner(db: Database, place: Place, section: str) -> ObjectKey | None:
    """The oldest policy for exactly this: a port by its name, or the whole Service."""
    asking: list[tuple[str, str, ObjectKey]] = []
    for key in policies_by_target(db, place):
        found = objects(db, key)
        targets = found.spec.target_refs if found else ()
        if found and any((one.name, one.section_name or "") == (place[2], section) for one in targets):
            asking.append((found.created, key.name, key))
    return min(asking)[2] if asking else None


@query
def judge(db: Database, key: ObjectKey) -> Judged:
    """What a policy demands, and whether it can be: its roots, and its standing among others for the same."""
    found = objects(db, key)
    if found is None:
        return Judged()
    spec: BackendTLSPolicy = found.spec
    conflict = _conflict(db, key, spec)
    validation = spec.validation
    if validation.well_known_ca_certificates is not None:
        if validation.well_known_ca_certificates == SYSTEM:
            return Judged(refused=conflict)
        strange = Verdict("Invalid", f"no certificates are known by the name {validation.well_known_ca_certificates}")
        return Judged(refused=conflict or strange)
    trusted: Bundle = bundle(db, key, validation.ca_certificate_refs)
    missing = None if trusted.pem else Verdict("NoValidCACertificate", "no reference leads to a certificate")
    return Judged(trusted.pem, conflict or missing, trusted.wrong)


def _conflict(db: Database, key: ObjectKey, spec: BackendTLSPolicy) -> Verdict | None:
    for one in spec.target_refs:
        other = _winner(db, (key.cluster, key.namespace, one.name), one.section_name or "")
        if other is not None and other != key:
            return Verdict("Conflicted", f"{KIND} {other.name} is older and is for the same")
    return None


@query
def gateways_of(db: Database, key: ObjectKey) -> tuple[ObjectKey, ...]:
    """The Gateways that are ours with a route to what a policy is for, by name."""
    found = objects(db, key)
    if found is None:
        return ()
    reached: set[ObjectKey] = set()
    for one in found.spec.target_refs:
        for route in routes_by_backend(db, (key.cluster, key.namespace, one.name)):
            for binding in (name for parent in attachments(db, route) for name in parent.bindings):
                namespace, name, *_ = binding.split("/")
                reached.add(gateway_key(key.cluster, namespace, name))
    return tuple(sorted(reached))
