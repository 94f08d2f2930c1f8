"""Waiting until what was applied works, or is gone, and saying what keeps it.

Polls the API; bounded by the time given. Knows Deployments, definitions and pods; no object of the mesh.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from tulle.cli.output import Exit
from tulle.cli.reaching import Cluster, refuse_with, true_conditions
from tulle.cli.steps import Step
from tulle.installing.naming import REVISION
from tulle.installing.webhooks import INJECT, INJECTION
from tulle.kube.discovery import Resource
from tulle.kube.errors import Refused
from tulle.kube.resources import DEPLOYMENTS, PODS

_POLL_S: Final = 0.5
DAEMON_SETS: Final = Resource("apps", "v1", "daemonsets", "DaemonSet")
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", is_namespaced=False
)
_HOPELESS: Final = 3
"""Restarts after which a crash is worth a word of its own."""


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Ask until it holds; False when the time is over."""
    end = asyncio.get_running_loop().time() + seconds
    while not await holds():
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def established(cluster: Cluster, names: Sequence[str], seconds: float) -> None:
    """Wait until definitions are served. Ends the command with TUL1109."""
    missing = set(names)

    async def served() -> bool:
        found = await cluster.listed(DEFINITIONS)
        missing.difference_update(one["metadata"]["name"] for one in found if "Established" in true_conditions(one))
        return not missing

    if not await until(served, seconds):
        reason = f"{', '.join(sorted(missing))} not established"
        refuse_with("TUL1109", Exit.TIMEOUT, what="a definition", seconds=f"{seconds:g}", reason=reason, namespace="")


async def rolled_out(
    cluster: Cluster, namespace: str, name: str, seconds: float, step: Step, *, kind: Resource = DEPLOYMENTS
) -> None:
    """Wait until all pods of a Deployment or DaemonSet are of its newest template and ready. Ends the command with TUL1109."""
    told = progress_of_nodes if kind is DAEMON_SETS else progress

    async def ready() -> bool:
        found = await cluster.read(kind, name, namespace)
        if found is None:
            return False
        have, want, is_done = told(found)
        step.say(f"{have} of {want} ready")
        return is_done

    if await until(ready, seconds):
        return
    reason = await trouble(cluster, namespace, name, kind) or step.words or "nothing was heard of it"
    refuse_with(
        "TUL1109",
        Exit.TIMEOUT,
        what=f"{namespace}/{name}",
        seconds=f"{seconds:g}",
        reason=reason,
        namespace=namespace,
    )


async def admission(cluster: Cluster, revision: str, seconds: float) -> None:
    """Wait until the API server gets answers about pods of a revision (empty: pods that name none). Ends the command with TUL1136.

    Asked by a pod on trial, which is never made: ready pods are not yet an address that every node knows, a certificate that
    the API server trusts, or a port that a firewall lets it reach.
    """
    labels = {INJECT: "true", **({REVISION: revision} if revision else {})}
    metadata = {"generateName": "tulle-trial-", "labels": labels}
    trial = json.dumps({"metadata": metadata, "spec": {"containers": [{"name": "trial", "image": "trial"}]}}).encode()
    reason = ""

    async def answered() -> bool:
        nonlocal reason
        try:
            await cluster.access.send("POST", PODS.path("default"), query={"dryRun": "All"}, body=trial)
        except Refused as refused:
            # Any other refusal (a quota, a policy or a webhook of another) is of the pod: we were asked, or could not be.
            is_ours = "failed calling webhook" in refused.message and INJECTION in refused.message
            reason = refused.message if is_ours else ""
        else:
            reason = ""
        return not reason

    if not await until(answered, seconds):
        refuse_with("TUL1136", Exit.TIMEOUT, seconds=f"{seconds:g}", reason=reason)


def progress(deployment: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Ready replicas of the newest template, replicas wanted, and whether old ones are gone too."""
    status = deployment.get("status") or {}
    want = deployment["spec"].get("replicas", 1)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return 0, want, False
    have = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    return have, want, have >= want and status.get("replicas", 0) == want


def progress_of_nodes(daemon_set: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Nodes whose pod is of the newest template and ready, nodes that shall have one, and whether these are all."""
    status = daemon_set.get("status") or {}
    want = status.get("desiredNumberScheduled", 0)
    if status.get("observedGeneration", 0) < daemon_set["metadata"].get("generation", 0):
        return 0, want, False
    have = min(status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    return have, want, have >= want


async def trouble(cluster: Cluster, namespace: str, name: str, kind: Resource = DEPLOYMENTS) -> str:
    """Why a Deployment (or DaemonSet) does not get ready, in the words of its pods or of itself; empty: not known."""
    found = await cluster.read(kind, name, namespace)
    if found is None:
        return "it is not there"
    labels = found["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    for pod in await cluster.listed(PODS, selector, namespace):
        reason = pod_trouble(pod)
        if reason:
            return f"{pod['metadata']['name']}: {reason}"
    failure = true_conditions(found).get("ReplicaFailure")
    return str(failure["message"]) if failure else ""


def pod_trouble(pod: Mapping[str, Any]) -> str:
    """What keeps a pod from being ready; empty: nothing, or not known."""
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            last = (container.get("lastState") or {}).get("terminated") or {}
            exited = f" (exit code {last['exitCode']})" if "exitCode" in last else ""
            # what it said last, where it said anything, tells more than how long the kubelet waits
            said = str(last.get("message") or "").strip().rpartition("\n")[2] or waiting.get("message", "")
            return f"container {container['name']}: {waiting['reason']}{exited} {said}".strip()
        if container.get("restartCount", 0) >= _HOPELESS:
            return f"container {container['name']} was restarted {container['restartCount']} times"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"not scheduled: {condition.get('message', '')}"
    return ""
