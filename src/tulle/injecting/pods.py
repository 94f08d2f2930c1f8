"""A pod with its proxy: the decision, the containers in their order, and what the pod says of it afterwards.

The one function that webhook and command line share. The decision is `dialects.kubernetes.injection`; what the proxy looks
like is `containers`. A pod that has its proxy is given back as it is, so asking twice changes nothing.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import Struct

from tulle.compile.envoy.cluster_bootstrap import Probe
from tulle.dialects.canonical import canonical_revision, canonical_service
from tulle.dialects.kubernetes.injection import (
    INJECTED,
    RUNNING,
    SIDECAR_CONTAINER,
    TEMPLATES,
    Injection,
    Role,
    injects,
)
from tulle.dialects.kubernetes.pods import owner_of
from tulle.dialects.kubernetes.schema import Pod
from tulle.injecting.containers import (
    CAPTURE_ANNOTATION,
    CAPTURE_CONTAINER,
    VOLUMES,
    Subject,
    captured,
    capturing,
    proxy,
    volumes,
)
from tulle.injecting.merging import is_auto, overlaid
from tulle.injecting.probes import Rewriting
from tulle.injecting.settings import PROXY_USER, InjectionSettings, NamespaceFacts
from tulle.injecting.wishes import Wishes, wishes
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

Json = dict[str, Any]

REVISION: Final = "istio.io/rev"
_DEFAULT_GRACE_SECONDS: Final = 30
_LONGEST_LABEL: Final = 63
_ANY_PORT: Final = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
"""A gateway listens on 80 and 443 without a capability."""


class Injected(Struct, frozen=True):
    """The answer: the same pod where it gets no proxy."""

    pod: Json
    role: Role
    because: str
    problems: tuple[Problem, ...] = ()


def injected(
    pod: Json, namespace: NamespaceFacts, settings: InjectionSettings, *, owner: str = "", origin: Origin | None = None
) -> Injected:
    """The pod (or pod template) as it should run; the given one is not touched.

    `owner`: name of the workload, where the pod's ownerReferences do not say it. `origin`: of the pod or template.
    """
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    here = origin or Origin(ObjectKey(settings.cluster, "", "Pod", namespace.name, str(metadata.get("name") or "")))
    try:
        typed = msgspec.convert({"metadata": metadata, "spec": spec}, Pod)
        meta = msgspec.convert(metadata, _Meta)
    except msgspec.ValidationError as error:
        broken = problem("TUL1205", here, reason=str(error))
        return Injected(pod, Role.NONE, "the pod is not understood", (broken,))
    labels, annotations = meta.labels or {}, meta.annotations or {}
    if INJECTED in annotations:
        return Injected(pod, Role.NONE, f"it has its proxy: {INJECTED}")
    if (spec.get("os") or {}).get("name") == "windows":
        return Injected(pod, Role.NONE, "Windows")
    decision = _decision(typed, meta, namespace, settings)
    if decision.role is Role.NONE:
        return Injected(pod, Role.NONE, decision.because)
    named = meta.name or meta.generate_name.rstrip("-")
    subject = Subject(labels, owner or owner_of(named, typed, labels), decision.role is Role.GATEWAY)
    asked, problems = wishes(annotations, settings, here.at("metadata", "annotations"))
    made = copy.deepcopy(pod)
    fresh = _Fresh(made.setdefault("spec", {}), asked, settings, here.at("spec"))
    fresh.inject(subject)
    _tell(made.setdefault("metadata", {}), subject, fresh, settings)
    return Injected(made, decision.role, decision.because, (*problems, *fresh.problems))


class _Meta(Struct, frozen=True, rename="camel"):
    name: str = ""
    generate_name: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


def _decision(pod: Pod, meta: _Meta, namespace: NamespaceFacts, settings: InjectionSettings) -> Injection:
    containers = (*pod.spec.containers, *(pod.spec.init_containers or ()))
    return injects(
        namespace.labels,
        meta.labels or {},
        meta.annotations or {},
        host_network=pod.spec.host_network,
        images=[container.image for container in containers],
        revisions=settings.revisions,
    )


class _Fresh:
    """The spec of a pod while it gets its proxy."""

    def __init__(self, spec: Json, asked: Wishes, settings: InjectionSettings, origin: Origin) -> None:
        self.spec = spec
        self.asked = asked
        self.settings = settings
        self.origin = origin
        self.problems: list[Problem] = []
        self.added: list[str] = []
        """Names of init containers that were added."""

    def inject(self, subject: Subject) -> None:
        """Add containers and volumes in their places."""
        own = self._own_proxy()
        workload = self._containers("containers")
        first = self._containers("initContainers")
        self._warn(workload)
        probes: tuple[Probe, ...] = ()
        if not subject.is_gateway:
            workload, first, probes = self._rewritten(workload, first)
            workload = [self._draining(container) for container in workload]
        made = overlaid(proxy(subject, self.asked, self.settings, probes), own)
        if subject.is_gateway:
            self.spec["containers"] = [self._draining(made), *workload]
            self._open_ports()
        else:
            self._place(made, first)
            self.spec["containers"] = workload
        self._volumes()

    def _own_proxy(self) -> Json:
        """The pod's own word on its proxy, taken out of its containers."""
        found: Json = {}
        for field in ("containers", "initContainers"):
            kept = self._containers(field)
            own = [container for container in kept if container.get("name") == SIDECAR_CONTAINER]
            if own:
                found = {name: value for name, value in own[0].items() if name != "restartPolicy"}
                self.spec[field] = [container for container in kept if container not in own]
        return found

    def _containers(self, field: str) -> list[Json]:
        return [one for one in self.spec.get(field) or [] if isinstance(one, dict)]

    def _rewritten(self, workload: list[Json], first: list[Json]) -> tuple[list[Json], list[Json], tuple[Probe, ...]]:
        if not self.asked.rewrites_probes or not self.asked.captures:
            return workload, first, ()
        rewriting = Rewriting()
        at = self.origin.at
        workload = [rewriting.container(one, at("containers", index)) for index, one in enumerate(workload)]
        first = [rewriting.container(one, at("initContainers", index)) for index, one in enumerate(first)]
        self.problems += rewriting.problems
        return workload, first, tuple(rewriting.probes)

    def _draining(self, container: Json) -> Json:
        """A container that was told to end goes on for a while, until callers know."""
        grace = self.spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
        seconds = min(self.asked.drain_seconds, grace - 1 if isinstance(grace, int) else 0)
        hooks = container.get("lifecycle") or {}
        if seconds <= 0 or "preStop" in hooks:
            return container
        return {**container, "lifecycle": {**hooks, "preStop": {"sleep": {"seconds": seconds}}}}

    def _place(self, made: Json, first: list[Json]) -> None:
        fresh = [capturing(self.asked, self.settings)] if self.asked.captures else []
        fresh.append(made)
        self.added = [container["name"] for container in fresh]
        self.spec["initContainers"] = [*first, *fresh] if self.asked.init_containers_first else [*fresh, *first]

    def _open_ports(self) -> None:
        security = self.spec.setdefault("securityContext", {}) or {}
        named = {one.get("name") for one in security.get("sysctls") or [] if isinstance(one, dict)}
        if _ANY_PORT["name"] not in named:
            self.spec["securityContext"] = {
                **security,
                "sysctls": [*(security.get("sysctls") or []), dict(_ANY_PORT)],
            }

    def _volumes(self) -> None:
        ours = [*volumes(self.settings), *self.asked.volumes]
        names = {one.get("name") for one in ours}
        kept = [one for one in self.spec.get("volumes") or [] if one.get("name") not in names]
        self.spec["volumes"] = [*kept, *ours]
        if self.settings.image_pull_secrets:
            held = self.spec.get("imagePullSecrets") or []
            wanted = [{"name": name} for name in self.settings.image_pull_secrets]
            self.spec["imagePullSecrets"] = [*held, *(one for one in wanted if one not in held)]

    def _warn(self, workload: Iterable[Json]) -> None:
        user = (self.spec.get("securityContext") or {}).get("runAsUser")
        for index, container in enumerate(workload):
            own = (container.get("securityContext") or {}).get("runAsUser", user)
            if own == PROXY_USER and self.asked.captures:
                origin = self.origin.at("containers", index, "securityContext", "runAsUser")
                self.problems.append(problem("TUL1203", origin, container=container.get("name", "")))
            if is_auto(container.get("image")):
                origin = self.origin.at("containers", index, "image")
                self.problems.append(problem("TUL1206", origin, container=container.get("name", "")))


def _tell(metadata: Json, subject: Subject, fresh: _Fresh, settings: InjectionSettings) -> None:
    """What Istio's tools, our control plane and the CNI plugin read."""
    labels = dict(metadata.get("labels") or {})
    labels.setdefault("security.istio.io/tlsMode", "istio")
    for name, value in (
        ("service.istio.io/canonical-name", canonical_service(labels, subject.owner)),
        ("service.istio.io/canonical-revision", canonical_revision(labels)),
    ):
        if len(value) <= _LONGEST_LABEL:
            labels.setdefault(name, value)
    status = {
        "initContainers": fresh.added or None,
        "containers": [SIDECAR_CONTAINER] if subject.is_gateway else None,
        "volumes": list(VOLUMES),
        "imagePullSecrets": list(settings.image_pull_secrets) or None,
        "revision": settings.revision,
    }
    annotations = dict(metadata.get("annotations") or {})
    annotations[INJECTED] = json.dumps(status, separators=(",", ":"))
    annotations[RUNNING] = "true"
    if subject.is_gateway:
        # Its image was the other sign of it.
        annotations.setdefault(TEMPLATES, "gateway")
    annotations.setdefault("kubectl.kubernetes.io/default-container", _first_of(fresh.spec))
    if CAPTURE_CONTAINER in fresh.added and settings.capture == "cni":
        annotations[CAPTURE_ANNOTATION] = captured(fresh.asked)
    metadata["labels"] = labels
    metadata["annotations"] = annotations


def _first_of(spec: Json) -> str:
    return str(next((one.get("name") for one in spec.get("containers") or []), ""))
