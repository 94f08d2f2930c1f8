"""The pair everything is compared with: two Envoys, the router only, HTTP/2 and mTLS between them."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = Path(__file__).resolve().parent
_DAY = dt.timedelta(days=1)


def certificates(folder: Path) -> Path:
    """A CA and two leaves of the kind the mesh issues (P-256, a SPIFFE name), as files."""
    folder.mkdir()
    signer = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("plain root", signer, signer, x509.BasicConstraints(ca=True, path_length=None))
    (folder / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    for side in ("client", "server"):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(f"spiffe://cluster.local/ns/plain/sa/{side}")]
        )
        leaf = _certificate("", key, signer, name)
        (folder / f"{side}.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        (folder / f"{side}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return folder


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plain root")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateBuilder(
        issuer, name, key.public_key(), x509.random_serial_number(), now - _DAY, now + _DAY
    )
    return builder.add_extension(extension, critical=True).sign(signer, hashes.SHA256())


def configuration(side: str, target: Path, **words: str | int | Path) -> Path:
    """`client`, `server` or, of who relays bytes, `-tcp`, in a tunnel `-tunnel`: the file with its words filled in."""
    text = (HERE / f"{side}.yaml").read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    target.write_text(text)
    return target


def command(envoy: Path, path: Path) -> list[str]:
    """One worker, nothing else than the configuration says."""
    return [str(envoy), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]


def is_valid(envoy: Path, path: Path) -> str:
    """What Envoy says against a configuration; empty if nothing."""
    line = [str(envoy), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr or done.stdout
