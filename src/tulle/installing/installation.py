"""A whole installation: profile, revision and values to Kubernetes objects, in the order in which they are applied.

Pure and deterministic: equal requests, equal objects. The Helm chart is written from the same blueprint (`chart.py`). Applying,
waiting and asking the cluster belong to `cli/`.
"""

from typing import Any, Final

from msgspec import Struct

from tulle.installing import cni, control_plane, gateway, rights, webhooks
from tulle.installing.blueprint import Facts, Node, filled
from tulle.installing.crds import definitions
from tulle.installing.values import Values, plain

NAMESPACE: Final = "tulle-system"


class Request(Struct, frozen=True):
    """What to install where."""

    values: Values
    namespace: str = NAMESPACE
    apis: frozenset[str] = frozenset()
    """`group/version/Kind` that the cluster serves and the objects depend on."""


def parts() -> dict[str, tuple[Node, ...]]:
    """The blueprint by part: the files of the chart's templates."""
    return {
        "control-plane": control_plane.objects(),
        "node-agent": cni.objects(),
        "rights": rights.objects(),
        "webhooks": webhooks.objects(),
        "gateway": gateway.objects(),
    }


def objects(request: Request) -> tuple[dict[str, Any], ...]:
    """Every object, definitions of custom resources first, then by kind in the order below. O(objects)."""
    facts = Facts(plain(request.values), request.namespace, request.apis)
    made = [one for nodes in parts().values() for node in nodes for one in filled(node, facts)]
    kinds = list(definitions()) if request.values.custom_resources else []
    return (*kinds, *sorted(made, key=order))


_ORDER: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Service",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "GatewayClass",
    "PodDisruptionBudget",
    "DaemonSet",
    "Deployment",
    "HorizontalPodAutoscaler",
)


def order(made: dict[str, Any]) -> int:
    """The place of an object among others: what is needed comes first. Stable within a kind."""
    kind = made["kind"]
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def tag(name: str, request: Request) -> tuple[dict[str, Any], ...]:
    """The objects of a tag on the revision of the request's values."""
    facts = Facts(plain(request.values), request.namespace, request.apis)
    nodes = (*webhooks.tag_rights(name), webhooks.tag(name))
    return tuple(one for node in nodes for one in filled(node, facts))
