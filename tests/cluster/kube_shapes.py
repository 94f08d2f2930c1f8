"""The manifests of the fault mesh in a cluster: the same programs as the local one, and what only a cluster has. Data only."""

from __future__ import annotations

from typing import Any

import fault_shapes as local
from shapes import Object, manifest, namespace, port, service

NS = local.NS
HOST = local.HOST
IMAGE = "tulle/bookinfo:dev"
"""Python and grpcio."""
DESTINATIONS = ("steady", "crowd")
PROGRAMS = {"name": "programs", "configMap": {"name": "programs"}}
PATIENT = {"timeoutSeconds": 5, "failureThreshold": 6}
"""Of readiness: where this machine has no time for a probe, the pod is no less ready. (Kubernetes would rightly stop sending.)"""
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}}


def mesh(rate: float, control: str) -> str:
    """Servers, the load and a budget; `control` is the node's folder that the load writes to and is steered by."""
    strict = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": NS},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "crowd", "namespace": NS},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "crowd"}}},
    }
    ports = (port("http", 8080), port("tcp-echo", 9000), port("grpc-echo", 9001))
    return manifest(
        namespace(NS),
        strict,
        budget,
        *(service(name, NS, {"app": name}, *ports) for name in DESTINATIONS),
        _server("steady", 1, {"nodeSelector": {"kubernetes.io/hostname": "node1"}}),
        _server("crowd", 2, {"topologySpreadConstraints": [_spread("crowd")]}),
        _server("spare", 1, {}),
        _load(rate, control),
        *_quiet(),
        *_front(),
    )


def _server(app: str, replicas: int, extra: Object) -> Object:
    return _pod(local.server(app, "v1", replicas, TCP_PORT="9000", GRPC_PORT="9001"), extra)


def _load(rate: float, control: str) -> Object:
    env = {
        "LOAD_TARGETS": ",".join(f"http://{name}:8080/" for name in DESTINATIONS),
        "LOAD_OUT": "/control/load.jsonl",
        "LOAD_CONTROL": "/control/load.json",
        "LOAD_RATE": str(rate),
        "LOAD_SECONDS": "0",
        "LOAD_TCP": "crowd:9000",
        "LOAD_GRPC": "crowd:9001",
    }
    found = _pod(local.program("load", "load.py", env), {"nodeSelector": {"kubernetes.io/hostname": "node1"}})
    pod = found["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "control", "hostPath": {"path": control}})
    pod["containers"][0]["volumeMounts"].append({"name": "control", "mountPath": "/control"})
    return found


def _pod(deployment: Object, extra: Object) -> Object:
    """A local Deployment on an image of the cluster's."""
    spec = deployment["spec"]["template"]["spec"]
    spec |= {"serviceAccountName": "default", "volumes": [PROGRAMS], "terminationGracePeriodSeconds": 30, **extra}
    (container,) = spec["containers"]
    container |= {
        "image": IMAGE,
        "command": [word.replace("@faults@", "/programs") for word in container["command"]],
        "volumeMounts": [{"name": "programs", "mountPath": "/programs"}],
        "resources": SMALL,
    }
    if "readinessProbe" in container:
        container["readinessProbe"] |= PATIENT
    deployment["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return deployment


def _spread(app: str) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": app}},
    }


def _quiet() -> list[Object]:
    """Pods of the mesh without a proxy that runs: a Job that is over, and one that no node takes. Nobody shall wait for them."""

    def pod(**spec: Any) -> Object:
        container = {"name": "app", "image": IMAGE, "command": ["python", "-c", "pass"], "resources": SMALL}
        return {"restartPolicy": "Never", "containers": [container], **spec}

    over = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "over", "namespace": NS},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "over"}}, "spec": pod()}},
    }
    nowhere = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "nowhere", "namespace": NS, "labels": {"app": "nowhere"}},
        "spec": pod(nodeSelector={"kubernetes.io/hostname": "none"}),
    }
    return [over, nowhere]


def _front() -> list[Object]:
    """Plain HTTP at the edge, to the steady one."""
    http = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": [HOST]}
    return [
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "front", "namespace": NS},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [http]},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "front", "namespace": NS},
            "spec": {
                "hosts": [HOST],
                "gateways": ["front"],
                "http": [{"route": [{"destination": {"host": "steady", "port": {"number": 8080}}}]}],
            },
        },
    ]
