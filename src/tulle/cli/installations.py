"""What is installed in a cluster, as its own objects say it: revisions, tags, and everything that belongs to them.

Reads only. What an installation consists of is `installing`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from tulle.cli.reaching import Cluster, Json, together
from tulle.installing.naming import DEFAULT, INSTALL, REVISION, SHARED, TAG
from tulle.kube.discovery import Resource
from tulle.kube.resources import DEPLOYMENTS, NAMESPACES, PODS

PART: Final = "app.kubernetes.io/part-of=tulle"
"""Selects what install and the control plane make; `is_ours` looks closer."""
CHOSEN: Final = "tulle.dev/chosen"
"""Annotation: what was asked for when a revision was installed, for `upgrade`."""
_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
_RELEASE: Final = "meta.helm.sh/release-name"
_PASSED_OVER: Final = frozenset(("events", "componentstatuses", "bindings"))


class Revision(NamedTuple):
    """One installed control plane."""

    name: str
    namespace: str
    version: str
    image: str
    ready: int
    wanted: int
    release: str
    """The Helm release it belongs to; empty: none."""
    deployment: Json


class Tag(NamedTuple):
    """A name for a revision."""

    name: str
    revision: str
    namespace: str


def labels_of(one: Mapping[str, Any]) -> Mapping[str, str]:
    """Of an object."""
    return one["metadata"].get("labels") or {}


def is_ours(one: Mapping[str, Any]) -> bool:
    """Whether install (or Helm, or the control plane) made it."""
    labels = labels_of(one)
    return INSTALL in labels or labels.get(_MANAGED_BY) == "tulle"


async def revisions(cluster: Cluster) -> list[Revision]:
    """Every installed revision, by name."""
    deployments = await cluster.listed(DEPLOYMENTS, f"{PART},app.kubernetes.io/component=control-plane")
    return sorted(map(_revision, filter(is_ours, deployments)), key=lambda one: (one.name, one.namespace))


def _revision(deployment: Json) -> Revision:
    meta, labels = deployment["metadata"], labels_of(deployment)
    status = deployment.get("status") or {}
    is_seen = status.get("observedGeneration", 0) >= meta.get("generation", 0)
    return Revision(
        labels.get(INSTALL, DEFAULT),
        meta["namespace"],
        labels.get("app.kubernetes.io/version", ""),
        deployment["spec"]["template"]["spec"]["containers"][0]["image"],
        min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0)) if is_seen else 0,
        deployment["spec"].get("replicas", 1),
        (meta.get("annotations") or {}).get(_RELEASE, ""),
        deployment,
    )


async def tags(cluster: Cluster) -> list[Tag]:
    """Every tag, by name."""
    webhooks = await cluster.listed(INJECTORS, f"{PART},{TAG}")
    return sorted(
        Tag(
            labels_of(one)[TAG],
            labels_of(one).get(REVISION, ""),
            one["webhooks"][0]["clientConfig"]["service"]["namespace"],
        )
        for one in webhooks
        if is_ours(one)
    )


async def users(cluster: Cluster, names: Iterable[str]) -> list[str]:
    """Namespaces that name one of these revisions or tags."""
    named = frozenset(names)
    found = await cluster.listed(NAMESPACES)
    return [
        str(one["metadata"]["name"])
        for one in found
        if labels_of(one).get(REVISION, "") in named
        or (DEFAULT in named and labels_of(one).get("istio-injection") == "enabled")
    ]


async def sidecars(cluster: Cluster) -> list[Json]:
    """Pods that were injected."""
    found = await cluster.listed(PODS)
    return [one for one in found if "sidecar.istio.io/status" in (one["metadata"].get("annotations") or {})]


async def belongings(cluster: Cluster, revision: str | None = None) -> list[Json]:
    """Every object that is ours, of one revision or (None) of all and shared; of each kind that can be listed."""
    resources = [versions[0] for versions in cluster.table.values() if versions[0].plural not in _PASSED_OVER]
    found = await together((lambda one=one: cluster.listed(one, PART)) for one in resources)  # type: ignore[misc]
    unique = {one["metadata"]["uid"]: one for objects in found for one in objects if is_ours(one)}
    return [one for one in unique.values() if revision is None or labels_of(one).get(INSTALL) == revision]


async def foreign(cluster: Cluster, namespace: str) -> list[str]:
    """`Kind/name` of what stands in a namespace and is neither ours, nor anybody's part, nor there in every namespace."""
    resources = [
        versions[0]
        for versions in cluster.table.values()
        if versions[0].is_namespaced and versions[0].plural not in _PASSED_OVER
    ]
    found = await together((lambda one=one: cluster.listed(one, namespace=namespace)) for one in resources)  # type: ignore[misc]
    return sorted(
        f"{one['kind']}/{one['metadata']['name']}"
        for objects in found
        for one in objects
        if not is_ours(one) and not one["metadata"].get("ownerReferences") and not _is_everywhere(one)
    )


def _is_everywhere(one: Json) -> bool:
    name = (one["kind"], one["metadata"]["name"])
    return name in (("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")) or one["kind"] in (
        "Endpoints",
        "Lease",
        "PodMetrics",
    )


def chosen_of(settings: Mapping[str, Any] | None) -> tuple[str, Json] | None:
    """Profile and overlay that a revision was installed with, from its ConfigMap; None: not by `tulle install`."""
    text = ((settings or {}).get("metadata", {}).get("annotations") or {}).get(CHOSEN)
    if text is None:
        return None
    found = json.loads(text)
    return found["profile"], found["overlay"]


def is_shared(one: Mapping[str, Any]) -> bool:
    """Whether all revisions use it."""
    return labels_of(one).get(INSTALL, SHARED) == SHARED


INJECTORS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    is_namespaced=False,
)
