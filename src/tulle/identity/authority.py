"""The built-in CA: makes roots, and signs leafs for verified identities and certificates for the control plane.

Does no I/O and keeps nothing: keys come from `store.py` or `plugin.py`, when to renew is `rotation.py`'s, and the caller
has verified the identity. The clock is the caller's `now`. Profiles: RFC 5280, SPIFFE X509-SVID, Istio's citadel.
"""

import ipaddress
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from tulle.identity.errors import CsrRefused, InvalidSpiffeId, LifetimeOutOfRange, SignerExpired
from tulle.identity.private import PrivateBytes
from tulle.identity.spiffe import SCHEME, SpiffeId, check, check_trust_domain

ROOT_LIFETIME = timedelta(days=3650)
"""Default life of a self-signed root (Istio: 10 years)."""
LEAF_LIFETIME = timedelta(hours=24)
"""Default life of a leaf (Istio: 24 hours)."""
LEAST_LIFETIME = timedelta(seconds=2)
"""X.509 counts in whole seconds: anything shorter may be over before it arrives."""
MOST_LIFETIME = timedelta(days=90)
BACKDATE = timedelta(minutes=2)
"""How far ahead the CA's clock may be of a peer's (Istio uses the same)."""
MAX_CSR_BYTES = 64 * 1024

CaKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SubjectKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_RSA_LEAF_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_CA_USAGE = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
_PEER_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
_SERVER_PURPOSES = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_NOBODY = x509.Name([])
_NO_CA = x509.BasicConstraints(ca=False, path_length=None)


class Signed(Struct, frozen=True, kw_only=True):
    """A certificate without its key: what a CSR is answered with."""

    chain_pem: bytes
    """The certificate, then its intermediates; no root."""
    serial: str
    """Lower-case hexadecimal."""
    not_before: datetime
    not_after: datetime
    spiffe_id: SpiffeId | None
    """None for a certificate of the control plane."""
    root_fingerprint: str
    """SHA-256 of the root's DER, hexadecimal: the root a peer must trust."""


class Leaf(Signed, frozen=True, kw_only=True):
    """A certificate and its key, made here."""

    key_pem: PrivateBytes
    """PKCS #8, unencrypted: `reveal()` it into a send buffer only."""


class Root(Struct, frozen=True):
    """A root and its key."""

    certificate_pem: bytes
    key: CaKey
    fingerprint: str
    not_before: datetime
    not_after: datetime


class Bundle(Struct, frozen=True, dict=True):
    """The roots a peer may chain up to; several while roots are rotated."""

    roots: tuple[bytes, ...]
    """One PEM certificate each."""

    @cached_property
    def fingerprints(self) -> tuple[str, ...]:
        """SHA-256 of each root's DER, hexadecimal, in order."""
        return tuple(fingerprint_of(certificate) for certificate in self.certificates)

    @cached_property
    def certificates(self) -> tuple[x509.Certificate, ...]:
        """The roots, parsed."""
        return tuple(x509.load_pem_x509_certificate(root) for root in self.roots)

    @property
    def pem(self) -> bytes:
        """All roots in one text: Envoy's `trusted_ca`."""
        return b"".join(self.roots)

    @classmethod
    def parse(cls, pem: bytes) -> "Bundle":
        """The bundle in a PEM text, duplicates removed. Raises ValueError where there is no certificate."""
        certificates = x509.load_pem_x509_certificates(pem)
        return cls(tuple(dict.fromkeys(pem_of(certificate) for certificate in certificates)))


class Signer(Struct, frozen=True):
    """What signs: a root, or an intermediate of a plug-in CA."""

    certificate: x509.Certificate
    key: CaKey
    intermediates_pem: bytes
    """From the signer up to, without, the root; empty for a root."""
    root_fingerprint: str

    @classmethod
    def of_root(cls, root: Root) -> "Signer":
        """Signing with the root itself."""
        return cls(x509.load_pem_x509_certificate(root.certificate_pem), root.key, b"", root.fingerprint)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, lower-case hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def pem_of(certificate: x509.Certificate) -> bytes:
    """One PEM block with a final newline."""
    return certificate.public_bytes(Encoding.PEM)


def new_root(trust_domain: str, now: datetime, lifetime: timedelta = ROOT_LIFETIME) -> Root:
    """A self-signed root of a trust domain, itself named `spiffe://<trust domain>` (X509-SVID §4.1).

    Its common name is unique, so that two roots of one mesh cannot be confused during a rotation.
    """
    check_trust_domain(trust_domain)
    if lifetime < LEAST_LIFETIME:
        raise LifetimeOutOfRange(asked=lifetime, least=LEAST_LIFETIME, most="that of the key")
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"tulle root {serial:x}"[:27]),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key(), serial_number=serial)
        .not_valid_before(_floor(now - BACKDATE))
        .not_valid_after(_ceiling(now + lifetime))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"{SCHEME}{trust_domain}")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return Root(
        pem_of(certificate),
        key,
        fingerprint_of(certificate),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


class Authority:
    """Signs with one signer for one trust domain; replaced as a whole when the signer changes.

    Cost: about a third of a millisecond per leaf, of which the key is a tenth (see the room's README).
    """

    def __init__(self, signer: Signer, trust_domain: str, backdate: timedelta = BACKDATE) -> None:
        check_trust_domain(trust_domain)
        self.signer = signer
        self.trust_domain = trust_domain
        self._backdate = backdate
        self._not_before = signer.certificate.not_valid_before_utc
        self._not_after = signer.certificate.not_valid_after_utc
        self._issuer_key = _authority_key(signer.certificate)

    def issue(self, spiffe_id: SpiffeId, ttl: timedelta, now: datetime) -> Leaf:
        """A leaf with a new P-256 key for a workload whose identity the caller has verified.

        Its end is never later than the signer's. Raises TUL0501 (name, also of another trust domain), TUL0515, TUL0516.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._certify(key.public_key(), self._names_of(spiffe_id), _PEER_PURPOSES, ttl, now)
        return self._leaf(key, signed, spiffe_id)

    def sign_csr(self, csr_pem: bytes, spiffe_id: SpiffeId, ttl: timedelta, now: datetime) -> Signed:
        """A certificate for the key of a request: only the key is taken from it, the name is the verified one.

        Names, usages and lifetimes the request asks for are ignored, as Istio does. Raises TUL0514 and as `issue`.
        """
        certificate = self._certify(_key_of(csr_pem), self._names_of(spiffe_id), _PEER_PURPOSES, ttl, now)
        return self._signed(certificate, spiffe_id)

    def issue_server(
        self,
        dns_names: Sequence[str],
        addresses: Sequence[str],
        ttl: timedelta,
        now: datetime,
        spiffe_id: SpiffeId | None = None,
    ) -> Leaf:
        """A server certificate of the control plane, for DNS names and IP addresses; serves TLS only, is no client.

        Raises TUL0501, TUL0515, TUL0516; ValueError for no names at all, a bad name or a bad address.
        """
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        names += self._names_of(spiffe_id) if spiffe_id else []
        if not names:
            raise ValueError("a server certificate needs a name")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(key.public_key(), names, _SERVER_PURPOSES, ttl, now)
        return self._leaf(key, certificate, spiffe_id)

    def _names_of(self, spiffe_id: SpiffeId) -> list[x509.GeneralName]:
        check(spiffe_id)
        if spiffe_id.trust_domain != self.trust_domain:
            raise InvalidSpiffeId(text=spiffe_id, reason=f"the CA is of trust domain {self.trust_domain}")
        return [x509.UniformResourceIdentifier(str(spiffe_id))]

    def _certify(
        self,
        key: SubjectKey,
        names: list[x509.GeneralName],
        purposes: x509.ExtendedKeyUsage,
        ttl: timedelta,
        now: datetime,
    ) -> x509.Certificate:
        if not LEAST_LIFETIME <= ttl <= MOST_LIFETIME:
            raise LifetimeOutOfRange(asked=ttl, least=LEAST_LIFETIME, most=MOST_LIFETIME)
        if not self._not_before <= now < self._not_after:
            raise SignerExpired(
                fingerprint=fingerprint_of(self.signer.certificate)[:16],
                not_before=self._not_before.isoformat(),
                not_after=self._not_after.isoformat(),
            )
        usage = _RSA_LEAF_USAGE if isinstance(key, rsa.RSAPublicKey) else _LEAF_USAGE
        # The subject is empty, so the names are critical (RFC 5280 §4.2.1.6; X509-SVID §2).
        return (
            x509.CertificateBuilder(
                issuer_name=self.signer.certificate.subject,
                subject_name=_NOBODY,
                public_key=key,
                serial_number=x509.random_serial_number(),
            )
            .not_valid_before(max(_floor(now - self._backdate), self._not_before))
            .not_valid_after(min(_ceiling(now + ttl), self._not_after))
            .add_extension(_NO_CA, critical=True)
            .add_extension(usage, critical=True)
            .add_extension(purposes, critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(self._issuer_key, critical=False)
            .sign(self.signer.key, hashes.SHA256())
        )

    def _signed(self, certificate: x509.Certificate, spiffe_id: SpiffeId | None) -> Signed:
        return Signed(
            chain_pem=pem_of(certificate) + self.signer.intermediates_pem,
            serial=f"{certificate.serial_number:x}",
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            spiffe_id=spiffe_id,
            root_fingerprint=self.signer.root_fingerprint,
        )

    def _leaf(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, spiffe_id: SpiffeId | None) -> Leaf:
        signed = self._signed(certificate, spiffe_id)
        return Leaf(
            chain_pem=signed.chain_pem,
            serial=signed.serial,
            not_before=signed.not_before,
            not_after=signed.not_after,
            spiffe_id=spiffe_id,
            root_fingerprint=signed.root_fingerprint,
            key_pem=PrivateBytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        subject_key = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public = issuer.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key)


def _key_of(csr_pem: bytes) -> SubjectKey:
    if len(csr_pem) > MAX_CSR_BYTES:
        raise CsrRefused(reason=f"it is longer than {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        acceptable = (
            isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        ) or (isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192)
        # The kind of key is judged before the signature: verifying with a huge key is work an attacker chooses.
        if not acceptable or not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise CsrRefused(reason="its key is neither EC P-256 or P-384 nor RSA of 2048 to 8192 bits")
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CsrRefused(reason="it cannot be read") from error
    if not proven:
        raise CsrRefused(reason="its signature is not by its own key")
    return key


def _floor(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _ceiling(moment: datetime) -> datetime:
    return datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)
