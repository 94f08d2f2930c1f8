"""The containers that injection adds: the proxy, and what makes or verifies the capture rules.

Knows what they may do (as little as runs) and what they mount; which pod they go into is `pods`. The proxy obeys the
restricted Pod Security Standard; the capture container needs NET_ADMIN, the CNI plugin in its place needs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from tulle.compile.envoy.bootstrap import ADMIN_DIRECTORY, PROMETHEUS_PORT, READINESS_PORT, Node
from tulle.compile.envoy.cluster_bootstrap import (
    DRAIN_SECONDS,
    ROOT_DIRECTORY,
    ROOT_RESOURCE,
    TOKEN_DIRECTORY,
    Probe,
    arguments,
    pod_proxy,
)
from tulle.compile.envoy.telling import environment
from tulle.dialects.kubernetes.injection import SIDECAR_CONTAINER
from tulle.injecting.settings import PROXY_USER, TOKEN_AUDIENCE, InjectionSettings, Resources
from tulle.injecting.wishes import Wishes

Json = dict[str, Any]

CAPTURE_CONTAINER: Final = "tulle-capture"
CAPTURE_ANNOTATION: Final = "tulle.dev/capture"
ENVOY: Final = "/usr/local/bin/envoy"
_ROOT_USER: Final = 0
_NOBODY: Final = 65534
_TOKEN_VOLUME: Final = "tulle-token"  # noqa: S105 - a name
_ROOT_VOLUME: Final = "tulle-root"
_ADMIN_VOLUME: Final = "tulle-envoy"
VOLUMES: Final = (_TOKEN_VOLUME, _ROOT_VOLUME, _ADMIN_VOLUME)
_DOWNWARD: Final = {
    "TULLE_POD_NAME": "metadata.name",
    "TULLE_POD_UID": "metadata.uid",
    "TULLE_POD_IP": "status.podIP",
    "TULLE_NAMESPACE": "metadata.namespace",
    "TULLE_SERVICE_ACCOUNT": "spec.serviceAccountName",
}
"""What only the running pod knows. They come first: the others are made of them."""


class Subject(Struct, frozen=True):
    """The pod that a proxy is for."""

    labels: dict[str, str]
    owner: str
    is_gateway: bool


def proxy(subject: Subject, wishes: Wishes, settings: InjectionSettings, probes: Sequence[Probe]) -> Json:
    """The container `istio-proxy`; a native sidecar unless it is a gateway."""
    node = Node(
        ip="$(TULLE_POD_IP)",
        pod="$(TULLE_POD_NAME)",
        namespace="$(TULLE_NAMESPACE)",
        workload=subject.owner,
        service_account="$(TULLE_SERVICE_ACCOUNT)",
        labels=tuple(sorted(subject.labels.items())),
        cluster=settings.cluster,
        mesh_id=settings.mesh_id,
        uid="$(TULLE_POD_UID)",
        is_gateway=subject.is_gateway,
    )
    container: Json = {
        "name": SIDECAR_CONTAINER,
        "image": wishes.image,
        "command": [ENVOY],
        "args": arguments(
            pod_proxy(node, settings.control_plane, probes),
            concurrency=wishes.concurrency,
            log_level=wishes.log_level,
            components=wishes.component_log_level,
            # A gateway's drain begins when the control plane has told it, and shall be over before it ends.
            drain_seconds=max(1, wishes.drain_seconds - 1) if subject.is_gateway else DRAIN_SECONDS,
        ),
        "env": _environment(subject, settings),
        "ports": [{"name": "http-envoy-prom", "containerPort": PROMETHEUS_PORT, "protocol": "TCP"}],
        "resources": _resources(wishes.resources),
        "securityContext": _restricted(PROXY_USER),
        "volumeMounts": [
            {"name": _TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": True},
            {"name": _ROOT_VOLUME, "mountPath": ROOT_DIRECTORY, "readOnly": True},
            {"name": _ADMIN_VOLUME, "mountPath": ADMIN_DIRECTORY},
            *wishes.mounts,
        ],
        **_pulled(settings),
    }
    if not subject.is_gateway:
        container["restartPolicy"] = "Always"
    return container | _asked(wishes)


def _asked(wishes: Wishes) -> Json:
    """Containers that come after the proxy wait until it has its configuration; so does the pod's readiness."""
    if not wishes.readiness.is_asked:
        return {}
    request = {"path": "/healthz/ready", "port": READINESS_PORT}
    readiness: Json = {"httpGet": dict(request), "timeoutSeconds": 3, "periodSeconds": wishes.readiness.period_s}
    if wishes.readiness.initial_delay_s:
        readiness["initialDelaySeconds"] = wishes.readiness.initial_delay_s
    return {
        "startupProbe": {"httpGet": request, "timeoutSeconds": 3, "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**readiness, "failureThreshold": wishes.readiness.failures},
    }


def capturing(wishes: Wishes, settings: InjectionSettings) -> Json:
    """The init container before the proxy: it makes the rules, or looks whether the CNI plugin has made them."""
    told = captured(wishes)
    makes = settings.capture == "init"
    security = _restricted(_ROOT_USER if makes else _NOBODY)
    if makes:
        security |= {"runAsNonRoot": False, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}
    return {
        "name": CAPTURE_CONTAINER,
        "image": settings.capture_image,
        "args": ["init" if makes else "verify", told],
        "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "securityContext": security,
        **_pulled(settings),
    }


def captured(wishes: Wishes) -> str:
    """The capture program's settings."""
    return json.dumps(wishes.capture, separators=(",", ":"))


def volumes(settings: InjectionSettings) -> list[Json]:
    """The proxy's volumes; no other container mounts them."""
    token = {"audience": TOKEN_AUDIENCE, "expirationSeconds": settings.token_seconds, "path": "token"}
    roots = {"name": settings.trust_root, "items": [{"key": ROOT_RESOURCE, "path": ROOT_RESOURCE}]}
    return [
        {"name": _TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": _ROOT_VOLUME, "configMap": roots},
        {"name": _ADMIN_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]


def _environment(subject: Subject, settings: InjectionSettings) -> list[Json]:
    principal = f"spiffe://{settings.trust_domain}/ns/$(TULLE_NAMESPACE)/sa/$(TULLE_SERVICE_ACCOUNT)"
    told: Mapping[str, str] = environment(
        subject.labels, subject.owner, "$(TULLE_NAMESPACE)", settings.cluster, principal
    )
    downward = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _DOWNWARD.items()]
    return [*downward, *({"name": name, "value": value} for name, value in told.items())]


def _restricted(user: int) -> Json:
    return {
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(wanted: Resources) -> Json:
    requests = {"cpu": wanted.cpu, "memory": wanted.memory}
    limits = {"cpu": wanted.cpu_limit, "memory": wanted.memory_limit}
    whole = {"requests": _given(requests), "limits": _given(limits)}
    return {name: values for name, values in whole.items() if values}


def _given(quantities: Mapping[str, str]) -> dict[str, str]:
    return {name: quantity for name, quantity in quantities.items() if quantity}


def _pulled(settings: InjectionSettings) -> Json:
    return {"imagePullPolicy": settings.image_pull_policy} if settings.image_pull_policy else {}
