"""Every right the control plane holds, and why: the one place from which Roles are made.

Pure. A right without a use is a defect, and so is a use without a right: a test compares this list with what the control plane
asks of a real API server. Escalation is weighed at `bind`.
"""

from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from tulle.installing.blueprint import Each, Item, Namespace, Node, Text, Value, When
from tulle.installing.kinds import LEARNED_NAMES, OWN_GROUP, gateway_api, groups
from tulle.installing.naming import (
    AUTHORITY,
    CONFIG_MAPS_RIGHT,
    CONTROL_PLANE,
    INJECTOR,
    SECRETS_RIGHT,
    TRUST_ROOT,
    VALIDATOR,
    labels,
    metadata,
    revised,
    wide,
)

READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "patch", "delete")
_GATEWAY_API: Final = "gateway.networking.k8s.io"
_ADMISSION: Final = "admissionregistration.k8s.io"
_RBAC: Final = "rbac.authorization.k8s.io"


class Where(StrEnum):
    """In which namespaces a right holds."""

    CLUSTER = "cluster"
    OWN = "own namespace"
    GATEWAYS = "namespaces with gateways"
    NAMED = "namespaces with ConfigMaps that are named"


class Right(Struct, frozen=True):
    """Verbs on resources of one group, and what they are for."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    where: Where = Where.CLUSTER
    names: tuple[str | Text, ...] = ()
    """Only objects of these names; empty: of any."""
    needs: tuple[Value, ...] = ()
    """Held only if these values are set."""
    urls: tuple[str, ...] = ()
    """Paths that are no resources; then there is no group."""


_GATEWAYS: Final = (Value("gatewayController.enabled"),)
_DEPLOYING: Final = (Value("gatewayController.enabled"), Value("gatewayController.manageDeployments"))
_SECRETS_ROLE: Final = wide(SECRETS_RIGHT)
_SECRETS_BINDING: Final = revised(SECRETS_RIGHT)
_MAPS_ROLE: Final = wide(CONFIG_MAPS_RIGHT)
_MAPS_BINDING: Final = revised(CONFIG_MAPS_RIGHT)

_READING: Final = (
    Right("", ("namespaces",), READ, "labels of namespaces say what is in the mesh; trust roots are written into them"),
    Right("", ("services",), READ, "services are destinations"),
    Right("", ("pods",), READ, "pods are workloads: addresses, labels, readiness, and the proof who a proxy is"),
    Right("discovery.k8s.io", ("endpointslices",), READ, "endpoints of services"),
    Right("networking.k8s.io", ("servicecidrs",), READ, "where sidecars ask for destinations that they do not know"),
    *(Right(group, resources, READ, "configuration of the mesh") for group, resources in groups()),
    Right(_GATEWAY_API, gateway_api(), READ, "configuration of the mesh and its gateways", needs=_GATEWAYS),
)

_STATUS: Final = (
    *(
        Right(
            group,
            tuple(f"{one}/status" for one in resources),
            ("update",),
            "conditions say what became of an object",
        )
        for group, resources in groups()
    ),
    Right(
        _GATEWAY_API,
        tuple(f"{one}/status" for one in gateway_api() if one != "referencegrants"),
        ("update",),
        "conditions the Gateway API demands",
        needs=_GATEWAYS,
    ),
    Right("events.k8s.io", ("events",), ("create",), "refusals are told as events of their objects"),
)

_IDENTITY: Final = (
    Right(
        "authentication.k8s.io",
        ("tokenreviews",),
        ("create",),
        "the API server says whose token a proxy shows: the one proof of identity",
    ),
    Right(
        "",
        (),
        ("get",),
        "the cluster's signing keys: a token that was never seen is checked against them while reviews cannot be asked for",
        urls=("/.well-known/openid-configuration", "/openid/v1/jwks"),
    ),
    Right(
        "",
        ("configmaps",),
        ("create", "patch"),
        "the trust root of each namespace, and no other ConfigMap: applied on the server, where `create` sees the name",
        names=(TRUST_ROOT,),
    ),
    Right(
        "",
        ("secrets",),
        ("get", "update"),
        "the CA's roots rest here",
        where=Where.OWN,
        names=(AUTHORITY,),
    ),
    Right("", ("secrets",), ("create",), "the CA's roots, once: `create` by POST cannot be narrowed", where=Where.OWN),
)

_WEBHOOKS: Final = (
    Right(
        _ADMISSION,
        ("mutatingwebhookconfigurations",),
        ("list",),
        "which tags are on this revision; a tag brings the right to its own configuration along",
        needs=(Value("injectionWebhook.enabled"),),
    ),
    Right(
        _ADMISSION,
        ("mutatingwebhookconfigurations",),
        ("get", "patch"),
        "the certificate that the API server expects of our webhook follows the CA",
        names=(wide(INJECTOR),),
        needs=(Value("injectionWebhook.enabled"),),
    ),
    Right(
        _ADMISSION,
        ("validatingwebhookconfigurations",),
        ("get", "patch"),
        "the certificate that the API server expects of our webhook follows the CA",
        names=(wide(VALIDATOR),),
        needs=(Value("validationWebhook.enabled"),),
    ),
)

_REPLICAS: Final = (
    Right(
        "coordination.k8s.io",
        ("leases",),
        ("get", "list", "create", "update", "patch", "delete"),
        "one replica writes; each tells the others how far its proxies are",
        where=Where.OWN,
    ),
)

_LEARNED: Final = (
    Right(
        OWN_GROUP,
        (LEARNED_NAMES.plural,),
        ("get", "list", "watch", "create", "patch", "delete"),
        "what on-demand sidecars have called: a sidecar that starts gets it from whichever replica it meets",
        where=Where.OWN,
    ),
)

_MANAGED_GATEWAYS: Final = (
    Right("apps", ("deployments",), _WRITE, "a Gateway gets its proxies", needs=_DEPLOYING),
    Right("", ("services",), _WRITE, "a Gateway gets its address", needs=_DEPLOYING),
    Right("", ("serviceaccounts",), _WRITE, "a Gateway gets its identity", needs=_DEPLOYING),
    Right("autoscaling", ("horizontalpodautoscalers",), _WRITE, "a Gateway scales", needs=_DEPLOYING),
    Right("policy", ("poddisruptionbudgets",), _WRITE, "a Gateway stays through evictions", needs=_DEPLOYING),
)

_GATEWAY_SECRETS: Final = (
    Right("", ("secrets",), READ, "certificates that a gateway of this namespace serves", where=Where.GATEWAYS),
    Right(
        "",
        ("configmaps",),
        READ,
        "parameters of a Gateway, and CA bundles that its listeners and policies for backends name",
        where=Where.NAMED,
    ),
    Right(
        _RBAC,
        ("rolebindings",),
        ("get", "create", "patch", "delete"),
        "binds the rights to read Secrets where gateways are, and ConfigMaps where one is named, and takes them back",
        names=(_SECRETS_BINDING, _MAPS_BINDING),
        needs=(Value("secrets.followGateways"),),
    ),
    Right(
        _RBAC,
        ("clusterroles",),
        ("bind",),
        "only the roles that read Secrets and ConfigMaps of a namespace can be bound: nothing else is gained; "
        "`secrets.followGateways: false` takes it away",
        names=(_SECRETS_ROLE, _MAPS_ROLE),
        needs=(Value("secrets.followGateways"),),
    ),
)

RIGHTS: Final[tuple[Right, ...]] = (
    *_READING,
    *_STATUS,
    *_IDENTITY,
    *_WEBHOOKS,
    *_REPLICAS,
    *_LEARNED,
    *_MANAGED_GATEWAYS,
    *_GATEWAY_SECRETS,
)
"""All of them. What no values take away is held always."""

_COMPONENT = "control-plane"
_NAME = wide(CONTROL_PLANE)


def _rules(where: Where) -> list[Node]:
    return [_rule(right) for right in RIGHTS if right.where is where]


def _rule(right: Right) -> Node:
    if right.urls:
        return {"nonResourceURLs": list(right.urls), "verbs": list(right.verbs)}
    rule: dict[str, Any] = {
        "apiGroups": [right.group],
        "resources": list(right.resources),
        "verbs": list(right.verbs),
    }
    if right.names:
        rule["resourceNames"] = list(right.names)
    return When(right.needs, rule) if right.needs else rule


def _subject() -> list[Node]:
    return [{"kind": "ServiceAccount", "name": revised(CONTROL_PLANE), "namespace": Namespace()}]


def _bound(kind: str, meta: Node, role_kind: str, role: Node) -> Node:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": _subject(),
    }


def objects() -> tuple[Node, ...]:
    """Roles and bindings, in the order in which they are applied."""
    own = metadata(revised(CONTROL_PLANE), _COMPONENT)
    everywhere = metadata(_NAME, _COMPONENT, is_namespaced=False)
    secrets = metadata(_SECRETS_ROLE, _COMPONENT, is_namespaced=False)
    maps = metadata(_MAPS_ROLE, _COMPONENT, is_namespaced=False)

    def role(kind: str, meta: Node, where: Where) -> Node:
        return {"apiVersion": f"{_RBAC}/v1", "kind": kind, "metadata": meta, "rules": _rules(where)}

    return tuple(
        When((Value("controlPlane.enabled"),), node)
        for node in (
            role("ClusterRole", everywhere, Where.CLUSTER),
            _bound("ClusterRoleBinding", everywhere, "ClusterRole", _NAME),
            role("Role", own, Where.OWN),
            _bound("RoleBinding", own, "Role", revised(CONTROL_PLANE)),
            role("ClusterRole", secrets, Where.GATEWAYS),
            role("ClusterRole", maps, Where.NAMED),
            When(
                (Value("ingress.enabled"),),
                _bound("RoleBinding", _in(_SECRETS_BINDING, Value("ingress.namespace")), "ClusterRole", _SECRETS_ROLE),
            ),
            *(
                Each(Value("secrets.namespaces"), _bound("RoleBinding", _in(binding, Item()), "ClusterRole", bound))
                for binding, bound in ((_SECRETS_BINDING, _SECRETS_ROLE), (_MAPS_BINDING, _MAPS_ROLE))
            ),
        )
    )


def _in(binding: Node, namespace: Node) -> Node:
    return {"name": binding, "namespace": namespace, "labels": labels(_COMPONENT)}


def described(right: Right) -> str:
    """One line for people."""
    named = " named " + ", ".join(_said(name) for name in right.names) if right.names else ""
    group = f" ({right.group})" if right.group else ""
    what = ", ".join(right.resources or right.urls)
    return f"{right.where}: {', '.join(right.verbs)} {what}{group}{named}: {right.why}"


def _said(name: str | Text) -> str:
    if isinstance(name, str):
        return name
    return "".join(
        part if isinstance(part, str) else "<namespace>" if isinstance(part, Namespace) else "" for part in name.parts
    )
