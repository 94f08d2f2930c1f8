"""What runs for a Gateway: the objects of its automated deployment, as plain dictionaries ready to be applied.

Pure. Whoever applies them (leader, server-side) also deletes what is no longer named here and sets `inputs.deployed` from the
Service and the proxies. The pods are ordinary injected gateways (image `auto`), so what a proxy is stays with injection.
Source: GEP-1762 (in-cluster deployments); Istio's automated gateways, whose ConfigMap keys for overlays are taken over.
"""

from collections.abc import Mapping
from typing import Any, Final

import yaml
from msgspec import Struct

from tulle.dialects.gateway_api import schema
from tulle.dialects.gateway_api.gateway_classes import our_gateway
from tulle.dialects.gateway_api.listeners import gateway_listeners
from tulle.dialects.gateway_api.names import NAME_LABEL
from tulle.dialects.gateway_api.schema import GROUP
from tulle.dialects.gateway_api.status import asked_addresses, asks_too_much, gateway_refused
from tulle.dialects.inputs import objects
from tulle.engine import Database, query
from tulle.model.keys import Labels, ObjectKey, labels_of

Json = dict[str, Any]
CLASS_LABEL: Final = "gateway.networking.k8s.io/gateway-class-name"
MANAGED: Final = ("tulle.dev/managed", "gateway")
"""Label of everything made for a Gateway."""
SERVICE_TYPE: Final = "networking.istio.io/service-type"
"""Annotation of a Gateway: the type of its Service."""
_LONGEST: Final = 63
_STATUS_PORT: Final = 15021
_OVERLAYS: Final = {
    "Deployment": "deployment",
    "Service": "service",
    "ServiceAccount": "serviceAccount",
    "HorizontalPodAutoscaler": "horizontalPodAutoscaler",
    "PodDisruptionBudget": "podDisruptionBudget",
}
"""Keys of a parameters ConfigMap; the last two kinds are made only where their key is there."""


class Port(Struct, frozen=True):
    """A port of the Service."""

    name: str
    number: int


class ToDeploy(Struct, frozen=True):
    """A Gateway that wants workloads of its own."""

    key: ObjectKey
    uid: str
    class_name: str
    ports: tuple[Port, ...]
    labels: Labels = ()
    annotations: Labels = ()
    service_type: str = ""
    address: str = ""
    """The one that its load balancer is asked for; empty: any."""
    parameters: Labels = ()
    """Entries of the parameters ConfigMap."""

    @property
    def name(self) -> str:
        """Of its objects: `<gateway>-<class>`."""
        return f"{self.key.name}-{self.class_name}"[:_LONGEST].rstrip("-.")


class DeploymentSettings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What an installation says of automated gateways."""

    service_type: str = "LoadBalancer"
    replicas: int = 1
    revision: str = ""
    """Label `istio.io/rev` of the pods; empty: whichever injects."""


@query
def deployment_of(db: Database, key: ObjectKey) -> ToDeploy | None:
    """What a Gateway needs; None where it is not ours, cannot be deployed, or names workloads of its own (address of type Hostname).

    One that asks for more addresses than a Service can have is not deployed until it can get what it asks for.
    """
    found, spec = objects(db, key), our_gateway(db, key)
    if found is None or spec is None or any(one.type == "Hostname" and one.value for one in spec.addresses):
        return None
    if gateway_refused(db, key) is not None or asks_too_much(spec) is not None:
        return None
    ports: dict[int, Port] = {}
    for one in gateway_listeners(db, key):
        if one.refused is None:
            number = one.written.port
            ports.setdefault(number, Port(f"{one.written.protocol.lower()}-{number}", number))
    return ToDeploy(
        key=key,
        uid=found.uid,
        class_name=spec.gateway_class_name,
        ports=tuple(ports[number] for number in sorted(ports)),
        labels=labels_of(spec.infrastructure.labels),
        annotations=labels_of(spec.infrastructure.annotations),
        service_type=dict(found.annotations).get(SERVICE_TYPE, ""),
        address=next(iter(asked_addresses(spec)), ""),
        parameters=_parameters(db, key, spec),
    )


def _parameters(db: Database, key: ObjectKey, spec: schema.Gateway) -> Labels:
    ref = spec.infrastructure.parameters_ref
    found = objects(db, ObjectKey(key.cluster, "", "ConfigMap", key.namespace, ref.name)) if ref else None
    return labels_of(found.spec.data) if found else ()


def objects_for(gateway: ToDeploy, settings: DeploymentSettings) -> tuple[Json, ...]:
    """ServiceAccount, Service, Deployment, and what the parameters ask for besides. A Service needs a port: without, none."""
    made = [_account(gateway), _deployment(gateway, settings)]
    if gateway.ports:
        made.insert(1, _service(gateway, settings))
    given = dict(gateway.parameters)
    made += [make(gateway) for kind, make in _ON_DEMAND.items() if _OVERLAYS[kind] in given]
    return tuple(_merged(one, _overlay(given.get(_OVERLAYS[one["kind"]], ""))) for one in made)


def selector_of(gateway: ToDeploy) -> Json:
    """What selects its pods."""
    return {NAME_LABEL: gateway.key.name}


def _metadata(gateway: ToDeploy) -> Json:
    owner = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Gateway",
        "name": gateway.key.name,
        "uid": gateway.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    return {
        "name": gateway.name,
        "namespace": gateway.key.namespace,
        "labels": {**dict(gateway.labels), **_own_labels(gateway)},
        "annotations": dict(gateway.annotations),
        **({"ownerReferences": [owner]} if gateway.uid else {}),
    }


def _own_labels(gateway: ToDeploy) -> Json:
    return {NAME_LABEL: gateway.key.name, CLASS_LABEL: gateway.class_name, MANAGED[0]: MANAGED[1]}


def _account(gateway: ToDeploy) -> Json:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(gateway)}


def _service(gateway: ToDeploy, settings: DeploymentSettings) -> Json:
    kind = gateway.service_type or settings.service_type
    ports = [Port("status-port", _STATUS_PORT), *(one for one in gateway.ports if one.number != _STATUS_PORT)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(gateway),
        "spec": {
            "type": kind,
            # deprecated and without a successor: what asks balancers of every cluster for an address
            **({"loadBalancerIP": gateway.address} if gateway.address and kind == "LoadBalancer" else {}),
            "selector": selector_of(gateway),
            "ports": [
                {"name": one.name, "port": one.number, "targetPort": one.number, "protocol": "TCP"} for one in ports
            ],
        },
    }


def _deployment(gateway: ToDeploy, settings: DeploymentSettings) -> Json:
    revision = {"istio.io/rev": settings.revision} if settings.revision else {}
    annotations = {**dict(gateway.annotations), "inject.istio.io/templates": "gateway"}
    labels = {**dict(gateway.labels), **_own_labels(gateway), **revision, "sidecar.istio.io/inject": "true"}
    ports = [{"containerPort": one.number, "name": one.name, "protocol": "TCP"} for one in gateway.ports]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(gateway),
        "spec": {
            "replicas": settings.replicas,
            "selector": {"matchLabels": selector_of(gateway)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {
                    "serviceAccountName": gateway.name,
                    "terminationGracePeriodSeconds": 30,
                    "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
                    "containers": [{"name": "istio-proxy", "image": "auto", "ports": ports}],
                },
            },
        },
    }


def _autoscaler(gateway: ToDeploy) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": gateway.name}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(gateway),
        "spec": {"scaleTargetRef": target, "maxReplicas": 1},
    }


def _budget(gateway: ToDeploy) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(gateway),
        "spec": {"selector": {"matchLabels": selector_of(gateway)}},
    }


_ON_DEMAND: Final = {"HorizontalPodAutoscaler": _autoscaler, "PodDisruptionBudget": _budget}


def _overlay(text: str) -> Json:
    """A part of an object in YAML; nothing where it is none, or refers to itself (so that small text stays small)."""
    if not text:
        return {}
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.CSafeLoader)):
            return {}
        found = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _merged(base: Any, over: Any) -> Any:
    """Objects field by field, lists of named entries by name, everything else replaced; null takes a field away."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        made = {name: value for name, value in base.items() if name not in over or over[name] is not None}
        for name, value in over.items():
            if value is not None:
                made[name] = _merged(made.get(name), value)
        return made
    if isinstance(base, list) and isinstance(over, list) and _are_named(base) and _are_named(over):
        named = {one["name"]: one for one in base}
        for one in over:
            named[one["name"]] = _merged(named.get(one["name"]), one)
        return list(named.values())
    return over


def _are_named(entries: list[Any]) -> bool:
    return all(isinstance(one, Mapping) and "name" in one for one in entries)
