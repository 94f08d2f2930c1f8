"""The supervisor's own API: JSON over HTTP on RUN/supervisor.sock, whose folder only the mesh's user can enter.

GET  /v1/mesh                         mesh.json, processes, problems, timings
GET  /v1/pods                         every pod
GET  /v1/logs?name=&namespace=&proxy= the files to read, with offsets for `since`
POST /v1/restart {kind, namespace, name}   kind: workload or sidecar
POST /v1/down                         stop the mesh; answers before it does
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from tulle.dialects.kubernetes.injection import Role
from tulle.local.lives import SIDECAR, Run
from tulle.local.pod import RunningPod
from tulle.local.supervision import status_word
from tulle.local.supervisor import Supervisor, stamp
from tulle.model.keys import ObjectKey

_EXEC_SECONDS: Final = 600.0
_NOT_FOUND: Final = (404, {"error": "not found"})


class Api:
    """Answers for one supervisor."""

    def __init__(self, supervisor: Supervisor, timings: Mapping[str, float]) -> None:
        self._supervisor = supervisor
        self._timings = timings

    async def handle(self, method: str, target: str, given: dict[str, Any]) -> tuple[int, Any]:
        """One request."""
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        match method, parts.path:
            case "GET", "/v1/mesh":
                return 200, self._mesh()
            case "GET", "/v1/pods":
                return 200, {"pods": [described(pod) for pod in self._supervisor.pods.values()]}
            case "GET", "/v1/logs":
                return 200, {"files": self._logs(query)}
            case "POST", "/v1/restart":
                return await self._restart(given)
            case "POST", "/v1/exec":
                return await self._exec(given)
            case "POST", "/v1/down":
                self._supervisor.is_stopping.set()
                return 200, {}
        return _NOT_FOUND

    def _mesh(self) -> dict[str, Any]:
        supervisor = self._supervisor
        pods = supervisor.pods.values()
        return {
            **supervisor.places.described(),
            "controlPlane": {"pid": supervisor.control.pid, "log": str(supervisor.control.log)},
            "fabric": {"pid": supervisor.fabric.host_pid, "notes": list(supervisor.fabric.notes)},
            "ready": sum(pod.is_ready for pod in pods),
            "total": len(pods),
            "timings": dict(self._timings),
            "problems": supervisor.problems(),
        }

    def _logs(self, query: dict[str, str]) -> list[dict[str, Any]]:
        since = time.time() - float(query["since"]) if query.get("since") else 0.0
        found = []
        for pod in self._supervisor.pods.values():
            if not _is_meant(pod, query.get("namespace", ""), query.get("name", "")):
                continue
            names = [container.name for container in pod.workload.spec.containers]
            wanted = query.get("container", "")
            if query.get("proxy"):
                names = [SIDECAR] if pod.workload.role is not Role.NONE else []
            elif wanted:
                names = [name for name in names if name == wanted]
            elif pod.workload.role is Role.GATEWAY:
                names = [SIDECAR]
            for name in names:
                path = pod.log_path(name)
                offset = self._supervisor.logs.offset(path, since) if since else 0
                found.append(
                    {
                        "pod": pod.name,
                        "namespace": pod.namespace,
                        "container": name,
                        "path": str(path),
                        "offset": offset,
                    }
                )
        return found

    async def _restart(self, given: dict[str, Any]) -> tuple[int, Any]:
        namespace, name = str(given.get("namespace", "")), str(given.get("name", ""))
        pods = [pod for pod in self._supervisor.pods.values() if _is_meant(pod, namespace, name)]
        if not pods:
            return _NOT_FOUND
        if given.get("kind") == "sidecar":
            try:
                replaced = [pod.name for pod in pods if await pod.replace_sidecar()]
            except (OSError, TimeoutError) as error:
                return 500, {"error": f"the new sidecar did not become ready: {error}"}
            return 200, {"restarted": replaced}
        keys: dict[ObjectKey, None] = dict.fromkeys(pod.workload.key for pod in pods)
        for key in keys:
            self._supervisor.restart(key)
        return 200, {"restarted": [str(key) for key in keys]}

    async def _exec(self, given: dict[str, Any]) -> tuple[int, Any]:
        namespace, name = str(given.get("namespace", "")), str(given.get("name", ""))
        pods = [pod for pod in self._supervisor.pods.values() if _is_meant(pod, namespace, name)]
        pods.sort(key=lambda pod: (not pod.is_ready, pod.name))
        containers = [one.name for pod in pods[:1] for one in pod.workload.spec.containers]
        if not pods or not containers:
            return _NOT_FOUND
        container = str(given.get("container") or containers[0])
        argv = tuple(str(word) for word in given.get("command", ()))
        try:
            finished = await pods[0].run(container, argv, float(given.get("timeoutSeconds", _EXEC_SECONDS)))
        except OSError as error:
            return 409, {"error": error.strerror or str(error)}
        if finished is None:
            return 409, {"error": f"container {container} of {pods[0].name} does not run"}
        return 200, {
            "code": finished.exited.code,
            "signal": finished.exited.signal,
            "stdout": base64.b64encode(finished.stdout).decode(),
            "stderr": base64.b64encode(finished.stderr).decode(),
        }


def _is_meant(pod: RunningPod, namespace: str, name: str) -> bool:
    """Whether words of a command line mean a pod: its name, its workload's, its app label, or nothing in particular."""
    if namespace and pod.namespace != namespace:
        return False
    name = name.rpartition("/")[2]
    return not name or name in (pod.name, pod.workload.key.name, pod.labels.get("app", ""))


def described(pod: RunningPod) -> dict[str, Any]:
    """One pod as JSON; memory in bytes (the share of pages that is its own, PSS)."""
    pids = pod.process_ids()
    states = dict(zip((rules.name for rules in pod.plan.containers), pod.state.containers, strict=False))
    mains = [one for rules, one in zip(pod.plan.containers, pod.state.containers, strict=False) if not rules.is_init]
    has_proxy = pod.workload.role is not Role.NONE
    proxy = pod.state.proxy
    ready = sum(one.is_ready for one in mains) + (has_proxy and proxy.is_ready)
    return {
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "ip": pod.ip,
        "workload": {"kind": pod.workload.key.kind, "name": pod.workload.key.name},
        "labels": dict(pod.labels),
        "serviceAccount": pod.workload.service_account,
        "role": pod.workload.role.value,
        "because": pod.workload.because,
        "status": status_word(pod.plan, pod.state),
        "reason": pod.state.reason,
        "ready": int(ready),
        "total": len(pod.plan.containers) - sum(rules.is_init for rules in pod.plan.containers) + has_proxy,
        "isReady": pod.is_ready,
        "restarts": sum(one.restarts for one in (*pod.state.containers, proxy)),
        "created": stamp(pod.clocks.made),
        "ageSeconds": round(time.time() - pod.clocks.made, 1),
        "readySeconds": round(pod.clocks.ready - pod.clocks.made, 3) if pod.clocks.ready else None,
        "sidecar": _sidecar_word(pod, has_proxy),
        "admin": str(pod.admin_socket) if has_proxy else "",
        "pids": pids,
        "memory": {name: memory(pid) for name, pid in pids.items()},
        "containers": {
            name: {"state": one.run.value, "ready": one.is_ready, "restarts": one.restarts, "reason": one.reason}
            for name, one in states.items()
        },
    }


def _sidecar_word(pod: RunningPod, has_proxy: bool) -> str:
    if not has_proxy:
        return "none"
    proxy = pod.state.proxy
    if proxy.run is Run.RUNNING:
        return "live" if proxy.is_ready else "waiting for configuration"
    return proxy.run.value


def memory(pid: int) -> int:
    """Proportional set size of a process in bytes; 0 when it is gone or closed to us."""
    import psutil  # noqa: PLC0415 - 70 ms that no start of a mesh needs

    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except (psutil.Error, OSError):
        return 0
