"""Pods as workloads, and selecting them by label without reading them.

A selection depends on labels only: a pod that becomes ready changes its own workload, not who is selected. Knows no
service and no WorkloadEntry.
"""

import re
from collections.abc import Iterable
from typing import Final

from tulle.dialects.canonical import canonical_revision, canonical_service, locality
from tulle.dialects.inputs import by_kind, by_namespace, objects
from tulle.dialects.kubernetes.depth import depth_of
from tulle.dialects.kubernetes.injection import INJECTED, RUNNING, SIDECAR_CONTAINER, Role, injects
from tulle.dialects.kubernetes.namespace_labels import namespace
from tulle.dialects.kubernetes.schema import Container, Pod
from tulle.engine import Database, query
from tulle.model.intent import Workload, WorkloadPort
from tulle.model.keys import Labels, ObjectKey, WorkloadKey
from tulle.model.objects import Object
from tulle.model.origin import Origin

EVERYWHERE: Final = ""
"""In place of a namespace: all of the cluster."""

TEMPLATE_HASH: Final = "pod-template-hash"
_CRON_JOB = re.compile(r"^(.+)-\d{8,10}$")
_OVER = frozenset({"Succeeded", "Failed"})


def _label_buckets(key: ObjectKey, value: Object) -> Iterable[tuple[str, str, str, str]]:
    if key.kind == "Pod" and key.group == "":
        for name, text in value.labels:
            yield key.cluster, key.namespace, name, text
            yield key.cluster, EVERYWHERE, name, text


pods_by_label = objects.index("pods_by_label", _label_buckets)
"""(cluster, namespace or EVERYWHERE, label, value) -> keys of Pods."""


def pod_key(key: WorkloadKey) -> ObjectKey:
    """The object of a pod's workload."""
    return ObjectKey(key.cluster, "", "Pod", key.namespace, key.name)


@query
def pods_selected(db: Database, cluster: str, ns: str, selector: Labels) -> tuple[ObjectKey, ...]:
    """Keys of the Pods of a namespace (or EVERYWHERE) with these labels, sorted. An empty selector selects all.

    Cost: the buckets of the selector's labels. No pod is read.
    """
    if not selector:
        everything = by_kind(db, (cluster, "Pod")) if ns == EVERYWHERE else by_namespace(db, (cluster, "Pod", ns))
        return tuple(key for key in everything if key.group == "")
    first, *others = (pods_by_label(db, (cluster, ns, name, text)) for name, text in selector)
    for other in others:
        among = set(other)
        first = tuple(key for key in first if key in among)
    return first


@query
def pod_workload(db: Database, key: ObjectKey) -> Workload | None:
    """The workload a Pod is; None if there is no such Pod."""
    found = objects(db, key)
    if found is None:
        return None
    return workload_of(key, found, namespace(db, key.cluster, key.namespace))


def workload_of(key: ObjectKey, found: Object, namespace_labels: Labels) -> Workload:
    """A Pod read as a workload. Terminating and finished pods are not ready."""
    pod: Pod = found.spec
    labels = dict(found.labels)
    role = role_of(pod, labels, dict(found.annotations), dict(namespace_labels))
    owner = owner_of(key.name, pod, labels)
    return Workload(
        key=WorkloadKey(key.cluster, key.namespace, key.name),
        address=pod.status.pod_ip,
        labels=found.labels,
        service_account=pod.spec.service_account_name or "default",
        has_sidecar=role is not Role.NONE,
        is_ready=is_ready(pod),
        is_gateway=role is Role.GATEWAY,
        ports=tuple(ports_of(pod.spec.containers)),
        owner=owner,
        canonical_service=canonical_service(labels, owner),
        canonical_revision=canonical_revision(labels),
        origin=Origin(key),
        locality=locality(labels),
        network=labels.get("topology.istio.io/network", ""),
        depth=depth_of(found.annotations),
    )


def role_of(pod: Pod, labels: dict[str, str], annotations: dict[str, str], namespace_labels: dict[str, str]) -> Role:
    """What the pod's proxy is: what runs where that is known, otherwise what injection would do.

    On a node a pod is as it will stay: a label that its namespace got later, or a webhook that was away, gives it no proxy.
    """
    containers = (*pod.spec.containers, *(pod.spec.init_containers or ()))
    running = annotations.get(RUNNING, "").lower()
    if running == "false":
        return Role.NONE
    runs = running == "true" or INJECTED in annotations or any(one.name == SIDECAR_CONTAINER for one in containers)
    if pod.spec.node_name and not runs:
        return Role.NONE
    meant = injects(
        namespace_labels,
        labels,
        annotations,
        host_network=pod.spec.host_network,
        images=[container.image for container in containers],
    ).role
    if meant is not Role.NONE:
        return meant
    return Role.SIDECAR if runs else Role.NONE


def is_ready(pod: Pod) -> bool:
    """Whether Kubernetes would send traffic to it: ready, not being deleted, not finished."""
    if is_over(pod) or pod.metadata.deletion_timestamp is not None:
        return False
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())


@query
def is_leaving(db: Database, key: ObjectKey) -> bool:
    """Whether a pod was told to end, and has not ended."""
    found = objects(db, key)
    return found is not None and found.spec.metadata.deletion_timestamp is not None


def is_over(pod: Pod) -> bool:
    """Finished for good."""
    return pod.status.phase in _OVER


def ports_of(containers: Iterable[Container]) -> Iterable[WorkloadPort]:
    """The declared TCP ports, in order of declaration."""
    for container in containers:
        for port in container.ports or ():
            if port.protocol == "TCP":
                yield WorkloadPort(port.name, port.container_port)


def owner_of(name: str, pod: Pod, labels: dict[str, str]) -> str:
    """Name of the Deployment, StatefulSet, Job, CronJob or bare pod (Istio's workload name in metrics)."""
    owners = pod.metadata.owner_references
    owner = next((one for one in owners if one.controller), owners[0] if len(owners) == 1 else None)
    if owner is None:
        return name
    template_hash = labels.get(TEMPLATE_HASH, "")
    if owner.kind == "ReplicaSet" and template_hash:
        return owner.name.removesuffix(f"-{template_hash}")
    if owner.kind == "Job" and (cron := _CRON_JOB.match(owner.name)):
        return cron.group(1)
    return owner.name
