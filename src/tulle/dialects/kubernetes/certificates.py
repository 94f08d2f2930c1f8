"""Whether a proxy would take a certificate and its key.

Reads the bytes and says names of entries and reasons, never bytes; which entries those are is `key_pairs.py`'s, which imports
this module when there is one: cryptography is a tenth of what a start costs. Source: Envoy, TlsCertificate (RSA of 2048 bits
and more, ECDSA on the NIST curves).
"""

from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_MIN_RSA_BITS: Final = 2048
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


def pair_faults(chain_entry: str, chain: bytes, key_entry: str, key: bytes) -> Mapping[str, str]:
    """What is wrong with a chain and its key, by entry; empty where nothing is."""
    chained = certificates(chain)
    if not chained:
        return {chain_entry: "no PEM certificate"}
    try:
        private = load_pem_private_key(key, None)
        public = chained[0].public_key()
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


def certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM text; none where it is not one."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        return []
