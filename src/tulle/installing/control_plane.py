"""The control plane as objects: namespace, identity, settings, Deployment, Service, disruption budget, autoscaler.

Pure; blanks of `blueprint.py`. Its rights are in `rights.py`, its webhooks in `webhooks.py`. Restricted pod security throughout
(Kubernetes, Pod Security Standards).
"""

from typing import Any, Final

from tulle.installing.blueprint import Digest, Json, Namespace, Node, Not, Optional, Spread, Text, Value, When, words
from tulle.installing.naming import (
    CONTROL_PLANE,
    REV,
    SETTINGS,
    labels,
    metadata,
    revised,
    selector,
)

XDS_PORT: Final = 15012
METRICS_PORT: Final = 15010
WEBHOOK_PORT: Final = 15017
PROBE_PORT: Final = 8080
USER: Final = 1337
RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""The securityContext of our pods."""

COMPONENT: Final = "control-plane"
_ENABLED = Value("controlPlane.enabled")
_NAME = revised(CONTROL_PLANE)
_AFFINITY: Final = Value("controlPlane.affinity")


def image(name: str) -> Text:
    """`hub/name:tag` of one of our images."""
    return words(Value("image.hub"), "/", Value(f"image.{name}"), ":", Value("image.tag"))


_MESH: Final = Json(Value("mesh"))
_INJECTION: Final = Json(
    Value("injection"),
    fixed=(
        ("revision", REV),
        ("namespace", Namespace()),
        ("proxyImage", image("proxy")),
        ("captureImage", image("capture")),
        ("imagePullPolicy", Value("image.pullPolicy")),
        ("capture", words(Optional(Value("cni.enabled"), words("cni"), "init"))),
    ),
)


def namespace() -> Node:
    """The namespace, closed to privileged pods."""
    rules = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return When(
        (Value("createNamespace"),),
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": Namespace(),
                "labels": {
                    **labels("namespace", is_shared=True),
                    "istio-injection": "disabled",
                    **rules,
                },
            },
        },
    )


def settings() -> Node:
    """What the mesh and its proxies are set to."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(revised(SETTINGS), COMPONENT),
        "data": {"mesh.json": _MESH, "injection.json": _INJECTION},
    }


def service_account() -> Node:
    """Who the control plane is."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(_NAME, COMPONENT),
        "imagePullSecrets": Value("image.pullSecrets"),
    }


def service() -> Node:
    """Where proxies and the API server find it."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(_NAME, COMPONENT),
        "spec": {
            "selector": selector(),
            "ports": [
                _port("grpc-xds", XDS_PORT, XDS_PORT),
                _port("https-webhook", 443, WEBHOOK_PORT),
                _port("http-metrics", METRICS_PORT, METRICS_PORT),
            ],
        },
    }


def _port(name: str, port: int, target: int) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}


def deployment() -> Node:
    """The processes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(_NAME, COMPONENT),
        "spec": {
            "replicas": Value("controlPlane.replicas"),
            "selector": {"matchLabels": selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": {
                        **labels(COMPONENT),
                        "app": CONTROL_PLANE,
                        "sidecar.istio.io/inject": "false",
                        Spread(Value("controlPlane.podLabels")): None,
                    },
                    "annotations": {
                        "tulle.dev/settings": Digest(_MESH),
                        "tulle.dev/injection-settings": Digest(_INJECTION),
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(METRICS_PORT),
                        Spread(Value("controlPlane.podAnnotations")): None,
                    },
                },
                "spec": _pod(),
            },
        },
    }


def _pod() -> Node:
    return {
        "serviceAccountName": _NAME,
        "terminationGracePeriodSeconds": 30,
        "securityContext": RESTRICTED,
        "containers": [_container()],
        "volumes": [
            {"name": "settings", "configMap": {"name": revised(SETTINGS)}},
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        ],
        "topologySpreadConstraints": [_spread("kubernetes.io/hostname")],
        "priorityClassName": When((Value("controlPlane.priorityClassName"),), Value("controlPlane.priorityClassName")),
        "nodeSelector": Value("controlPlane.nodeSelector"),
        "tolerations": Value("controlPlane.tolerations"),
        "affinity": {
            "podAntiAffinity": When((Not(_AFFINITY),), _apart()),
            Spread(_AFFINITY): None,
        },
    }


def _apart() -> Node:
    """Replicas in other zones. Not as a second spread constraint: nodes without the label would then count for none of them."""
    term = {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": {"matchLabels": selector()}}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _spread(key: str) -> Node:
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector()},
    }


def _container() -> Node:
    return {
        "name": CONTROL_PLANE,
        "image": image("controlPlane"),
        "imagePullPolicy": Value("image.pullPolicy"),
        "command": ["python3", "-m", "tulle.app.cluster"],
        "args": [
            "--namespace=$(POD_NAMESPACE)",
            words("--revision=", REV),
            "--settings=/etc/tulle/mesh.json",
            "--injection-settings=/etc/tulle/injection.json",
            Spread(Value("controlPlane.arguments")),
        ],
        "env": [
            _field("POD_NAME", "metadata.name"),
            _field("POD_NAMESPACE", "metadata.namespace"),
            _field("POD_IP", "status.podIP"),
            Spread(Value("controlPlane.environment")),
        ],
        "ports": [
            {"name": "grpc-xds", "containerPort": XDS_PORT, "protocol": "TCP"},
            {"name": "https-webhook", "containerPort": WEBHOOK_PORT, "protocol": "TCP"},
            {"name": "http-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
            {"name": "http-probes", "containerPort": PROBE_PORT, "protocol": "TCP"},
        ],
        "resources": Value("controlPlane.resources"),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "startupProbe": {**_probe("/ready"), "periodSeconds": 1, "failureThreshold": 120},
        "readinessProbe": {**_probe("/ready"), "periodSeconds": 3, "failureThreshold": 2},
        "livenessProbe": {**_probe("/live"), "periodSeconds": 10, "failureThreshold": 6},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "settings", "mountPath": "/etc/tulle", "readOnly": True},
            {"name": "state", "mountPath": "/var/lib/tulle"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the container
        ],
    }


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "http-probes"}, "timeoutSeconds": 5}


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def disruption_budget() -> Node:
    """One replica stays through evictions."""
    return When(
        (Value("controlPlane.disruptionBudget"),),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(_NAME, COMPONENT),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": selector()}},
        },
    )


def autoscaler(values: str, name: Node, meta: Node) -> Node:
    """Replicas by CPU. `values` is the path of an `Autoscaling`."""
    return When(
        (Value(f"{values}.enabled"),),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": meta,
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "minReplicas": Value(f"{values}.minReplicas"),
                "maxReplicas": Value(f"{values}.maxReplicas"),
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": Value(f"{values}.cpuPercent")},
                        },
                    }
                ],
            },
        },
    )


def objects() -> tuple[Node, ...]:
    """Everything but rights and webhooks, in the order in which it is applied."""
    own = (
        service_account(),
        settings(),
        service(),
        deployment(),
        disruption_budget(),
        autoscaler("controlPlane.autoscaling", _NAME, metadata(_NAME, COMPONENT)),
    )
    return (namespace(), *(When((_ENABLED,), node) for node in own))
