"""The manifests of the fault mesh: about six pods, eleven services, an HTTPS gateway. Data only."""

from __future__ import annotations

import base64
from typing import Any

from shapes import Object, account, ingress, manifest, namespace, port, service

NS = "faults"
HOST = "faults.example.com"
"""What the gateway's certificate and routes are for."""
AISLES = tuple(f"aisle-{number}" for number in range(8))
"""Names of the same shop: eleven destinations for a dozen pods would be too much for two cores."""
DESTINATIONS = ("steady", "crowd", "shop", *AISLES)


def mesh() -> str:
    """Everything but what faults edit."""
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": NS},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    subsets = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "shop", "namespace": NS},
        "spec": {
            "host": "shop",
            "subsets": [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")],
        },
    }
    streams = (port("http", 8080), port("tcp-echo", 9000), port("grpc-echo", 9001))
    return manifest(
        namespace(NS),
        account("shop", NS),
        account("crowd", NS),
        account("load", NS),
        strict,
        subsets,
        service("steady", NS, {"app": "steady"}, *streams),
        service("crowd", NS, {"app": "crowd"}, port("http", 8080)),
        *(service(name, NS, {"app": "shop"}, port("http", 8080)) for name in ("shop", *AISLES)),
        server("steady", "v1", TCP_PORT="9000", GRPC_PORT="9001"),
        server("shop", "v1"),
        server("shop", "v2"),
    )


def server(app: str, version: str, replicas: int = 1, **env: str) -> Object:
    """One Deployment of `server.py`."""
    return _deployment(app, version, "server.py", {"PORT": "8080", **env}, replicas, 8080)


def program(app: str, file: str, env: dict[str, str]) -> Object:
    """One Deployment of a program that serves nothing."""
    return _deployment(app, "v1", file, env, 1, None)


def load(rate: float) -> str:
    """The load, as a workload."""
    targets = ",".join(f"http://{name}:8080/" for name in DESTINATIONS)
    env = {
        "LOAD_TARGETS": targets,
        "LOAD_OUT": "/control/load.jsonl",
        "LOAD_CONTROL": "/control/load.json",
        "LOAD_RATE": str(rate),
        "LOAD_SECONDS": "0",
        "LOAD_TCP": "steady:9000",
        "LOAD_GRPC": "steady:9001",
    }
    found = _deployment("load", "v1", "load.py", env, 1, None)
    pod = found["spec"]["template"]["spec"]
    pod["containers"][0]["volumeMounts"] = [{"name": "control", "mountPath": "/control"}]
    pod["volumes"] = [{"name": "control", "hostPath": {"path": "@control@"}}]
    return manifest(found)


def crowd(replicas: int) -> str:
    """What is scaled."""
    return manifest(server("crowd", "v1", replicas))


def weights(first: int) -> str:
    """The VirtualService that is edited: how much of the shop is version 1, in percent."""
    shares = [("v1", first), ("v2", 100 - first)]
    route = [{"destination": {"host": "shop", "subset": version}, "weight": share} for version, share in shares]
    return manifest(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "shop", "namespace": NS},
            "spec": {"hosts": ["shop"], "http": [{"route": route}]},
        }
    )


def gateway() -> str:
    """HTTPS at the edge, to the shop."""
    https = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": [HOST],
        "tls": {"mode": "SIMPLE", "credentialName": "front"},
    }
    return manifest(
        *ingress(),
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front", "namespace": NS},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [https]},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "front", "namespace": NS},
            "spec": {
                "hosts": [HOST],
                "gateways": ["front"],
                "http": [{"route": [{"destination": {"host": "aisle-0", "port": {"number": 8080}}}]}],
            },
        },
    )


def credential(certificate: bytes, key: bytes) -> str:
    """The gateway's Secret."""
    entries = {"tls.crt": certificate, "tls.key": key}
    return manifest(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "front", "namespace": "istio-system"},
            "type": "kubernetes.io/tls",
            "data": {name: base64.b64encode(content).decode() for name, content in entries.items()},
        }
    )


def _deployment(
    app: str, version: str, program: str, env: dict[str, str], replicas: int, ready_port: int | None
) -> Object:
    labels = {"app": app, "version": version}
    variables: list[Any] = [{"name": name, "value": value} for name, value in env.items()]
    variables.append({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    container: Object = {
        "name": "app",
        "image": "example.org/faults:1",
        "command": ["python", f"@faults@/{program}"],
        "env": variables,
    }
    if ready_port is not None:
        container["ports"] = [{"containerPort": ready_port}]
        container["readinessProbe"] = {"tcpSocket": {"port": ready_port}, "periodSeconds": 1}
    pod = {
        "serviceAccountName": app if app in ("shop", "crowd", "load") else "default",
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{app}-{version}", "namespace": NS},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }
