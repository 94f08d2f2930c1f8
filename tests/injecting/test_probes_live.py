"""The kubelet's probes, asked at a real Envoy with the bootstrap that injection makes, of a workload that is up, down or slow."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from injecting_kubelet import Json, alone, free_port

from tulle.injecting.pods import injected
from tulle.injecting.settings import InjectionSettings, NamespaceFacts

pytestmark = pytest.mark.envoy

GRPC_HEALTH = Path(__file__).parent / "health_server.py"


class Workload(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path.startswith("/slow"):
            time.sleep(3)
        status = {"/broken": 500, "/elsewhere": 302}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/login")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def pod_of(containers: list[Json]) -> Json:
    pod = {"metadata": {"name": "probed"}, "spec": {"containers": containers}}
    return injected(pod, NamespaceFacts("shop", {"istio-injection": "enabled"}), InjectionSettings()).pod


def probe_of(pod: Json, container: int, field: str) -> Json:
    asked: Json = pod["spec"]["containers"][container][field]["httpGet"]
    assert asked["port"] == 15020
    return asked


class Answer(NamedTuple):
    """What the kubelet gets."""

    status: int
    location: str | None


def asked(port: int, probe: Json, method: str = "GET") -> Answer:
    """As the kubelet asks: a connection each time."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        headers = {one["name"]: one["value"] for one in probe.get("httpHeaders", [])}
        connection.request(method, probe["path"], headers={"user-agent": "kube-probe/1.36", **headers})
        with connection.getresponse() as response:
            response.read()
            return Answer(response.status, response.getheader("location"))


@pytest.fixture
def workload() -> Iterator[tuple[int, list[tuple[str, dict[str, str]]]]]:
    handler = type("Seen", (Workload,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], handler.seen
    server.shutdown()
    server.server_close()


def test_http_probes(workload: tuple[int, list[tuple[str, dict[str, str]]]], tmp_path: Path, roots: str) -> None:
    port, seen = workload
    own = [{"name": "Host", "value": "own.example"}, {"name": "x-own", "value": "1"}]
    pod = pod_of(
        [
            {
                "name": "app",
                "ports": [{"name": "http", "containerPort": port}],
                "livenessProbe": {"httpGet": {"path": "/live?full=1&price=$5", "port": "http"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": port, "httpHeaders": own}},
                "startupProbe": {"httpGet": {"path": "/broken", "port": port}},
            },
            {
                "name": "more",
                "livenessProbe": {"httpGet": {"path": "/elsewhere", "port": port}},
                "readinessProbe": {"httpGet": {"path": "/slow", "port": port}, "timeoutSeconds": 1},
                "startupProbe": {"httpGet": {"path": "/", "port": free_port()}},
            },
        ]
    )
    with alone(pod, tmp_path, roots) as (envoy, _):
        assert asked(envoy, probe_of(pod, 0, "livenessProbe")).status == 200
        assert seen[-1][0] == "/live?full=1&price=$5"
        assert seen[-1][1]["host"] == f"127.0.0.1:{port}"
        assert seen[-1][1]["user-agent"] == "kube-probe/1.36"
        assert not [name for name in seen[-1][1] if name.startswith(("x-envoy", "x-request"))]
        assert asked(envoy, probe_of(pod, 0, "readinessProbe")).status == 200
        assert (seen[-1][1]["host"], seen[-1][1]["x-own"]) == ("own.example", "1")
        assert asked(envoy, probe_of(pod, 0, "startupProbe")).status == 500
        assert asked(envoy, probe_of(pod, 1, "livenessProbe")) == Answer(302, None)
        assert asked(envoy, probe_of(pod, 1, "readinessProbe")).status == 504
        assert asked(envoy, probe_of(pod, 1, "startupProbe")).status == 503


def test_nothing_else_is_served(
    workload: tuple[int, list[tuple[str, dict[str, str]]]], tmp_path: Path, roots: str
) -> None:
    port, seen = workload
    pod = pod_of([{"name": "app", "livenessProbe": {"httpGet": {"path": "/live", "port": port}}}])
    with alone(pod, tmp_path, roots) as (envoy, _):
        for path in (
            "/",
            "/live",
            "/app-health/app/readyz",
            "/app-health/app/livez/../../../x",
            "/app-health/app/livez2",
        ):
            assert asked(envoy, {"path": path}).status == 404
        assert asked(envoy, {"path": "/app-health/app/livez"}, method="POST").status == 404
        assert not seen


def test_https_probes_trust_any_certificate(tmp_path: Path, roots: str, server_pem: Path) -> None:
    handler = type("Seen", (Workload,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    pod = pod_of([{"name": "app", "livenessProbe": {"httpGet": {"path": "/live", "port": port, "scheme": "HTTPS"}}}])
    with alone(pod, tmp_path, roots) as (envoy, _):
        assert asked(envoy, probe_of(pod, 0, "livenessProbe")).status == 200
    server.shutdown()
    server.server_close()


def test_tcp_probes_tell_whether_somebody_listens(tmp_path: Path, roots: str) -> None:
    port = free_port()
    pod = pod_of([{"name": "db", "livenessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 2}}])
    probe = probe_of(pod, 0, "livenessProbe")
    with alone(pod, tmp_path, roots) as (envoy, _):
        assert asked(envoy, probe).status == 503
        with socket.create_server(("127.0.0.1", port)) as listening:
            assert eventually(envoy, probe, 200)
            accepted, peer = listening.accept()
            assert peer[0] == "127.0.0.6", "the workload is called from where its sidecar's inbound side calls"
            assert accepted.recv(1) == b"", "nothing is written to a port of unknown protocol"
            accepted.close()
        assert eventually(envoy, probe, 503)


def test_grpc_probes_ask_for_health(tmp_path: Path, roots: str) -> None:
    port = free_port()
    pod = pod_of(
        [
            {
                "name": "rpc",
                "livenessProbe": {"grpc": {"port": port}, "periodSeconds": 2},
                "readinessProbe": {"grpc": {"port": port, "service": "well"}, "periodSeconds": 2},
                "startupProbe": {"grpc": {"port": port, "service": "ill"}, "periodSeconds": 2},
            }
        ]
    )
    with alone(pod, tmp_path, roots) as (envoy, _):
        assert asked(envoy, probe_of(pod, 0, "livenessProbe")).status == 503
        server = subprocess.Popen([sys.executable, str(GRPC_HEALTH), str(port)])
        try:
            assert eventually(envoy, probe_of(pod, 0, "livenessProbe"), 200)
            assert eventually(envoy, probe_of(pod, 0, "readinessProbe"), 200)
            assert asked(envoy, probe_of(pod, 0, "startupProbe")).status == 503
        finally:
            server.terminate()
            server.wait(timeout=10)
        assert eventually(envoy, probe_of(pod, 0, "livenessProbe"), 503)


def eventually(port: int, probe: Json, status: int, patience: float = 15.0) -> bool:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if asked(port, probe).status == status:
            return True
        time.sleep(0.1)
    return False
