"""What may be chosen of an installation, the profiles, and how choices are laid over each other.

Pure. Knows names, ranges and defaults; `control_plane.py`, `webhooks.py` and `gateway.py` know what becomes of them.
The same structure is the chart's `values.yaml` and `values.schema.json`.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from tulle.installing.refusals import refused
from tulle.installing.release import VERSION

_WORD = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
Revision = Annotated[str, Meta(pattern=r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
"""A DNS label, or empty. 40: names of objects are made of it."""
NamespaceName = Annotated[str, Meta(pattern=_WORD, max_length=63)]
FolderName = Annotated[str, Meta(pattern=r"^/[-A-Za-z0-9._/]*$", max_length=255)]
ImagePart = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$", max_length=255)]
Count = Annotated[int, Meta(ge=1, le=100)]
Words = dict[str, str]


class _Chosen(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A group of values, in camelCase."""


class Image(_Chosen, frozen=True):
    """Where images come from: `hub/name:tag`."""

    hub: ImagePart = "tulle"
    tag: ImagePart = VERSION
    control_plane: ImagePart = "control-plane"
    proxy: ImagePart = "proxy"
    capture: ImagePart = "capture"
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[dict[str, str], ...] = ()
    """`[{name: ...}]`."""


class Autoscaling(_Chosen, frozen=True):
    """The HorizontalPodAutoscaler of the control plane."""

    enabled: bool = True
    min_replicas: Count = 2
    max_replicas: Count = 5
    cpu_percent: Annotated[int, Meta(ge=1, le=100)] = 80


class ControlPlane(_Chosen, frozen=True):
    """The Deployment of the control plane."""

    enabled: bool = True
    replicas: Count = 2
    autoscaling: Autoscaling = Autoscaling()
    disruption_budget: bool = True
    """At least one replica stays through evictions. For one replica, turn it off: its node could not be drained."""
    resources: dict[str, Words] = msgspec.field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    )
    priority_class_name: str = ""
    node_selector: Words = msgspec.field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = msgspec.field(default_factory=dict)
    pod_labels: Words = msgspec.field(default_factory=dict)
    pod_annotations: Words = msgspec.field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    """More arguments of the control plane's process."""
    environment: tuple[dict[str, Any], ...] = ()
    """More `env` entries of its container."""


class InjectionWebhook(_Chosen, frozen=True):
    """Which pods the API server shows us before it makes them."""

    enabled: bool = True
    namespaces: bool = True
    """By labels of namespaces too. False: only pods that ask for themselves, as gateways do."""
    failure_policy: Literal["Fail", "Ignore"] = "Fail"
    """Fail: no pod of a namespace in the mesh starts outside the mesh. Other namespaces are never asked about."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=30)] = 10
    never_namespaces: tuple[NamespaceName, ...] = ("kube-system", "kube-public", "kube-node-lease")
    """Never asked about, whatever their labels. The control plane's own is always among them."""


class ValidationWebhook(_Chosen, frozen=True):
    """Whether the API server asks before it accepts configuration."""

    enabled: bool = True
    failure_policy: Literal["Fail", "Ignore"] = "Ignore"
    """Ignore: without us configuration is accepted, and judged in its status."""
    timeout_seconds: Annotated[int, Meta(ge=1, le=30)] = 5


class GatewayController(_Chosen, frozen=True):
    """Kubernetes' Gateway API."""

    enabled: bool = True
    gateway_class: bool = True
    """Make the GatewayClass `tulle`. For further revisions: false."""
    manage_deployments: bool = True
    """Gateways get a Deployment of their own."""


class Ingress(_Chosen, frozen=True):
    """A gateway that Istio's Gateway objects select with `istio: ingressgateway`."""

    enabled: bool = False
    create_namespace: bool = True
    namespace: NamespaceName = "istio-system"
    name: NamespaceName = "istio-ingressgateway"
    replicas: Count = 1
    service_type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    service_annotations: Words = msgspec.field(default_factory=dict)
    resources: dict[str, Words] = msgspec.field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "128Mi"}}
    )
    autoscaling: Autoscaling = Autoscaling(enabled=False, min_replicas=1)
    node_selector: Words = msgspec.field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()


class Cni(_Chosen, frozen=True):
    """Capture by a CNI plugin on the nodes, for pods that may not have NET_ADMIN."""

    enabled: bool = False
    """Injected pods are captured by the plugin; `injection.capture` follows."""
    agent: bool = True
    """Install the node agent, which puts the plugin there. False: it is there already, of another revision."""
    namespace: NamespaceName = "kube-system"
    """Of the node agent. It writes to the node, which restricted pod security forbids."""
    programs: FolderName = "/opt/cni/bin"
    """The nodes' folder of CNI plugins."""
    networks: FolderName = "/etc/cni/net.d"
    """The nodes' folder of CNI configuration."""
    resources: dict[str, Words] = msgspec.field(
        default_factory=lambda: {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
    )
    tolerations: tuple[dict[str, Any], ...] = ({"operator": "Exists"},)


class Secrets(_Chosen, frozen=True):
    """Whose Secrets the control plane may read: never the cluster's."""

    namespaces: tuple[NamespaceName, ...] = ()
    """Namespaces with gateways, besides that of `ingress`."""
    follow_gateways: bool = True
    """May give itself the right in namespaces that hold a gateway. False: only those listed."""


class Values(_Chosen, frozen=True):
    """Everything that may be chosen."""

    revision: Revision = ""
    create_namespace: bool = False
    """Make the control plane's namespace, with restricted pod security. The CLI does; Helm has `--create-namespace`."""
    custom_resources: bool = True
    """Istio's kinds where the cluster does not have them. (Helm: `--skip-crds`.)"""
    image: Image = Image()
    control_plane: ControlPlane = ControlPlane()
    injection_webhook: InjectionWebhook = InjectionWebhook()
    validation_webhook: ValidationWebhook = ValidationWebhook()
    gateway_controller: GatewayController = GatewayController()
    ingress: Ingress = Ingress()
    cni: Cni = Cni()
    secrets: Secrets = Secrets()
    mesh: dict[str, Any] = msgspec.field(default_factory=dict)
    """Settings of the mesh: `mesh.json`."""
    injection: dict[str, Any] = msgspec.field(default_factory=dict)
    """Settings of injected proxies: `injection.json`."""


PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    "default": {"ingress": {"enabled": True}},
    "minimal": {},
    "gateway-only": {"injectionWebhook": {"namespaces": False}, "ingress": {"enabled": True}},
    "demo": {
        "ingress": {"enabled": True, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
        "controlPlane": {
            "replicas": 1,
            "autoscaling": {"enabled": False},
            "disruptionBudget": False,
            "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        },
    },
}
"""By name, what differs from the defaults of `Values`."""

Overlay = Mapping[str, Any]


def values_of(profile: str, *overlays: Overlay) -> Values:
    """The values of a profile with overlays, later ones on top. Raises RefusedError (TUL1101, TUL1102)."""
    chosen = PROFILES.get(profile)
    if chosen is None:
        raise refused("TUL1101", profile=profile, profiles=", ".join(PROFILES))
    merged: dict[str, Any] = {}
    for overlay in (plain(Values()), chosen, *overlays):
        merged = laid(merged, overlay)
    return typed(merged)


def typed(raw: Overlay) -> Values:
    """Plain values as typed ones. Raises RefusedError (TUL1102) that names the field."""
    try:
        return msgspec.convert(raw, Values)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$.")
        raise refused("TUL1102", path=path.rstrip("`") or "values", reason=reason) from error


def laid(under: Overlay, over: Overlay) -> dict[str, Any]:
    """Mappings are merged, `null` removes, everything else replaces: Helm's rule."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = laid(below, value)
        else:
            merged[key] = value
    return merged


def plain(values: Values) -> dict[str, Any]:
    """As a mapping of plain values: what blanks are filled from, and `values.yaml`."""
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(values))
    return made


def setting(assignment: str) -> dict[str, Any]:
    """`a.b=1` as an overlay. The value is JSON, or else text; `{a,b}` is a list, as for helm. Raises RefusedError (TUL1103)."""
    path, equals, text = assignment.partition("=")
    if not equals or not all(path.split(".")):
        raise refused("TUL1103", assignment=assignment)
    value = _value(text, assignment)
    for step in reversed(path.split(".")):
        value = {step: value}
    made: dict[str, Any] = value
    return made


def _value(text: str, assignment: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if text.startswith("{") and text.endswith("}"):
            return [_value(item, assignment) for item in text[1:-1].split(",")]
        if text[:1] in ("{", "[", '"'):
            raise refused("TUL1103", assignment=assignment) from None
        return text
