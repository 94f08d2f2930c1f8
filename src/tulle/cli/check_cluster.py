"""`tulle check --cluster`: whether a cluster can take tulle (`--pre`), and how what is installed there is.

Reads only. The words come from the catalogue; `judging` knows what speaks against an installation, `check` prints.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Final, TypeVar

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
from tulle.cli.reaching import Cluster, Json, in_cluster, true_conditions
from tulle.installing.installation import NAMESPACE, Request, objects
from tulle.installing.naming import INSTALL, REVISION
from tulle.installing.release import VERSION
from tulle.installing.values import values_of
from tulle.kube.discovery import Resource
from tulle.kube.errors import Refused
from tulle.kube.resources import NAMESPACES
from tulle.model.problems import NOWHERE, Problem, problem

T = TypeVar("T")
_NAMED: Final = 5
"""Findings of one check that are told one by one."""
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
        there = [] if is_before else await revisions(cluster)
        found = [await before(cluster, is_there=bool(there))]
        return found if is_before else [*found, *await installed(cluster, there)]

    return in_cluster(kubeconfig, context, work)


async def before(cluster: Cluster, *, is_there: bool) -> Category:
    """What an installation needs; where one is there, who looks need not be allowed to install, nor to see everything."""
    made = objects(Request(values_of("default", {"createNamespace": True})))
    category = Category(f"cluster {cluster.access.server}")
    for sentence, source in (
        ("the cluster's version is one that works", too_old(cluster)),
        ("every node's version is one that works", old_nodes(cluster)),
        *((("you may install here", missing_rights(cluster, made)),) if not is_there else ()),
        ("Istio's kinds are free, or served in every version", other_kinds(cluster, made)),
        ("no other mesh injects into the same namespaces", other_injectors(cluster, "")),
        (f"the default revision is in {NAMESPACE}, or nowhere", elsewhere(cluster, NAMESPACE, "")),
    ):
        category.checks += await _findings(sentence, source, "warning" if is_there else None)
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


async def _findings(sentence: str, source: AsyncIterator[Problem], denied: Result | None) -> list[Finding]:
    """`denied`: what it comes to where we may not look; None: as the catalogue has it."""
    problems = [one async for one in as_far_as_allowed(source)]
    found = [_finding(sentence, one, denied if one.code == "TUL1106" else None) for one in problems]
    if len(found) > _NAMED:
        last = found[_NAMED - 1]
        more = f"{last.error}, and {len(found) - _NAMED} more of that kind"
        found[_NAMED - 1 :] = [Finding(sentence, last.result, more, last.hint)]
    return found or [Finding(sentence)]


def _finding(sentence: str, found: Problem, result: Result | None = None) -> Finding:
    return Finding(sentence, result or _RESULTS[found.severity.value], f"{found.code} {found.text}", found.advice)


async def installed(cluster: Cluster, there: Sequence[Revision]) -> list[Category]:
    """Every revision, and what hangs on them."""
    if not there:
        nothing = _finding("tulle is installed", problem("TUL1108", NOWHERE, what="of tulle"))
        return [Category("installation", [nothing])]
    webhooks = await _as_allowed(_webhooks(cluster))
    data_plane = await _as_allowed(_data_plane(cluster, there))
    if isinstance(data_plane, Problem):
        data_plane = Category("data plane", [_finding("you may look at what proxies there are", data_plane, "warning")])
    return [*[await _revision(cluster, one, webhooks) for one in there], data_plane]


async def _as_allowed(look: Awaitable[T]) -> T | Problem:
    """What is found, or that we may not look: a reader of some of it is told what that shows."""
    try:
        return await look
    except Refused as refused:
        if not refused.is_denied:
            raise
        return problem("TUL1106", NOWHERE, verb="look", what=f"here: {refused.message}")


async def _webhooks(cluster: Cluster) -> list[Json]:
    return [*await cluster.listed(INJECTORS), *await cluster.listed(_VALIDATORS)]


async def _revision(cluster: Cluster, one: Revision, webhooks: Sequence[Json] | Problem) -> Category:
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
    if isinstance(webhooks, Problem):
        category.checks.append(_finding("the API server trusts its webhooks", webhooks, "warning"))
        return category
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
    namespaces = await cluster.listed(NAMESPACES)
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
    phase = (pod.get("status") or {}).get("phase")
    return "Ready" in true_conditions(pod) or phase in ("Succeeded", "Failed")
