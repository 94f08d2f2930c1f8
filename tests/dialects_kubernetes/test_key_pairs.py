"""Which certificates of Secrets a proxy would take; reasons never quote bytes."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tulle.dialects.kubernetes.key_pairs import unusable
from tulle.dialects.kubernetes.secret import SecretMaterial

P256, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
K256, EDWARDS = ec.generate_private_key(ec.SECP256K1()), ed25519.Ed25519PrivateKey.generate()
RSA_SHORT, RSA = rsa.generate_private_key(65537, 1024), rsa.generate_private_key(65537, 2048)


def certificate(key):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).public_key(key.public_key())
    return builder.sign(key, None if key is EDWARDS else hashes.SHA256()).public_bytes(Encoding.PEM)


def pem(key, password=b""):
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"tls.crt": certificate(P256), "tls.key": pem(P256)}, {}),
        ({"cert": certificate(RSA), "key": pem(RSA), "cacert": certificate(P256)}, {}),
        ({"token": b"anything"}, {}),
        ({"tls.crt": b"x", "tls.key": pem(P256)}, {"tls.crt": "no PEM certificate"}),
        ({"tls.crt": certificate(P256), "tls.key": b""}, {"tls.key": "no PEM private key"}),
        ({"tls.crt": certificate(P256), "tls.key": pem(P256, b"secret")}, {"tls.key": "without a password"}),
        ({"tls.crt": certificate(P256), "tls.key": pem(OTHER)}, {"tls.key": "not the key of tls.crt"}),
        ({"tls.crt": certificate(RSA_SHORT), "tls.key": pem(RSA_SHORT)}, {"tls.key": "1024 bits"}),
        ({"tls.crt": certificate(K256), "tls.key": pem(K256)}, {"tls.key": "do not take"}),
        ({"tls.crt": certificate(EDWARDS), "tls.key": pem(EDWARDS)}, {"tls.key": "do not take"}),
        (
            {"ca.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
            {"ca.crt": "no PEM certificate"},
        ),
    ],
)
def test_unusable(entries, expected):
    found = unusable(SecretMaterial("Opaque", entries))
    assert found.keys() == expected.keys()
    for entry, words in expected.items():
        assert words in found[entry]
