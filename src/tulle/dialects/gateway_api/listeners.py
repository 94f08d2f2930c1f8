"""The listeners of a Gateway, its own and those of its ListenerSets, each judged: what it may carry, and what is wrong with it.

One answer for traffic (`gateways`), for attaching routes and for status. Earlier listeners win: the Gateway's in order, then
those of ListenerSets, oldest first.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct, structs

from tulle.dialects.gateway_api import schema
from tulle.dialects.gateway_api.bundles import Bundle, bundle
from tulle.dialects.gateway_api.gateway_classes import our_gateway, our_gateways
from tulle.dialects.gateway_api.grants import is_granted
from tulle.dialects.gateway_api.names import (
    SUPPORTED,
    binding_of,
    gateway_key,
    host_of,
    selects_labels,
)
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import by_kind, objects
from tulle.dialects.kubernetes.key_pairs import PAIRS
from tulle.dialects.kubernetes.namespace_labels import namespace
from tulle.dialects.kubernetes.registry import secret_digest
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey, covers
from tulle.model.origin import Origin

INSECURE: Final = "AllowInsecureFallback"
"""A mode of asking clients for a proof: none is needed."""


class Listener(Struct, frozen=True):
    """One listener and what became of it."""

    gateway: ObjectKey
    holder: ObjectKey
    """The Gateway, or the ListenerSet that has it."""
    written: schema.Listener
    origin: Origin
    binding: str
    """How routes name it."""
    host: str
    """`*` for any."""
    kinds: tuple[str, ...]
    """Kinds of routes it takes."""
    refused: Verdict | None
    """Why it is not accepted."""
    unresolved: Verdict | None
    """What it refers to and is not there, not ours to read, or of the wrong kind."""
    is_conflicted: bool = False
    certificate: ObjectKey | None = None
    """The Secret it serves, if it can."""
    client_roots: str = ""
    """PEM of who may vouch for clients; empty: nobody need."""
    takes_anybody: bool = False
    """Clients that cannot prove who they are come in all the same."""
    overlaps: bool = False
    """Another listener of TLS on the port may be meant by the same name."""

    @property
    def serves(self) -> bool:
        """Whether it is put to work."""
        if self.refused:
            return False
        return self.certificate is not None or not _terminates(self.written)

    @property
    def is_served_whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.refused is None and self.unresolved is None


@query
def gateway_listeners(db: Database, key: ObjectKey) -> tuple[Listener, ...]:
    """Every listener of a Gateway that is ours, in order of precedence. A few dozen: judged together."""
    found = our_gateway(db, key)
    if found is None:
        return ()
    judged: list[Listener] = []
    for holder, listeners in ((key, found.listeners), *_sets(db, key)):
        for index, written in enumerate(listeners):
            place = Origin(holder, "spec").at("listeners", index)
            judged.append(_judged(db, key, place, written, judged))
    return tuple(_with_overlaps(judged))


@query
def secret_namespaces(db: Database, cluster: str) -> frozenset[str]:
    """Namespaces whose Secrets listeners may refer to and do, whether or not those are there: what a source need read."""
    found: set[str] = set()
    for key in our_gateways(db, cluster):
        for one in gateway_listeners(db, key):
            for ref in one.written.tls.certificate_refs if one.written.tls else ():
                found.update(_place(db, one.holder, ref))
        shown = client_certificate_ref(our_gateway(db, key))
        found.update(_place(db, key, shown) if shown else ())
    return frozenset(found)


def _place(db: Database, holder: ObjectKey, ref: schema.SecretRef) -> Iterable[str]:
    place = ref.namespace or holder.namespace
    target = ObjectKey(holder.cluster, "", "Secret", place, ref.name)
    if (ref.group, ref.kind) == ("", "Secret") and is_granted(db, holder, target):
        yield place


@query
def listener_sets(db: Database, key: ObjectKey) -> tuple[ObjectKey, ...]:
    """ListenerSets that the Gateway lets in, oldest first."""
    found = our_gateway(db, key)
    if found is None:
        return ()
    allowed = found.allowed_listeners.namespaces
    asking = [
        one for one in by_kind(db, (key.cluster, "ListenerSet")) if one.group == GROUP and parent_of(db, one) == key
    ]
    let_in = [one for one in asking if is_allowed(db, allowed, key.namespace, one)]
    return tuple(sorted(let_in, key=lambda one: (_created(db, one), one.namespace, one.name)))


@query
def parent_of(db: Database, key: ObjectKey) -> ObjectKey | None:
    """The Gateway a ListenerSet names, whether or not it is there."""
    found = objects(db, key)
    if found is None:
        return None
    spec: schema.ListenerSet = found.spec
    if (spec.parent_ref.group, spec.parent_ref.kind) != (GROUP, "Gateway"):
        return None
    return gateway_key(key.cluster, spec.parent_ref.namespace or key.namespace, spec.parent_ref.name)


def is_allowed(db: Database, allowed: schema.RouteNamespaces, own: str, asking: ObjectKey) -> bool:
    """Whether an object may attach, by the namespace it is of; `own` is that of who allows."""
    match allowed.from_:
        case "All":
            return True
        case "Same":
            return asking.namespace == own
        case "Selector":
            labels = namespace(db, asking.cluster, asking.namespace)
            return selects_labels(allowed.selector, asking.namespace, labels)
        case _:
            return False


def _sets(db: Database, key: ObjectKey) -> Iterable[tuple[ObjectKey, tuple[schema.Listener, ...]]]:
    for holder in listener_sets(db, key):
        found = objects(db, holder)
        if found is not None:
            yield holder, found.spec.listeners


def _created(db: Database, key: ObjectKey) -> str:
    found = objects(db, key)
    return found.created if found else ""


def _terminates(written: schema.Listener) -> bool:
    return written.tls is not None and written.tls.mode == "Terminate" and written.protocol in ("HTTPS", "TLS")


def _judged(
    db: Database, gateway: ObjectKey, origin: Origin, written: schema.Listener, earlier: list[Listener]
) -> Listener:
    holder = origin.object
    host = host_of(written.hostname)
    kinds, unresolved = _kinds(written)
    conflict = _conflict(written, host, earlier)
    proof, trusted = _proof(db, gateway, written)
    unproven = Verdict("NoValidCACertificate", "no reference leads to a certificate that could prove a client")
    refused = _misfit(written) or conflict or (unproven if proof and not trusted.pem else None)
    unresolved = unresolved or trusted.wrong
    certificate: ObjectKey | None = None
    if _terminates(written) and written.tls is not None:
        certificate, missing = _certificate(db, holder, written.tls)
        unresolved = unresolved or missing
    return Listener(
        gateway=gateway,
        holder=holder,
        written=written,
        origin=origin,
        binding=binding_of(gateway, holder, written.name),
        host=host,
        kinds=kinds,
        refused=refused,
        unresolved=unresolved,
        is_conflicted=conflict is not None and refused is conflict,
        certificate=certificate,
        client_roots=trusted.pem,
        takes_anybody=proof is not None and proof.mode == INSECURE,
    )


def _proof(
    db: Database, gateway: ObjectKey, written: schema.Listener
) -> tuple[schema.FrontendValidation | None, Bundle]:
    """What the Gateway demands of clients of a listener, and the roots for it."""
    found = frontend_validation(our_gateway(db, gateway), written)
    if found is None:
        return None, Bundle()
    trusted = bundle(db, gateway, found.ca_certificate_refs)
    if trusted.wrong is not None and trusted.wrong.reason == "InvalidKind":
        return found, Bundle(trusted.pem, Verdict("InvalidCACertificateKind", trusted.wrong.message))
    return found, trusted


def frontend_validation(found: schema.Gateway | None, written: schema.Listener) -> schema.FrontendValidation | None:
    """What clients of a listener of HTTPS must prove: as its port says, or the default."""
    frontend = found.tls.frontend if found else None
    if frontend is None or written.protocol != "HTTPS":
        return None
    config = next((one.tls for one in frontend.per_port if one.port == written.port), frontend.default)
    return config.validation


def _kinds(written: schema.Listener) -> tuple[tuple[str, ...], Verdict | None]:
    able: tuple[str, ...] = SUPPORTED.get(written.protocol, ())
    if written.protocol == "TLS" and written.tls is not None and written.tls.mode == "Terminate":
        able = (*able, "TCPRoute")
    asked = written.allowed_routes.kinds
    if not asked:
        return able, None
    kept = tuple(dict.fromkeys(one.kind for one in asked if one.group == GROUP and one.kind in able))
    strange = [one.kind for one in asked if one.group != GROUP or one.kind not in able]
    if not strange:
        return kept, None
    return kept, Verdict("InvalidRouteKinds", f"{written.protocol} takes no {', '.join(strange)}")


def _misfit(written: schema.Listener) -> Verdict | None:
    if written.protocol not in SUPPORTED:
        return Verdict("UnsupportedProtocol", f"protocol {written.protocol} is not served")
    if written.protocol in ("HTTPS", "TLS") and written.tls is None:
        return Verdict("UnsupportedValue", f"protocol {written.protocol} needs tls")
    if written.protocol == "HTTPS" and written.tls is not None and written.tls.mode != "Terminate":
        return Verdict("UnsupportedValue", "HTTPS is terminated; for passing it through the protocol is TLS")
    return None


def _conflict(written: schema.Listener, host: str, earlier: Iterable[Listener]) -> Verdict | None:
    """With an earlier listener of the same port: another protocol, or the same name."""
    for other in earlier:
        if other.written.port != written.port or other.refused is not None:
            continue
        if _family(other.written) != _family(written):
            return Verdict("ProtocolConflict", f"port {written.port} speaks {other.written.protocol} already")
        if other.host == host or written.protocol == "TCP":
            return Verdict(
                "HostnameConflict", f"listener {other.written.name} has port {written.port} and that hostname"
            )
    return None


def _family(written: schema.Listener) -> str:
    """What may share a port: everything that is told apart by SNI."""
    return "TLS" if written.protocol in ("HTTPS", "TLS") else written.protocol


def _certificate(db: Database, holder: ObjectKey, tls: schema.ListenerTls) -> tuple[ObjectKey | None, Verdict | None]:
    """The first Secret that serves; and what is wrong with the first that does not."""
    serving: ObjectKey | None = None
    wrong: Verdict | None = None
    for ref in tls.certificate_refs:
        key, verdict = _secret(db, holder, ref)
        serving, wrong = serving or key, wrong or verdict
    if not tls.certificate_refs:
        wrong = Verdict("InvalidCertificateRef", "a listener that terminates TLS names a certificate")
    return serving, wrong


@query
def client_certificate(db: Database, key: ObjectKey) -> tuple[ObjectKey | None, Verdict | None]:
    """The Secret that a Gateway of ours shows to backends, or what is wrong with its reference; neither where it has none."""
    ref = client_certificate_ref(our_gateway(db, key))
    if ref is None:
        return None, None
    found, wrong = _secret(db, key, ref)
    if wrong is not None and wrong.reason == "InvalidCertificateRef":
        return None, Verdict("InvalidClientCertificateRef", wrong.message)
    return found, wrong


def client_certificate_ref(found: schema.Gateway | None) -> schema.SecretRef | None:
    """What a Gateway names to be shown to backends."""
    backend = found.tls.backend if found else None
    return backend.client_certificate_ref if backend else None


def _secret(db: Database, holder: ObjectKey, ref: schema.SecretRef) -> tuple[ObjectKey | None, Verdict | None]:
    if (ref.group, ref.kind) != ("", "Secret"):
        return None, Verdict("InvalidCertificateRef", f"{ref.kind} {ref.name} is no Secret")
    place = ref.namespace or holder.namespace
    key = ObjectKey(holder.cluster, "", "Secret", place, ref.name)
    if not is_granted(db, holder, key):
        return None, Verdict("RefNotPermitted", f"no ReferenceGrant of {place} allows Secret {ref.name}")
    digest = secret_digest(db, key)
    if digest is None:
        return None, Verdict("InvalidCertificateRef", f"there is no Secret {place}/{ref.name}")
    if not any(set(pair) <= digest.usable for pair in PAIRS):
        return None, Verdict("InvalidCertificateRef", f"Secret {place}/{ref.name} has no usable tls.crt and tls.key")
    return key, None


def _with_overlaps(judged: list[Listener]) -> Iterable[Listener]:
    """Mark listeners of TLS whose names another of the port also has: a client may use one connection for both."""
    shared = [one for one in judged if one.refused is None and one.written.protocol == "HTTPS"]
    for one in judged:
        others = (other for other in shared if other is not one and other.written.port == one.written.port)
        meets = one in shared and any(covers(other.host, one.host) or covers(one.host, other.host) for other in others)
        yield structs.replace(one, overlaps=True) if meets else one
