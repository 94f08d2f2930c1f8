import copy
import json
import logging
import pickle
import pprint
import ssl
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from ca_parts import DOMAIN, HOUR, NOW, authority_of, fresh, handshake
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tulle.identity.authority import BACKDATE, Bundle, Leaf, fingerprint_of, new_root
from tulle.identity.errors import CsrRefused, InvalidSpiffeId, LifetimeOutOfRange, SignerExpired
from tulle.identity.spiffe import SpiffeId, spiffe_id

REVIEWS = spiffe_id(DOMAIN, "bookinfo", "reviews")
RATINGS = spiffe_id(DOMAIN, "bookinfo", "ratings")


def certificate_of(leaf: Leaf) -> x509.Certificate:
    return x509.load_pem_x509_certificates(leaf.chain_pem)[0]


def verify(pem: bytes, bundle: Bundle, at: datetime) -> list[x509.GeneralName]:
    leaf, *between = x509.load_pem_x509_certificates(pem)
    verifier = PolicyBuilder().store(Store(list(bundle.certificates))).time(at).build_client_verifier()
    return list(verifier.verify(leaf, between).subjects or [])


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *names: x509.GeneralName) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder(subject)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_leaf_verifies_and_carries_its_name_alone():
    root, authority, bundle = fresh()
    leaf = authority.issue(REVIEWS, HOUR, NOW)
    assert verify(leaf.chain_pem, bundle, NOW) == [x509.UniformResourceIdentifier(str(REVIEWS))]
    assert leaf.spiffe_id == REVIEWS
    assert leaf.root_fingerprint == root.fingerprint == bundle.fingerprints[0]
    assert leaf.serial == f"{certificate_of(leaf).serial_number:x}"
    assert leaf.chain_pem.count(b"BEGIN") == 1


def test_leaf_is_valid_from_before_now_until_its_ttl():
    _, authority, bundle = fresh(now=NOW - timedelta(days=1))
    leaf = authority.issue(REVIEWS, timedelta(seconds=5), NOW)
    assert leaf.not_before == (NOW - BACKDATE).replace(microsecond=0)
    assert leaf.not_after == datetime(2026, 11, 21, 12, 0, 6, tzinfo=UTC)
    verify(leaf.chain_pem, bundle, NOW - timedelta(seconds=90))
    with pytest.raises(VerificationError):
        verify(leaf.chain_pem, bundle, NOW + timedelta(seconds=7))


def test_leaf_stays_within_its_signer():
    root = new_root(DOMAIN, NOW, timedelta(minutes=10))
    leaf = authority_of(root).issue(REVIEWS, HOUR, NOW)
    assert (leaf.not_before, leaf.not_after) == (root.not_before, root.not_after)
    with pytest.raises(SignerExpired, match="TUL0515"):
        authority_of(root).issue(REVIEWS, HOUR, NOW + timedelta(minutes=11))
    with pytest.raises(SignerExpired):
        authority_of(root).issue(REVIEWS, HOUR, NOW - HOUR)


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=1), timedelta(seconds=-5), timedelta(days=91)])
def test_lifetimes_have_limits(ttl: timedelta):
    _, authority, _ = fresh()
    with pytest.raises(LifetimeOutOfRange, match="TUL0516"):
        authority.issue(REVIEWS, ttl, NOW)


def test_no_leaf_for_another_trust_domain_or_a_bad_name():
    _, authority, _ = fresh()
    for name in (SpiffeId("other.mesh", "x", "y"), SpiffeId(DOMAIN, "x/sa/admin", "y")):
        with pytest.raises(InvalidSpiffeId):
            authority.issue(name, HOUR, NOW)


def test_profiles():
    root, authority, _ = fresh()
    top = x509.load_pem_x509_certificate(root.certificate_pem)
    assert (root.not_after - NOW).days in (3649, 3650)
    assert top.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert top.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    leaf = certificate_of(authority.issue(REVIEWS, HOUR, NOW))
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert len(set(leaf.subject)) == 0


def test_leafs_do_not_share_keys_or_serials():
    _, authority, _ = fresh()
    leafs = [authority.issue(REVIEWS, HOUR, NOW) for _ in range(50)]
    assert len({leaf.serial for leaf in leafs}) == len({leaf.key_pem.reveal() for leaf in leafs}) == 50


def test_foreign_trust_domain_fails_the_chain():
    _, _, bundle = fresh()
    _, foreign, foreign_bundle = fresh("other.mesh")
    stranger = foreign.issue(spiffe_id("other.mesh", "bookinfo", "reviews"), HOUR, NOW)
    with pytest.raises(VerificationError):
        verify(stranger.chain_pem, bundle, NOW)
    verify(stranger.chain_pem, foreign_bundle, NOW)


def test_a_leaf_signs_nothing():
    """A workload that uses its leaf as a CA is not believed, even with the whole chain."""
    _, authority, bundle = fresh()
    leaf = authority.issue(REVIEWS, HOUR, NOW)
    own = certificate_of(leaf)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = (
        x509.CertificateBuilder()
        .issuer_name(own.subject)
        .subject_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(RATINGS))]), critical=True)
        .sign(key_of(leaf), hashes.SHA256())
    )
    with pytest.raises(VerificationError):
        verify(forged.public_bytes(Encoding.PEM) + leaf.chain_pem, bundle, NOW)


def key_of(leaf: Leaf) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(leaf.key_pem.reveal(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def real_now() -> datetime:
    return datetime.now(UTC)


def test_mutual_tls_shows_both_names():
    _, authority, bundle = fresh(now=real_now())
    server, client = (authority.issue(name, HOUR, real_now()) for name in (REVIEWS, RATINGS))
    seen_by_client, seen_by_server = handshake(server, client, bundle, bundle)
    assert seen_by_client == [("URI", str(REVIEWS))]
    assert seen_by_server == [("URI", str(RATINGS))]


def test_tls_refuses_strangers_and_callers_without_certificate():
    _, authority, bundle = fresh(now=real_now())
    _, foreign, foreign_bundle = fresh("other.mesh", real_now())
    ours = authority.issue(REVIEWS, HOUR, real_now())
    theirs = foreign.issue(spiffe_id("other.mesh", "bookinfo", "ratings"), HOUR, real_now())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours, theirs, bundle, bundle)  # the server refuses the client
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(theirs, ours, bundle, bundle)  # the client refuses the server
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        handshake(ours, None, bundle, bundle)
    both = Bundle(bundle.roots + foreign_bundle.roots)
    handshake(ours, theirs, both, both)


def test_tls_through_a_root_rotation():
    """Leafs of A and B understand each other while the bundle is A+B, and only then."""
    _, a, bundle_a = fresh(now=real_now())
    _, b, bundle_b = fresh(now=real_now())
    leaf_a, leaf_b = a.issue(REVIEWS, HOUR, real_now()), b.issue(RATINGS, HOUR, real_now())
    both = Bundle(bundle_a.roots + bundle_b.roots)
    handshake(leaf_a, leaf_b, both, both)
    handshake(leaf_b, leaf_a, both, both)
    handshake(leaf_b, leaf_b, bundle_b, both)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf_a, leaf_b, both, bundle_b)


def test_server_certificate_is_checked_by_name_and_address():
    _, authority, bundle = fresh(now=real_now())
    server = authority.issue_server(["tulle.local", "localhost"], ["127.0.0.1", "::1"], HOUR, real_now())
    client = authority.issue(REVIEWS, HOUR, real_now())
    for name in ("tulle.local", "127.0.0.1", "::1"):
        assert ("DNS", "tulle.local") in handshake(server, client, bundle, bundle, name)[0]
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, bundle, bundle, "other.local")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, server, bundle, bundle, "tulle.local")  # it is no client
    with pytest.raises(ValueError):
        authority.issue_server([], [], HOUR, real_now())


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
def test_csr_gives_its_key_and_nothing_else(kind: str):
    _, authority, bundle = fresh()
    key = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    admin = spiffe_id(DOMAIN, "kube-system", "admin")
    wanted = request(key, x509.UniformResourceIdentifier(str(admin)), x509.DNSName("tulle.local"))
    signed = authority.sign_csr(wanted, REVIEWS, HOUR, NOW)
    assert verify(signed.chain_pem, bundle, NOW) == [x509.UniformResourceIdentifier(str(REVIEWS))]
    certificate = x509.load_pem_x509_certificate(signed.chain_pem)
    assert certificate.public_key() == key.public_key()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert b"admin" not in certificate.public_bytes(Encoding.DER)
    assert not hasattr(signed, "key_pem")


def test_bad_csrs_are_refused():
    _, authority, _ = fresh()
    good = request(ec.generate_private_key(ec.SECP256R1()))
    lines = good.splitlines()
    forged = bytearray(x509.load_pem_x509_csr(good).public_bytes(Encoding.DER))
    forged[-3] ^= 1
    weak = (
        x509.CertificateSigningRequestBuilder(x509.Name([]))
        .sign(ed25519.Ed25519PrivateKey.generate(), None)
        .public_bytes(Encoding.PEM)
    )
    bad = {
        "empty": b"",
        "cut": b"\n".join(lines[:-3]),
        "long": good + b" " * 70_000,
        "curve": request(ec.generate_private_key(ec.SECP521R1())),
        "kind": weak,
        "signature": ssl.DER_cert_to_PEM_cert(bytes(forged)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode(),
    }
    reasons = {}
    for what, csr in bad.items():
        with pytest.raises(CsrRefused, match="TUL0514") as caught:
            authority.sign_csr(csr, REVIEWS, HOUR, NOW)
        reasons[what] = caught.value.arguments["reason"]
    assert "signature" in reasons["signature"]
    assert "key" in reasons["curve"]
    assert "longer" in reasons["long"]


def test_the_key_shows_nowhere(caplog: pytest.LogCaptureFixture):
    _, authority, _ = fresh()
    leaf = authority.issue(REVIEWS, HOUR, NOW)
    secret = leaf.key_pem.reveal()
    needle = secret.splitlines()[1].decode()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("leaf %s %r %s", leaf, leaf, {"leaf": leaf})
    printed = [
        repr(leaf), str(leaf), f"{leaf}", f"{leaf.key_pem:>99}", pprint.pformat(leaf),
        str(vars(authority)), repr(msgspec.structs.asdict(leaf)), json.dumps(leaf, default=str), caplog.text,
        repr(copy.deepcopy(leaf)), str(dir(leaf.key_pem)),
    ]  # fmt: skip
    assert all(needle not in text and "PRIVATE KEY" not in text for text in printed)
    assert "private: " in printed[0]
    for wanted in (leaf, leaf.key_pem):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(wanted, protocol)
        with pytest.raises(TypeError):
            msgspec.json.encode(wanted)
    with pytest.raises(TypeError):
        bytes(leaf.key_pem)
    assert leaf.key_pem == copy.copy(leaf.key_pem)
    assert leaf.key_pem != secret
    with pytest.raises(TypeError):
        pickle.dumps(authority)


def test_bundle():
    root, _, bundle = fresh()
    other, _, _ = fresh()
    pem = root.certificate_pem + b"a comment\n" + other.certificate_pem + root.certificate_pem
    parsed = Bundle.parse(pem)
    assert parsed.fingerprints == (root.fingerprint, other.fingerprint)
    assert parsed.roots[0] == bundle.roots[0]
    assert Bundle.parse(parsed.pem) == parsed
    assert fingerprint_of(parsed.certificates[1]) == other.fingerprint
    with pytest.raises(ValueError):
        Bundle.parse(b"nothing")
