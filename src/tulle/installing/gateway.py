"""The ingress gateway of a profile, and the GatewayClass.

Pure. The gateway is an ordinary injected Deployment (image `auto`, template `gateway`) under the name and labels that Istio's Gateway
objects select; Gateways of Kubernetes' own API get theirs from the control plane instead.
"""

from typing import Any, Final

from tulle.installing.blueprint import Has, Node, Value, When
from tulle.installing.control_plane import RESTRICTED, autoscaler
from tulle.installing.naming import CONTROLLER, GATEWAY_CLASS, REV, REVISION, labels, metadata

COMPONENT: Final = "ingress-gateway"
_NAME: Final = Value("ingress.name")
_PORTS: Final = (("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443))
_CLASS_API: Final = "gateway.networking.k8s.io/v1/GatewayClass"


def _selector() -> dict[str, Node]:
    return {"app": _NAME, "istio": "ingressgateway"}


def _meta(extra: Node = None) -> dict[Any, Node]:
    meta = {"name": _NAME, "namespace": Value("ingress.namespace"), "labels": {**labels(COMPONENT), **_selector()}}
    return {**meta, **(extra or {})}


def _namespace() -> Node:
    return When(
        (Value("ingress.createNamespace"),),
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": Value("ingress.namespace"), "labels": labels("namespace", is_shared=True)},
        },
    )


def _service() -> Node:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta({"annotations": Value("ingress.serviceAnnotations")}),
        "spec": {
            "type": Value("ingress.serviceType"),
            "selector": _selector(),
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"} for name, port, target in _PORTS
            ],
        },
    }


def _deployment() -> Node:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(),
        "spec": {
            "replicas": Value("ingress.replicas"),
            "selector": {"matchLabels": _selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": {
                        **labels(COMPONENT),
                        **_selector(),
                        REVISION: REV,
                        "sidecar.istio.io/inject": "true",
                    },
                    "annotations": {"inject.istio.io/templates": "gateway"},
                },
                "spec": {
                    "serviceAccountName": _NAME,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": RESTRICTED,
                    "containers": [_container()],
                    "nodeSelector": Value("ingress.nodeSelector"),
                    "tolerations": Value("ingress.tolerations"),
                },
            },
        },
    }


def _container() -> Node:
    return {
        "name": "istio-proxy",
        "image": "auto",
        "imagePullPolicy": Value("image.pullPolicy"),
        "ports": [
            {"name": "status-port", "containerPort": 15021, "protocol": "TCP"},
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "https", "containerPort": 8443, "protocol": "TCP"},
        ],
        "resources": Value("ingress.resources"),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _disruption_budget() -> Node:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _meta(),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector()}},
    }


def gateway_class() -> Node:
    """So that Gateways can name us."""
    return When(
        (
            Value("controlPlane.enabled"),
            Value("gatewayController.enabled"),
            Value("gatewayController.gatewayClass"),
            Has(_CLASS_API),
        ),
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": metadata(GATEWAY_CLASS, "gateway-class", is_namespaced=False, is_shared=True),
            "spec": {"controllerName": CONTROLLER, "description": "Envoys of tulle"},
        },
    )


def objects() -> tuple[Node, ...]:
    """Class first, then the gateway, in the order in which they are applied."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta()}
    own = (
        _namespace(),
        account,
        _service(),
        _deployment(),
        _disruption_budget(),
        autoscaler("ingress.autoscaling", _NAME, _meta()),
    )
    return (gateway_class(), *(When((Value("ingress.enabled"),), node) for node in own))
