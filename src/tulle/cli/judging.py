"""Whether a cluster can take an installation: version, rights, nodes, other meshes, other revisions.

Reads only; findings are problems of the catalogue. Used before an install and by `check`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from tulle.cli.installations import INJECTORS, Revision, is_ours, revisions
from tulle.cli.reaching import Cluster, Json, Review, together
from tulle.installing.naming import DEFAULT
from tulle.kube.discovery import Resource
from tulle.kube.errors import Refused
from tulle.model.problems import NOWHERE, Problem, problem

LEAST: Final = (1, 30)
"""preStop `sleep`, native sidecars and matchConditions are there without feature gates."""
_NODES: Final = Resource("", "v1", "nodes", "Node", is_namespaced=False)
_DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", is_namespaced=False
)


async def judged(cluster: Cluster, objects: Sequence[Json], namespace: str, revision: str) -> list[Problem]:
    """Everything that speaks against applying these objects. Errors forbid it."""
    return [
        found
        for source in (
            too_old(cluster),
            missing_rights(cluster, objects),
            old_nodes(cluster),
            other_kinds(cluster, objects),
            other_injectors(cluster, revision),
            elsewhere(cluster, namespace, revision),
        )
        async for found in as_far_as_allowed(source)
    ]


async def as_far_as_allowed(source: AsyncIterator[Problem]) -> AsyncIterator[Problem]:
    """What is found; where we may not even look, that (TUL1106)."""
    try:
        async for found in source:
            yield found
    except Refused as refused:
        if not refused.is_denied:
            raise
        yield problem("TUL1106", NOWHERE, verb="look", what=f"here: {refused.message}")


async def too_old(cluster: Cluster) -> AsyncIterator[Problem]:
    """TUL1105."""
    found = await cluster.version()
    if found < LEAST:
        yield problem("TUL1105", NOWHERE, found=_dotted(found), least=_dotted(LEAST))


async def missing_rights(cluster: Cluster, objects: Iterable[Json]) -> AsyncIterator[Problem]:
    """TUL1106: what we need is to read, create and change every kind of these objects where they go."""
    wanted: dict[Review, str] = {}
    for one in objects:
        resource = cluster.resource(one)
        if resource is None:
            continue  # its definition comes with us
        place = one["metadata"].get("namespace", "")
        for verb in ("get", "create", "patch"):
            where = f" in {place}" if place else ""
            wanted[Review(verb, resource.group, resource.plural, place)] = f"{resource.plural}{where}"
    answers = await together((lambda one=one: cluster.may(one)) for one in wanted)  # type: ignore[misc]
    for (review, what), may in zip(wanted.items(), answers, strict=True):
        if not may:
            yield problem("TUL1106", NOWHERE, verb=review.verb, what=what)


async def old_nodes(cluster: Cluster) -> AsyncIterator[Problem]:
    """TUL1121."""
    old = [
        one["metadata"]["name"]
        for one in await cluster.listed(_NODES)
        if _version(one["status"]["nodeInfo"]["kubeletVersion"]) < LEAST
    ]
    if old:
        yield problem("TUL1121", NOWHERE, count=len(old), least=_dotted(LEAST), nodes=", ".join(old[:5]))


async def other_kinds(cluster: Cluster, objects: Iterable[Json]) -> AsyncIterator[Problem]:
    """TUL1113, TUL1120: definitions of another's stay, and may lack versions."""
    wanted = {one["metadata"]["name"]: one for one in objects if one["kind"] == "CustomResourceDefinition"}
    if not wanted:
        return
    theirs = [
        one for one in await cluster.listed(_DEFINITIONS) if one["metadata"]["name"] in wanted and not is_ours(one)
    ]
    if theirs:
        owners = {_owner(one) for one in theirs}
        yield problem("TUL1113", NOWHERE, count=len(theirs), owner=", ".join(sorted(owners)))
    for one in theirs:
        served = [version["name"] for version in one["spec"]["versions"] if version["served"]]
        ours = [version["name"] for version in wanted[one["metadata"]["name"]]["spec"]["versions"]]
        missing = [version for version in ours if version not in served]
        if missing:
            yield problem(
                "TUL1120",
                NOWHERE,
                kind=one["spec"]["names"]["kind"],
                served=", ".join(served),
                missing=", ".join(missing),
            )


def _owner(one: Json) -> str:
    meta = one["metadata"]
    release = (meta.get("annotations") or {}).get("meta.helm.sh/release-name")
    labels = meta.get("labels") or {}
    return release or labels.get("app.kubernetes.io/part-of") or labels.get("app") or "unknown"


async def other_injectors(cluster: Cluster, revision: str) -> AsyncIterator[Problem]:
    """TUL1114: webhooks of another mesh that select the namespaces we would."""
    for one in await cluster.listed(INJECTORS):
        if not is_ours(one) and any(_collides(webhook, revision) for webhook in one.get("webhooks") or ()):
            yield problem("TUL1114", NOWHERE, webhook=one["metadata"]["name"])


def _collides(webhook: Json, revision: str) -> bool:
    pods = any("pods" in (rule.get("resources") or ()) for rule in webhook.get("rules") or ())
    if not pods:
        return False
    words = (("istio-injection", "enabled"),) if not revision else (("istio.io/rev", revision),)
    expressions = (webhook.get("namespaceSelector") or {}).get("matchExpressions") or ()
    labels = (webhook.get("namespaceSelector") or {}).get("matchLabels") or {}
    return any(
        labels.get(key) == value
        or any(one["key"] == key and one["operator"] == "In" and value in one["values"] for one in expressions)
        for key, value in words
    )


async def elsewhere(cluster: Cluster, namespace: str, revision: str) -> AsyncIterator[Problem]:
    """TUL1107, TUL1111: the revision is installed in another namespace, or by Helm."""
    for one in await revisions(cluster):
        if one.name != (revision or DEFAULT):
            continue
        if one.namespace != namespace:
            yield problem("TUL1107", NOWHERE, revision=one.name, namespace=one.namespace)
        if one.release:
            yield of_helm(one)


def of_helm(one: Revision) -> Problem:
    """TUL1111."""
    return problem("TUL1111", NOWHERE, what=f"the revision {one.name}", release=one.release)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.removeprefix("v").split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
