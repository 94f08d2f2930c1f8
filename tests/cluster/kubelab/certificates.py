"""Keys and certificates of one cluster: one CA signs everything; the API's tokens have a key of their own.

Files are written once, into the cluster's folder, and die with it.
"""

import base64
import datetime as dt
import ipaddress
import json
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .layout import DOMAIN, Layout

LIFETIME = dt.timedelta(days=365)
SLACK = dt.timedelta(minutes=5)


class Authority(NamedTuple):
    """The CA that everybody in the cluster trusts."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def write_all(layout: Layout) -> None:
    """All of them, and the kubeconfigs of those who speak to the API."""
    folder = layout.keys
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    authority = _authority()
    _write(folder / "ca", authority.key, authority.certificate)
    _write_token_key(folder)
    api_names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    api_names.append(f"kubernetes.default.svc.{DOMAIN}")
    api_addresses = ["127.0.0.1", layout.api_service, layout.nodes[0].address]
    _leaf(authority, folder / "apiserver", "kube-apiserver", names=api_names, addresses=api_addresses)
    _leaf(authority, folder / "apiserver-kubelet", "kube-apiserver-kubelet-client", group="system:masters")
    _leaf(authority, folder / "front-proxy", "front-proxy-client")
    users = {
        "admin": ("admin", "system:masters"),
        "controllers": ("system:kube-controller-manager", ""),
        "scheduler": ("system:kube-scheduler", ""),
        "proxy": ("system:kube-proxy", ""),
    }
    for file, (user, group) in users.items():
        _leaf(authority, folder / file, user, group=group)
    for node in layout.nodes:
        user = f"system:node:{node.name}"
        addresses = [node.address, node.address6]
        _leaf(authority, folder / node.name, user, group="system:nodes", names=[node.name], addresses=addresses)
    for file in [*users, *(node.name for node in layout.nodes)]:
        (folder / f"{file}.kubeconfig").write_text(_kubeconfig(layout, file))
    layout.kubeconfig.write_text(_kubeconfig(layout, "admin"))
    layout.kubeconfig.chmod(0o600)


def _authority() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubelab")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + LIFETIME)
    )


def _leaf(
    authority: Authority,
    path: Path,
    user: str,
    *,
    group: str = "",
    names: list[str] | None = None,
    addresses: list[str] | None = None,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
    builder = _builder(x509.Name(attributes), authority.certificate.subject, key).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
    )
    alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names or []]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses or []]
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    _write(path, key, builder.sign(authority.key, hashes.SHA256()))


def _write(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    path.with_suffix(".key").write_bytes(_private(key))
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_token_key(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "tokens.key").write_bytes(_private(key))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "tokens.pub").write_bytes(public)


def _kubeconfig(layout: Layout, file: str) -> str:
    """Keys are inside: the file may be copied anywhere. JSON is YAML."""
    folder = layout.keys

    def text(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": layout.name,
                    "cluster": {"server": layout.api, "certificate-authority-data": text("ca.crt")},
                }
            ],
            "users": [
                {
                    "name": file,
                    "user": {
                        "client-certificate-data": text(f"{file}.crt"),
                        "client-key-data": text(f"{file}.key"),
                    },
                }
            ],
            "contexts": [{"name": layout.name, "context": {"cluster": layout.name, "user": file}}],
            "current-context": layout.name,
        },
        indent=1,
    )
