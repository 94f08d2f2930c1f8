"""A CA of the user's own, in the layout of Istio's `cacerts` secret; read once, never written. An adapter.

    ca-cert.pem  ca-key.pem  root-cert.pem (one root or several)  cert-chain.pem (from ca-cert up; optional for a root)

Offers what `store.py` offers, without moving roots: those are their owner's.
"""

from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tulle.identity.authority import Bundle, CaKey, Signer, fingerprint_of, pem_of
from tulle.identity.disk import MAX_FILE_BYTES, read_private
from tulle.identity.errors import CaFileMissing, CaFileRefused, RotationNotOurs, StateUnwritable
from tulle.identity.moves import RootState, RootStatus
from tulle.identity.private import PrivateBytes
from tulle.identity.spiffe import check_trust_domain

MAX_CHAIN = 8


class PluginCa:
    """A loaded plug-in CA. The files are checked against each other, so that a bad one fails at start, not at a peer."""

    rotates_roots = False
    """Its owner does."""

    def __init__(self, trust_domain: str, signer: Signer, roots: tuple[x509.Certificate, ...]) -> None:
        self.trust_domain = trust_domain
        self._signer = signer
        self._roots = {fingerprint_of(root): root for root in roots}

    @classmethod
    def open(
        cls, directory: Path, trust_domain: str, now: datetime, passphrase: PrivateBytes | None = None
    ) -> "PluginCa":
        """Read and check the files. Raises TUL0502, TUL0503, TUL0510, TUL0511."""
        check_trust_domain(trust_domain)
        certificate = _certificates(directory / "ca-cert.pem")[0]
        key = _key(directory / "ca-key.pem", passphrase)
        roots = _certificates(directory / "root-cert.pem")
        chain_file = directory / "cert-chain.pem"
        chain = _certificates(chain_file) if chain_file.exists() else ()
        if key.public_key() != certificate.public_key():
            raise CaFileRefused(path=directory / "ca-key.pem", reason="it is not the key of ca-cert.pem")
        path = _path_to_root(certificate, chain, roots, directory / "ca-cert.pem", now)
        root = path[-1]
        # A peer has the root already; the signer is sent unless it is the root itself.
        intermediates = b"".join(pem_of(one) for one in path[:-1])
        return cls(trust_domain, Signer(certificate, key, intermediates, fingerprint_of(root)), roots)

    @property
    def roots(self) -> tuple[RootStatus, ...]:
        """The signer's root as ACTIVE, others of root-cert.pem as RETIRED."""
        return tuple(
            RootStatus(
                fingerprint,
                RootState.ACTIVE if fingerprint == self._signer.root_fingerprint else RootState.RETIRED,
                since=root.not_valid_before_utc.timestamp(),
                created_at=root.not_valid_before_utc.timestamp(),
                expires_at=root.not_valid_after_utc.timestamp(),
            )
            for fingerprint, root in self._roots.items()
        )

    def signer(self) -> Signer:
        """What signs."""
        return self._signer

    def bundle(self, fingerprints: tuple[str, ...]) -> Bundle:
        """The certificates of some roots. Raises KeyError for one that is not here."""
        return Bundle(tuple(pem_of(self._roots[fingerprint]) for fingerprint in fingerprints))

    def create(self, now: datetime, lifetime: timedelta) -> RootStatus:  # noqa: ARG002 -- the shape of RootStore
        """Raises `RotationNotOurs`, always."""
        raise RotationNotOurs

    def switch(self, fingerprint: str, leafs_until: float, now: datetime) -> None:  # noqa: ARG002 -- as above
        """Raises `RotationNotOurs`, always."""
        raise RotationNotOurs

    def drop(self, fingerprint: str) -> None:  # noqa: ARG002 -- as above
        """Raises `RotationNotOurs`, always."""
        raise RotationNotOurs

    def close(self) -> None:
        """Nothing is held."""


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES)
        return tuple(x509.load_pem_x509_certificates(content))
    except FileNotFoundError as error:
        raise CaFileMissing(path=path) from error
    except OSError as error:
        raise StateUnwritable(path=path, reason=error.strerror or type(error).__name__) from error
    except ValueError as error:
        raise CaFileRefused(path=path, reason="there is no certificate in it") from error


def _key(path: Path, passphrase: PrivateBytes | None) -> CaKey:
    if not path.exists():
        raise CaFileMissing(path=path)
    content = read_private(path)
    is_encrypted = b"ENCRYPTED" in content
    if is_encrypted and passphrase is None:
        raise CaFileRefused(path=path, reason="it is encrypted and no passphrase is given")
    try:
        key = load_pem_private_key(content, passphrase.reveal() if passphrase and is_encrypted else None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CaFileRefused(path=path, reason="it is no private key, or the passphrase is another") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CaFileRefused(path=path, reason="it is neither an EC nor an RSA key")
    return key


def _path_to_root(
    certificate: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    roots: tuple[x509.Certificate, ...],
    path: Path,
    now: datetime,
) -> tuple[x509.Certificate, ...]:
    """From the signer to a root, the signer first; alone if it is one of the roots."""
    steps = [certificate]
    while steps[-1] not in roots:
        above = next((one for one in (*roots, *chain) if one not in steps and _is_signed_by(steps[-1], one)), None)
        if above is None or len(steps) == MAX_CHAIN:
            raise CaFileRefused(path=path, reason="it does not chain up to a certificate of root-cert.pem")
        steps.append(above)
    for one in steps:
        if not one.not_valid_before_utc <= now < one.not_valid_after_utc:
            raise CaFileRefused(path=path, reason=f"{one.subject.rfc4514_string()} is not valid at this time")
        if not _is_ca(one):
            raise CaFileRefused(path=path, reason=f"{one.subject.rfc4514_string()} is not a CA certificate")
    return tuple(steps)


def _is_signed_by(one: x509.Certificate, other: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(other)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
