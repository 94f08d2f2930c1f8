"""SPIFFE names of workloads: reading, checking, printing. Pure.

Knows no certificates; the CA (`authority.py`) puts these names into them. Shape of the path: Istio's `/ns/<ns>/sa/<sa>`.
Rules: SPIFFE-ID specification §2 (https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/).
"""

import re
from typing import NamedTuple, Self

from tulle.identity.errors import InvalidSpiffeId, InvalidTrustDomain

SCHEME = "spiffe://"
MAX_ID_BYTES = 2048
MAX_TRUST_DOMAIN_BYTES = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


class SpiffeId(NamedTuple):
    """One workload identity: every pod of a service account shares it.

    Make it with `spiffe_id` or `SpiffeId.parse`, which check it; `str()` is the URI in certificates.
    """

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.principal}"

    @property
    def principal(self) -> str:
        """The URI without its scheme, as Istio's AuthorizationPolicy writes it: `cluster.local/ns/x/sa/y`."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The name in a URI. Raises `InvalidSpiffeId` (TUL0501) or `InvalidTrustDomain` (TUL0502)."""
        if not text.startswith(SCHEME):
            raise InvalidSpiffeId(text=_shown(text), reason="it does not start with spiffe://")
        return cls.parse_principal(text.removeprefix(SCHEME))

    @classmethod
    def parse_principal(cls, text: str) -> Self:
        """The name in Istio's form without scheme. Raises like `parse`."""
        parts = text.split("/")
        if len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
            raise InvalidSpiffeId(text=_shown(text), reason="it is not <trust domain>/ns/<namespace>/sa/<account>")
        name = cls(parts[0], parts[2], parts[4])
        check(name)
        return name


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """A checked name. Raises `InvalidSpiffeId` (TUL0501) or `InvalidTrustDomain` (TUL0502)."""
    name = SpiffeId(trust_domain, namespace, service_account)
    check(name)
    return name


def check(name: SpiffeId) -> None:
    """Raises unless the name follows the specification: nothing in it can be read as another name."""
    check_trust_domain(name.trust_domain)
    for what, segment in (("namespace", name.namespace), ("service account", name.service_account)):
        if not _SEGMENT.match(segment) or segment in (".", ".."):
            raise InvalidSpiffeId(
                text=_shown(str(name)), reason=f"its {what} is empty, dots only, or not of letters, digits and . _ -"
            )
    if len(str(name)) > MAX_ID_BYTES:
        raise InvalidSpiffeId(text=_shown(str(name)), reason=f"it is longer than {MAX_ID_BYTES} bytes")


def check_trust_domain(trust_domain: str) -> None:
    """Raises `InvalidTrustDomain` unless it is 1-255 of lower-case letters, digits and `. _ -`."""
    if not _TRUST_DOMAIN.match(trust_domain) or len(trust_domain) > MAX_TRUST_DOMAIN_BYTES:
        raise InvalidTrustDomain(text=_shown(trust_domain))


def _shown(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}…"
