"""The workloads of the tests as Kubernetes objects: echo servers, resident clients, the ingress gateway. Data only."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]

PYTHON = "python"
INGRESS = ("istio-system", "istio-ingressgateway")


def manifest(*objects: Object) -> str:
    """YAML (JSON is YAML) of several objects."""
    return "\n---\n".join(json.dumps(found, indent=1) for found in objects) + "\n"


def namespace(name: str, *, inject: bool = True, annotations: Mapping[str, str] | None = None) -> Object:
    """A namespace, with or without sidecars."""
    labels = {"istio-injection": "enabled"} if inject else {}
    metadata: Object = {"name": name, "labels": labels}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def service(name: str, ns: str, selector: Mapping[str, str] | None, *ports: Object, **spec: Any) -> Object:
    """A Service; ports as `port(...)`."""
    body: Object = {"ports": list(ports), **spec}
    if selector is not None:
        body["selector"] = dict(selector)
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": ns}, "spec": body}


def port(name: str, number: int, target: int | None = None, protocol: str = "") -> Object:
    """One port of a Service; `protocol` is appProtocol."""
    found: Object = {"name": name, "port": number, "targetPort": target or number}
    return {**found, "appProtocol": protocol} if protocol else found


def account(name: str, ns: str) -> Object:
    """A ServiceAccount."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}}


def deployment(
    name: str,
    ns: str,
    labels: Mapping[str, str],
    command: Sequence[str],
    *ports: int,
    replicas: int = 1,
    annotations: Mapping[str, str] | None = None,
    runs_as: str = "default",
    volumes: Mapping[str, str] | None = None,
) -> Object:
    """A Deployment of one container that is ready when its first port accepts; `volumes` are path in pod -> on host."""
    container: Object = {
        "name": "app",
        "image": "example.org/test:1",
        "command": list(command),
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": number} for number in ports],
    }
    if ports:
        container["readinessProbe"] = {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1}
    mounts = [{"name": f"v{at}", "mountPath": path} for at, path in enumerate(volumes or {})]
    kept = [{"name": f"v{at}", "hostPath": {"path": path}} for at, path in enumerate((volumes or {}).values())]
    if mounts:
        container["volumeMounts"] = mounts
    pod: Object = {"serviceAccountName": runs_as, "terminationGracePeriodSeconds": 5, "containers": [container]}
    if kept:
        pod["volumes"] = kept
    template: Object = {"metadata": {"labels": dict(labels), "annotations": dict(annotations or {})}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": ns},
        "spec": {"replicas": replicas, "selector": {"matchLabels": dict(labels)}, "template": template},
    }


def echo(
    app: str,
    ns: str,
    version: str = "v1",
    *,
    replicas: int = 1,
    runs_as: str = "default",
    inject: bool = True,
    **ports: Any,
) -> Object:
    """An echo server: `http=8080, tcp=9000, banner=9001, h2c=9002, grpc=9003`; a list for several of a kind."""
    command, numbers = [PYTHON, "@programs@/echo.py", "--version", version], []
    for kind, found in ports.items():
        for number in found if isinstance(found, list) else [found]:
            command += [f"--{kind}", str(number)]
            numbers.append(int(str(number).partition(":")[0]))
    labels = {"app": app, "version": version}
    annotations = {} if inject else {"sidecar.istio.io/inject": "false"}
    settings: dict[str, Any] = {"replicas": replicas, "runs_as": runs_as, "annotations": annotations}
    return deployment(f"{app}-{version}", ns, labels, command, *numbers, **settings)


def web(app: str, ns: str, version: str = "v1", *, runs_as: str = "default") -> list[Object]:
    """An echo server of HTTP and the Service before it."""
    return [
        echo(app, ns, version, runs_as=runs_as, http=8000),
        service(app, ns, {"app": app}, port("http", 80, 8000)),
    ]


def client(
    name: str, ns: str, *, runs_as: str = "default", inject: bool = True, annotations: Mapping[str, str] | None = None
) -> Object:
    """A resident client; `LocalMesh.client(name)` speaks to it."""
    command = [PYTHON, "@programs@/requester.py", f"/control/{name}.sock"]
    annotations = {**(annotations or {}), **({} if inject else {"sidecar.istio.io/inject": "false"})}
    labels = {"app": name, "version": "v1"}
    volumes = {"/control": "@control@"}
    return deployment(name, ns, labels, command, annotations=annotations, runs_as=runs_as, volumes=volumes)


def ingress() -> list[Object]:
    """The ingress gateway as Istio's users write it: an injected proxy and nothing else."""
    ns, name = INGRESS
    labels = {"app": name, "istio": "ingressgateway"}
    found = deployment(name, ns, labels, ())
    template = found["spec"]["template"]
    template["metadata"]["labels"]["sidecar.istio.io/inject"] = "true"
    template["metadata"]["annotations"]["inject.istio.io/templates"] = "gateway"
    ports = [{"containerPort": 8080}, {"containerPort": 8443}]
    template["spec"]["containers"] = [{"name": "istio-proxy", "image": "auto", "ports": ports}]
    template["spec"]["serviceAccountName"] = name
    numbers = (port("http2", 80, 8080), port("https", 443, 8443))
    return [
        namespace(ns, inject=False),
        account(name, ns),
        service(name, ns, labels, *numbers, type="LoadBalancer"),
        found,
    ]
