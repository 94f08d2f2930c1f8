"""The node agent: a DaemonSet that puts the CNI plugin on nodes, so that injected pods need no right of their own.

Pure; blanks of `blueprint.py`. One per cluster, whatever the number of revisions. The plugin itself is `capture/`. It writes into
the node's file system, hence root, and hence outside of the control plane's namespace, which is closed to such pods.
"""

from typing import Any, Final

from tulle.installing.blueprint import Node, Value, When, words
from tulle.installing.control_plane import image
from tulle.installing.naming import labels

COMPONENT: Final = "node-agent"
NAME: Final = "tulle-cni"
PROGRAM: Final = "/usr/local/bin/tulle-capture"
_NAMESPACE: Final = Value("cni.namespace")
_RBAC: Final = "rbac.authorization.k8s.io"
_PROGRAMS: Final = "/host/opt/cni/bin"
_NETWORKS: Final = "/host/etc/cni/net.d"
"""Where the agent looks unless told otherwise (capture/install.go)."""
_SELECTOR: Final = {"app": NAME}


def _meta() -> dict[Any, Node]:
    return {"name": NAME, "namespace": _NAMESPACE, "labels": labels(COMPONENT, is_shared=True)}


def _rights() -> tuple[Node, ...]:
    """Whether its DaemonSet is still there: an agent that ends for a newer one leaves the plugin on the node."""
    return (
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": _meta(),
            "rules": [{"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"], "resourceNames": [NAME]}],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": _meta(),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": _NAMESPACE}],
        },
    )


def _daemon_set() -> Node:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(),
        "spec": {
            "selector": {"matchLabels": _SELECTOR},
            "template": {
                "metadata": {
                    "labels": {**labels(COMPONENT, is_shared=True), **_SELECTOR, "sidecar.istio.io/inject": "false"}
                },
                "spec": {
                    "serviceAccountName": NAME,
                    "priorityClassName": "system-node-critical",
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": Value("cni.tolerations"),
                    "containers": [_container()],
                    "volumes": [
                        {"name": "programs", "hostPath": {"path": Value("cni.programs"), "type": "DirectoryOrCreate"}},
                        {"name": "networks", "hostPath": {"path": Value("cni.networks"), "type": "DirectoryOrCreate"}},
                    ],
                },
            },
        },
    }


def _container() -> Node:
    return {
        "name": "install",
        "image": image("capture"),
        "imagePullPolicy": Value("image.pullPolicy"),
        "args": ["install-cni", words("-agent=", _NAMESPACE, f"/{NAME}")],
        "resources": Value("cni.resources"),
        "readinessProbe": {"exec": {"command": [PROGRAM, "is-chained"]}, "periodSeconds": 2, "timeoutSeconds": 5},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "programs", "mountPath": _PROGRAMS},
            {"name": "networks", "mountPath": _NETWORKS},
        ],
    }


def objects() -> tuple[Node, ...]:
    """In the order in which they are applied."""
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(),
        "imagePullSecrets": Value("image.pullSecrets"),
    }
    return tuple(
        When((Value("cni.enabled"), Value("cni.agent")), node) for node in (account, *_rights(), _daemon_set())
    )
