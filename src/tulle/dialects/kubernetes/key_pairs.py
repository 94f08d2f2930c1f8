"""Which entries of a Secret are certificates, and what is wrong with them: a proxy refuses a whole update for one that does not load.

Names only; the bytes are read in `certificates.py`.
"""

from collections.abc import Mapping
from typing import Final, Protocol

PAIRS: Final = (("tls.crt", "tls.key"), ("cert", "key"))
"""Certificate and key in Secrets of type kubernetes.io/tls, and in Istio's generic ones."""
ROOTS: Final = ("ca.crt", "cacert")
"""Roots that client certificates must come from."""


class Material(Protocol):
    """Decoded entries."""

    def entry(self, name: str) -> bytes | None:
        """The bytes of one entry."""


def unusable(material: Material) -> Mapping[str, str]:
    """Entry names and what is wrong with them; empty where nothing is, or nothing is a certificate."""
    pairs = [(names, [material.entry(name) for name in names]) for names in PAIRS]
    roots = {name: held for name in ROOTS if (held := material.entry(name)) is not None}
    if not roots and all(None in held for _, held in pairs):
        return {}
    from tulle.dialects.kubernetes import certificates  # noqa: PLC0415 - seldom needed, and takes long to import

    found: dict[str, str] = {}
    for (chain_entry, key_entry), (chain, key) in pairs:
        if chain is not None and key is not None:
            found.update(certificates.pair_faults(chain_entry, chain, key_entry, key))
    found |= {name: "no PEM certificate" for name, held in roots.items() if not certificates.certificates(held)}
    return found
