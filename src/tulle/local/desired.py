"""From manifests to the pods that should run: what the controllers of Deployments, StatefulSets and Jobs know.

Pure. A `Workload` is a number of equal pods; which of them exist is `rollout`'s business, how one lives is
`supervision`'s, what its containers execute is `containers`'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from tulle.dialects.kubernetes.injection import Role, injects
from tulle.local.fabric.wire import NO_CAPTURE, Capture
from tulle.local.manifests import PodSpec, PodTemplate, TemplateMeta, WorkloadSpec
from tulle.model.keys import Labels, ObjectKey, labels_of
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

TEMPLATE_HASH: Final = "pod-template-hash"
_KINDS: Final = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "Pod")
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' letters of generated names: no vowels, so no words."""
_TRAFFIC: Final = "traffic.sidecar.istio.io/"


class Workload(Struct, frozen=True):
    """Equal pods that some object asks for."""

    key: ObjectKey
    replicas: int
    spec: PodSpec
    labels: Labels
    """Of the pods, generated ones included."""
    annotations: Labels
    template_hash: str
    role: Role
    because: str
    """Why the pods have that role."""
    backoff_limit: int = 6

    @property
    def runs_once(self) -> bool:
        """Whether its pods end well (Job)."""
        return self.key.kind == "Job"

    @property
    def is_ordered(self) -> bool:
        """Whether its pods have stable names and start one after the other (StatefulSet)."""
        return self.key.kind == "StatefulSet"

    @property
    def owner(self) -> tuple[str, str] | None:
        """Kind and name of what owns the pods; None for a bare Pod."""
        if self.key.kind == "Pod":
            return None
        if self.key.kind == "Deployment":
            return "ReplicaSet", f"{self.key.name}-{self.template_hash}"
        return self.key.kind, self.key.name

    @property
    def service_account(self) -> str:
        """Whose identity the pods have."""
        return self.spec.service_account_name or "default"

    def pod_name(self, index: int) -> str:
        """The name of one pod: the same index and template always give the same name, thus the same address."""
        name = self.key.name
        if self.key.kind == "Pod":
            return name
        if self.is_ordered:
            return f"{name}-{index}"
        stem = f"{name}-{self.template_hash}" if self.key.kind == "Deployment" else name
        return f"{stem[:57]}-{letters(f'{self.key}/{self.template_hash}/{index}', 5)}"

    def labels_of(self, pod_name: str, index: int) -> dict[str, str]:
        """Labels of one pod."""
        labels = dict(self.labels)
        if self.key.kind == "Deployment":
            labels[TEMPLATE_HASH] = self.template_hash
        elif self.is_ordered:
            labels["statefulset.kubernetes.io/pod-name"] = pod_name
            labels["apps.kubernetes.io/pod-index"] = str(index)
        elif self.key.kind == "Job":
            labels |= {"job-name": self.key.name, "batch.kubernetes.io/job-name": self.key.name}
        return labels


def workloads(objects: Mapping[ObjectKey, Object]) -> tuple[tuple[Workload, ...], tuple[Problem, ...]]:
    """Every workload of the manifests, in order of their keys, and what cannot be run as it is meant."""
    namespaces = {key.name: dict(found.labels) for key, found in objects.items() if key.kind == "Namespace"}
    made: list[Workload] = []
    problems: list[Problem] = []
    for key in sorted(objects):
        if key.kind not in _KINDS:
            continue
        workload = _workload(objects[key], namespaces.get(key.namespace, {}))
        made.append(workload)
        problems += _volume_problems(workload)
    return tuple(made), tuple(problems)


def _workload(found: Object, namespace_labels: Mapping[str, str]) -> Workload:
    spec = found.spec if isinstance(found.spec, WorkloadSpec) else _of_pod(found)
    template = spec.template
    labels, annotations = template.metadata.labels or {}, template.metadata.annotations or {}
    pod = template.spec
    images = [container.image for container in (*pod.containers, *(pod.init_containers or ()))]
    injection = injects(namespace_labels, labels, annotations, host_network=pod.host_network, images=images)
    if found.key.kind == "Job" and pod.restart_policy == "Always":
        pod = msgspec.structs.replace(pod, restart_policy="OnFailure")
    replicas = 1 if spec.replicas is None else spec.replicas
    return Workload(
        key=found.key,
        replicas=1 if found.key.kind in ("DaemonSet", "Pod", "Job") else replicas,
        spec=pod,
        labels=labels_of(labels),
        annotations=labels_of(annotations),
        template_hash=letters(msgspec.json.encode(template).decode() + injection.role, 9),
        role=injection.role,
        because=injection.because,
        backoff_limit=spec.backoff_limit,
    )


def _of_pod(found: Object) -> WorkloadSpec:
    metadata = TemplateMeta(labels=dict(found.labels), annotations=dict(found.annotations))
    return WorkloadSpec(template=PodTemplate(metadata=metadata, spec=found.spec))


def _volume_problems(workload: Workload) -> Iterable[Problem]:
    origin = Origin(workload.key).at("spec")
    if workload.key.kind != "Pod":
        origin = origin.at("template", "spec")
    for index, volume in enumerate(workload.spec.volumes or ()):
        known = (
            volume.config_map,
            volume.secret,
            volume.empty_dir,
            volume.host_path,
            volume.persistent_volume_claim,
        )
        if all(one is None for one in known):
            yield problem("TUL0903", origin.at("volumes", index), volume=volume.name)


def letters(text: str, count: int) -> str:
    """`count` letters that stand for a text, as in generated Kubernetes names."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest())
    found = ""
    for _ in range(count):
        number, index = divmod(number, len(_ALPHABET))
        found += _ALPHABET[index]
    return found


def capture_of(workload: Workload) -> Capture:
    """Which traffic of the pods goes through the sidecar; Istio's `traffic.sidecar.istio.io/*` annotations."""
    if workload.role is not Role.SIDECAR:
        return NO_CAPTURE
    said = {name.removeprefix(_TRAFFIC): value for name, value in workload.annotations if name.startswith(_TRAFFIC)}
    ranges = said.get("includeOutboundIPRanges", "*")
    inbound = said.get("includeInboundPorts", "*")
    return Capture(
        include_outbound_ranges=None if ranges.strip() == "*" else _words(ranges),
        exclude_outbound_ranges=_words(said.get("excludeOutboundIPRanges", "")),
        include_outbound_ports=_ports(said.get("includeOutboundPorts", "")),
        exclude_outbound_ports=_ports(said.get("excludeOutboundPorts", "")),
        include_inbound_ports=None if inbound.strip() == "*" else _ports(inbound),
        exclude_inbound_ports=_ports(said.get("excludeInboundPorts", "")),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _ports(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in _words(text) if word.isdecimal())
