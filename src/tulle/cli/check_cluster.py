"""`tulle check --cluster`: whether a cluster can take tulle (`--pre`), and how what is installed there is.

Reads only. The words come from the catalogue; `judging` knows what speaks against an installation, `check` prints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from tulle.cli.awaiting import progress, trouble
from tulle.cli.check import Category, Finding, Result
from tulle.cli.installations import INJECTORS, Revision, is_ours, revisions, sidecars, tags, users
from tulle.cli.judging import (
    as_far_as_allowed,
    elsewhere,
    missing_rights,
    old_nodes,
    other_injectors,
    other_kinds,
    too_old,
)
from tulle.cli.reaching import Cluster, Json, in_cluster
from tulle.installing.installation import NAMESPACE, Request, objects
from tulle.installing.naming import INSTALL, REVISION
from tulle.installing.release import VERSION
from tulle.installing.values import values_of
from tulle.kube.discovery import Resource
from tulle.model.problems import NOWHERE, Problem, problem

_RESULTS: Final[dict[str, Result]] = {"error": "error", "warning": "warning", "info": "success"}
_VALIDATORS: Final = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    is_namespaced=False,
)


def checked(kubeconfig: Path | None, context: str | None, *, is_before: bool) -> list[Category]:
    """The checks of a cluster. Ends the command where it cannot be reached."""

    async def work(cluster: Cluster) -> list[Category]:
        found = [await before(cluster)]
        if not is_before:
            found += await installed(cluster)
        return found

    return in_cluster(kubeconfig, context, work)


async def before(cluster: Cluster) -> Category:
    """What an installation needs."""
    made = objects(Request(values_of("default", {"createNamespace": True})))
    category = Category(f"cluster {cluster.access.server}")
    for sentence, source in (
        ("the cluster's version is one that works", too_old(cluster)),
        ("every node's version is one that works", old_nodes(cluster)),
        ("you may install here", missing_rights(cluster, made)),
        ("Istio's kinds are free, or served in every version", other_kinds(cluster, made)),
        ("no other mesh injects into the same namespaces", other_injectors(cluster, "")),
        (f"the default revision is in {NAMESPACE}, or nowhere", elsewhere(cluster, NAMESPACE, "")),
    ):
        category.checks += await _findings(sentence, source)
    gateway_api = cluster.kind("gateway.networking.k8s.io", "GatewayClass")
    missing = "its definitions are not installed: Gateways and HTTPRoutes cannot be made"
    category.checks.append(
        Finding(
            "the Gateway API is served",
            "success" if gateway_api else "warning",
            "" if gateway_api else missing,
            "" if gateway_api else "https://gateway-api.sigs.k8s.io/guides/ says how.",
        )
    )
    return category


async def _findings(sentence: str, source: AsyncIterator[Problem]) -> list[Finding]:
    found = [_finding(sentence, one) async for one in as_far_as_allowed(source)]
    return found or [Finding(sentence)]


def _finding(sentence: str, found: Problem) -> Finding:
    return Finding(sentence, _RESULTS[found.severity.value], f"{found.code} {found.text}", found.advice)


async def installed(cluster: Cluster) -> list[Category]:
    """Every revision, and what hangs on them."""
    there = await revisions(cluster)
    if not there:
        nothing = _finding("tulle is installed", problem("TUL1108", NOWHERE, what="of tulle"))
        return [Category("installation", [nothing])]
    webhooks = [*await cluster.listed(INJECTORS), *await cluster.listed(_VALIDATORS)]
    return [*[await _revision(cluster, one, webhooks) for one in there], await _data_plane(cluster, there)]


async def _revision(cluster: Cluster, one: Revision, webhooks: Sequence[Json]) -> Category:
    category = Category(f"revision {one.name} in {one.namespace}")
    have, want, is_done = progress(one.deployment)
    name = one.deployment["metadata"]["name"]
    reason = "" if is_done else await trouble(cluster, one.namespace, name) or f"{have} of {want} are"
    category.checks.append(
        Finding(
            f"all {want} replicas are ready",
            "success" if is_done else "error",
            reason,
            "" if is_done else f"See `kubectl -n {one.namespace} logs deploy/{name}`.",
        )
    )
    category.checks.append(
        Finding(
            "its version is that of this command",
            "success" if one.version == VERSION else "warning",
            "" if one.version == VERSION else f"it is {one.version}, this is {VERSION}",
            "" if one.version == VERSION else "`tulle upgrade` brings it here.",
        )
    )
    own = [hook for hook in webhooks if is_ours(hook) and _label(hook, REVISION) == one.name]
    bare = [hook["metadata"]["name"] for hook in own if not _is_certified(hook)]
    sentence = f"the API server trusts its {len(own)} webhooks"
    bad = [_finding(sentence, problem("TUL1122", NOWHERE, webhook=hook)) for hook in bare]
    category.checks += bad or [Finding(sentence)]
    return category


def _is_certified(configuration: Json) -> bool:
    return all(hook["clientConfig"].get("caBundle") for hook in configuration.get("webhooks") or ())


def _label(one: Json, key: str) -> str:
    return str((one["metadata"].get("labels") or {}).get(key, ""))


async def _data_plane(cluster: Cluster, there: Sequence[Revision]) -> Category:
    """Namespaces that name revisions which are not there, and pods that wait for their sidecar."""
    category = Category("data plane")
    names = {one.name for one in there}
    pointing = await tags(cluster)
    dangling = [one for one in pointing if one.revision not in names]
    category.checks.append(
        Finding(
            "every tag is at a revision that is installed",
            "error" if dangling else "success",
            ", ".join(f"{one.name} is at {one.revision}" for one in dangling),
            "`tulle tag set` moves a tag." if dangling else "",
        )
    )
    known = names | {one.name for one in pointing}
    namespaces = await cluster.listed(Resource("", "v1", "namespaces", "Namespace", is_namespaced=False))
    lost = [
        one
        for one in namespaces
        if _label(one, REVISION) and not _label(one, INSTALL) and _label(one, REVISION) not in known
    ]
    category.checks.append(
        Finding(
            "every namespace of the mesh names a revision that is installed",
            "warning" if lost else "success",
            ", ".join(f"{one['metadata']['name']}: {_label(one, REVISION)}" for one in lost[:5]),
            f"Installed are: {', '.join(sorted(known))}." if lost else "",
        )
    )
    injected = await sidecars(cluster)
    waiting = [pod for pod in injected if not _is_ready(pod)]
    members = await users(cluster, known)
    category.checks.append(
        Finding(
            f"all {len(injected)} pods with a sidecar are ready ({len(members)} namespaces are in the mesh)",
            "warning" if waiting else "success",
            ", ".join(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in waiting[:5]),
            "See `tulle proxy status`." if waiting else "",
        )
    )
    return category


def _is_ready(pod: Json) -> bool:
    status = pod.get("status") or {}
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    return ready or status.get("phase") in ("Succeeded", "Failed")
