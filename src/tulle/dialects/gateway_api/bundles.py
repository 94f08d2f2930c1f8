"""CA bundles in ConfigMaps, which policies for backends and Gateways name; and which ConfigMaps a source has to read for the dialect.

A bundle is the concatenation of what is usable; one reference that leads to nothing does not spoil the others. Source: Gateway API,
BackendTLSPolicyValidation.caCertificateRefs and FrontendTLSValidation.caCertificateRefs (entry `ca.crt`).
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from tulle.dialects.gateway_api.grants import is_granted
from tulle.dialects.gateway_api.schema import CaRef
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.keys import ObjectKey

CONFIG_MAP: Final = ("", "ConfigMap")
ENTRY: Final = "ca.crt"


class Bundle(Struct, frozen=True):
    """What references to bundles come to."""

    pem: str = ""
    """Empty: nothing to trust."""
    wrong: Verdict | None = None
    """The first reference that leads to nothing: InvalidKind, RefNotPermitted or InvalidCACertificateRef."""


def bundle(db: Database, holder: ObjectKey, refs: Iterable[CaRef]) -> Bundle:
    """The roots that an object's references lead to."""
    texts: list[str] = []
    wrong: Verdict | None = None
    for ref in refs:
        found = _read(db, holder, ref)
        if isinstance(found, Verdict):
            wrong = wrong or found
        else:
            texts.append(found)
    return Bundle("".join(texts), wrong)


def place_of(holder: ObjectKey, ref: CaRef) -> ObjectKey:
    """The object that a reference names."""
    return ObjectKey(holder.cluster, ref.group, ref.kind, ref.namespace or holder.namespace, ref.name)


def _read(db: Database, holder: ObjectKey, ref: CaRef) -> str | Verdict:
    if (ref.group, ref.kind) != CONFIG_MAP:
        return Verdict("InvalidKind", f"{ref.kind} {ref.name} is no ConfigMap")
    key = place_of(holder, ref)
    if not is_granted(db, holder, key):
        return Verdict("RefNotPermitted", f"no ReferenceGrant of {key.namespace} allows ConfigMap {ref.name}")
    pem = _pem(db, key)
    return pem or Verdict(
        "InvalidCACertificateRef", f"there are no certificates in {ENTRY} of ConfigMap {key.namespace}/{ref.name}"
    )


@query
def _pem(db: Database, key: ObjectKey) -> str:
    """The certificates of a ConfigMap; nothing where a proxy would not take them: it refuses all of a cluster for that."""
    found = objects(db, key)
    data: dict[str, str] = (found.spec.data if found else None) or {}
    text = data.get(ENTRY, "")
    if not text:
        return ""
    from tulle.dialects.kubernetes.certificates import certificates  # noqa: PLC0415 - seldom needed, and takes long to import

    return text.rstrip() + "\n" if certificates(text.encode()) else ""
