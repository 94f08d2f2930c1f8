"""Bytes that are not HTTP, to a port whose protocol is sniffed: the client's Envoy must not offer HTTP to the other sidecar.

One cluster carries both; only its HTTP may offer `istio-h2`, or the server's sidecar would parse what is relayed (docs/facts/envoy.md §7).
"""

import json
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from compile.world import World, envoy_binary, pod
from tulle.xds.names import TypeUrl

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: odd, namespace: default}
spec: {clusterIP: 10.96.0.13, selector: {app: odd}, ports: [{port: 7000}]}
"""
CLUSTER = "outbound|7000||odd.default.svc.cluster.local"
HTTP = b"GET / HTTP/1.1\r\nhost: odd\r\n\r\n"


@pytest.fixture
def server(tmp_path):
    """A TLS server that prefers HTTP/2 names; the list fills with what each connection agreed on."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    path = tmp_path / "server.pem"
    path.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.set_alpn_protocols(["istio-h2", "h2", "istio"])
    agreed: list[str | None] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(2):
            connection, _ = listening.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                agreed.append(secured.selected_alpn_protocol())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1], agreed
    listening.close()
    thread.join(5)


def bootstrap(port: int, upstream: int) -> dict:
    """The compiled listener and cluster, on loopback, and without the mesh's certificates."""
    world = World.of(SERVICE + pod("client", "10.244.0.2") + pod("odd-1", "10.244.0.3", labels={"app": "odd"}))
    listener = world.shown("default", "client", TypeUrl.LDS, "10.96.0.13_7000")
    cluster = world.shown("default", "client", TypeUrl.CDS, CLUSTER)
    listener.pop("@type")
    cluster.pop("@type")
    listener |= {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "bind_to_port": True,
        "filter_chains": [json.loads(json.dumps(chain)) for chain in listener["filter_chains"]],
    }
    (http,) = listener["filter_chains"]
    manager = http["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = {
        "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": CLUSTER}}]}
        ]
    }
    context = cluster["transport_socket"]["typed_config"]
    common = context["common_tls_context"]
    context["common_tls_context"] = {"alpn_protocols": common["alpn_protocols"], "tls_params": common["tls_params"]}
    del cluster["eds_cluster_config"]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    cluster |= {
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


@pytest.mark.envoy
def test_bytes_offer_no_http(server, tmp_path):
    upstream, agreed = server
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bootstrap(port, upstream)))
    line = [envoy_binary(), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as envoy:
        try:
            for payload, expected in ((b"\x00\x01 not http", "istio"), (HTTP, "istio-h2")):
                with connected(port) as client:
                    client.sendall(payload)
                    deadline = time.monotonic() + 10
                    while expected not in agreed:
                        assert time.monotonic() < deadline, f"{payload!r} agreed on {agreed}"
                        time.sleep(0.02)
            assert agreed == ["istio", "istio-h2"]
        finally:
            envoy.terminate()
            envoy.communicate(timeout=10)


def connected(port: int) -> socket.socket:
    """A connection to Envoy once it listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "Envoy does not listen"
            time.sleep(0.05)
