"""Every kind that tulle reads, from every dialect, and the one door through which objects come in.

Pure. The only place that knows all dialects; sources call `read` and know none.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tulle.dialects.decode import Decoded, decoded
from tulle.dialects.gateway_api.kinds import KINDS as GATEWAY_API_KINDS
from tulle.dialects.istio.kinds import KINDS as ISTIO_KINDS
from tulle.dialects.kinds import KindRead, Made, NameRule, Scope
from tulle.dialects.kubernetes.key_pairs import unusable
from tulle.dialects.kubernetes.kinds import KINDS as CORE_KINDS
from tulle.dialects.kubernetes.kinds import CoreKind
from tulle.dialects.kubernetes.secret import SecretUnreadableError, digest_of, secret_material
from tulle.model.origin import Origin
from tulle.model.problems import problem

_SHORT_NAMES = frozenset(("Namespace", "Service"))
_WITHOUT_SPEC = frozenset(("Namespace",))


def _core(kind: CoreKind) -> KindRead:
    return KindRead(
        group=kind.group,
        kind=kind.kind,
        versions=kind.versions,
        schema=kind.struct,
        scope=Scope.NAMESPACED if kind.is_namespaced else Scope.CLUSTER,
        root=kind.part,
        check=kind.check,
        make=_secret if kind.digest is not None else None,
        name_rule=NameRule.LABEL if kind.kind in _SHORT_NAMES else NameRule.SUBDOMAIN,
        is_strict=False,
        requires_root=kind.kind not in _WITHOUT_SPEC,
    )


def _secret(raw: dict[str, Any], origin: Origin) -> Made:
    try:
        material = secret_material(raw)
    except SecretUnreadableError as error:
        return Made(None, (problem("TUL0310", origin.at(error.path), reason=error.reason),))
    place = origin.at("data" if raw.get("data") else "stringData")
    warnings = [
        problem("TUL0311", place.at(entry), entry=entry, reason=reason) for entry, reason in unusable(material).items()
    ]
    return Made(digest_of(material), tuple(warnings), private=material)


def _all() -> Iterator[KindRead]:
    yield from map(_core, CORE_KINDS)
    yield from ISTIO_KINDS
    yield from GATEWAY_API_KINDS


KINDS_READ: Mapping[tuple[str, str], KindRead] = {(kind.group, kind.kind): kind for kind in _all()}
"""By (group, kind)."""


def read(raw: Any, cluster: str = "Kubernetes", namespace: str = "default") -> Decoded:
    """The typed object of a raw document (one object, not a List), or what is wrong with it.

    `namespace` is for objects of namespaced kinds that name none. Warnings come with an object, errors without.
    """
    return decoded(raw, KINDS_READ, cluster, namespace)
