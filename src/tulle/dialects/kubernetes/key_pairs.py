"""Whether a proxy would take the certificates of a Secret: it refuses a whole update for one that does not load.

Reads the bytes and says names of entries and reasons, never bytes. Source: Envoy, TlsCertificate (RSA of 2048 bits and more,
ECDSA on the NIST curves).
"""

from collections.abc import Mapping
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

PAIRS: Final = (("tls.crt", "tls.key"), ("cert", "key"))
"""Certificate and key in Secrets of type kubernetes.io/tls, and in Istio's generic ones."""
ROOTS: Final = ("ca.crt", "cacert")
"""Roots that client certificates must come from."""
_MIN_RSA_BITS: Final = 2048
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class Material(Protocol):
    """Decoded entries."""

    def entry(self, name: str) -> bytes | None:
        """The bytes of one entry."""


def unusable(material: Material) -> Mapping[str, str]:
    """Entry names and what is wrong with them; empty where nothing is, or nothing is a certificate."""
    found: dict[str, str] = {}
    for chain_entry, key_entry in PAIRS:
        chain, key = material.entry(chain_entry), material.entry(key_entry)
        if chain is not None and key is not None:
            found.update(_pair(chain_entry, chain, key_entry, key))
    for entry in ROOTS:
        roots = material.entry(entry)
        if roots is not None and not _certificates(roots):
            found[entry] = "no PEM certificate"
    return found


def _pair(chain_entry: str, chain: bytes, key_entry: str, key: bytes) -> Mapping[str, str]:
    certificates = _certificates(chain)
    if not certificates:
        return {chain_entry: "no PEM certificate"}
    try:
        private = load_pem_private_key(key, None)
        public = certificates[0].public_key()
    except _UNREADABLE:
        return {key_entry: "no PEM private key without a password"}
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _MIN_RSA_BITS:
            return {key_entry: f"an RSA key of {private.key_size} bits, and proxies take {_MIN_RSA_BITS} and more"}
    elif not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in _CURVES:
        return {key_entry: "a kind of key that proxies do not take (RSA and ECDSA on P-256, P-384, P-521)"}
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        return {key_entry: f"not the key of {chain_entry}"}
    return {}


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        return []
