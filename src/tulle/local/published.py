"""What the supervisor tells others about its pods: `runtime.json`, service addresses, ports of gateways.

Pure. `runtime.json` is a Kubernetes List of Pods and Services as a cluster's API would show them, so that the control
plane reads a laptop and a cluster alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from tulle.compile.envoy.bootstrap import PublishedPort
from tulle.dialects.kubernetes.injection import RUNNING, Role
from tulle.local.addresses import Book
from tulle.local.desired import Workload
from tulle.local.fabric.wire import Vip
from tulle.local.manifests import Container, Service, ServicePort
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object

_PREFERRED: Final = {80: 8080, 443: 8443}
_FIRST_UNPRIVILEGED: Final = 1024
_UNPRIVILEGED_STEP: Final = 8000


class Seen(Struct, frozen=True):
    """A pod as others see it."""

    name: str
    uid: str
    ip: str
    workload: Workload
    labels: Mapping[str, str]
    phase: str
    is_ready: bool
    created: str
    """RFC 3339."""
    deleted: str = ""
    """RFC 3339; empty unless it terminates."""

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return self.workload.key.namespace


def runtime(pods: Iterable[Seen], services: Iterable[Object], addresses: Book) -> bytes:
    """The contents of `runtime.json`."""
    items = [_service(found, addresses) for found in services if needs_address(found)]
    items += [_pod(pod) for pod in pods]
    return msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": items})


def by_urgency(services: Iterable[Object], pods: Sequence[Seen]) -> list[str]:
    """The order in which to start pods, by uid: gateways, one pod of every Service, further ones, whom nobody calls."""
    behind = [selected(found, pods, only_ready=False) for found in services]
    called = {pod.uid for found in behind for pod in found}
    first = {found[0].uid for found in behind if found}

    def rank(pod: Seen) -> int:
        if pod.workload.role is Role.GATEWAY:
            return 0
        return 1 if pod.uid in first else 2 if pod.uid in called else 3

    return [pod.uid for pod in sorted(pods, key=rank)]


def needs_address(found: Object) -> bool:
    """Whether a Service gets a cluster IP from us."""
    service: Service = found.spec
    return service.spec.type != "ExternalName" and not service.spec.cluster_ip


def service_name(key: ObjectKey) -> str:
    """A Service's name in the address book."""
    return f"{key.namespace}/{key.name}"


def service_address(found: Object, addresses: Book) -> str:
    """A Service's cluster IP; empty for headless and external ones."""
    service: Service = found.spec
    if needs_address(found):
        return addresses.address(service_name(found.key))
    own = service.spec.cluster_ip
    return "" if own == "None" or service.spec.type == "ExternalName" else own


def _service(found: Object, addresses: Book) -> dict[str, Any]:
    service: Service = found.spec
    raw = dict(service.raw)
    address = service_address(found, addresses)
    raw["spec"] = {**(raw.get("spec") or {}), "clusterIP": address, "clusterIPs": [address]}
    raw["metadata"] = {**(raw.get("metadata") or {}), "namespace": found.key.namespace}
    return raw


def _pod(pod: Seen) -> dict[str, Any]:
    workload = pod.workload
    metadata: dict[str, Any] = {
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "creationTimestamp": pod.created,
        "labels": dict(pod.labels),
        "annotations": {**dict(workload.annotations), RUNNING: "false" if workload.role is Role.NONE else "true"},
    }
    if workload.owner is not None:
        kind, name = workload.owner
        metadata["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
    if pod.deleted:
        metadata["deletionTimestamp"] = pod.deleted
    spec = workload.spec
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "serviceAccountName": workload.service_account,
            "containers": [_container(one) for one in spec.containers],
        },
        "status": {
            "phase": pod.phase,
            "podIP": pod.ip,
            "conditions": [{"type": "Ready", "status": "True" if pod.is_ready else "False"}],
        },
    }


def _container(container: Container) -> dict[str, Any]:
    found: dict[str, Any] = {"name": container.name, "image": container.image}
    if container.ports:
        found["ports"] = msgspec.to_builtins(container.ports)
    return found


def vips(services: Iterable[Object], pods: Sequence[Seen], addresses: Book) -> tuple[Vip, ...]:
    """Every TCP service address and the ready pods behind it: kube-proxy's view."""
    found: list[Vip] = []
    for item in services:
        service: Service = item.spec
        address = service_address(item, addresses)
        if not address:
            continue
        behind = selected(item, pods)
        for port in service.spec.ports or ():
            if port.protocol == "TCP":
                endpoints = tuple((pod.ip, target) for pod in behind if (target := target_port(port, pod.workload)))
                found.append(Vip(address, port.port, endpoints))
    return tuple(found)


def selected(item: Object, pods: Iterable[Seen], *, only_ready: bool = True) -> list[Seen]:
    """The pods a Service sends to."""
    service: Service = item.spec
    selector = service.spec.selector
    if not selector:
        return []
    wanted = selector.items()
    return [
        pod
        for pod in pods
        if pod.namespace == item.key.namespace
        and wanted <= dict(pod.labels).items()
        and (not only_ready or service.spec.publish_not_ready_addresses or (pod.is_ready and not pod.deleted))
    ]


def target_port(port: ServicePort, workload: Workload) -> int:
    """The number of a Service's target port in a pod; 0 when the pod has no port of that name."""
    target = port.target_port
    if target is None or target == 0:
        return port.port
    if isinstance(target, int):
        return target
    if target.isdecimal():
        return int(target)
    return named_port(target, workload.spec.containers)


def named_port(name: str, containers: Iterable[Container]) -> int:
    """The number of a named container port; 0 when there is none."""
    declared = (port for container in containers for port in container.ports or ())
    return next((port.container_port for port in declared if port.name == name), 0)


def gateway_ports(services: Iterable[Object], pods: Sequence[Seen]) -> dict[int, tuple[tuple[str, int], ...]]:
    """Service port -> ready gateway pods, for every TCP port of every Service (not ClusterIP) of gateways.

    Of several gateways with the same port the first by name has it.
    """
    found: dict[int, tuple[tuple[str, int], ...]] = {}
    gateways = [pod for pod in pods if pod.workload.role is Role.GATEWAY]
    for item in sorted(services, key=lambda one: one.key):
        service: Service = item.spec
        if service.spec.type not in ("LoadBalancer", "NodePort"):
            continue
        members = selected(item, gateways, only_ready=False)
        if not members:
            continue
        ready = selected(item, gateways)
        for port in service.spec.ports or ():
            if port.protocol == "TCP" and port.port not in found:
                found[port.port] = tuple((pod.ip, target_port(port, pod.workload)) for pod in ready)
    return found


def preferred_host_port(port: int, asked: Mapping[int, int]) -> int:
    """Where a gateway's port is looked for on the machine: as asked, 80 -> 8080, 443 -> 8443, 25 -> 8025."""
    if port in asked:
        return asked[port]
    if port in _PREFERRED:
        return _PREFERRED[port]
    return port if port >= _FIRST_UNPRIVILEGED else port + _UNPRIVILEGED_STEP


def published(
    ports: Mapping[int, tuple[tuple[str, int], ...]], hosts: Mapping[int, int], addresses: Sequence[str]
) -> tuple[PublishedPort, ...]:
    """The ports of the edge, in order."""
    return tuple(
        PublishedPort(port, hosts[port], tuple(sorted(endpoints)), tuple(addresses))
        for port, endpoints in sorted(ports.items())
        if port in hosts
    )
