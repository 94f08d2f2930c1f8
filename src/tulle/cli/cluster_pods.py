"""Pods of a cluster, for `ps` and `logs`: read from the API with the user's rights, and told as kubectl tells them.

What a pod says of itself is pure here; the reading is `pods_meant`. Knows nothing of the control plane.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tulle.kube.access import Access

Json = Mapping[str, Any]
PROXY: Final = "istio-proxy"
STATUS_ANNOTATION: Final = "sidecar.istio.io/status"
_PAGE: Final = "500"
_HASHED: Final = re.compile(r"-[a-z0-9]{6,10}\Z")


async def pods_in(access: Access, namespace: str) -> list[Json]:
    """Every pod of a namespace ("": of all), page by page, by namespace and name. Raises KubeError."""
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    found: list[Json] = []
    query = {"limit": _PAGE}
    while True:
        page = json.loads(await access.get(path, query))
        found += page["items"]
        more = page["metadata"].get("continue")
        if not more:
            return sorted(found, key=lambda pod: (pod["metadata"]["namespace"], pod["metadata"]["name"]))
        query = {"limit": _PAGE, "continue": more}


def of_the_mesh(pods: Iterable[Json]) -> list[Json]:
    """The pods of those namespaces in which at least one has a proxy."""
    listed = list(pods)
    places = {pod["metadata"]["namespace"] for pod in listed if has_proxy(pod)}
    return [pod for pod in listed if pod["metadata"]["namespace"] in places]


def is_meant(pod: Json, word: str) -> bool:
    """Whether a word of the command line means a pod: its name, its workload's, its app label; `deploy/web`, `pod/web-1`; or "": any."""
    name = word.rpartition("/")[2]
    labels = pod["metadata"].get("labels") or {}
    apps = (labels.get("app"), labels.get("app.kubernetes.io/name"))
    return not name or name in (pod["metadata"]["name"], owner(pod), *apps)


def owner(pod: Json) -> str:
    """The workload's name: a Deployment's, where a ReplicaSet of it owns the pod; empty without an owner."""
    for one in pod["metadata"].get("ownerReferences") or ():
        if one.get("controller"):
            name = str(one["name"])
            return _HASHED.sub("", name) if one["kind"] == "ReplicaSet" else name
    return ""


def has_proxy(pod: Json) -> bool:
    """Whether a proxy of a mesh runs in it."""
    return PROXY in containers(pod, with_proxy=True)


def is_gateway(pod: Json) -> bool:
    """Whether the proxy is all there is: an ordinary container that is not captured."""
    return any(one["name"] == PROXY for one in pod["spec"]["containers"])


def containers(pod: Json, *, with_proxy: bool = False) -> list[str]:
    """Names of what goes on running: containers and native sidecars; the proxy only where it was asked for."""
    spec = pod["spec"]
    beside = [one for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
    names = [one["name"] for one in (*spec["containers"], *beside)]
    return names if with_proxy else [name for name in names if name != PROXY]


def described(pod: Json, now: datetime, connected: frozenset[str] | None) -> dict[str, Any]:
    """A pod in the words of the local run's `ps`. `connected`: `pod.namespace` of proxies at the control plane; None: unknown."""
    metadata, status = pod["metadata"], pod["status"]
    states = _states(pod)
    return {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "ip": status.get("podIP", ""),
        "node": pod["spec"].get("nodeName", ""),
        "workload": owner(pod),
        "labels": metadata.get("labels") or {},
        "serviceAccount": pod["spec"].get("serviceAccountName", ""),
        "role": "gateway" if is_gateway(pod) else "sidecar" if has_proxy(pod) else "none",
        "status": status_word(pod),
        "ready": sum(bool(one.get("ready")) for one in states),
        "total": len(containers(pod, with_proxy=True)),
        "restarts": sum(int(one.get("restartCount", 0)) for one in states),
        "ageSeconds": round((now - _moment(metadata["creationTimestamp"])).total_seconds(), 1),
        "sidecar": _sidecar(pod, connected),
    }


def status_word(pod: Json) -> str:
    """What kubectl writes under STATUS: why a container waits or ended, else the phase."""
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    status = pod["status"]
    kept = set(containers(pod, with_proxy=True))
    for one in status.get("initContainerStatuses") or ():
        word = _trouble(one)
        if word and word != "Completed" and not (one["name"] in kept and one.get("ready")):
            return f"Init:{word}"
    for one in status.get("containerStatuses") or ():
        word = _trouble(one)
        if word:
            return word
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _trouble(status: Json) -> str:
    state = status.get("state") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in (None, "PodInitializing"):
        return str(waiting["reason"])
    return str(ended.get("reason") or "Error") if ended else ""


def _states(pod: Json) -> list[Json]:
    kept = set(containers(pod, with_proxy=True))
    status = pod["status"]
    every = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
    return [one for one in every if one["name"] in kept]


def _sidecar(pod: Json, connected: frozenset[str] | None) -> str:
    if not has_proxy(pod):
        return "none"
    if connected is None:
        return "unknown"
    return "connected" if f"{pod['metadata']['name']}.{pod['metadata']['namespace']}" in connected else "not connected"


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
